//! The accept loop of the admin address.
//!
//! Owns the listening socket and its connections. Never lets a slow or hostile client hold more than
//! its share: connections, head size and head time are bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::respond::{Answers, respond};

/// Connections served at one time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Answers that are put together at one time; more wait.
const ANSWERS_MAX: usize = 2;
/// The largest request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The time for a request head to arrive, and for an idle connection to send its next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The whole life of a connection: scrapers reconnect, slow readers do not pile up.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// The wait after a failed accept (no file descriptors, say), so that it does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The admin address cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("admin address {address}: {source}; free it or give another --admin-addr")]
pub struct StartError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub source: std::io::Error,
}

/// A bound admin address.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl AdminServer {
    /// Binds `address`; connections wait until [`AdminServer::serve`] runs.
    pub async fn bind(address: SocketAddr) -> Result<Self, StartError> {
        let fault = |source| StartError { address, source };
        let listener = TcpListener::bind(address).await.map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        Ok(Self { listener, address })
    }

    /// The bound address, with the port that the system chose if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until dropped. Connections that turn out to speak no HTTP are counted as
    /// `strangers`.
    pub async fn serve(self, node: Arc<dyn Answers>, strangers: Counter) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let at_work = Arc::new(Semaphore::new(ANSWERS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return; // The semaphore is never closed.
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (node, at_work) = (Arc::clone(&node), Arc::clone(&at_work));
                    let strangers = strangers.clone();
                    tokio::spawn(async move {
                        let _permit = permit;
                        if !serve_connection(stream, node, at_work).await {
                            strangers.inc();
                        }
                    });
                }
                Err(fault) => {
                    tracing::warn!(%fault, "cannot accept on the admin address");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}

/// Serves a connection to its end; false if it spoke no HTTP.
async fn serve_connection(
    stream: TcpStream,
    node: Arc<dyn Answers>,
    at_work: Arc<Semaphore>,
) -> bool {
    let service = service_fn(|request: Request<_>| {
        let (node, at_work) = (Arc::clone(&node), Arc::clone(&at_work));
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        async move { answer(method, path, node, at_work).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A broken or late client ends only itself; there is nobody to tell.
    match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Err(fault)) => !fault.is_parse(),
        Ok(Ok(())) | Err(_) => true,
    }
}

/// A large config takes a while to write out: not on a thread that heartbeats wait for.
async fn answer(
    method: Method,
    path: String,
    node: Arc<dyn Answers>,
    at_work: Arc<Semaphore>,
) -> Result<Response<Full<Bytes>>, AnswerLost> {
    let _permit = at_work.acquire().await.map_err(|_| AnswerLost)?;
    let answering = tokio::task::spawn_blocking(move || respond(&method, &path, &*node));
    answering.await.map_err(|_| AnswerLost)
}

/// Writing the answer ended in a panic; the connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("the answer was lost")]
struct AnswerLost;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Readiness;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Up;

    impl Answers for Up {
        fn metrics(&self) -> String {
            String::new()
        }
        fn readiness(&self) -> Readiness {
            Readiness::Ready { fault: None }
        }
        fn config_dump(&self) -> Value {
            json!({})
        }
        fn status(&self) -> Value {
            json!({})
        }
    }

    #[tokio::test]
    async fn garbage_closes_its_connection_and_the_next_one_is_served() {
        let admin = AdminServer::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = admin.address();
        let strangers = Counter::default();
        let serving = tokio::spawn(admin.serve(Arc::new(Up), strangers.clone()));

        let mut bad = TcpStream::connect(address).await.unwrap();
        bad.write_all(b"\x16\x03\x01 not http\r\n\r\n")
            .await
            .unwrap();
        let mut rest = Vec::new();
        bad.read_to_end(&mut rest).await.unwrap();

        let mut good = TcpStream::connect(address).await.unwrap();
        good.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        good.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
        // It was counted before its answer ended, and whoever is served is not.
        assert_eq!(strangers.get(), 1);
        serving.abort();
    }

    #[tokio::test]
    async fn a_taken_address_is_named_with_the_remedy() {
        let first = AdminServer::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let fault = AdminServer::bind(first.address())
            .await
            .unwrap_err()
            .to_string();
        assert!(fault.contains(&first.address().to_string()), "{fault}");
        assert!(fault.contains("--admin-addr"), "{fault}");
    }
}
