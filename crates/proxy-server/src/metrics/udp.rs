//! The metrics of datagrams, where there are any. Sessions are counted as connections.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Of, Sources, encode_each};
use crate::counters::{ClusterCounters, ListenerCounters};

const LISTENERS: &[Of<ListenerCounters>] = &[
    (
        "udp_downstream_sess_rx_datagrams",
        "Datagrams from clients",
        |c| &c.udp.received,
    ),
    (
        "udp_downstream_sess_tx_datagrams",
        "Datagrams to clients",
        |c| &c.udp.sent,
    ),
    (
        "udp_downstream_sess_dropped_datagrams",
        "Datagrams from clients for which there was no session, and to clients that could not be sent",
        |c| &c.udp.dropped,
    ),
    (
        "udp_downstream_sess_idle_timeout",
        "Sessions that fell silent",
        |c| &c.udp.idle,
    ),
];

const CLUSTERS: &[Of<ClusterCounters>] = &[(
    "cluster_udp_sess_tx_errors",
    "Datagrams to endpoints that could not be sent",
    |c| &c.datagrams_dropped,
)];

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, sources: &Sources) -> fmt::Result {
    let is_udp = |name: &&String| {
        let mut listeners = sources.config.listeners.iter();
        listeners.any(|(known, one)| one.is_udp() && known.to_string() == **name)
    };
    let listeners = || sources.listeners.iter().filter(|(name, _)| is_udp(name));
    for (name, help, counter) in LISTENERS {
        let each = listeners().map(|(name, counters)| (&**name, &**counters));
        let what = (*name, *help, MetricType::Counter);
        encode_each(encoder, what, "listener", each, counter)?;
    }
    let used = |workers: &[ClusterCounters]| workers.iter().any(|c| c.datagrams_dropped.read() > 0);
    for (name, help, counter) in CLUSTERS {
        let clusters = sources
            .clusters
            .iter()
            .filter(|(_, shared)| used(&shared.workers));
        let each = clusters.map(|(key, shared)| (&**key, &*shared.workers));
        let what = (*name, *help, MetricType::Counter);
        encode_each(encoder, what, "cluster", each, counter)?;
    }
    Ok(())
}
