//! Linearizable reads: one round of the leader serves all who wait.
//!
//! Owns the gathering of waiters. Uses ReadIndex (Raft dissertation, 6.4), never a lease: a round
//! that begins after a reader asked confirms leadership for that reader, whatever clocks do.

use std::sync::Arc;
use std::time::Duration;

use openraft::error::{LinearizableReadError, RaftError};
use openraft::{LinearizerOption, errors::ForwardToLeader};
use tokio::sync::{mpsc, oneshot, watch};

use crate::Raft;
use crate::counters::Counting;
use crate::soundness::Soundness;
use crate::status::{Leader, RaftStatus, Role};
use crate::types::Types;

/// Readers that wait for one round. At the limit new ones are refused as [`ReadError::Overloaded`].
pub const READERS_MAX: usize = 10_000;

/// Why a read cannot be linearizable now. Reads change nothing: all may be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another node leads, or none: ask the leader.
    #[error("this node does not lead; ask the leader")]
    NotLeader {
        /// Who does, if known.
        leader: Option<Leader>,
    },
    /// Leadership could not be confirmed, or this node could not catch up, in time.
    #[error("{0}; try again, or see which members are down")]
    TimedOut(String),
    /// Too many readers wait.
    #[error("{READERS_MAX} reads are waiting already; try again later")]
    Overloaded,
    /// The store has stopped.
    #[error("the store has stopped; ask another node")]
    Stopped,
}

type Waiter = oneshot::Sender<Result<u64, ReadError>>;

/// The readers' queue.
#[derive(Clone)]
pub(crate) struct Reads {
    queue: mpsc::Sender<Waiter>,
    status: watch::Receiver<RaftStatus>,
    soundness: watch::Receiver<Soundness>,
    applied: watch::Receiver<u64>,
    deadline: Duration,
}

impl Reads {
    /// A queue, and the task that runs rounds for it.
    pub(crate) fn new(
        raft: Raft,
        status: watch::Receiver<RaftStatus>,
        soundness: watch::Receiver<Soundness>,
        applied: watch::Receiver<u64>,
        counting: Arc<Counting>,
        deadline: Duration,
    ) -> (Self, Rounds) {
        let (queue, queued) = mpsc::channel(READERS_MAX);
        (
            Self {
                queue,
                status,
                soundness,
                applied,
                deadline,
            },
            Rounds {
                raft,
                queued,
                counting,
                deadline,
            },
        )
    }

    /// Confirms leadership; the answer is how far a reader must have applied.
    pub(crate) async fn index(&self) -> Result<u64, ReadError> {
        self.check_leading()?;
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(answer).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ReadError::Stopped,
        })?;
        match tokio::time::timeout(self.deadline, answered).await {
            Ok(answer) => answer.unwrap_or(Err(ReadError::Stopped)),
            Err(_) => Err(ReadError::TimedOut("no quorum answered".to_owned())),
        }
    }

    /// Waits until `index` is in the published image.
    pub(crate) async fn wait_applied(&self, index: u64) -> Result<(), ReadError> {
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied >= index);
        match tokio::time::timeout(self.deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => {
                let text = format!("this node lags: entry {index} is not applied here yet");
                Err(ReadError::TimedOut(text))
            }
        }
    }

    fn check_leading(&self) -> Result<(), ReadError> {
        let status = self.status.borrow();
        match status.role {
            Role::Leader if self.soundness.borrow().damage.is_some() => {
                Err(ReadError::NotLeader { leader: None })
            }
            Role::Leader => Ok(()),
            Role::Stopped => Err(ReadError::Stopped),
            Role::Follower | Role::Candidate | Role::Learner => Err(ReadError::NotLeader {
                leader: status.leader.clone(),
            }),
        }
    }
}

/// Runs one round after the other while readers wait.
pub(crate) struct Rounds {
    raft: Raft,
    queued: mpsc::Receiver<Waiter>,
    counting: Arc<Counting>,
    deadline: Duration,
}

impl Rounds {
    /// Runs until the queue is closed.
    pub(crate) async fn run(mut self) {
        let mut waiters = Vec::new();
        // Only those who asked before a round begins are served by it.
        while self.queued.recv_many(&mut waiters, READERS_MAX).await > 0 {
            self.counting.read_round(waiters.len());
            let result = self.round().await;
            for waiter in waiters.drain(..) {
                let _ = waiter.send(result.clone());
            }
        }
    }

    async fn round(&self) -> Result<u64, ReadError> {
        // No acknowledgement from before the round counts, and heartbeats go out at once.
        let option =
            LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(self.deadline);
        match self.raft.get_read_linearizer(option).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ReadError::NotLeader {
                    leader: leader(forward),
                })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadError::TimedOut("no quorum answered".to_owned()))
            }
            Err(RaftError::Fatal(_)) => Err(ReadError::Stopped),
        }
    }
}

fn leader(forward: ForwardToLeader<Types>) -> Option<Leader> {
    let info = forward.leader_node?;
    Some(Leader {
        id: forward.leader_id?,
        peer_addr: info.peer_addr,
    })
}
