//! What connections to endpoints are like, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Time;

/// How long connections to endpoints are used, and how they are kept. A change holds for
/// connections that are made from then on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionsSpec {
    /// A connection is closed after so many requests; left out: however many. `1`: a new one for
    /// each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests_per_connection: Option<u32>,
    /// A connection that is so old takes no further request, and is closed as soon as none is on it;
    /// left out: however old. So that load finds endpoints behind one address which came later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connection_duration: Option<Time>,
    /// The kernel asks a silent endpoint whether it is still there; left out: never. `{}`: at the
    /// times that the system is set to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_keepalive: Option<TcpKeepaliveSpec>,
    /// For `http: h2` and `auto`: an endpoint of HTTP/2 is asked by PING whether it is still there; left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_keepalive: Option<ConnectionKeepaliveSpec>,
}

/// When an endpoint that speaks HTTP/2 is asked by PING whether it is still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionKeepaliveSpec {
    /// So long after the connection was made, or after the last answer.
    pub interval: Time,
    /// Without an answer for so long, the connection is over, with all that is on it.
    pub timeout: Time,
}

/// When the kernel asks a silent endpoint; what is left out is as the system is set to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpKeepaliveSpec {
    /// After so long a silence, in whole seconds, 1s to 32767s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<Time>,
    /// Again after so long without an answer, in whole seconds, 1s to 32767s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_interval: Option<Time>,
    /// So many times in vain, and the connection is over, 1 to 127.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_probes: Option<u32>,
}
