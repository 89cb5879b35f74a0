//! The certificates of one port, in force and on disk.
//!
//! Owns what is in force: new handshakes take it, connections that stand keep what they began with.
//! The files are looked at again and again; new ones that cannot be used change nothing but the
//! standing. Never decides what to do about an expired certificate.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::client::client_config;
use crate::files::{Contents, Fault, Files};
use crate::material::{Material, check_peer, client_verifier, provider};
use crate::reload::{Reloaded, Source};
use crate::server::{HANDSHAKES_MAX, ServerStream};

/// How often the files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a port's certificates are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A port for clients, who speak HTTP/1.1 or HTTP/2. With a trusted CA, a client must show a
    /// certificate of it.
    Clients,
    /// A port for other nodes, and calls to theirs: both sides show a certificate and check the
    /// other's. They call this one at this address.
    Peers(IpAddr),
}

/// How the certificates of a port stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The last second of the certificate in force, since the Unix epoch.
    pub expires: u64,
    /// How often new files came into force.
    pub reloads: u64,
    /// Why those on disk are not in force, if so.
    pub refused: Option<Fault>,
}

/// The certificates of one port.
pub struct Credentials {
    port: Reloaded<Port>,
    handshakes: Arc<Semaphore>,
}

/// Where the certificates of a port come from.
struct Port {
    files: Files,
    purpose: Use,
}

/// What the files make.
struct Made {
    server: Arc<ServerConfig>,
    client: Option<Arc<ClientConfig>>,
    expires: u64,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the state: it has the private key.
        let Port { files, purpose } = &self.port.source;
        write!(f, "Credentials({purpose:?}, {files:?})")
    }
}

impl Credentials {
    /// Reads and checks `files`, which must have a certificate of one's own, and for
    /// [`Use::Peers`] a trusted CA.
    ///
    /// # Errors
    /// [`Fault`] names the file, what is wrong with it, and what helps.
    ///
    /// # Panics
    /// Without those files: whoever takes the settings checks that they are given.
    pub fn load(files: Files, purpose: Use) -> Result<Arc<Self>, Fault> {
        Ok(Arc::new(Self {
            port: Reloaded::load(Port { files, purpose })?,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        }))
    }

    /// A connection that somebody opened; its handshake goes on as it is read or written.
    /// `stranger` is called once if it comes to nothing and was more than a look whether somebody
    /// is here.
    pub fn accept(
        &self,
        stream: TcpStream,
        stranger: impl FnOnce() + Send + 'static,
    ) -> ServerStream {
        let config = Arc::clone(&self.port.made().server);
        let permit = Arc::clone(&self.handshakes).try_acquire_owned().ok();
        ServerStream::tls(stream, config, permit, Box::new(stranger))
    }

    /// How they stand.
    pub fn standing(&self) -> Standing {
        let (reloads, refused) = self.port.history();
        Standing {
            expires: self.port.made().expires,
            reloads,
            refused,
        }
    }

    /// Looks at the files from time to time, for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let looking = Arc::clone(&self);
            // A file system that hangs must not hold a thread of the runtime.
            let looked = tokio::task::spawn_blocking(move || looking.look());
            // Only a panic ends it otherwise, and the next look may do better.
            let _ = looked.await;
        }
    }

    /// Looks at the files once.
    pub(crate) fn look(&self) {
        self.port.look();
    }

    pub(crate) fn client(&self) -> Option<Arc<ClientConfig>> {
        self.port.made().client.clone()
    }

    pub(crate) fn files(&self) -> &Files {
        &self.port.source.files
    }
}

impl Source for Port {
    type Contents = Contents;
    type Made = Made;

    fn read(&self) -> Result<Contents, Fault> {
        Contents::read(&self.files)
    }

    fn make(&self, contents: &Contents, _: Option<(&Contents, &Made)>) -> Result<Made, Fault> {
        make(&self.files, contents, self.purpose)
    }

    fn shown(&self) -> String {
        Shown(&self.files).to_string()
    }
}

/// The names of the files, for a line in the log.
struct Shown<'a>(&'a Files);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((certificate, key)) = &self.0.own {
            write!(f, "{certificate} {key}")?;
        }
        match &self.0.trusted_ca {
            Some(ca) => write!(f, " {ca}"),
            None => Ok(()),
        }
    }
}

