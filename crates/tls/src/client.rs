//! A connection that this end opens: plain, or TLS.
//!
//! Owns the way from an address to an open connection, and the words when it comes to nothing. Sets
//! no deadline: whoever dials does. Plain text goes through as it is, but for a look at the first
//! byte that comes back.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::credentials::{Credentials, now};
use crate::files::{Contents, Fault, Files, system_cas};
use crate::material::{Material, Own, provider, system_roots};
use crate::said::Call;

/// The type of an alert record (RFC 8446, 5.1).
const ALERT: u8 = 0x15;
/// Nodes whose faults are remembered, so that each is said once. One more, and all are forgotten.
const SAID_MAX: usize = 64;

/// Opens connections. A clone opens them alike.
#[derive(Debug, Clone)]
pub struct Dialer {
    how: How,
    ca: &'static str,
    own: &'static str,
    /// What was said of which node.
    said: Option<Arc<Mutex<Vec<Said>>>>,
}

/// A node, and what was said of it.
type Said = (String, String);

#[derive(Debug, Clone)]
enum How {
    Plain,
    Fixed(Arc<ClientConfig>),
    InForce(Arc<Credentials>),
}

impl Dialer {
    /// Opens plain connections.
    pub fn plain() -> Self {
        Self {
            how: How::Plain,
            ca: "--cacert",
            own: "--cert and --key",
            said: None,
        }
    }

    /// Opens TLS connections with these files; without a trusted CA those of this system are
    /// trusted, or those in the file that `SSL_CERT_FILE` names.
    ///
    /// # Errors
    /// [`Fault`] names the file, what is wrong with it, and what helps.
    pub fn tls(mut files: Files) -> Result<Self, Fault> {
        let is_system = files.trusted_ca.is_none();
        let ca = files
            .trusted_ca
            .get_or_insert_with(|| system_cas("--cacert"));
        let ca = ca.clone();
        let contents = Contents::read(&files)?;
        let (material, roots) = if is_system {
            let own = Files {
                trusted_ca: None,
                ..files.clone()
            };
            let material = Material::of(&own, &contents, now())?;
            let read = contents.trusted_ca.as_deref().unwrap_or_default();
            (material, system_roots(&ca, read))
        } else {
            let material = Material::of(&files, &contents, now())?;
            let roots = material
                .roots
                .clone()
                .unwrap_or_else(|| RootCertStore::empty().into());
            (material, roots)
        };
        let config = client_config(roots, material.own.as_ref());
        Ok(Self {
            how: How::Fixed(Arc::new(config)),
            ..Self::plain()
        })
    }

    /// Calls the peer ports of other nodes, with what is in force of `credentials` at the time; a
    /// node that is not reached for a reason of TLS is told in the log, once.
    pub fn peers(credentials: Arc<Credentials>) -> Self {
        let ca = credentials.files().trusted_ca.as_ref();
        let own = credentials.files().own.as_ref();
        Self {
            ca: ca.map_or("", |file| file.setting),
            own: own.map_or("", |(certificate, _)| certificate.setting),
            how: How::InForce(credentials),
            said: Some(Arc::default()),
        }
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        !matches!(self.how, How::Plain)
    }

    fn config(&self) -> Option<Arc<ClientConfig>> {
        match &self.how {
            How::Plain => None,
            How::Fixed(config) => Some(Arc::clone(config)),
            How::InForce(credentials) => credentials.client(),
        }
    }

