//! Appends on one stream, several unanswered at a time.
//!
//! Owns the window and the deadline of each answer. Never reorders: the n-th answer is the n-th
//! request's.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::base::BoxStream;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use store_api::skeinpb as pb;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Streaming;

use super::{CALL_DEADLINE, CallResult, Peer, garbled, unreachable};
use crate::types::Types;
use crate::wire;

/// Requests without an answer. Few on purpose: what queues meanwhile makes the next one larger.
const APPENDS_IN_FLIGHT: usize = 4;

/// How long one answer may take. It waits for the follower's disk, so it is far above any round
/// trip; a vanished host is found by keep-alive, a dead process by its reset.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

impl Peer {
    /// Opens the stream. Its answers end with the first that is an error.
    pub(super) async fn pipeline<S>(
        &mut self,
        input: S,
    ) -> CallResult<BoxStream<'_, CallResult<StreamAppendResult<Types>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let mut client = self.client()?;
        let peer: &Self = self;
        // A sent request puts its time into the channel, its answer takes it out: full is the
        // window.
        let (sent, in_flight) = mpsc::channel(APPENDS_IN_FLIGHT);
        let requests = input.then(move |request| {
            let sent = sent.clone();
            async move {
                // Fails only when nobody reads answers any more, and then nobody sends either.
                let _ = sent.send(Instant::now()).await;
                wire::append_to_pb(request)
            }
        });
        let call = client.stream_append(peer.address.request(requests));
        let answers = peer.call(CALL_DEADLINE, call).await?;
        let state = Answers {
            peer,
            answers,
            in_flight,
            oldest: None,
        };
        let answers = stream::unfold(Some(state), |state| async move {
            let mut state = state?;
            let answer = state.next().await?;
            // openraft does not look past an error, and the follower does not answer past one.
            let go_on = matches!(answer, Ok(Ok(_)));
            Some((answer, go_on.then_some(state)))
        });
        Ok(answers.boxed())
    }
}

/// The answers to come.
struct Answers<'p> {
    peer: &'p Peer,
    answers: Streaming<pb::AppendEntriesReply>,
    in_flight: mpsc::Receiver<Instant>,
    /// When the oldest unanswered request was sent, once looked at.
    oldest: Option<Instant>,
}

impl Answers<'_> {
    async fn next(&mut self) -> Option<CallResult<StreamAppendResult<Types>>> {
        loop {
            let answer = tokio::time::timeout(CALL_DEADLINE, self.answers.message()).await;
            let Ok(answer) = answer else {
                if self.is_overdue() {
                    let reason = format!("{}: no answer to an append", self.peer.target);
                    return Some(Err(unreachable(reason)));
                }
                continue;
            };
            if self.oldest.take().is_none() {
                let _ = self.in_flight.try_recv();
            }
            return match answer {
                Ok(Some(reply)) => Some(wire::stream_answer_from_pb(reply).map_err(garbled)),
                Ok(None) => None,
                Err(status) => Some(Err(self.peer.failed(&status))),
            };
        }
    }

    fn is_overdue(&mut self) -> bool {
        if self.oldest.is_none() {
            self.oldest = self.in_flight.try_recv().ok();
        }
        self.oldest
            .is_some_and(|sent| sent.elapsed() > ANSWER_DEADLINE)
    }
}
