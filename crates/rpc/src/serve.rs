//! The accept loop of a port.
//!
//! Owns the listening socket and what every connection is held to. Never waits for a connection
//! before it accepts the next.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use lifecycle::Shutdown;
use prometheus_client::metrics::counter::Counter;
use socket2::{SockRef, TcpKeepalive};
use tls::{Credentials, ServerStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tonic::codegen::http;

use crate::calls::{Arrivals, WithCalls};
use crate::connection::{Connection, Speaks};
use crate::service::{Answer, Infallibly};

/// A silent connection is asked for a sign of life after so long: a watch over HTTP/1.1 may be
/// silent for ever, and has no pings of its own.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long a connection of HTTP/2 may leave a ping unanswered.
const PONG: Duration = Duration::from_secs(20);
/// The wait after a failed accept (no file descriptors, say), so that it does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A connection may open for so long before a shutdown ends it: who has connected has perhaps sent a
/// call already, and could not tell whether it was read.
const OPENING: Duration = Duration::from_millis(500);

/// Calls that one connection may have open at a time, where nothing else is said.
const CALLS_MAX: u32 = 200;

/// How a port treats its connections.
#[derive(Clone)]
pub struct Port {
    /// What is spoken on it.
    pub speaks: Speaks,
    /// With which certificate, if with one.
    pub tls: Option<Arc<Credentials>>,
    /// Calls that one connection of HTTP/2 may have open at a time.
    pub calls_max: u32,
    /// Counts connections that turn out to speak something else.
    pub strangers: Counter,
}

/// Answers what comes to `listener` with `answers`, until `shutdown` is requested. Returns when the
/// last connection has ended, which is after its calls.
pub async fn serve(
    listener: TcpListener,
    port: Port,
    answers: Arc<dyn Answer>,
    mut shutdown: Shutdown,
) {
    let told = shutdown.clone();
    // Each connection holds one end: when all are gone, so are the connections.
    let (open, mut all_closed) = mpsc::channel::<Infallible>(1);
    let begin = |stream: TcpStream| {
        let connection = port.open(stream);
        let serving = port.converse(connection, Arc::clone(&answers), told.clone());
        let open = open.clone();
        tokio::spawn(async move {
            // A broken connection ends only itself; there is nobody to tell.
            let _ = serving.await;
            drop(open);
        });
    };
    loop {
        let accepted = tokio::select! {
            // First, so that the end does not wait for a pause between arrivals.
            biased;
            () = shutdown.requested() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => begin(stream),
            Err(fault) => {
                tracing::warn!(%fault, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    // Those whom the system has let in already.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, _)) = listener.accept() {
            let stream = stream.set_nonblocking(true).map(|()| stream);
            let Ok(stream) = stream.and_then(TcpStream::from_std) else {
                break;
            };
            begin(stream);
        }
    }
    drop(open);
    all_closed.recv().await;
}

impl Port {
    /// A port without TLS, with the limit to calls that most servers have.
    pub fn plain(speaks: Speaks) -> Self {
        Self {
            speaks,
            tls: None,
            calls_max: CALLS_MAX,
            strangers: Counter::default(),
        }
    }

    fn open(&self, stream: TcpStream) -> Connection<ServerStream> {
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
        // Whoever is gone already is found out when it is read.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let stream = match &self.tls {
            None => ServerStream::plain(stream),
            Some(credentials) => {
                let counter = self.strangers.clone();
                credentials.accept(stream, move || {
                    counter.inc();
                })
            }
        };
        Connection::new(stream, self.speaks, self.strangers.clone())
    }

    /// Serves one connection until it ends.
    fn converse(
        &self,
        connection: Connection<ServerStream>,
        answers: Arc<dyn Answer>,
        mut shutdown: Shutdown,
    ) -> impl Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + use<> {
        let arrivals = Arrivals::default();
        let opened_by = Instant::now() + OPENING;
        let mut builder = Builder::new(arrivals.clone());
        // A request's head has 30 s in HTTP/1.1.
        builder.http1().timer(TokioTimer::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(PONG)
            .max_concurrent_streams(self.calls_max)
            .auto_date_header(false);
        if self.speaks == Speaks::Http2 {
            builder = builder.http2_only();
        }
        async move {
            let answering = service_fn(move |request: http::Request<Incoming>| {
                Infallibly(answers.answer(request.map(Body::new)))
            });
            let connection = builder.serve_connection(TokioIo::new(connection), answering);
            let mut serving = WithCalls::new(connection, arrivals);
            let end = async {
                shutdown.requested().await;
                sleep_until(opened_by).await;
            };
            tokio::select! {
                ended = &mut serving => return ended,
                () = end => serving.connection().graceful_shutdown(),
            }
            serving.await
        }
    }
}

#[cfg(test)]
mod tests {
    use lifecycle::ShutdownTrigger;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::service::{Answering, Call};

    struct Hello;

    impl Answer for Hello {
        fn answer(&self, _: Call) -> Answering {
            Box::pin(async { http::Response::new(Body::empty()) })
        }
    }

    /// It may have sent what must not be done twice.
    #[tokio::test]
    async fn whoever_connected_before_the_end_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        client.write_all(request).await.unwrap();
        let (stop, shutdown) = ShutdownTrigger::new();
        stop.request();
        let port = Port::plain(Speaks::Http1Or2);
        let served = serve(listener, port, Arc::new(Hello), shutdown);
        let mut answer = String::new();
        let read = client.read_to_string(&mut answer);
        let (_, read) = tokio::join!(served, read);
        read.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(TcpStream::connect(address).await.is_err());
    }
}
