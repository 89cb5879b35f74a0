//! Since when this leader has seen which members dead.
//!
//! Owns the times, by the clock that its caller reads. A new leader begins anew, since it cannot
//! know what happened before; so does one that lost its quorum: perhaps it is the one cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::NodeId;
use store_raft::{RaftStatus, Role};
use tokio::time::Instant;

use super::{Judgement, answers};

/// The members that are dead now, and since when that is known.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    /// The term in which this node leads.
    term: u64,
    since: BTreeMap<NodeId, Instant>,
}

impl Deaths {
    /// Takes note of who is dead at `now`. A sign of life, or doubt, ends a death.
    pub(super) fn note(
        &mut self,
        status: &RaftStatus,
        judge: impl Fn(NodeId) -> Judgement,
        now: Instant,
    ) {
        if status.role != Role::Leader || !status.quorum || status.term != self.term {
            self.term = status.term;
            self.since.clear();
        }
        if status.role != Role::Leader || !status.quorum {
            return;
        }
        let dead = status
            .members()
            .map(|member| member.id)
            .filter(|id| !answers(status, *id) && judge(*id) == Judgement::Dead);
        let since = dead.map(|id| (id, self.since.get(&id).copied().unwrap_or(now)));
        self.since = since.collect();
    }

    /// Who has been dead for at least `long`.
    pub(super) fn since_before(&self, long: Duration, now: Instant) -> BTreeSet<NodeId> {
        let long_dead = |since: &Instant| now.saturating_duration_since(*since) >= long;
        let dead = self.since.iter().filter(|(_, since)| long_dead(since));
        dead.map(|(id, _)| *id).collect()
    }
}
