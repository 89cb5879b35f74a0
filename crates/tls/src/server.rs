//! A connection that somebody opened: plain, or TLS.
//!
//! Owns the handshake, its deadline, and the last word to whoever does not speak TLS. All of it goes
//! on as the connection is read or written, in the task of the connection: whoever accepts never
//! waits. Plain text goes through as it is.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::{FallibleAccept, TlsStream};

/// How long a handshake may take, and after a failed one the last word.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Handshakes of one port at one time. One more connection is closed at once.
pub(crate) const HANDSHAKES_MAX: usize = 1024;
/// So many bytes of a stranger are read, so that the last word is not lost to a reset.
const LINGER_BYTES_MAX: usize = 64 * 1024;

/// How TLS begins: the type of a handshake record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 0x16;
/// To whoever speaks HTTP/1.1.
const TO_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    connection: close\r\ncontent-length: 39\r\n\r\nskein: this port speaks TLS: use https\n";
/// To all others: a fatal alert, `protocol_version` (RFC 8446, 6). Our own clients know it.
const TO_OTHERS: &[u8] = &[0x15, 3, 1, 0, 2, 2, 70];

/// Called once for a connection that comes to nothing.
type Stranger = Box<dyn FnOnce() + Send>;

/// A connection that somebody opened.
pub struct ServerStream(State);

enum State {
    Plain(TcpStream),
    Opening(Box<Opening>),
    Tls(Box<TlsStream<TcpStream>>),
    Closed,
}

impl ServerStream {
    /// A connection without TLS.
    pub fn plain(stream: TcpStream) -> Self {
        Self(State::Plain(stream))
    }

    /// A connection that begins with a handshake, if there is a permit for one.
    pub(crate) fn tls(
        stream: TcpStream,
        config: Arc<ServerConfig>,
        permit: Option<OwnedSemaphorePermit>,
        stranger: Stranger,
    ) -> Self {
        let Some(permit) = permit else {
            stranger();
            return Self(State::Closed);
        };
        Self(State::Opening(Box::new(Opening {
            step: Step::Look(stream),
            config,
            deadline: Box::pin(tokio::time::sleep(HANDSHAKE_TIME)),
            stranger: Some(stranger),
            _permit: permit,
        })))
    }

    /// Goes on with the handshake. Afterwards this is open, or closed.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let State::Opening(opening) = &mut self.0 {
            self.0 = match ready!(opening.poll(context)) {
                Some(stream) => State::Tls(Box::new(stream)),
                None => State::Closed,
            };
        }
        Poll::Ready(())
    }
}

/// A connection that is not open yet.
struct Opening {
    step: Step,
    config: Arc<ServerConfig>,
    deadline: Pin<Box<Sleep>>,
    stranger: Option<Stranger>,
    _permit: OwnedSemaphorePermit,
}

enum Step {
    /// How does it begin?
    Look(TcpStream),
    Handshake(Box<FallibleAccept<TcpStream>>),
    /// The last word, and how much of it is said.
    Tell(TcpStream, &'static [u8]),
    /// Nothing more is said; what comes is read until the end, up to so many bytes.
    Linger(TcpStream, usize),
    Over,
}

impl Opening {
    /// The connection, open; `None` if it came to nothing.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<TlsStream<TcpStream>>> {
        if self.deadline.as_mut().poll(context).is_ready() {
            // Who connects and says nothing may only look; who begins and does not go on is counted.
            if matches!(self.step, Step::Handshake(_)) {
                self.count();
            }
            return Poll::Ready(None);
        }
        loop {
            match std::mem::replace(&mut self.step, Step::Over) {
                Step::Look(stream) => {
                    let mut first = [0; 3];
                    let mut looked = ReadBuf::new(&mut first);
                    let Poll::Ready(result) = stream.poll_peek(context, &mut looked) else {
                        self.step = Step::Look(stream);
                        return Poll::Pending;
                    };
                    if !matches!(result, Ok(1..)) {
                        return Poll::Ready(None);
                    }
                    self.step = self.begin(stream, first);
                }
                Step::Handshake(mut accept) => match Pin::new(&mut accept).poll(context) {
                    Poll::Pending => {
                        self.step = Step::Handshake(accept);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Some(stream)),
                    Poll::Ready(Err((fault, stream))) => {
                        let from = stream.peer_addr().ok();
                        tracing::debug!(%fault, ?from, "a TLS handshake failed");
                        self.count();
                        self.step = Step::Tell(stream, &[]);
                    }
                },
                Step::Tell(mut stream, words) if words.is_empty() => {
                    let Poll::Ready(_) = Pin::new(&mut stream).poll_shutdown(context) else {
                        self.step = Step::Tell(stream, words);
                        return Poll::Pending;
                    };
                    self.step = Step::Linger(stream, LINGER_BYTES_MAX);
                }
                Step::Tell(mut stream, words) => {
                    match Pin::new(&mut stream).poll_write(context, words) {
                        Poll::Pending => {
                            self.step = Step::Tell(stream, words);
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(count)) => self.step = Step::Tell(stream, &words[count..]),
                        Poll::Ready(Err(_)) => return Poll::Ready(None),
                    }
                }
                Step::Linger(mut stream, left) => {
                    let mut scratch = [0; 1024];
                    let mut read = ReadBuf::new(&mut scratch);
                    let Poll::Ready(result) = Pin::new(&mut stream).poll_read(context, &mut read)
                    else {
                        self.step = Step::Linger(stream, left);
                        return Poll::Pending;
                    };
                    let count = read.filled().len();
                    if result.is_err() || count == 0 || count > left {
                        return Poll::Ready(None);
                    }
                    self.step = Step::Linger(stream, left - count);
                }
                Step::Over => return Poll::Ready(None),
            }
        }
    }

    fn begin(&mut self, stream: TcpStream, first: [u8; 3]) -> Step {
        if first[0] == HANDSHAKE {
            let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
            return Step::Handshake(Box::new(acceptor.accept(stream).into_fallible()));
        }
        self.count();
        // HTTP/2 begins as a request of HTTP/1.1 whose method is PRI.
        let words = if first[0].is_ascii_uppercase() && &first != b"PRI" {
            TO_HTTP
        } else {
            TO_OTHERS
        };
        Step::Tell(stream, words)
    }

    fn count(&mut self) {
        if let Some(stranger) = self.stranger.take() {
            stranger();
        }
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let State::Plain(stream) = &mut self.0 {
            return Pin::new(stream).poll_read(context, buffer);
        }
        ready!(self.poll_open(context));
        match &mut self.0 {
            State::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            // It ends without a word, as if it had not come.
            _ => Poll::Ready(Ok(())),
        }
    }
}

fn gone() -> io::Error {
    io::Error::from(io::ErrorKind::BrokenPipe)
}

impl AsyncWrite for ServerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let State::Plain(stream) = &mut self.0 {
            return Pin::new(stream).poll_write(context, bytes);
        }
        ready!(self.poll_open(context));
        match &mut self.0 {
            State::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            _ => Poll::Ready(Err(gone())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let State::Plain(stream) = &mut self.0 {
            return Pin::new(stream).poll_write_vectored(context, slices);
        }
        ready!(self.poll_open(context));
        match &mut self.0 {
            State::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            _ => Poll::Ready(Err(gone())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            State::Plain(stream) => Pin::new(stream).poll_flush(context),
            State::Tls(stream) => Pin::new(stream).poll_flush(context),
            // Nothing was written yet.
            State::Opening(_) | State::Closed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            State::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            State::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            State::Opening(_) | State::Closed => {
                self.0 = State::Closed;
                Poll::Ready(Ok(()))
            }
        }
    }
}
