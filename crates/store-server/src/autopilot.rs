//! The care of the membership, by whoever leads: learners that caught up get a vote, the successor
//! of a dead voter gets the dead one's, and who has been dead for long is removed.
//!
//! Owns the decisions, one change at a time, each of which leaves as many working voters as there
//! were. Never judges who is dead: that is the node's [`Liveness`], which hears the gossip.

mod deaths;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::Shutdown;
use model::{NodeId, Version};
use store_raft::{MembershipError, RaftStatus, Role, Store};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::deaths::Deaths;

/// How often the leader looks after the members.
const EVERY: Duration = Duration::from_millis(500);
/// A learner has caught up when it lacks no more than so many entries.
const LAG_MAX: u64 = 64;
/// The most voters. Further nodes stay learners, which serve and forward alike: more votes make
/// every write wait for more disks.
pub const VOTERS_MAX: usize = 7;

/// The autopilot never leaves fewer voters than this: of two, neither may fail, so nothing is gained
/// by removing the third, and it may come back.
pub const VOTERS_MIN: usize = 3;

/// What the node knows about who lives.
pub trait Liveness: Send + Sync + 'static {
    /// The judgement on one member. It may be asked about nodes it never heard of.
    fn judge(&self, id: NodeId) -> Judgement;

    /// The version that another member runs, or ran when it was last heard of. `None`: nobody
    /// heard of it.
    fn version(&self, id: NodeId) -> Option<Version>;
}

/// Whether a member lives, as far as this node can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It does.
    Alive,
    /// It does not, or it left for good.
    Dead,
    /// There is no evidence either way: nothing is done by it.
    Unknown,
}

/// A change of the membership that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Somebody's change, whose caller or leader went away after the first of its two steps.
    Finish,
    /// The learner gets a vote.
    Promote(NodeId),
    /// The learner gets the vote of the dead voter, who is a member no longer.
    Replace { dead: NodeId, by: NodeId },
    /// A dead learner has a successor, or has been dead for long; it is a member no longer.
    Forget(NodeId),
    /// The voter has been dead for long, and the others do without it.
    Remove(NodeId),
}

/// Runs until this node stops; acts only while it leads. Members that this leader saw dead for
/// `remove_after` are removed, if one is given.
pub(crate) async fn run(
    store: Store,
    liveness: Arc<dyn Liveness>,
    remove_after: Option<Duration>,
    mut shutdown: Shutdown,
) {
    let mut deaths = Deaths::default();
    let mut clock = interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = shutdown.requested() => return,
        }
        let status = store.status();
        let judge = |id| liveness.judge(id);
        deaths.note(&status, judge, Instant::now());
        let long_dead = remove_after.map(|after| deaths.since_before(after, Instant::now()));
        let Some(change) = plan(&status, &long_dead.unwrap_or_default(), judge) else {
            continue;
        };
        match apply(&store, change).await {
            Ok(()) => tracing::info!(?change, "changed the members"),
            // The next round begins from what is then the case.
            Err(error) => tracing::warn!(?change, %error, "could not change the members yet"),
        }
    }
}

async fn apply(store: &Store, change: Change) -> Result<(), MembershipError> {
    match change {
        Change::Finish => store.finish_change().await,
        Change::Promote(id) => store.promote(id).await,
        Change::Replace { dead, by } => store.replace_voter(dead, by).await,
        Change::Forget(id) | Change::Remove(id) => store.remove(id).await,
    }
}

/// The next change that is due, if any.
fn plan(
    status: &RaftStatus,
    long_dead: &BTreeSet<NodeId>,
    judge: impl Fn(NodeId) -> Judgement,
) -> Option<Change> {
    if status.role != Role::Leader || !status.quorum {
        return None;
    }
    if status.joint {
        return Some(Change::Finish);
    }
    let dead = |id: NodeId| id != status.id && judge(id) == Judgement::Dead;
    let forgotten = status.learners.iter().find(|learner| {
        let successor = |other: &store_raft::Member| {
            other.name == learner.name && other.id != learner.id && !dead(other.id)
        };
        dead(learner.id)
            && status
                .voters
                .iter()
                .chain(status.learners.iter())
                .any(successor)
    });
    if let Some(learner) = forgotten {
        return Some(Change::Forget(learner.id));
    }
    let caught_up = |id| caught_up(status, id) && judge(id) == Judgement::Alive;
    let mut ready = status
        .learners
        .iter()
        .filter(|learner| caught_up(learner.id));
    let vote = ready.find_map(|learner| {
        match status
            .voters
            .iter()
            .find(|voter| voter.name == learner.name)
        {
            Some(voter) if dead(voter.id) => Some(Change::Replace {
                dead: voter.id,
                by: learner.id,
            }),
            // Its namesake lives, or may: two nodes of one name would be one too many.
            Some(_) => None,
            None if status.voters.len() < VOTERS_MAX => Some(Change::Promote(learner.id)),
            None => None,
        }
    });
    vote.or_else(|| bury(status, long_dead, dead))
}

/// The removal of a member that has been dead for long.
fn bury(
    status: &RaftStatus,
    long_dead: &BTreeSet<NodeId>,
    dead: impl Fn(NodeId) -> bool,
) -> Option<Change> {
    // Gossip may err about one that answers Raft.
    let gone = |id: NodeId| long_dead.contains(&id) && dead(id) && !answers(status, id);
    if let Some(learner) = status.learners.iter().find(|learner| gone(learner.id)) {
        return Some(Change::Forget(learner.id));
    }
    let voter = status.voters.iter().find(|voter| gone(voter.id))?;
    let remain = || status.voters.iter().filter(|other| other.id != voter.id);
    let living = remain().filter(|other| answers(status, other.id)).count();
    let count = remain().count();
    (count >= VOTERS_MIN && living > count / 2).then_some(Change::Remove(voter.id))
}

/// Whether the member takes part in Raft now: this node, which leads, or one that answers it.
pub(crate) fn answers(status: &RaftStatus, id: NodeId) -> bool {
    id == status.id || status.answering.contains(&id)
}

/// Whether a learner could vote at once. That takes evidence that it was reached at all: a vote of
/// a node that does not answer can cost the mesh its quorum, and with it the way back.
pub(crate) fn caught_up(status: &RaftStatus, id: NodeId) -> bool {
    let matched = status.matched.iter().find(|(member, _)| *member == id);
    let near = matched.is_some_and(|(_, index)| *index > 0 && index + LAG_MAX >= status.last_log);
    near && status.answering.contains(&id)
}

#[cfg(test)]
mod tests;
