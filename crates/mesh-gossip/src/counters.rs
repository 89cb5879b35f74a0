//! What gossip counts, for `/metrics` and for tests.
//!
//! Owns the names of the metrics. Never logs.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::peers::{Liveness, Peers};

/// Why a datagram, or the message in it, went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum DropReason {
    /// Not of this protocol or version, or cut short.
    Malformed,
    /// Sealed with a key that is not in the ring: a stranger.
    UnknownKey,
    /// The seal is broken: changed on the way, or made up.
    Forged,
    /// Seen before, or too old to tell.
    Replayed,
    /// Sent by this very process: a seed list that names the node itself does that.
    Own,
    /// Its pieces do not fit together.
    Misfit,
    /// Not all pieces of the message arrived in time.
    Incomplete,
    /// Opened, but not a message of this version.
    Undecodable,
    /// Too many nodes are known to compare notes with one more.
    Crowded,
    /// A reject that answers nothing we sent lately.
    StrayReject,
    /// One of our own messages was too long to be sent.
    Oversized,
    /// One of our own datagrams could not be sent.
    Unsent,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    reason: DropReason,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeersLabel {
    liveness: Liveness,
}

/// The counters of one [`Mesh`](crate::Mesh); clones share them.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    pub(crate) received: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) rejects: Counter,
    pub(crate) restarts: Counter,
    pub(crate) freezes: Counter,
    dropped: Family<Dropped, Counter>,
    peers: Family<PeersLabel, Gauge>,
}

impl Counters {
    /// Adds the metrics to `registry`, below `skein_gossip_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("skein_gossip");
        let peers = "Peers that gossip knows, without this node, by liveness";
        registry.register("peers", peers, self.peers.clone());
        let counters = [
            (
                "datagrams_received",
                "Datagrams that arrived, whatever they were",
                &self.received,
            ),
            (
                "datagrams_sent",
                "Datagrams sent, rejects not counted",
                &self.sent,
            ),
            (
                "rejects_sent",
                "Answers to datagrams that an unknown key sealed",
                &self.rejects,
            ),
            (
                "engine_restarts",
                "Restarts of the gossip engine after a fault",
                &self.restarts,
            ),
            (
                "freezes",
                "Times that the live set was kept because this node was late",
                &self.freezes,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let received = self.received_bytes.clone();
        registry.register_with_unit("received", "Bytes that arrived", Unit::Bytes, received);
        let sent = self.sent_bytes.clone();
        registry.register_with_unit("sent", "Bytes sent", Unit::Bytes, sent);
        let dropped = "Datagrams and messages that went no further, by reason";
        registry.register("dropped", dropped, self.dropped.clone());
    }

    /// Datagrams that arrived so far, whatever they were.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Datagrams sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// What went no further so far, for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get_or_create(&Dropped { reason }).get()
    }

    pub(crate) fn count_dropped(&self, reason: DropReason, times: usize) {
        self.dropped
            .get_or_create(&Dropped { reason })
            .inc_by(times as u64);
    }

    pub(crate) fn show_peers(&self, peers: &Peers) {
        for liveness in [Liveness::Alive, Liveness::Down, Liveness::Left] {
            let count = peers
                .iter()
                .filter(|peer| peer.liveness == liveness)
                .count();
            self.peers
                .get_or_create(&PeersLabel { liveness })
                .set(count as i64);
        }
    }
}
