//! The rules for connections to endpoints.

use super::Findings;
use crate::compiled::UpstreamHttp;
use crate::resource::ConnectionsSpec;
use crate::units::Time;

/// What Linux takes.
const SECONDS: std::ops::RangeInclusive<u64> = 1..=32_767;
const PROBES: std::ops::RangeInclusive<u32> = 1..=127;

pub(super) fn check(spec: &ConnectionsSpec, http: UpstreamHttp, findings: &mut Findings) {
    findings.refuse_zero(
        "connections.max_requests_per_connection",
        spec.max_requests_per_connection,
    );
    findings.refuse_zero_time(
        "connections.max_connection_duration",
        spec.max_connection_duration,
    );
    if let Some(keepalive) = &spec.connection_keepalive {
        let path = "connections.connection_keepalive";
        findings.refuse_if(http == UpstreamHttp::H1, path, || {
            "HTTP/1.1 has no PING; use `tcp_keepalive`, or `http: h2` if the endpoints speak it"
                .into()
        });
        findings.refuse_zero_time(format!("{path}.interval"), Some(keepalive.interval));
        findings.refuse_zero_time(format!("{path}.timeout"), Some(keepalive.timeout));
    }
    let Some(keepalive) = &spec.tcp_keepalive else {
        return;
    };
    let odd = |time: Time| time.0.subsec_nanos() > 0 || !SECONDS.contains(&time.0.as_secs());
    for (word, time) in [
        ("keepalive_time", keepalive.keepalive_time),
        ("keepalive_interval", keepalive.keepalive_interval),
    ] {
        let path = format!("connections.tcp_keepalive.{word}");
        findings.refuse_if(time.is_some_and(odd), path, || {
            "not what the kernel takes; give whole seconds, 1s to 32767s".into()
        });
    }
    findings.refuse_if(
        (keepalive.keepalive_probes).is_some_and(|probes| !PROBES.contains(&probes)),
        "connections.tcp_keepalive.keepalive_probes",
        || "out of bounds; give 1 to 127".into(),
    );
}
