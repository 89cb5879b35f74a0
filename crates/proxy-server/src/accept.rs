//! From an accepted socket to a connection that a codec can take.
//!
//! Owns what comes before the first byte of a protocol, within a time limit, and why that came to
//! nothing. Never speaks the protocol itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use proxy_config::compiled::ProxyProtocol;
use tls::{BreachClass, Listening};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::counters::ListenerCounters;
use crate::listener::Slot;
use crate::proxy_protocol::{Beginning, beginning};
use crate::wire::{HandshakeFault, Stream};
use crate::worker::Worker;

/// The first byte of a record with a handshake (RFC 8446, 5.1); no request of HTTP begins so.
const CONTENT_HANDSHAKE: u8 = 22;
/// Room for the first bytes of a connection: most requests and handshakes need no more.
const FIRST_BYTES: usize = 2 * 1024;

/// Why there was no TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    Breach(BreachClass),
    Closed,
    Late,
}

impl HandshakeFailure {
    /// So many there are.
    pub(crate) const COUNT: usize = BreachClass::ALL.len() + 2;

    /// Its place among them.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Breach(class) => class as usize,
            Self::Closed => Self::COUNT - 2,
            Self::Late => Self::COUNT - 1,
        }
    }

    /// Words for labels, in the order of their places.
    pub(crate) fn labels() -> impl Iterator<Item = &'static str> {
        let breaches = BreachClass::ALL.into_iter().map(BreachClass::label);
        breaches.chain(["closed", "timeout"])
    }
}

/// Makes ready what a listener wants before its protocol begins; `None` if that came to nothing.
/// The address is that of the client, whoever passed its connection on.
pub(crate) async fn prepare(
    worker: &Worker,
    slot: &Slot,
    mut stream: TcpStream,
    mut peer: SocketAddr,
) -> Option<(Stream, SocketAddr)> {
    let serving = slot.serving();
    let counters = serving.counters(slot.worker);
    let mut ahead = BytesMut::new();
    let introductions = serving.listener.proxy_protocol.as_ref();
    let is_trusted = introductions.is_none_or(|it| it.trusts(peer.ip()));
    let mode = introductions.map(|it| it.mode);
    if !is_trusted && mode == Some(ProxyProtocol::Required) {
        tracing::debug!(%peer, "a connection is of none who may speak for others");
        counters.proxy_protocol_refused.increment();
        return None;
    }
    // Whoever is not trusted speaks for itself, whatever it begins with.
    if let Some(mode) = mode.filter(|_| is_trusted) {
        let limit = worker.routing().config.defaults.head_timeout;
        let introduced = introduce(&mut stream, &mut ahead, mode);
        match timeout(limit, introduced).await {
            Ok(Ok(source)) => peer = source.unwrap_or(peer),
            Ok(Err(Unintroduced::Gone)) => return None,
            Ok(Err(Unintroduced::Refused)) | Err(_) => {
                tracing::debug!(%peer, "a connection does not begin with the PROXY protocol");
                counters.proxy_protocol_refused.increment();
                return None;
            }
        }
    }
    match (&serving.tls, &serving.listener.tls) {
        (Some(listening), Some(tls)) => {
            let limit = tls.handshake_timeout;
            if tls.is_optional && !begins_with_tls(&mut stream, &mut ahead, limit, counters).await?
            {
                return Some((Stream::with_ahead(stream, ahead), peer));
            }
            let terms = (listening, tls.handshake_timeout);
            let secured = secure(stream, &ahead, peer, terms, counters).await?;
            Some((secured, peer))
        }
        _ => Some((Stream::with_ahead(stream, ahead), peer)),
    }
}

/// Why nobody is introduced by a PROXY header.
enum Unintroduced {
    /// The connection ended before it said anything.
    Gone,
    Refused,
}

/// Reads the PROXY header; the source, if there is one. What follows it stays in `ahead`.
async fn introduce(
    stream: &mut TcpStream,
    ahead: &mut BytesMut,
    mode: ProxyProtocol,
) -> Result<Option<SocketAddr>, Unintroduced> {
    loop {
        match stream.read_buf(ahead).await {
            Ok(1..) => {}
            _ if ahead.is_empty() => return Err(Unintroduced::Gone),
            _ => return Err(Unintroduced::Refused),
        }
        match beginning(ahead) {
            Beginning::Partial => {}
            Beginning::Header { source, bytes } => {
                ahead.advance(bytes);
                return Ok(source);
            }
            Beginning::Absent if mode == ProxyProtocol::Optional => return Ok(None),
            Beginning::Absent | Beginning::Malformed => return Err(Unintroduced::Refused),
        }
    }
}

/// Whether a connection begins with TLS, as its first byte tells; `None`: there was none.
async fn begins_with_tls(
    stream: &mut TcpStream,
    ahead: &mut BytesMut,
    limit: Duration,
    counters: &ListenerCounters,
) -> Option<bool> {
    if ahead.is_empty() {
        ahead.reserve(FIRST_BYTES);
        match timeout(limit, stream.read_buf(ahead)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return None,
            Err(_) => {
                counters.handshake_failures[HandshakeFailure::Late.index()].increment();
                return None;
            }
        }
    }
    Some(ahead.first() == Some(&CONTENT_HANDSHAKE))
}

/// Makes the connection a TLS one; `None` if that came to nothing.
async fn secure(
    stream: TcpStream,
    records: &[u8],
    peer: SocketAddr,
    (listening, limit): (&Arc<Listening>, Duration),
    counters: &ListenerCounters,
) -> Option<Stream> {
    let handshake = async { Stream::secure(stream, records, listening.session()?).await };
    let failure = match timeout(limit, handshake).await {
        Ok(Ok(stream)) => {
            counters.handshakes.increment();
            if stream.session().is_some_and(|session| session.is_resumed()) {
                counters.handshakes_resumed.increment();
            }
            return Some(stream);
        }
        // Who only looks whether somebody is here, as load balancers do, is no failure.
        Ok(Err(HandshakeFault::Unbegun)) => return None,
        Ok(Err(HandshakeFault::Breach(breach))) => {
            tracing::debug!(%peer, %breach, "a TLS handshake failed");
            HandshakeFailure::Breach(breach.class())
        }
        Ok(Err(HandshakeFault::Closed(error))) => {
            tracing::debug!(%peer, %error, "a TLS handshake broke off");
            HandshakeFailure::Closed
        }
        Err(_) => {
            tracing::debug!(%peer, "a TLS handshake took too long");
            HandshakeFailure::Late
        }
    };
    counters.handshake_failures[failure.index()].increment();
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_a_place_and_a_label() {
        let all = BreachClass::ALL.into_iter().map(HandshakeFailure::Breach);
        let all = all.chain([HandshakeFailure::Closed, HandshakeFailure::Late]);
        let places: Vec<_> = all.map(HandshakeFailure::index).collect();
        assert_eq!(places, (0..HandshakeFailure::COUNT).collect::<Vec<_>>());
        assert_eq!(HandshakeFailure::labels().count(), HandshakeFailure::COUNT);
    }
}
