//! From what chitchat knows to peers: who is who, alive, down or gone.
//!
//! Owns the rules. Pure: sightings and the time are arguments. Never gossips.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use chitchat::{ChitchatId, NodeState};
use mesh_health::Report;
use model::{MeshId, NodeId};

use crate::facts::{Facts, IDENTITY_KEY, STATE_KEY};
use crate::peers::{Liveness, Peer, Peers, ReceivedReport};

/// The gossip key by which a node says that it leaves.
pub(crate) const LEFT_KEY: &str = "left";

/// Before a cluster's `namespace/name`: the gossip key of a health report.
pub(crate) const HEALTH_PREFIX: &str = "health/";

/// A second process with our id must be alive for so many intervals to be believed: news of our own
/// last life still travel when we start.
const TWIN_INTERVALS: u32 = 30;

/// A node of which we only heard, and whose heart we never heard beat, is down after so many
/// intervals: one that is alive shows it sooner.
const HEARSAY_INTERVALS: u32 = 8;

/// One node as chitchat knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sighting<'a> {
    pub(crate) id: &'a ChitchatId,
    pub(crate) state: &'a NodeState,
    /// Whether chitchat's detector holds it for alive.
    pub(crate) live: bool,
}

/// When and how sightings are judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) wall: SystemTime,
    /// Whether this node itself was late lately, so that silence says nothing about others.
    pub(crate) frozen: bool,
    /// The mesh that this node belongs to.
    pub(crate) mesh_id: Option<MeshId>,
}

/// Every life of every node that chitchat knows.
#[derive(Debug)]
pub(crate) struct Roster {
    own: NodeId,
    interval: Duration,
    lives: BTreeMap<ChitchatId, Life>,
}

/// One life of one node: an id with a generation.
#[derive(Debug)]
struct Life {
    first_seen: Instant,
    /// Since when it is alive without a break.
    live_since: Option<Instant>,
    /// The version of its values that was read last. `None`: none yet.
    version: Option<u64>,
    left: bool,
    facts: Option<Facts>,
    reports: BTreeMap<Arc<str>, (u64, ReceivedReport)>,
    /// The peer made of it last; made anew only when something changed.
    shown: Option<Arc<Peer>>,
}

impl Roster {
    /// A roster of `own`'s peers, who gossip every `interval`.
    pub(crate) fn new(own: NodeId, interval: Duration) -> Self {
        Self {
            own,
            interval,
            lives: BTreeMap::new(),
        }
    }

    /// Takes all that chitchat knows now; the peers that it amounts to.
    pub(crate) fn update<'a>(
        &mut self,
        sightings: impl IntoIterator<Item = Sighting<'a>>,
        moment: Moment,
    ) -> Peers {
        let mut known = BTreeSet::new();
        let mut peers = Peers::default();
        for sighting in sightings {
            let Ok(node) = sighting.id.node_id.parse::<NodeId>() else {
                continue;
            };
            known.insert(sighting.id);
            if !self.lives.contains_key(sighting.id) {
                self.lives
                    .insert(sighting.id.clone(), Life::new(moment.now));
            }
            let Some(life) = self.lives.get_mut(sighting.id) else {
                continue;
            };
            life.read(node, sighting.state, moment.now);
            let Some(liveness) = life.judge(sighting.live, self.interval, moment) else {
                continue;
            };
            if node == self.own {
                let believed = self.interval * TWIN_INTERVALS;
                if life
                    .live_since
                    .is_some_and(|since| moment.now - since >= believed)
                {
                    peers.twin = Some(sighting.id.gossip_advertise_addr);
                }
            } else if let Some(peer) = life.show(sighting.id.generation_id, liveness, moment) {
                prefer(&mut peers.by_id, node, peer);
            }
        }
        self.lives.retain(|id, _| known.contains(id));
        peers
    }
}

/// A node that restarted has several lives; the one that is alive stands for it, else the latest.
fn prefer(by_id: &mut BTreeMap<NodeId, Arc<Peer>>, node: NodeId, peer: &Arc<Peer>) {
    let rank = |peer: &Peer| (peer.liveness == Liveness::Alive, peer.generation);
    match by_id.get(&node) {
        Some(other) if rank(other) >= rank(peer) => {}
        _ => {
            by_id.insert(node, Arc::clone(peer));
        }
    }
}

