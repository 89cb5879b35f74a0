//! Changes of who is a member and who leads.
//!
//! Owns the requests and their errors. Every change goes through the log (joint consensus, Raft
//! dissertation 4.3), so it commits only with quorums of both the old voters and the new. Never
//! decides when a change is wise: that is the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{MeshId, NodeId};
use openraft::ChangeMembers;
use openraft::Precondition;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};
use openraft::errors::ForwardToLeader;
use tokio::time::Instant;

use crate::Store;
use crate::status::{Leader, Member};
use crate::types::{MemberInfo, Types};

/// Between two looks at whether another change of members has ended.
const RETRY: Duration = Duration::from_millis(50);

/// Why membership or leadership did not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Another node leads, or none. Nothing changed: ask the leader.
    #[error("this node does not lead; ask the leader")]
    NotLeader {
        /// Who does, if known.
        leader: Option<Leader>,
    },
    /// The mesh exists already: this node is in it, or belongs to another. Nothing changed.
    #[error("{0}")]
    AlreadyFormed(String),
    /// The change makes no sense as asked, or another is under way. Nothing changed.
    #[error("{0}")]
    Refused(String),
    /// No quorum answered in time. The change may still happen.
    #[error("{0} did not finish in time; see which members are down, then look at the members")]
    TimedOut(&'static str),
    /// The store has stopped.
    #[error("the store has stopped; ask another node")]
    Stopped,
}

