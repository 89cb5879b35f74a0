//! Proposals of this node on their way to the leader, many in one message.
//!
//! Owns the stream to each leader, what waits for its next message, and the certainty about what
//! was sent: what still waits when its caller gives up, or when the stream ends, was surely never
//! proposed; what was sent may have been. Never retries by itself.
//!
//! One call of its own for each proposal would cost both ends more than the proposal does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream;
use prost::Message;
use store_api::skeinpb as pb;
use store_api::skeinpb::forward_client::ForwardClient;
use store_api::verdict::{Proposed, never_sent};
use store_raft::{PROPOSALS_MAX, RaftStatus};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::limits::{RELAY_MESSAGE_BYTES, RELAY_MESSAGE_PROPOSALS};

/// Why a relayed proposal has no answer.
#[derive(Debug, Clone)]
pub(crate) enum RelayError {
    /// Surely never sent, or refused unread.
    NotSent,
    /// More wait already than the leader takes. Surely never sent.
    Full,
    /// Sent, and then the connection was lost: perhaps proposed.
    Lost,
    /// Sent, and not answered in time: perhaps proposed.
    Late,
}

/// A stream of proposals to one node. Clones feed the same stream.
#[derive(Clone)]
pub(crate) struct Relay {
    queue: mpsc::Sender<Waiting>,
}

/// A proposal that is not sent yet.
struct Waiting {
    proposal: pb::Proposal,
    /// Set by whoever comes first: the sender, or the caller who gives up.
    claimed: Arc<AtomicBool>,
    answer: oneshot::Sender<Option<pb::ProposeReply>>,
}

/// Those that were sent and wait for their answers, by their numbers. An answer of `None` means
/// that the other side surely did nothing.
type Sent = Arc<Mutex<HashMap<u64, oneshot::Sender<Option<pb::ProposeReply>>>>>;

impl Relay {
    /// Opens a stream to `peer_addr`, which lives while that node leads, as far as `status` tells.
    /// `call` brings the metadata.
    pub(crate) fn open(
        peer_addr: String,
        mut client: ForwardClient<Channel>,
        status: watch::Receiver<RaftStatus>,
        call: Request<()>,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(PROPOSALS_MAX);
        let sent = Sent::default();
        let outgoing = Outgoing {
            peer_addr,
            status,
            waiting,
            sent: sent.clone(),
            numbered: 0,
        };
        let (metadata, extensions, ()) = call.into_parts();
        tokio::spawn(async move {
            let messages = Box::pin(stream::unfold(outgoing, Outgoing::next));
            let request = Request::from_parts(metadata, extensions, messages);
            if let Err(status) = deliver(&mut client, request, &sent).await {
                tracing::debug!(%status, "a stream of proposals to the leader ended");
                if refused_unread(&status) {
                    for (_, answer) in lock(&sent).drain() {
                        let _ = answer.send(None);
                    }
                }
            }
            // The others learn that they are lost as their senders go.
            lock(&sent).clear();
        });
        Self { queue }
    }

    /// Whether the stream has ended: then another must be opened.
    pub(crate) fn has_ended(&self) -> bool {
        self.queue.is_closed()
    }

    /// Sends a proposal and waits for its answer.
    pub(crate) async fn propose(
        &self,
        proposal: pb::Proposal,
        deadline: Instant,
    ) -> Result<pb::ProposeReply, RelayError> {
        let (answer, answered) = oneshot::channel();
        let claimed = Arc::new(AtomicBool::new(false));
        let waiting = Waiting {
            proposal,
            claimed: claimed.clone(),
            answer,
        };
        self.queue.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => RelayError::Full,
            mpsc::error::TrySendError::Closed(_) => RelayError::NotSent,
        })?;
        // Also takes the proposal back when the caller drops this future.
        let withdraw = Withdraw(claimed);
        match timeout_at(deadline, answered).await {
            Ok(Ok(Some(reply))) => Ok(reply),
            Ok(Ok(None)) => Err(RelayError::NotSent),
            Ok(Err(_)) | Err(_) if withdraw.now() => Err(RelayError::NotSent),
            Ok(Err(_)) => Err(RelayError::Lost),
            Err(_) => Err(RelayError::Late),
        }
    }
}

/// Takes a proposal back, if it was not sent yet.
struct Withdraw(Arc<AtomicBool>);

impl Withdraw {
    /// Whether the proposal is now certain never to be sent.
    fn now(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        self.now();
    }
}

/// What makes a stream's messages.
struct Outgoing {
    peer_addr: String,
    status: watch::Receiver<RaftStatus>,
    waiting: mpsc::Receiver<Waiting>,
    sent: Sent,
    numbered: u64,
}

impl Outgoing {
    /// The next message: all that waits, and fits. `None` when the node leads no longer, or when
    /// nobody can ask any more; what waits then goes back unsent.
    async fn next(mut self) -> Option<(pb::ProposeManyRequest, Self)> {
        loop {
            let Self {
                peer_addr,
                status,
                waiting,
                ..
            } = &mut self;
            let first = tokio::select! {
                biased;
                first = waiting.recv() => first?,
                _ = status.wait_for(|now| !leads(now, peer_addr)) => return None,
            };
            // Whoever is about to propose gets into the same message.
            tokio::task::yield_now().await;
            let message = self.gather(first);
            if !message.proposals.is_empty() {
                return Some((message, self));
            }
        }
    }

    fn gather(&mut self, first: Waiting) -> pb::ProposeManyRequest {
        let mut message = pb::ProposeManyRequest::default();
        let mut bytes = 0;
        let mut candidate = Some(first);
        while let Some(waiting) = candidate {
            // Claimed already: its caller gave up.
            if !waiting.claimed.swap(true, Ordering::AcqRel) {
                bytes += waiting.proposal.encoded_len();
                self.numbered += 1;
                lock(&self.sent).insert(self.numbered, waiting.answer);
                message.proposals.push(pb::NumberedProposal {
                    number: self.numbered,
                    proposal: Some(waiting.proposal),
                });
            }
            let full =
                bytes >= RELAY_MESSAGE_BYTES || message.proposals.len() >= RELAY_MESSAGE_PROPOSALS;
            candidate = if full {
                None
            } else {
                self.waiting.try_recv().ok()
            };
        }
        message
    }
}

fn leads(status: &RaftStatus, peer_addr: &str) -> bool {
    let leader = status.leader.as_ref();
    leader.is_some_and(|leader| leader.peer_addr == peer_addr)
}

/// Runs the call, handing out the answers, until one side ends it.
async fn deliver<S>(
    client: &mut ForwardClient<Channel>,
    request: Request<S>,
    sent: &Sent,
) -> Result<(), Status>
where
    S: futures_util::Stream<Item = pb::ProposeManyRequest> + Send + 'static,
{
    let mut answers = client.propose_many(request).await?.into_inner();
    while let Some(message) = answers.message().await? {
        let mut sent = lock(sent);
        for numbered in message.replies {
            // Nobody waits for what was answered late.
            if let Some(answer) = sent.remove(&numbered.number) {
                let _ = answer.send(Some(numbered.reply.unwrap_or_default()));
            }
        }
    }
    Ok(())
}

/// Whether the whole call came to nothing, so that none of its proposals was read.
fn refused_unread(status: &Status) -> bool {
    never_sent(status) || Proposed::of(status) == Some(Proposed::No)
}

fn lock(sent: &Sent) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Option<pb::ProposeReply>>>> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
