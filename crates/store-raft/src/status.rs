//! What a store tells about itself: role, leader, members, progress, faults.
//!
//! Owns the translation from openraft's metrics. Never decides anything by it.

use std::sync::Arc;
use std::time::Duration;

use model::{MeshId, NodeId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::{SerdeInstantOf, WatchReceiverOf};
use openraft::{Instant, RaftMetrics, ServerState};
use tokio::sync::watch;

use crate::addresses::Addresses;
use crate::counters::Counting;
use crate::mesh::MeshSeat;
use crate::pulse::Pulse;
use crate::recovery::{Recovery, Source};
use crate::types::{LeaderId, MemberInfo, StoredMembership, Types};

/// A node of the mesh, as the membership records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Minted with its data directory.
    pub id: NodeId,
    /// The word by which people call it.
    pub name: String,
    /// `HOST:PORT` of its peer port.
    pub peer_addr: String,
    /// `HOST:PORT` of its client port.
    pub client_addr: String,
}

/// Who leads, and where to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The leader.
    pub id: NodeId,
    /// `HOST:PORT` of its peer port.
    pub peer_addr: String,
}

/// What a node is to Raft at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Proposes and replicates.
    Leader,
    /// Votes, and follows a leader or waits for one.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote; also a node that is no member yet.
    Learner,
    /// Stopped: asked to, or by a fault (see [`RaftStatus::fatal`]).
    Stopped,
}

/// The state of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// This node.
    pub id: NodeId,
    /// The mesh, once the node belongs to one.
    pub mesh_id: Option<MeshId>,
    /// This node's role.
    pub role: Role,
    /// The leader, if one was heard of within the last election timeout.
    pub leader: Option<Leader>,
    /// Whether writes can be expected to work: a leader is heard of, or this one hears a quorum.
    pub quorum: bool,
    /// The current term.
    pub term: u64,
    /// The last entry in the log; 0 for none.
    pub last_log: u64,
    /// The last entry known to be committed; 0 for none.
    pub committed: u64,
    /// The last entry applied to the image; 0 for none.
    pub applied: u64,
    /// The last entry that the newest snapshot holds; 0 for none.
    pub snapshot: u64,
    /// The last entry that was dropped from the log, being in a snapshot; 0 for none.
    pub purged: u64,
    /// Who votes, by id.
    pub voters: Arc<[Member]>,
    /// Whether a change of members is between its two steps: `voters` are then the old ones and
    /// the new together, and a quorum of each is needed.
    pub joint: bool,
    /// Who only follows, by id.
    pub learners: Arc<[Member]>,
    /// On the leader: up to which entry each other member's log is known to match; else empty.
    pub matched: Vec<(NodeId, u64)>,
    /// On the leader: which other members answered it within the last lease; else empty.
    pub answering: Vec<NodeId>,
    /// Why the store stopped, if a fault stopped it.
    pub fatal: Option<String>,
    /// Where the state came from at the start, and what was found damaged.
    pub recovery: Recovery,
}

impl RaftStatus {
    /// What can be said of the store of node `id` while it is not open: nothing but whose it is.
    pub fn not_open(id: NodeId, mesh_id: Option<MeshId>) -> Self {
        Self {
            id,
            mesh_id,
            role: Role::Stopped,
            leader: None,
            quorum: false,
            term: 0,
            last_log: 0,
            committed: 0,
            applied: 0,
            snapshot: 0,
            purged: 0,
            voters: Arc::default(),
            joint: false,
            learners: Arc::default(),
            matched: Vec::new(),
            answering: Vec::new(),
            fatal: None,
            recovery: Recovery {
                source: Source::Nothing,
                index: 0,
                damage: Vec::new(),
            },
        }
    }

