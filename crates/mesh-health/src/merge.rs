//! Many nodes' reports, one view: the majority of fresh probers, own evidence first.
//!
//! Owns the rule. Pure and total: the order of reports does not matter, the same input gives the
//! same view, and missing or stale reports make an endpoint unknown, never unhealthy.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::NodeId;

use crate::{Assignment, Health, HealthView, Report, Verdict};

/// Another node's report on one cluster, as it was received.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Who reported.
    pub node: NodeId,
    /// The cluster as `namespace/name`.
    pub cluster: &'a str,
    /// What it said.
    pub report: &'a Report,
    /// The time since it arrived.
    pub age: Duration,
}

/// Everything a node knows about endpoints, from itself and from others.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// This node.
    pub own: NodeId,
    /// What this node found itself, by cluster (`namespace/name`). Always fresh.
    pub own_reports: &'a BTreeMap<Arc<str>, Report>,
    /// What others say.
    pub received: &'a [Received<'a>],
}

/// Merges all evidence into the view for this node's own routing.
///
/// Only the endpoints of `assignment` are judged, and only by their probers: the assignment names
/// live nodes only, so reports of the dead count for nothing, as do those older than they call
/// themselves fresh. What this node saw itself decides; else an endpoint is unhealthy when more
/// than half of its probers with an opinion say so (2 of 3, 2 of 2, 1 of 1), unknown when none has
/// one.
///
/// `previous` gives the version: it grows by one if anything changed.
pub fn merge(
    evidence: &Evidence<'_>,
    assignment: &Assignment,
    previous: &HealthView,
) -> HealthView {
    let reports = newest_fresh(evidence);
    let mut clusters = BTreeMap::new();
    for (cluster, endpoints) in assignment.clusters() {
        let own = evidence.own_reports.get(cluster);
        let judged: BTreeMap<SocketAddr, Health> = endpoints
            .iter()
            .filter_map(|(address, probers)| {
                let direct = own.and_then(|report| report.verdicts.get(address)).copied();
                let opinions = probers
                    .iter()
                    .filter_map(|node| reports.get(&(*node, &**cluster)))
                    .filter_map(|received| received.report.verdicts.get(address).copied());
                let verdict = direct.or_else(|| majority(opinions))?;
                Some((*address, Health::from(verdict)))
            })
            .collect();
        if !judged.is_empty() {
            clusters.insert(Arc::clone(cluster), judged);
        }
    }
    let version = previous.version + u64::from(clusters != previous.clusters);
    HealthView { version, clusters }
}

impl From<Verdict> for Health {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Healthy => Self::Healthy,
            Verdict::Unhealthy => Self::Unhealthy,
        }
    }
}

/// The fresh reports of others, one per node and cluster: the one that arrived last. Those that
/// arrived together are ordered by their contents, so that the order of the input never decides.
fn newest_fresh<'a>(evidence: &Evidence<'a>) -> BTreeMap<(NodeId, &'a str), Received<'a>> {
    let mut newest: BTreeMap<_, Received<'a>> = BTreeMap::new();
    for received in evidence.received {
        if received.age > received.report.fresh_for || received.node == evidence.own {
            continue;
        }
        match newest.entry((received.node, received.cluster)) {
            Entry::Vacant(entry) => {
                entry.insert(*received);
            }
            Entry::Occupied(mut entry) => {
                let other = entry.get();
                if (other.age, received.report) > (received.age, other.report) {
                    entry.insert(*received);
                }
            }
        }
    }
    newest
}

fn majority(opinions: impl Iterator<Item = Verdict>) -> Option<Verdict> {
    let (mut all, mut against) = (0, 0);
    for opinion in opinions {
        all += 1;
        against += usize::from(opinion == Verdict::Unhealthy);
    }
    match all {
        0 => None,
        _ if against * 2 > all => Some(Verdict::Unhealthy),
        _ => Some(Verdict::Healthy),
    }
}

#[cfg(test)]
mod tests;
