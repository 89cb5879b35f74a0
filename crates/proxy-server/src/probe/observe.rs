//! One probe: a connection, and for HTTP one request and the head of its answer, or a call of gRPC.
//!
//! Owns the I/O, bounded in time and bytes. Never counts, never repeats.

mod grpc;

use std::io;
use std::net::SocketAddr;

use proxy_config::compiled::{Probe, ProbeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::callers::Callers;
use crate::proxy_protocol::introduction;
use crate::wire::{HandshakeFault, Stream, connect_unix};

/// The most bytes of answer that are read: heads are far shorter.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Why an endpoint failed a probe.
#[derive(Debug, thiserror::Error)]
pub enum ProbeFault {
    /// No connection, or it broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Its certificates and ours do not come together, or it speaks no TLS.
    #[error("{0}")]
    Tls(String),
    /// The files for TLS cannot be used here.
    #[error("{0}")]
    Files(#[from] tls::Fault),
    /// No complete answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// Nobody listens: the system connected the socket to itself, as it may on loopback.
    #[error("nobody listens there")]
    Nobody,
    /// It closed before the end of the answer's head.
    #[error("it closed without an answer")]
    Closed,
    /// The answer is not HTTP/1, or its head never ends.
    #[error("its answer is not HTTP/1")]
    NotHttp,
    /// It answered, but not with 2xx.
    #[error("it answered {0}")]
    Status(u16),
    /// It broke the rules of HTTP/2, or reset the call.
    #[error("{0}")]
    Http2(#[from] h2::Error),
    /// The call of the health service failed with this status of gRPC.
    #[error("its health service answered with the status {0}")]
    Grpc(String),
    /// Its health service says so.
    #[error("it says that it is not serving")]
    NotServing,
}

impl From<HandshakeFault> for ProbeFault {
    fn from(fault: HandshakeFault) -> Self {
        Self::Tls(fault.to_string())
    }
}

/// Probes `address` once.
pub(super) async fn observe(
    address: SocketAddr,
    probe: &Probe,
    callers: &Callers,
) -> Result<(), ProbeFault> {
    let attempt = async {
        let mut stream = match &probe.socket {
            Some(path) => connect_unix(path).await?,
            None => other_end(TcpStream::connect(address).await?)?,
        };
        if let Some(version) = probe.proxy_protocol {
            stream.write_all(&introduction(version, None)).await?;
        }
        let stream = match &probe.tls {
            None => Stream::from(stream),
            Some(tls) => {
                let calling = callers.calling(tls).await?;
                let session = calling.session(tls.sni.as_deref(), address.ip());
                Stream::secure(stream, &[], session.map_err(HandshakeFault::Breach)?).await?
            }
        };
        match &probe.kind {
            ProbeKind::Tcp => Ok(()),
            ProbeKind::Grpc { service, host } => {
                let default = default_host(address, probe);
                grpc::ask(stream, service, host.as_deref().unwrap_or(&default)).await
            }
            ProbeKind::Http { path, host } => {
                let default = default_host(address, probe);
                ask(stream, path, host.as_deref().unwrap_or(&default)).await
            }
        }
    };
    tokio::time::timeout(probe.timeout, attempt)
        .await
        .unwrap_or(Err(ProbeFault::TimedOut))
}

/// The host of who has none of its own.
fn default_host(address: SocketAddr, probe: &Probe) -> String {
    match probe.socket {
        Some(_) => "localhost".to_owned(),
        None => address.to_string(),
    }
}

/// `stream`, unless it is connected to itself.
fn other_end(stream: TcpStream) -> Result<TcpStream, ProbeFault> {
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(ProbeFault::Nobody);
    }
    Ok(stream)
}

async fn ask(mut stream: Stream, path: &str, host: &str) -> Result<(), ProbeFault> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: skein-probe\r\naccept: */*\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    let mut stream = stream.take(HEAD_BYTES_MAX as u64);
    loop {
        while let Some(end) = head_end(&answer) {
            match status(&answer).ok_or(ProbeFault::NotHttp)? {
                200..=299 => return Ok(()),
                // An interim answer: the real one follows.
                100 | 102..=199 => answer.drain(..end),
                other => return Err(ProbeFault::Status(other)),
            };
        }
        if stream.read_buf(&mut answer).await? == 0 {
            let unending = stream.limit() == 0;
            return Err(if unending {
                ProbeFault::NotHttp
            } else {
                ProbeFault::Closed
            });
        }
    }
}

/// Where the first head in `answer` ends.
fn head_end(answer: &[u8]) -> Option<usize> {
    answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// The status of `HTTP/1.x NNN`, followed by a space or the end of the line.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    match rest {
        [minor, b' ', digits @ ..] if minor.is_ascii_digit() => {
            let (digits, rest) = digits.split_first_chunk::<3>()?;
            let ends = matches!(rest.first(), Some(b' ' | b'\r'));
            let digits = std::str::from_utf8(digits).ok()?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| ends && plain)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    fn http() -> Probe {
        Probe {
            tls: None,
            socket: None,
            proxy_protocol: None,
            kind: ProbeKind::Http {
                path: "/healthz".into(),
                host: None,
            },
            every: Duration::from_millis(50),
            timeout: Duration::from_secs(5),
            unhealthy_after: 1,
            healthy_after: 1,
        }
    }

    /// Answers one connection with `answer`; gives the result and the request.
    async fn probe(answer: &'static [u8], probe: Probe) -> (Result<(), ProbeFault>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            request.truncate(length);
            for part in answer.chunks(7) {
                // The prober may have seen enough already.
                let _ = stream.write_all(part).await;
            }
            String::from_utf8(request).unwrap()
        });
        let result = observe(address, &probe, &Callers::default()).await;
        (result, server.await.unwrap())
    }

    #[tokio::test]
    async fn any_2xx_is_a_success_and_the_request_is_complete() {
        let (result, request) = probe(b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n", http()).await;
        assert!(result.is_ok(), "{result:?}");
        assert!(
            request.starts_with("GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:"),
            "{request}"
        );
        assert!(request.ends_with("\r\n\r\n"), "{request}");
        let kind = ProbeKind::Http {
            path: "/".into(),
            host: Some("shop.example".into()),
        };
        let (result, request) = probe(b"HTTP/1.0 200\r\n\r\nbody", Probe { kind, ..http() }).await;
        assert!(result.is_ok(), "{result:?}");
        assert!(request.contains("\r\nhost: shop.example\r\n"), "{request}");
    }

    #[tokio::test]
    async fn interim_answers_are_passed_over() {
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\na: b\r\n\r\n\
            HTTP/1.1 200 OK\r\n\r\n";
        assert!(probe(answer, http()).await.0.is_ok());
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\n\r\n";
        assert!(matches!(
            probe(answer, http()).await.0,
            Err(ProbeFault::Status(503))
        ));
    }

    #[tokio::test]
    async fn other_answers_are_faults() {
        let status = probe(b"HTTP/1.1 302 Found\r\n\r\n", http()).await.0;
        assert!(matches!(status, Err(ProbeFault::Status(302))), "{status:?}");
        for garbage in [
            &b"SSH-2.0-x\r\n\r\n"[..],
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 +20 OK\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
        ] {
            let fault = probe(garbage, http()).await.0;
            assert!(matches!(fault, Err(ProbeFault::NotHttp)), "{fault:?}");
        }
        let closed = probe(b"HTTP/1.1 200 OK\r\n", http()).await.0;
        assert!(matches!(closed, Err(ProbeFault::Closed)), "{closed:?}");
    }

    #[tokio::test]
    async fn an_endless_head_is_cut_off() {
        static ENDLESS: [u8; HEAD_BYTES_MAX + 100] = [b'x'; HEAD_BYTES_MAX + 100];
        let fault = probe(&ENDLESS, http()).await.0;
        // With bytes unread, our closing may reset the connection under the server, never under us.
        assert!(matches!(fault, Err(ProbeFault::NotHttp)), "{fault:?}");
    }

    #[tokio::test]
    async fn silence_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let probe = Probe {
            timeout: Duration::from_millis(50),
            ..http()
        };
        assert!(matches!(
            observe(address, &probe, &Callers::default()).await,
            Err(ProbeFault::TimedOut)
        ));
    }

    #[tokio::test]
    async fn tcp_needs_a_connection_only() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tcp = Probe {
            kind: ProbeKind::Tcp,
            ..http()
        };
        assert!(observe(address, &tcp, &Callers::default()).await.is_ok());
        drop(listener);
        assert!(matches!(
            observe(address, &tcp, &Callers::default()).await,
            Err(ProbeFault::Io(_))
        ));
    }

    #[tokio::test]
    async fn a_socket_connected_to_itself_is_nobody() {
        // Bound and connected to one address: what the system does by chance, done on purpose.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let own = socket.connect(address).await.unwrap();
        assert!(matches!(other_end(own), Err(ProbeFault::Nobody)));
    }
}