/// Now, in seconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn make(files: &Files, contents: &Contents, purpose: Use) -> Result<Made, Fault> {
    let now = now();
    let material = Material::of(files, contents, now)?;
    let own = material
        .own
        .expect("settings without a certificate of one's own make no port");
    let client = match purpose {
        Use::Clients => None,
        Use::Peers(address) => {
            let roots = material.roots.as_ref();
            let roots = roots.expect("settings without a CA make no port for peers");
            check_peer(files, &own, roots, address, now)?;
            Some(client_config(Arc::clone(roots), Some(&own)))
        }
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of these versions");
    let builder = match (&files.trusted_ca, &material.roots) {
        (Some(file), Some(roots)) => {
            builder.with_client_cert_verifier(client_verifier(file, roots)?)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(own.resolver());
    server.alpn_protocols = match purpose {
        Use::Clients => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Use::Peers(_) => vec![b"h2".to_vec()],
    };
    // Nothing is resumed: each handshake checks the certificates anew, by the CA of now.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Made {
        server: Arc::new(server),
        client: client.map(Arc::new),
        expires: own.not_after,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::files::Named;

    /// A new certificate and its key, in PEM.
    fn pair() -> (String, String) {
        let parameters = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn files(dir: &Path) -> Files {
        let named = |setting, name: &str| Named::new(setting, dir.join(name));
        Files {
            own: Some((named("--cert", "a.crt"), named("--key", "a.key"))),
            trusted_ca: None,
        }
    }

    #[test]
    fn a_pair_may_arrive_in_two_steps_and_a_lasting_fault_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let (certificate, key) = pair();
        write("a.crt", &certificate);
        write("a.key", &key);
        let credentials = Credentials::load(files(dir.path()), Use::Clients).unwrap();
        let standing = || credentials.standing();
        credentials.look();
        assert_eq!((standing().reloads, standing().refused), (0, None));

        let (other_certificate, other_key) = pair();
        write("a.key", &other_key);
        credentials.look();
        assert_eq!(standing().refused, None, "the other one may be on its way");
        write("a.crt", &other_certificate);
        credentials.look();
        assert_eq!((standing().reloads, standing().refused), (1, None));

        write("a.key", &key);
        credentials.look();
        credentials.look();
        let fault = standing().refused.unwrap().to_string();
        assert!(
            fault.starts_with("--key ") && fault.contains("not the key"),
            "{fault}"
        );
        assert_eq!(standing().reloads, 1);
        write("a.key", &other_key);
        credentials.look();
        assert_eq!((standing().reloads, standing().refused), (1, None));
    }

    #[test]
    fn nothing_private_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = pair();
        std::fs::write(dir.path().join("a.crt"), certificate).unwrap();
        std::fs::write(dir.path().join("a.key"), &key).unwrap();
        let credentials = Credentials::load(files(dir.path()), Use::Clients).unwrap();
        let shown = format!("{credentials:?}");
        let line = key.lines().nth(1).unwrap();
        assert!(shown.contains("a.key") && !shown.contains(line), "{shown}");
    }

    #[tokio::test]
    async fn one_handshake_too_many_is_closed_and_counted() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        use tokio::io::AsyncReadExt;

        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = pair();
        std::fs::write(dir.path().join("a.crt"), certificate).unwrap();
        std::fs::write(dir.path().join("a.key"), key).unwrap();
        let credentials = Credentials::load(files(dir.path()), Use::Clients).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let strangers = Arc::<AtomicUsize>::default();
        let accept = async || {
            let client = TcpStream::connect(address).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&strangers);
            let stream = credentials.accept(stream, move || {
                counted.fetch_add(1, Ordering::Relaxed);
            });
            (client, stream)
        };
        let begun = accept().await;
        // As many as there may be, without as many descriptors.
        let most = u32::try_from(HANDSHAKES_MAX).unwrap() - 1;
        let others = Arc::clone(&credentials.handshakes).try_acquire_many_owned(most);
        let others = others.expect("one takes one place");
        let (mut client, stream) = accept().await;
        assert_eq!(strangers.load(Ordering::Relaxed), 1);
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "it is closed");
        drop(stream);
        // Where one ends another may begin.
        drop(begun);
        let _next = accept().await;
        assert_eq!(strangers.load(Ordering::Relaxed), 1);
        drop(others);
    }
}