impl Store {
    /// Forms a mesh of `members`, this node among them, as voters.
    ///
    /// Every one of the members may do this, with the same members and the same mesh id: they end
    /// in the same mesh. The mesh id is saved before.
    ///
    /// # Errors
    /// [`MembershipError::AlreadyFormed`] if this node has a log or a mesh already.
    pub async fn initialize(
        &self,
        members: Vec<Member>,
        mesh_id: MeshId,
    ) -> Result<(), MembershipError> {
        let adopted = self.seat().adopt(mesh_id);
        adopted.map_err(|error| MembershipError::AlreadyFormed(error.to_string()))?;
        let nodes: BTreeMap<NodeId, MemberInfo> = members
            .into_iter()
            .map(|member| (member.id, info(member, mesh_id)))
            .collect();
        match self.raft().initialize(nodes).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(error))) => {
                Err(MembershipError::AlreadyFormed(error.to_string()))
            }
            Err(RaftError::APIError(InitializeError::NotInMembers(error))) => {
                Err(MembershipError::Refused(error.to_string()))
            }
            Err(RaftError::Fatal(_)) => Err(MembershipError::Stopped),
        }
    }

    /// Adds a member that follows without a vote. Returns when the change is committed; the learner
    /// may still be catching up (see [`RaftStatus::matched`](crate::RaftStatus::matched)). What is
    /// recorded of one that is a member already stays.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn add_learner(&self, member: Member) -> Result<(), MembershipError> {
        let mesh_id = self.own_mesh()?;
        let (id, info) = (member.id, info(member, mesh_id));
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, info)])))
            .await
    }

    /// Changes the name and the addresses that are recorded of a member, voting or not. No vote
    /// moves by that, so it is one entry of the log.
    ///
    /// # Errors
    /// [`MembershipError`]; refused if it is no member, lest one that is removed meanwhile came back.
    pub async fn update_member(&self, member: Member) -> Result<(), MembershipError> {
        let mesh_id = self.own_mesh()?;
        let (id, info) = (member.id, info(member, mesh_id));
        let until = Instant::now() + self.deadline();
        loop {
            let known = self.raft().metrics().borrow_watched().clone();
            let known = known.membership_config;
            if known.get_node(&id).is_none() {
                return Err(MembershipError::Refused(format!("{id} is no member")));
            }
            // openraft would add a node that is not there any more.
            let unchanged = Precondition::LastMembershipLogId {
                last_membership_log_id: *known.log_id(),
            };
            let nodes = ChangeMembers::SetNodes(BTreeMap::from([(id, info.clone())]));
            let attempt = self.raft().change_membership_if(nodes, false, [unchanged]);
            let late = |_| MembershipError::TimedOut("the change of a member");
            let error = match tokio::time::timeout_at(until, attempt)
                .await
                .map_err(late)?
            {
                Ok(_) => return Ok(()),
                Err(RaftError::APIError(error)) => error,
                Err(RaftError::Fatal(_)) => return Err(MembershipError::Stopped),
            };
            let moved_on = matches!(error, ClientWriteError::PreconditionFailed(_));
            if !(moved_on || under_way(&error)) || Instant::now() + RETRY > until {
                return Err(refusal(error));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn own_mesh(&self) -> Result<MeshId, MembershipError> {
        self.mesh_id()
            .ok_or(MembershipError::NotLeader { leader: None })
    }

    /// Gives a learner a vote. Wait until it has caught up, or commits wait for it.
    ///
    /// # Errors
    /// [`MembershipError`]; refused if it is no member.
    pub async fn promote(&self, id: NodeId) -> Result<(), MembershipError> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])))
            .await
    }

    /// Gives `new`, a learner, the vote of `old`, which is a member no longer: one change, so the
    /// number of votes never differs. Whatever else was changed before stays so.
    ///
    /// # Errors
    /// [`MembershipError`]; refused if `new` is no member or `old` no voter.
    pub async fn replace_voter(&self, old: NodeId, new: NodeId) -> Result<(), MembershipError> {
        if !self.status().voters.iter().any(|voter| voter.id == old) {
            return Err(MembershipError::Refused(format!("{old} does not vote")));
        }
        // What goes and what comes, and not who votes in the end: that set would be made from what
        // this node knew before, and undo what was changed meanwhile.
        self.change(ChangeMembers::Batch(vec![
            ChangeMembers::RemoveVoters(BTreeSet::from([old])),
            ChangeMembers::AddVoterIds(BTreeSet::from([new])),
        ]))
        .await
    }

    /// Takes the second step of a change of members whose first was its last: the leader died in
    /// between, or the caller gave up. Changes nothing otherwise than [`RaftStatus::joint`].
    ///
    /// # Errors
    /// [`MembershipError`].
    ///
    /// [`RaftStatus::joint`]: crate::RaftStatus::joint
    pub async fn finish_change(&self) -> Result<(), MembershipError> {
        // openraft's own second step.
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new()))
            .await
    }

    /// Removes a member, voting or not. A leader that removes itself hands over first.
    ///
    /// # Errors
    /// [`MembershipError`]; the last voter cannot be removed.
    pub async fn remove(&self, id: NodeId) -> Result<(), MembershipError> {
        let votes = self.status().voters.iter().any(|voter| voter.id == id);
        let ids = BTreeSet::from([id]);
        let change = if votes {
            ChangeMembers::RemoveVoters(ids)
        } else {
            ChangeMembers::RemoveNodes(ids)
        };
        self.change(change).await
    }

    /// Hands leadership to the node `asked` for, or to the voter whose log is longest. Returns when
    /// another leads, or at once if this node leads and was asked for.
    ///
    /// # Errors
    /// [`MembershipError`]; refused if nobody else votes.
    pub async fn transfer_leadership(&self, asked: Option<NodeId>) -> Result<(), MembershipError> {
        let status = self.status();
        let votes = |id: &NodeId| status.voters.iter().any(|voter| voter.id == *id);
        let best = status
            .matched
            .iter()
            .filter(|(id, _)| votes(id))
            // One that is dead may have all there is.
            .max_by_key(|(id, at)| (status.answering.contains(id), *at));
        let to = asked
            .or_else(|| best.map(|(id, _)| *id))
            .filter(|id| votes(id) && *id != status.id);
        if status.role != crate::Role::Leader {
            return Err(MembershipError::NotLeader {
                leader: status.leader,
            });
        }
        if asked == Some(status.id) {
            return Ok(());
        }
        let to = to.ok_or_else(|| {
            MembershipError::Refused("there is no such other voter to hand over to".to_owned())
        })?;
        let triggered = self.raft().trigger().transfer_leader(to).await;
        triggered.map_err(|_| MembershipError::Stopped)?;
        let mut status = self.status_watch();
        let moved = status.wait_for(|status| status.role != crate::Role::Leader);
        match tokio::time::timeout(self.deadline(), moved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MembershipError::Stopped),
            Err(_) => Err(MembershipError::TimedOut("the hand-over")),
        }
    }

    /// Changes the members. While another change is under way, waits for its end.
    async fn change(
        &self,
        change: ChangeMembers<NodeId, MemberInfo>,
    ) -> Result<(), MembershipError> {
        let until = Instant::now() + self.deadline();
        loop {
            let attempt = self.raft().change_membership(change.clone(), false);
            let late = |_| MembershipError::TimedOut("the change of members");
            let error = match tokio::time::timeout_at(until, attempt)
                .await
                .map_err(late)?
            {
                Ok(_) => return Ok(()),
                // The only condition is openraft's, for the second step: that nothing came after
                // the first. What came begins from the first's target, so this change is in force.
                Err(RaftError::APIError(ClientWriteError::PreconditionFailed(_))) => return Ok(()),
                Err(RaftError::APIError(error)) => error,
                Err(RaftError::Fatal(_)) => return Err(MembershipError::Stopped),
            };
            if !under_way(&error) || Instant::now() + RETRY > until {
                return Err(refusal(error));
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Whether another change of members has to end first.
fn under_way(error: &ClientWriteError<Types>) -> bool {
    matches!(
        error,
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))
    )
}

fn refusal(error: ClientWriteError<Types>) -> MembershipError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => MembershipError::NotLeader {
            leader: leader(forward),
        },
        ClientWriteError::LogEntryDiscarded(_) => {
            MembershipError::TimedOut("the change of members")
        }
        ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_) => {
            MembershipError::Refused(error.to_string())
        }
    }
}

fn info(member: Member, mesh_id: MeshId) -> MemberInfo {
    let Member {
        id: _,
        name,
        peer_addr,
        client_addr,
    } = member;
    MemberInfo {
        name,
        peer_addr,
        client_addr,
        mesh_id,
    }
}

fn leader(forward: ForwardToLeader<Types>) -> Option<Leader> {
    let info = forward.leader_node?;
    Some(Leader {
        id: forward.leader_id?,
        peer_addr: info.peer_addr,
    })
}
