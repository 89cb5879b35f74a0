//! Whether the leader still lives, as far as this node can tell.
//!
//! Owns the time of the leader's last call and the watch for its sudden death. A killed process is
//! seen at once: its connections are reset and its port refuses new ones. openraft alone would wait
//! for the lease and an election timeout. Never acts on silence alone: a host that vanished answers
//! nothing, and the lease decides.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::NodeId;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::Raft;
use crate::addresses::Addresses;
use crate::timings::Timings;
use crate::types::{LeaderId, VoteId};

/// When which leader was last heard of, by this process: what a disk tells of a leader is old.
pub(crate) struct Pulse {
    heard: Mutex<Option<(LeaderId, Instant)>>,
    broken: Notify,
    /// This node is no member any more: it stands for nothing.
    retired: AtomicBool,
    /// It is a member that must not lead now.
    benched: AtomicBool,
    /// Up to which entry the first leader that called had committed by then.
    first_commit: watch::Sender<Option<u64>>,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self {
            heard: Mutex::new(None),
            broken: Notify::new(),
            retired: AtomicBool::new(false),
            benched: AtomicBool::new(false),
            first_commit: watch::Sender::new(None),
        }
    }

    /// A leader told up to which entry it has committed. Only the first one's word is kept.
    pub(crate) fn heard_commit(&self, index: u64) {
        if self.first_commit.borrow().is_none() {
            self.first_commit.send_replace(Some(index));
        }
    }

    /// Up to which entry the first leader that this process heard had committed by then.
    pub(crate) fn first_commit(&self) -> watch::Receiver<Option<u64>> {
        self.first_commit.subscribe()
    }

    /// A leader called. The call of one that was succeeded meanwhile is no sign of life.
    pub(crate) fn beat(&self, leader: LeaderId) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.is_none_or(|(newest, _)| newest <= leader) {
            *heard = Some((leader, Instant::now()));
        }
    }

    /// A connection from the leader broke.
    pub(crate) fn connection_broke(&self) {
        self.broken.notify_one();
    }

    /// From now on this node takes over from nobody.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether this node is to take over from nobody, ever again.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Whether this node is to take over from nobody for now.
    pub(crate) fn bench(&self, benched: bool) {
        self.benched.store(benched, Ordering::Relaxed);
    }

    /// How long ago this leader called. `None` if it never did, or if another one did since.
    pub(crate) fn silence(&self, leader: LeaderId) -> Option<Duration> {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard
            .filter(|(newest, _)| *newest == leader)
            .map(|(_, at)| at.elapsed())
    }
}

/// A leader that this node follows.
struct Followed {
    vote: VoteId,
    peer_addr: String,
    /// How long ago it called.
    silence: Duration,
    /// Places in the line of those who may succeed: 0 goes first.
    place: u32,
}

/// Takes over from a leader whose process died.
pub(crate) struct Watch {
    pub(crate) me: NodeId,
    pub(crate) raft: Raft,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) timings: Timings,
}

impl Watch {
    /// Runs until its task is aborted.
    pub(crate) async fn run(self) {
        // Heartbeats that fail to come are a reason to look, three of them.
        let suspicious = self.timings.heartbeat * 3;
        loop {
            let broke = tokio::select! {
                () = self.pulse.broken.notified() => true,
                () = tokio::time::sleep(self.timings.heartbeat) => false,
            };
            if let Some(leader) = self.followed()
                && (broke || leader.silence >= suspicious)
                && self.is_dead(&leader.peer_addr).await
            {
                self.succeed(leader).await;
            }
        }
    }

    /// The leader, if this process heard it and is one of those who could take its place. A node
    /// that has just started finds an old leader on its disk, and must wait like everybody else.
    fn followed(&self) -> Option<Followed> {
        if self.pulse.is_retired() || self.pulse.benched.load(Ordering::Relaxed) {
            return None;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader.filter(|leader| *leader != self.me)?;
        let silence = self.pulse.silence(metrics.vote.leader_id);
        let silence = silence.filter(|_| metrics.vote.leader_id.node_id == leader)?;
        let membership = &metrics.membership_config;
        let mut heirs: BTreeSet<NodeId> = membership.voter_ids().collect();
        heirs.remove(&leader);
        let place = heirs.iter().position(|id| *id == self.me)?;
        let recorded = membership.get_node(&leader)?.peer_addr.clone();
        Some(Followed {
            vote: metrics.vote,
            peer_addr: self.addresses.of(leader).unwrap_or(recorded),
            silence,
            place: u32::try_from(place).unwrap_or(u32::MAX),
        })
    }

    /// Whether nothing listens where the leader did, on a host that answers.
    async fn is_dead(&self, peer_addr: &str) -> bool {
        let connect = TcpStream::connect(peer_addr);
        let connected = tokio::time::timeout(self.timings.heartbeat, connect).await;
        matches!(connected, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
    }

    /// Stands for election as if the dead leader had handed over: voters then do not wait for its
    /// lease. That is safe, because only ReadIndex reads rely on leadership, never a lease; and it
    /// is no worse than any election if the leader should live after all. One heir after the other,
    /// so that votes do not split.
    async fn succeed(&self, dead: Followed) {
        // More than a heartbeat's silence, too: one whose port only refuses us still leads.
        let turn =
            self.timings.heartbeat * 3 / 2 + self.timings.heartbeat.saturating_mul(dead.place);
        tokio::time::sleep(turn.saturating_sub(dead.silence)).await;
        let Some(now) = self.followed() else { return };
        let spoke = now.silence < turn;
        if spoke || now.vote != dead.vote || !self.is_dead(&dead.peer_addr).await {
            return;
        }
        tracing::info!(leader = %dead.vote.leader_id.node_id, "the leader's process is gone: standing for election");
        let request = TransferLeaderRequest::new(dead.vote, self.me, None);
        match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "not standing for election after all"),
            Err(fatal) => tracing::debug!(%fatal, "not standing for election: raft stopped"),
        }
        // Time for the election before looking again.
        tokio::time::sleep(self.timings.heartbeat).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_on_what_is_committed_stands() {
        let pulse = Pulse::new();
        assert_eq!(*pulse.first_commit().borrow(), None);
        pulse.heard_commit(7);
        pulse.heard_commit(9);
        assert_eq!(*pulse.first_commit().borrow(), Some(7));
    }

    const fn leader(term: u64, id: u64) -> LeaderId {
        LeaderId {
            term,
            node_id: NodeId(id),
        }
    }

    #[test]
    fn only_the_newest_leader_that_called_is_heard_of() {
        let pulse = Pulse::new();
        // As after a start, whatever the disk says.
        assert_eq!(pulse.silence(leader(3, 1)), None);
        pulse.beat(leader(3, 1));
        assert!(pulse.silence(leader(3, 1)).is_some());
        assert_eq!(pulse.silence(leader(4, 1)), None, "it never led term 4");
        pulse.beat(leader(4, 2));
        assert_eq!(pulse.silence(leader(3, 1)), None);
        // One that does not know yet goes on calling.
        pulse.beat(leader(3, 1));
        assert_eq!(pulse.silence(leader(3, 1)), None);
        assert!(pulse.silence(leader(4, 2)).is_some());
    }
}
