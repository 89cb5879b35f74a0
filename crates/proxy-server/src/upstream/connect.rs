//! Gets a connection to an endpoint: an idle one, a new one, or the next one that becomes free.
//!
//! Owns connect time-outs and the waiting at the connection limit. Never sends a byte.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use proxy_config::compiled::{TcpKeepalive, UpstreamHttp};
use socket2::SockRef;
use tls::BreachClass;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::limits::Permit;
use super::pool::{Life, OpenConnection};
use super::{Connection, Endpoint, Upstream};
use crate::deadline::{Timer, earlier};
use crate::proxy_protocol::{Ends, introduction};
use crate::wire::{Alpn, HandshakeFault, Stream, connect_unix};

/// A request that waits at the limit looks this often whether another worker freed a place. Places
/// that this worker frees wake it at once.
const WAIT_TICK: Duration = Duration::from_millis(10);

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectFault {
    /// The endpoint refused, or there is no way to it.
    Failed(io::Error),
    /// It was reached, but no TLS connection came of it.
    Tls(Option<BreachClass>),
    /// The endpoint did not answer within the connect time-out.
    TimedOut,
    /// The limits of connections and of waiting requests are reached.
    Overflow,
    /// The caller's own limit passed.
    Late,
}

/// The time limits of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit(pub(crate) Option<Instant>);

/// Whether a connection that was used before will do, and for whom it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// Yes.
    Any(Option<&'a Ends>),
    /// No: what flows there has no end but the connection's.
    Fresh(Option<&'a Ends>),
}

impl<'a> Wanted<'a> {
    fn ends(self) -> Option<&'a Ends> {
        match self {
            Self::Any(ends) | Self::Fresh(ends) => ends,
        }
    }

    /// An idle connection to the endpoint, if one will do and is there.
    fn idle(self, upstream: &Upstream, endpoint: usize) -> Option<Connection> {
        let Self::Any(ends) = self else { return None };
        let introduced = upstream.cluster.proxy_protocol.and(ends);
        upstream.endpoints[endpoint].take(introduced.map(|ends| ends.client))
    }
}

/// A connection to the endpoint of this number. At the connection limit it waits in a
/// bounded queue for as long as connecting may take.
pub(crate) async fn connect(
    upstream: &Upstream,
    endpoint: usize,
    wanted: Wanted<'_>,
    timer: &mut Timer,
    limit: Limit,
) -> Result<Connection, ConnectFault> {
    if let Some(connection) = wanted.idle(upstream, endpoint) {
        return Ok(connection);
    }
    let permit = match upstream.shared.connection(&upstream.cluster.limits) {
        Some(permit) => permit,
        None => match wait(upstream, endpoint, wanted, timer, limit).await? {
            Place::Idle(connection) => return Ok(connection),
            Place::New(permit) => permit,
        },
    };
    let reached = (endpoint, wanted.ends());
    open(upstream, reached, permit, timer, limit).await
}

/// What a request that waited got.
enum Place {
    Idle(Connection),
    New(Permit),
}

async fn wait(
    upstream: &Upstream,
    endpoint: usize,
    wanted: Wanted<'_>,
    timer: &mut Timer,
    limit: Limit,
) -> Result<Place, ConnectFault> {
    let limits = &upstream.cluster.limits;
    upstream.counters().connection_overflows.increment();
    let Some(_place) = upstream.shared.pending(limits) else {
        upstream.counters().pending_overflows.increment();
        return Err(ConnectFault::Overflow);
    };
    let _waiting = Waiting::new(upstream);
    let patience = Instant::now() + upstream.cluster.connect_timeout;
    let due = earlier(limit.0, Some(patience));
    let turn = async {
        loop {
            if let Some(connection) = wanted.idle(upstream, endpoint) {
                return Place::Idle(connection);
            }
            if let Some(permit) = upstream.shared.connection(limits) {
                return Place::New(permit);
            }
            // An idle connection to another endpoint only holds a place.
            if upstream.endpoints.iter().any(|other| other.close_oldest()) {
                continue;
            }
            tokio::select! {
                () = upstream.freed.notified() => {}
                () = sleep(WAIT_TICK) => {}
            }
        }
    };
    match timer.until(|| due, turn).await {
        Ok(place) => Ok(place),
        Err(_) if limit.0.is_some_and(|at| at <= patience) => Err(ConnectFault::Late),
        Err(_) => {
            upstream.counters().pending_overflows.increment();
            Err(ConnectFault::Overflow)
        }
    }
}

/// Counts a waiting request of this worker.
struct Waiting<'a>(&'a Upstream);

