//! Proposals become few log entries.
//!
//! Owns the bounded queue and the certainty about what was not proposed: a caller whose proposal
//! was still queued when it gave up knows that it never will be. Never answers before the outcome
//! is applied and visible in the published image.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::Version;
use openraft::error::{ClientWriteError, Fatal};
use openraft::raft::ClientWriteResult;
use prost::Message;
use store_api::skeinpb as pb;
use store_mvcc::{Outcome, Proposal};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::Raft;
use crate::convert;
use crate::counters::Counting;
use crate::soundness::Soundness;
use crate::status::{Leader, RaftStatus, Role};
use crate::types::{EncodedBatch, Reply, Types};

/// Proposals that wait or are under way. At the limit new ones are refused as
/// [`ProposeError::Overloaded`], like etcd's limit on unapplied entries.
pub const PROPOSALS_MAX: usize = 5_000;

/// The largest proposal, encoded: more than any limit that a server sets to requests.
/// Larger ones are refused as [`Unfit::TooLarge`].
pub const PROPOSAL_BYTES_MAX: usize = 9 * 1024 * 1024;

/// An entry takes further proposals until it holds so many bytes or so many proposals.
const ENTRY_BYTES: usize = 1024 * 1024;
const ENTRY_PROPOSALS: usize = 1_024;

/// Entries under way. While so many are, proposals gather for the next, which makes it larger: two
/// keep disk and network busy, and more would only make entries smaller.
const ENTRIES_IN_FLIGHT: usize = 2;

/// Why there is no outcome. Every case but the last but one is certain that nothing was proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or none. Nothing was proposed: ask the leader.
    #[error("this node does not lead; send the request to the leader")]
    NotLeader {
        /// Who does, if known.
        leader: Option<Leader>,
    },
    /// The queue is full. Nothing was proposed: try again later.
    #[error("{PROPOSALS_MAX} requests are waiting already; try again later")]
    Overloaded,
    /// This node leads but was not answered by a quorum of late. Nothing was proposed: wait a
    /// little, for the others may only be slow, or about to elect another.
    #[error("this leader hears no quorum; try again, or see which members are down")]
    NoQuorum,
    /// Nothing was proposed, and no node ever will: the command itself is at fault.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Nothing was proposed, and never will be.
    #[error("{0}")]
    NotProposed(String),
    /// The proposal may be applied, now or later.
    #[error("{0}; the outcome is unknown, read before you try again")]
    OutcomeUnknown(String),
    /// The store has stopped. Nothing was proposed.
    #[error("the store has stopped; ask another node")]
    Stopped,
}

/// Why a command can be proposed nowhere and never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It has so many bytes, encoded.
    #[error("the request has {0} bytes; send at most {PROPOSAL_BYTES_MAX}")]
    TooLarge(usize),
    /// Its transactions are nested deeper than can be read back.
    #[error("the transaction nests too deep; flatten it")]
    TooDeep,
}

/// Whether a proposal can be made at all, by whichever node leads.
///
/// # Errors
/// [`Unfit`] says why not.
pub fn check_fit(proposal: &Proposal) -> Result<(), Unfit> {
    encode(proposal).map(drop)
}

/// The proposal as it is logged, and its size.
fn encode(proposal: &Proposal) -> Result<(pb::Proposal, usize), Unfit> {
    if !convert::is_shallow(&proposal.command) {
        return Err(Unfit::TooDeep);
    }
    let encoded = convert::proposal_to_pb(proposal);
    let size = encoded.encoded_len();
    if size > PROPOSAL_BYTES_MAX {
        return Err(Unfit::TooLarge(size));
    }
    Ok((encoded, size))
}

/// A proposal in the queue.
struct Queued {
    encoded: pb::Proposal,
    size: usize,
    /// The version that added its command.
    since: Version,
    /// Set by whoever comes first: the proposer, or the caller who gives up.
    claimed: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<Outcome, ProposeError>>,
}

/// The queue's entrance.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Queued>,
    places: Arc<Semaphore>,
    status: watch::Receiver<RaftStatus>,
    soundness: watch::Receiver<Soundness>,
    counting: Arc<Counting>,
    deadline: Duration,
}

impl Proposer {
    /// A queue, and the task that empties it.
    pub(crate) fn new(
        raft: Raft,
        status: watch::Receiver<RaftStatus>,
        soundness: watch::Receiver<Soundness>,
        counting: Arc<Counting>,
        deadline: Duration,
    ) -> (Self, ProposerTask) {
        let (queue, queued) = mpsc::channel(PROPOSALS_MAX);
        let places = Arc::new(Semaphore::new(PROPOSALS_MAX));
        let task = ProposerTask {
            raft,
            status: status.clone(),
            counting: counting.clone(),
            queued,
            next: None,
            in_flight: Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT)),
        };
        (
            Self {
                queue,
                places,
                status,
                soundness,
                counting,
                deadline,
            },
            task,
        )
    }

    /// How many proposals wait or are under way.
    pub(crate) fn pending(&self) -> usize {
        PROPOSALS_MAX - self.places.available_permits()
    }

    /// Proposes, and waits until the outcome is in the published image.
    pub(crate) async fn propose(&self, proposal: &Proposal) -> Result<Outcome, ProposeError> {
        let result = self.run(proposal).await;
        result.inspect_err(|_| self.counting.failed())
    }

    async fn run(&self, proposal: &Proposal) -> Result<Outcome, ProposeError> {
        self.check_leading()?;
        let (encoded, size) = encode(proposal)?;
        // Held until the answer: proposals under way count, too.
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| ProposeError::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let claimed = Arc::new(AtomicBool::new(false));
        let queued = Queued {
            encoded,
            size,
            since: proposal.command.since(),
            claimed: claimed.clone(),
            answer,
        };
        self.queue.try_send(queued).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopped,
        })?;
        // Also withdraws the proposal when the caller drops this future.
        let withdraw = Withdraw(claimed);
        match tokio::time::timeout(self.deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) if withdraw.now() => Err(ProposeError::Stopped),
            Ok(Err(_)) => Err(unknown("the store stopped")),
            Err(_) if withdraw.now() => Err(ProposeError::NotProposed(format!(
                "the request waited {:?} in vain; try again later",
                self.deadline
            ))),
            Err(_) => Err(unknown("no quorum answered in time")),
        }
    }

    fn check_leading(&self) -> Result<(), ProposeError> {
        let status = self.status.borrow();
        match status.role {
            // What a damaged state answers is worth nothing; somebody else is about to lead.
            Role::Leader if self.soundness.borrow().damage.is_some() => {
                Err(ProposeError::NotLeader { leader: None })
            }
            Role::Leader => Ok(()),
            Role::Stopped => Err(ProposeError::Stopped),
            Role::Follower | Role::Candidate | Role::Learner => Err(ProposeError::NotLeader {
                leader: status.leader.clone(),
            }),
        }
    }
}