    /// Voters, then learners.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.voters.iter().chain(self.learners.iter())
    }

    /// The voter or learner `id`.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members().find(|member| member.id == id)
    }

    /// Whether this node is a member of a mesh, voting or not.
    pub fn is_member(&self) -> bool {
        self.member(self.id).is_some()
    }

    /// Takes over how far the log is.
    pub(crate) fn progress(&mut self, metrics: &RaftMetrics<Types>) {
        let index = |id: &Option<crate::types::LogId>| id.map_or(0, |id| id.index);
        let matched = metrics.replication.iter().flatten();
        let matched = matched.filter(|(id, _)| **id != metrics.id);
        self.last_log = metrics.last_log_index.unwrap_or(0);
        self.committed = index(&metrics.local_committed);
        self.applied = index(&metrics.last_applied);
        self.snapshot = index(&metrics.snapshot);
        self.purged = index(&metrics.purged);
        self.matched = matched.map(|(id, log_id)| (*id, index(log_id))).collect();
    }

    /// Whether all is as in `last` but how far the log is written, known and applied.
    fn differs_in_progress_alone(&self, last: &Self) -> bool {
        let Self {
            id,
            mesh_id,
            role,
            leader,
            quorum,
            term,
            last_log,
            committed: _,
            applied: _,
            snapshot: _,
            purged: _,
            voters,
            joint,
            learners,
            matched: _,
            answering,
            fatal,
            recovery,
        } = last;
        (self.id, self.mesh_id, self.role, self.quorum, self.term)
            == (*id, *mesh_id, *role, *quorum, *term)
            && (self.last_log == 0) == (*last_log == 0)
            && self.joint == *joint
            && self.leader == *leader
            && self.voters == *voters
            && self.learners == *learners
            && self.answering == *answering
            && self.fatal == *fatal
            && self.recovery == *recovery
    }
}

/// How often what depends on time alone (is the leader still heard of?) is looked at.
const REFRESH: Duration = Duration::from_millis(200);
/// How late at most a change is told that is not one of role, term, leader or members. Every write is
/// one, and each telling wakes a task for little.
const LATEST: Duration = Duration::from_millis(20);

/// Keeps a [`RaftStatus`] up to date.
pub(crate) struct StatusTask {
    pub(crate) seat: Arc<MeshSeat>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) recovery: Recovery,
    /// How long a silent leader counts as one.
    pub(crate) lease: Duration,
    pub(crate) metrics: WatchReceiverOf<Types, RaftMetrics<Types>>,
    /// Of the metrics what a write does not change.
    pub(crate) server: WatchReceiverOf<Types, RaftServerMetrics<Types>>,
    pub(crate) status: watch::Sender<RaftStatus>,
    pub(crate) counting: Arc<Counting>,
    /// Whom the last status with a leader named.
    pub(crate) led_by: Option<NodeId>,
    /// The membership that the last status shows.
    pub(crate) shown: Option<Arc<StoredMembership>>,
}

impl StatusTask {
    /// The status before the first change.
    pub(crate) fn initial(seat: &MeshSeat, recovery: Recovery) -> RaftStatus {
        RaftStatus {
            role: Role::Learner,
            recovery,
            ..RaftStatus::not_open(seat.node(), seat.mesh())
        }
    }

    /// Runs until openraft's core is gone, and tells that too.
    pub(crate) async fn run(mut self) {
        while self.changed().await {
            self.publish();
        }
        self.publish();
        self.status.send_modify(|status| {
            status.role = Role::Stopped;
            status.leader = None;
            status.quorum = false;
        });
    }

    /// Waits until there is something to look at; whether openraft's core lives.
    async fn changed(&mut self) -> bool {
        let progress = async {
            let changed = self.metrics.changed().await;
            tokio::time::sleep(LATEST).await;
            changed.is_ok()
        };
        tokio::select! {
            changed = self.server.changed() => changed.is_ok(),
            lives = progress => lives,
            () = tokio::time::sleep(REFRESH) => true,
        }
    }

