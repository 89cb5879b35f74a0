//! What connections to endpoints are like, as written to as compiled.

use crate::compiled::{ConnectionKeepalive, Connections, TcpKeepalive};
use crate::resource::{ConnectionKeepaliveSpec, ConnectionsSpec, TcpKeepaliveSpec};

pub(super) fn connections(spec: &ConnectionsSpec) -> Connections {
    let keepalive = |spec: &TcpKeepaliveSpec| TcpKeepalive {
        time: spec.keepalive_time.map(|time| time.0),
        interval: spec.keepalive_interval.map(|time| time.0),
        probes: spec.keepalive_probes,
    };
    let pings = |spec: &ConnectionKeepaliveSpec| ConnectionKeepalive {
        interval: spec.interval.0,
        timeout: spec.timeout.0,
    };
    Connections {
        max_requests: spec.max_requests_per_connection,
        max_duration: spec.max_connection_duration.map(|time| time.0),
        tcp_keepalive: spec.tcp_keepalive.as_ref().map(keepalive),
        keepalive: spec.connection_keepalive.as_ref().map(pings),
    }
}