impl Life {
    fn new(now: Instant) -> Self {
        Self {
            first_seen: now,
            live_since: None,
            version: None,
            left: false,
            facts: None,
            reports: BTreeMap::new(),
            shown: None,
        }
    }

    /// Reads the values if they changed. What cannot be read is left as it was.
    fn read(&mut self, node: NodeId, state: &NodeState, now: Instant) {
        if self.version == Some(state.max_version()) {
            return;
        }
        self.version = Some(state.max_version());
        self.left = state.contains_key(LEFT_KEY);
        if let Some(identity) = state.get(IDENTITY_KEY) {
            match Facts::decode(identity, state.get(STATE_KEY)) {
                Ok(facts) if facts.identity.node_id == node => self.facts = Some(facts),
                Ok(facts) => {
                    let claims = facts.identity.node_id;
                    tracing::warn!(%node, %claims, "a peer's facts name another node");
                }
                Err(error) => tracing::warn!(%node, %error, "a peer's facts cannot be read"),
            }
        }
        let mut before = std::mem::take(&mut self.reports);
        for (key, value) in state.iter_prefix(HEALTH_PREFIX) {
            let cluster = &key[HEALTH_PREFIX.len()..];
            let known = before.remove_entry(cluster);
            if let Some((cluster, known)) =
                known.filter(|(_, (version, _))| *version == value.version)
            {
                self.reports.insert(cluster, known);
                continue;
            }
            match Report::decode(&value.value) {
                Ok(report) => {
                    let received = ReceivedReport {
                        report,
                        received: now,
                    };
                    self.reports
                        .insert(cluster.into(), (value.version, received));
                }
                Err(error) => {
                    tracing::warn!(%node, cluster, %error, "a peer's report cannot be read")
                }
            }
        }
        self.shown = self.shown.take().map(|peer| Arc::new(self.peer(&peer)));
    }

    /// `None`: not known well enough to be shown.
    fn judge(&mut self, live: bool, interval: Duration, moment: Moment) -> Option<Liveness> {
        let was_live = self.live_since.is_some();
        if self.left {
            self.live_since = None;
            return Some(Liveness::Left);
        }
        if live || (moment.frozen && was_live) {
            self.live_since.get_or_insert(moment.now);
            return Some(Liveness::Alive);
        }
        self.live_since = None;
        let hearsay = moment.now - self.first_seen < interval * HEARSAY_INTERVALS;
        (was_live || self.shown.is_some() || !hearsay).then_some(Liveness::Down)
    }

    /// The peer that this life is, unless its facts are not known yet.
    fn show(&mut self, generation: u64, liveness: Liveness, moment: Moment) -> Option<&Arc<Peer>> {
        let facts = self.facts.as_ref()?;
        let foreign = match (facts.identity.mesh_id, moment.mesh_id) {
            (Some(theirs), Some(ours)) => theirs != ours,
            _ => false,
        };
        let same = |peer: &Arc<Peer>| peer.liveness == liveness && peer.foreign == foreign;
        if !self.shown.as_ref().is_some_and(same) {
            let since = match &self.shown {
                Some(peer) if peer.liveness == liveness => peer.since,
                _ => moment.wall,
            };
            let peer = Peer {
                facts: facts.clone(),
                generation,
                liveness,
                since,
                foreign,
                reports: self.received(),
            };
            self.shown = Some(Arc::new(peer));
        }
        self.shown.as_ref()
    }

    /// `peer` with what was read last.
    fn peer(&self, peer: &Peer) -> Peer {
        let facts = self.facts.clone().unwrap_or_else(|| peer.facts.clone());
        Peer {
            facts,
            reports: self.received(),
            ..peer.clone()
        }
    }

    fn received(&self) -> BTreeMap<Arc<str>, ReceivedReport> {
        let reports = self.reports.iter();
        reports
            .map(|(cluster, (_, received))| (Arc::clone(cluster), received.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