    fn publish(&mut self) {
        let metrics = self.metrics.borrow_and_update().clone();
        let membership = &metrics.membership_config;
        let same = self
            .shown
            .as_ref()
            .is_some_and(|shown| Arc::ptr_eq(shown, membership));
        self.shown = Some(membership.clone());
        let leader = metrics.current_leader.or(self.led_by);
        if leader != self.led_by {
            self.led_by = leader;
            self.counting.leader_changed();
        }
        if !same {
            let recorded = membership.nodes();
            let recorded = recorded.map(|(id, info)| (*id, info.peer_addr.clone()));
            self.addresses.record(recorded.collect());
        }
        self.status.send_if_modified(|status| {
            let mut next = self.translate(&metrics, status);
            if !same {
                (next.voters, next.learners) = members(&metrics.membership_config);
            }
            let told = !next.differs_in_progress_alone(status);
            *status = next;
            told
        });
    }

    fn translate(&self, metrics: &RaftMetrics<Types>, last: &RaftStatus) -> RaftStatus {
        let role = match (&metrics.running_state, metrics.state) {
            (Err(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
            (_, ServerState::Leader) => Role::Leader,
            (_, ServerState::Candidate) => Role::Candidate,
            (_, ServerState::Follower) => Role::Follower,
            (_, ServerState::Learner) => Role::Learner,
        };
        let membership = &metrics.membership_config;
        let quorum = match role {
            Role::Leader => self.leads_a_quorum(metrics),
            Role::Follower | Role::Learner => self.hears_the_leader(metrics),
            Role::Candidate | Role::Stopped => false,
        };
        let heard = quorum || role == Role::Leader;
        let leader = metrics.current_leader.filter(|_| heard).and_then(|id| {
            let info = membership.get_node(&id)?;
            let told = self.addresses.of(id);
            Some(Leader {
                id,
                peer_addr: told.unwrap_or_else(|| info.peer_addr.clone()),
            })
        });
        let answers = metrics.heartbeat.iter().flatten();
        let answering = answers.filter(|(id, answered)| {
            let recent = |at: &SerdeInstantOf<Types>| at.elapsed() < self.lease;
            **id != metrics.id && answered.as_ref().is_some_and(recent)
        });
        let mut status = RaftStatus {
            id: metrics.id,
            mesh_id: self.seat.mesh(),
            role,
            leader,
            quorum,
            term: metrics.current_term,
            voters: last.voters.clone(),
            joint: membership.membership().get_joint_config().len() > 1,
            learners: last.learners.clone(),
            answering: answering.map(|(id, _)| *id).collect(),
            fatal: fatal(metrics).or_else(|| last.fatal.clone()),
            recovery: self.recovery.clone(),
            ..RaftStatus::not_open(metrics.id, None)
        };
        status.progress(metrics);
        status
    }

    fn hears_the_leader(&self, metrics: &RaftMetrics<Types>) -> bool {
        let term = metrics.current_term;
        let leader = metrics.current_leader;
        let silence = leader.and_then(|node_id| self.pulse.silence(LeaderId { term, node_id }));
        silence.is_some_and(|silence| silence < self.lease)
    }

    fn leads_a_quorum(&self, metrics: &RaftMetrics<Types>) -> bool {
        let alone = metrics.membership_config.voter_ids().count() <= 1;
        let acked = metrics.last_quorum_acked.as_ref();
        alone || acked.is_some_and(|acked| acked.elapsed() < self.lease)
    }
}

fn fatal(metrics: &RaftMetrics<Types>) -> Option<String> {
    match metrics.running_state.as_ref().err()? {
        openraft::errors::Fatal::Stopped => None,
        fault => Some(fault.to_string()),
    }
}

/// Voters and learners, by id.
pub(crate) fn members(membership: &StoredMembership) -> (Arc<[Member]>, Arc<[Member]>) {
    let voters: Vec<NodeId> = membership.voter_ids().collect();
    let all = membership.nodes().map(|(id, info)| member(*id, info));
    let (voters, learners): (Vec<_>, Vec<_>) = all.partition(|it| voters.contains(&it.id));
    (voters.into(), learners.into())
}

fn member(id: NodeId, info: &MemberInfo) -> Member {
    Member {
        id,
        name: info.name.clone(),
        peer_addr: info.peer_addr.clone(),
        client_addr: info.client_addr.clone(),
    }
}