impl<'a> Waiting<'a> {
    fn new(upstream: &'a Upstream) -> Self {
        upstream.waiting.set(upstream.waiting.get() + 1);
        Self(upstream)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

async fn open(
    upstream: &Upstream,
    (endpoint, ends): (usize, Option<&Ends>),
    permit: Permit,
    timer: &mut Timer,
    limit: Limit,
) -> Result<Connection, ConnectFault> {
    let counters = upstream.counters();
    counters.connections.increment();
    let patience = Instant::now() + upstream.cluster.connect_timeout;
    let due = earlier(limit.0, Some(patience));
    let reached = reach(upstream, &upstream.endpoints[endpoint], ends);
    let stream = match timer.until(|| due, reached).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(fault)) => {
            counters.connect_failures.increment();
            if matches!(fault, ConnectFault::Tls(_)) {
                counters.tls_failures.increment();
            }
            return Err(fault);
        }
        Err(_) if limit.0.is_some_and(|at| at <= patience) => return Err(ConnectFault::Late),
        Err(_) => {
            counters.connect_failures.increment();
            counters.connect_timeouts.increment();
            return Err(ConnectFault::TimedOut);
        }
    };
    let (reader, writer) = stream.split();
    Ok(Connection {
        reader,
        writer,
        reused: false,
        introduced: upstream
            .cluster
            .proxy_protocol
            .and_then(|_| ends.map(|ends| ends.client)),
        life: Life::new(&upstream.cluster.connections),
        _permit: permit,
        _active: OpenConnection::new(upstream.shared.clone(), upstream.worker),
    })
}

/// A connection to this endpoint, ready for the first byte of a request.
async fn reach(
    upstream: &Upstream,
    endpoint: &Endpoint,
    ends: Option<&Ends>,
) -> Result<Stream, ConnectFault> {
    let stream = match &endpoint.socket {
        Some(path) => connect_unix(path).await,
        None => connect_tcp(upstream, endpoint.address).await,
    };
    let mut stream = stream.map_err(ConnectFault::Failed)?;
    if let Some(version) = upstream.cluster.proxy_protocol {
        // By itself, for an upstream may be the first to speak.
        let header = introduction(version, ends);
        let written = stream.write_all(&header).await;
        written.map_err(ConnectFault::Failed)?;
    }
    let Some(tls) = &upstream.cluster.tls else {
        return Ok(stream.into());
    };
    let Some(calling) = upstream.shared.calling() else {
        // That it could not be loaded was told when the config came.
        return Err(ConnectFault::Tls(None));
    };
    let handshake = async {
        let session = calling.session(tls.sni.as_deref(), endpoint.address.ip())?;
        Stream::secure(stream, &[], session).await
    };
    let secured = handshake.await.map_err(|fault| {
        tracing::debug!(endpoint = &*endpoint.label, %fault, "a TLS handshake with an upstream failed");
        ConnectFault::Tls(match fault {
            HandshakeFault::Breach(breach) => Some(breach.class()),
            HandshakeFault::Unbegun | HandshakeFault::Closed(_) => None,
        })
    })?;
    // Who agreed to something else, or to nothing, would take HTTP/2 for a bad request.
    let wants_http2 = upstream.cluster.http == UpstreamHttp::H2;
    if wants_http2 && secured.alpn() != Some(Alpn::Http2) {
        return Err(ConnectFault::Tls(Some(BreachClass::Alpn)));
    }
    Ok(secured)
}

async fn connect_tcp(upstream: &Upstream, address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Answers a request in one piece; without it small pieces of a body would wait for
    // acknowledgements.
    stream.set_nodelay(true)?;
    if let Some(keepalive) = &upstream.cluster.connections.tcp_keepalive {
        keep_alive(&stream, keepalive)?;
    }
    Ok(stream)
}

/// Lets the kernel ask the other side while it is silent.
fn keep_alive(stream: &TcpStream, keepalive: &TcpKeepalive) -> io::Result<()> {
    let mut asks = socket2::TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        asks = asks.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        asks = asks.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        asks = asks.with_retries(probes);
    }
    SockRef::from(stream).set_tcp_keepalive(&asks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_is_told_when_to_ask_a_silent_endpoint() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let socket = SockRef::from(&stream);
        assert!(!socket.keepalive().unwrap());
        let keepalive = TcpKeepalive {
            time: Some(Duration::from_secs(77)),
            interval: Some(Duration::from_secs(7)),
            probes: None,
        };
        let usual = socket.tcp_keepalive_retries().unwrap();
        keep_alive(&stream, &keepalive).unwrap();
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 77);
        assert_eq!(socket.tcp_keepalive_interval().unwrap().as_secs(), 7);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), usual);
    }
}
