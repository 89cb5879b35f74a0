//! From an accepted socket to a connection that a codec can take.
//!
//! Owns what comes before the first byte of a protocol, within a time limit, and why that came to
//! nothing. Never speaks the protocol itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tls::{BreachClass, Listening};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::counters::ListenerCounters;
use crate::wire::{HandshakeFault, Stream};

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

/// Makes the connection a TLS one; `None` if that came to nothing.
pub(crate) async fn secure(
    stream: TcpStream,
    peer: SocketAddr,
    (listening, limit): (&Arc<Listening>, Duration),
    counters: &ListenerCounters,
) -> Option<Stream> {
    let handshake = async { Stream::secure(stream, listening.session()?).await };
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
