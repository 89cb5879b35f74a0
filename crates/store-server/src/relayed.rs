//! The leader's end of a stream of proposals from another node ([`crate::relay`]).
//!
//! Owns the gathering of answers: what is applied together is answered in one message. Never
//! decides anything about a proposal.

use std::future::Future;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{FutureExt, Stream, StreamExt};
use prost::Message;
use store_api::skeinpb as pb;
use store_raft::PROPOSALS_MAX;
use tonic::Status;

use crate::limits::RELAY_MESSAGE_BYTES;

/// Answers each proposal of `messages` by `answer`. Reads on only while fewer than the store's
/// queue holds are under way; ends when the messages have ended and all are answered.
pub(crate) fn answers<M, F>(
    messages: M,
    answer: impl Fn(pb::Proposal) -> F + Send + 'static,
) -> impl Stream<Item = Result<pb::ProposeManyReply, Status>> + Send + 'static
where
    M: Stream<Item = Result<pb::ProposeManyRequest, Status>> + Send + Unpin + 'static,
    F: Future<Output = pb::ProposeReply> + Send + 'static,
{
    let state = Relayed {
        messages: Some(messages),
        under_way: FuturesUnordered::new(),
        answer,
    };
    stream::unfold(state, async |mut state| {
        let replies = state.next().await?;
        Some((Ok(pb::ProposeManyReply { replies }), state))
    })
}

struct Relayed<M, A> {
    /// `None` once they have ended.
    messages: Option<M>,
    under_way: FuturesUnordered<BoxFuture<'static, pb::NumberedReply>>,
    answer: A,
}

impl<M, A, F> Relayed<M, A>
where
    M: Stream<Item = Result<pb::ProposeManyRequest, Status>> + Unpin,
    A: Fn(pb::Proposal) -> F,
    F: Future<Output = pb::ProposeReply> + Send + 'static,
{
    /// The answers of the next message; `None` at the end.
    async fn next(&mut self) -> Option<Vec<pb::NumberedReply>> {
        loop {
            let room = self.under_way.len() < PROPOSALS_MAX;
            tokio::select! {
                Some(first) = self.under_way.next(), if !self.under_way.is_empty() => {
                    return Some(self.gather(first));
                }
                message = read(&mut self.messages), if room && self.messages.is_some() => {
                    self.begin(message);
                }
                else => return None,
            }
        }
    }

    fn begin(&mut self, message: Option<pb::ProposeManyRequest>) {
        let Some(message) = message else {
            self.messages = None;
            return;
        };
        for numbered in message.proposals {
            let number = numbered.number;
            let reply = (self.answer)(numbered.proposal.unwrap_or_default());
            let reply = reply.map(move |reply| pb::NumberedReply {
                number,
                reply: Some(reply),
            });
            self.under_way.push(reply.boxed());
        }
    }

    /// `first`, and whatever else is ready.
    fn gather(&mut self, first: pb::NumberedReply) -> Vec<pb::NumberedReply> {
        let mut bytes = first.encoded_len();
        let mut replies = vec![first];
        while bytes < RELAY_MESSAGE_BYTES
            && let Some(Some(reply)) = self.under_way.next().now_or_never()
        {
            bytes += reply.encoded_len();
            replies.push(reply);
        }
        replies
    }
}

/// The next message; `None` when there is none any more, however that came.
async fn read<M>(messages: &mut Option<M>) -> Option<pb::ProposeManyRequest>
where
    M: Stream<Item = Result<pb::ProposeManyRequest, Status>> + Unpin,
{
    messages.as_mut()?.next().await?.ok()
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, watch};
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    fn message(numbers: impl IntoIterator<Item = u64>) -> Result<pb::ProposeManyRequest, Status> {
        let proposals = numbers.into_iter().map(|number| pb::NumberedProposal {
            number,
            proposal: None,
        });
        Ok(pb::ProposeManyRequest {
            proposals: proposals.collect(),
        })
    }

    fn numbers(reply: Option<Result<pb::ProposeManyReply, Status>>) -> Vec<u64> {
        let replies = reply.unwrap().unwrap().replies;
        let mut numbers: Vec<u64> = replies.iter().map(|reply| reply.number).collect();
        numbers.sort_unstable();
        numbers
    }

    #[tokio::test]
    async fn what_is_ready_together_is_answered_together_and_the_rest_later() {
        let (sender, messages) = mpsc::channel(4);
        let (open, gate) = watch::channel(false);
        let asked = std::sync::atomic::AtomicU64::new(0);
        // Every third proposal waits for the gate.
        let answer = move |_| {
            let late = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 3 == 2;
            let mut gate = gate.clone();
            async move {
                if late {
                    gate.wait_for(|open| *open).await.unwrap();
                }
                pb::ProposeReply::default()
            }
        };
        let mut replies = Box::pin(answers(ReceiverStream::new(messages), answer));
        sender.try_send(message(1..=6)).unwrap();
        assert_eq!(numbers(replies.next().await), [1, 2, 4, 5]);
        drop(sender);
        open.send(true).unwrap();
        assert_eq!(numbers(replies.next().await), [3, 6]);
        assert!(replies.next().await.is_none());
    }

    #[tokio::test]
    async fn nothing_more_is_read_while_too_many_are_under_way() {
        let (sender, messages) = mpsc::channel(4);
        let (open, gate) = watch::channel(false);
        let answer = move |_| {
            let mut gate = gate.clone();
            async move {
                gate.wait_for(|open| *open).await.unwrap();
                pb::ProposeReply::default()
            }
        };
        let mut replies = Box::pin(answers(ReceiverStream::new(messages), answer));
        let many = PROPOSALS_MAX as u64;
        sender.try_send(message(0..many)).unwrap();
        sender.try_send(message([many])).unwrap();
        assert!(replies.next().now_or_never().is_none());
        assert!(!sender.is_closed());
        open.send(true).unwrap();
        let mut answered = 0;
        while answered <= many {
            answered += numbers(replies.next().await).len() as u64;
        }
        assert_eq!(answered, many + 1);
    }

    #[tokio::test]
    async fn a_broken_stream_ends_after_what_was_read_is_answered() {
        let messages = stream::iter([message([7]), Err(Status::cancelled("gone")), message([8])]);
        let answer = |_| std::future::ready(pb::ProposeReply::default());
        let mut replies = Box::pin(answers(messages, answer));
        assert_eq!(numbers(replies.next().await), [7]);
        assert!(replies.next().await.is_none());
    }
}