    /// Opens a connection to the host and port of `uri`.
    ///
    /// # Errors
    /// Those of the system, and those of TLS in words that help.
    pub async fn dial(self, uri: Uri) -> io::Result<ClientStream> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidInput, "no host and port");
        let host = uri.host().ok_or_else(malformed)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().ok_or_else(malformed)?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let call = Call {
            authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
            ca: self.ca,
            own: self.own,
        };
        let Some(config) = self.config() else {
            let was_heard = false;
            return Ok(ClientStream(State::Plain { stream, was_heard }, call, None));
        };
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|fault| io::Error::new(io::ErrorKind::InvalidInput, fault))?;
        match TlsConnector::from(config).connect(name, stream).await {
            Ok(stream) => Ok(ClientStream(State::Tls(Box::new(stream)), call, Some(self))),
            Err(fault) => {
                let fault = call.explain(fault);
                self.say(&call.authority, &fault);
                Err(fault)
            }
        }
    }

    fn say(&self, authority: &str, fault: &io::Error) {
        let Some(said) = &self.said else { return };
        let text = fault.to_string();
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        let known = said.iter().position(|(of, _)| of == authority);
        if known.is_some_and(|at| said[at].1 == text) {
            return;
        }
        tracing::warn!(peer = authority, fault = %text, "another node is not reached");
        if let Some(at) = known {
            said.swap_remove(at);
        }
        if said.len() >= SAID_MAX {
            said.clear();
        }
        said.push((authority.to_owned(), text));
    }

    fn forget(&self, authority: &str) {
        if let Some(said) = &self.said {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.retain(|(of, _)| of != authority);
        }
    }
}

/// What `tonic` and `hyper` take for a way to connect.
impl Service<Uri> for Dialer {
    type Response = TokioIo<ClientStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial(uri).await.map(TokioIo::new) })
    }
}

/// The settings of an end that calls.
pub(crate) fn client_config(roots: Arc<RootCertStore>, own: Option<&Own>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of these versions")
        .with_root_certificates(roots);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(own.resolver()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Each handshake checks the certificates anew.
    config.resumption = Resumption::disabled();
    config
}

/// A connection that this end opened; with whoever dialled it, until the other end is heard.
pub struct ClientStream(State, Call, Option<Dialer>);

enum State {
    Plain { stream: TcpStream, was_heard: bool },
    Tls(Box<TlsStream<TcpStream>>),
}

impl ClientStream {
    /// The fault in words.
    fn explained(&mut self, fault: io::Error) -> io::Error {
        let fault = self.1.explain(fault);
        if let Some(dialer) = self.2.take() {
            dialer.say(&self.1.authority, &fault);
        }
        fault
    }

    /// Whether the other end ended the connection before it said anything, and said why: a client
    /// that writes on may see its own side fail first.
    fn last_word(&mut self, context: &mut Context<'_>) -> Option<io::Error> {
        self.2.as_ref()?;
        let State::Tls(stream) = &mut self.0 else {
            return None;
        };
        let mut scratch = [0; 1];
        let mut read = ReadBuf::new(&mut scratch);
        match Pin::new(stream).poll_read(context, &mut read) {
            Poll::Ready(Err(fault)) => Some(fault),
            _ => None,
        }
    }

    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let fault = match result {
            Poll::Ready(Err(fault)) => fault,
            other => return other,
        };
        let fault = self.last_word(context).unwrap_or(fault);
        Poll::Ready(Err(self.explained(fault)))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        match &mut this.0 {
            State::Plain { stream, was_heard } => {
                let result = ready!(Pin::new(stream).poll_read(context, buffer));
                let is_first = !std::mem::replace(was_heard, true);
                if is_first && buffer.filled().get(before) == Some(&ALERT) {
                    return Poll::Ready(Err(this.1.speaks_tls()));
                }
                Poll::Ready(result)
            }
            State::Tls(stream) => match ready!(Pin::new(stream).poll_read(context, buffer)) {
                Ok(()) => {
                    if let Some(dialer) = this.2.take() {
                        dialer.forget(&this.1.authority);
                    }
                    Poll::Ready(Ok(()))
                }
                Err(fault) => Poll::Ready(Err(this.explained(fault))),
            },
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.0 {
            State::Plain { stream, .. } => return Pin::new(stream).poll_write(context, bytes),
            State::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        self.written(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.0 {
            State::Plain { stream, .. } => {
                return Pin::new(stream).poll_write_vectored(context, slices);
            }
            State::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        };
        self.written(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = match &mut self.0 {
            State::Plain { stream, .. } => return Pin::new(stream).poll_flush(context),
            State::Tls(stream) => Pin::new(stream).poll_flush(context),
        };
        self.written(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            State::Plain { stream, .. } => Pin::new(stream).poll_shutdown(context),
            State::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
