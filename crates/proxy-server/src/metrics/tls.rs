//! The metrics of what comes before a protocol: PROXY headers, TLS handshakes, and how long certificates last.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Labels, Of, Sources, encode_counter, encode_each, total};
use crate::accept::HandshakeFailure;
use crate::certificates::Certificates;
use crate::counters::ListenerCounters;
use crate::passthrough::Inspected;

const HANDSHAKES: &[Of<ListenerCounters>] = &[
    (
        "listener_proxy_protocol_refused",
        "Connections that did not begin with the PROXY protocol as they should",
        |c| &c.proxy_protocol_refused,
    ),
    (
        "listener_ssl_handshake",
        "TLS connections that came about",
        |c| &c.handshakes,
    ),
    (
        "listener_ssl_session_reused",
        "TLS connections that went on from an earlier one",
        |c| &c.handshakes_resumed,
    ),
];

pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    sources: &Sources,
    certificates: &Certificates,
) -> fmt::Result {
    let each = || sources.listeners.iter().map(|(name, c)| (&**name, &**c));
    for (name, help, counter) in HANDSHAKES {
        let what = (*name, *help, MetricType::Counter);
        encode_each(encoder, what, "listener", each(), counter)?;
    }
    let mut metric = encoder.encode_descriptor(
        "listener_ssl_connection_error",
        "TLS handshakes that came to nothing, by why",
        None,
        MetricType::Counter,
    )?;
    for (listener, workers) in each() {
        for (place, label) in HandshakeFailure::labels().enumerate() {
            let count = total(workers, |c| &c.handshake_failures[place]);
            if count > 0 {
                let labels: Labels<'_> = [("listener", listener), ("reason", label)];
                encode_counter(&mut metric, &labels, count)?;
            }
        }
    }
    encode_inspected(encoder, sources)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let mut lasting = Vec::new();
    let mut reloads = Vec::new();
    certificates.each_listener(|name, listening| {
        let name = name.to_string();
        for expiry in listening.expiries() {
            // Below zero, it is over.
            let left = expiry.not_after.cast_signed() - now.cast_signed();
            lasting.push((name.clone(), expiry.file, left));
        }
        let (count, refused) = listening.history();
        reloads.push((name, count, refused.is_some()));
    });
    let mut metric = encoder.encode_descriptor(
        "listener_ssl_certificate_expires_in_seconds",
        "How long a certificate that is shown is still valid",
        None,
        MetricType::Gauge,
    )?;
    for (listener, file, left) in &lasting {
        let labels: Labels<'_> = [("listener", listener), ("file", file)];
        metric.encode_family(&labels)?.encode_gauge(left)?;
    }
    let mut metric = encoder.encode_descriptor(
        "listener_ssl_reload",
        "How often new certificates came into force",
        None,
        MetricType::Counter,
    )?;
    for (listener, count, _) in &reloads {
        encode_counter(&mut metric, &[("listener", &**listener)], *count)?;
    }
    let mut metric = encoder.encode_descriptor(
        "listener_ssl_refused",
        "1 while new files cannot be used and the old certificates stay in force",
        None,
        MetricType::Gauge,
    )?;
    for (listener, _, refused) in &reloads {
        let labels = [("listener", &**listener)];
        let refused = i64::from(*refused);
        metric.encode_family(&labels)?.encode_gauge(&refused)?;
    }
    Ok(())
}

/// What the first messages told of TLS that is passed on.
fn encode_inspected(encoder: &mut DescriptorEncoder<'_>, sources: &Sources) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(
        "listener_tls_inspector",
        "First messages of TLS that is passed on, by what they told",
        None,
        MetricType::Counter,
    )?;
    for (listener, workers) in &sources.listeners {
        for inspected in Inspected::ALL {
            let count = total(workers, |c| &c.inspected[inspected.index()]);
            if count > 0 {
                let labels: Labels<'_> = [("listener", listener), ("result", inspected.label())];
                encode_counter(&mut metric, &labels, count)?;
            }
        }
    }
    Ok(())
}
