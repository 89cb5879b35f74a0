//! What connections to endpoints are like, as compiled.
//!
//! Owns the shape. Never connects.

use std::time::Duration;

/// How long connections to endpoints of a cluster are used, and how they are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Connections {
    /// A connection is closed after so many requests; `None`: however many.
    pub max_requests: Option<u32>,
    /// A connection that is so old takes no further request; `None`: however old.
    pub max_duration: Option<Duration>,
    /// The kernel asks a silent other side whether it is still there; `None`: never.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Who speaks HTTP/2 is asked by PING; `None`: never.
    pub keepalive: Option<ConnectionKeepalive>,
}

/// When the other side is asked by PING whether it is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionKeepalive {
    /// So long after the last answer.
    pub interval: Duration,
    /// So long it has to answer.
    pub timeout: Duration,
}

/// When the kernel asks, where it is not by its own defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TcpKeepalive {
    /// After so long a silence.
    pub time: Option<Duration>,
    /// Again after so long without an answer.
    pub interval: Option<Duration>,
    /// So many times in vain, and the connection is over.
    pub probes: Option<u32>,
}