fn unknown(reason: &str) -> ProposeError {
    ProposeError::OutcomeUnknown(reason.to_owned())
}

/// Takes a proposal back, if the proposer has not taken it yet.
struct Withdraw(Arc<AtomicBool>);

impl Withdraw {
    /// Whether the proposal is now certain never to be proposed.
    fn now(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        self.now();
    }
}

type Waiter = oneshot::Sender<Result<Outcome, ProposeError>>;

/// Empties the queue into entries.
pub(crate) struct ProposerTask {
    raft: Raft,
    status: watch::Receiver<RaftStatus>,
    counting: Arc<Counting>,
    queued: mpsc::Receiver<Queued>,
    /// The first of the next entry: it did not fit into the last.
    next: Option<Queued>,
    in_flight: Arc<Semaphore>,
}

impl ProposerTask {
    /// Runs until the queue is closed or Raft has stopped.
    pub(crate) async fn run(mut self) {
        loop {
            let place = self.in_flight.clone().acquire_owned().await;
            let place = place.expect("nobody closes the semaphore");
            let Some((batch, waiters)) = self.gather().await else {
                return;
            };
            if waiters.is_empty() {
                continue;
            }
            self.counting.entry(waiters.len());
            let batch = EncodedBatch(Bytes::from(batch.encode_to_vec()));
            let status = self.status.clone();
            let reply = Reply::new(move |result| {
                answer(result, waiters, &status);
                drop(place);
            });
            // On an error the reply is dropped, and with it the waiters, who then say "unknown".
            match self.raft.client_write_ff(batch, Some(reply)).await {
                Ok(()) => {}
                Err(Fatal::Stopped) => return,
                Err(fault) => {
                    tracing::error!(%fault, "raft ended; nothing is proposed here any more");
                    return;
                }
            }
        }
    }

    /// Waits for a proposal, then takes all that queued behind it and fits. `None`: closed.
    async fn gather(&mut self) -> Option<(pb::Batch, Vec<Waiter>)> {
        let mut candidate = match self.next.take() {
            Some(next) => Some(next),
            None => Some(self.queued.recv().await?),
        };
        let mut batch = pb::Batch::default();
        let mut waiters = Vec::new();
        let mut bytes = 0;
        let mut needs = Version::FIRST;
        while let Some(queued) = candidate {
            let full = bytes + queued.size > ENTRY_BYTES || waiters.len() == ENTRY_PROPOSALS;
            if full && !waiters.is_empty() {
                self.next = Some(queued);
                break;
            }
            // Claimed already: its caller gave up.
            if !queued.claimed.swap(true, Ordering::AcqRel) {
                bytes += queued.size;
                needs = needs.max(queued.since);
                batch.proposals.push(queued.encoded);
                waiters.push(queued.answer);
            }
            candidate = self.queued.try_recv().ok();
        }
        batch.needs = (needs > Version::FIRST).then(|| convert::version_to_pb(needs));
        Some((batch, waiters))
    }
}

/// Gives each waiter its part of the entry's result.
fn answer(
    result: ClientWriteResult<Types>,
    waiters: Vec<Waiter>,
    status: &watch::Receiver<RaftStatus>,
) {
    let failure = match result {
        Ok(response) => {
            for (waiter, outcome) in waiters.into_iter().zip(response.data) {
                let _ = waiter.send(Ok(outcome));
            }
            return;
        }
        Err(ClientWriteError::ForwardToLeader(forward)) => refused(&forward, status),
        Err(error @ ClientWriteError::LogEntryDiscarded(_)) => {
            ProposeError::OutcomeUnknown(error.to_string())
        }
        Err(
            error @ (ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_)),
        ) => ProposeError::NotProposed(error.to_string()),
    };
    for waiter in waiters {
        let _ = waiter.send(Err(failure.clone()));
    }
}

/// openraft refused the entry before it appended it.
fn refused(
    forward: &openraft::errors::ForwardToLeader<Types>,
    status: &watch::Receiver<RaftStatus>,
) -> ProposeError {
    if forward.reason == openraft::errors::ForwardReason::LeaseExpired {
        return ProposeError::NoQuorum;
    }
    let leader = forward.leader_id.zip(forward.leader_node.as_ref());
    let me = status.borrow().id;
    ProposeError::NotLeader {
        leader: leader.filter(|(id, _)| *id != me).map(|(id, info)| Leader {
            id,
            peer_addr: info.peer_addr.clone(),
        }),
    }
}
