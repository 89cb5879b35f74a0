//! Keep-alives of this node, gathered.
//!
//! Owns the gathering: while one proposal is under way, and some time after the last one, the leases
//! of all streams that ask gather for the next, so that thousands of keep-alives a second are a few
//! proposals, here or forwarded. Never answers before the renewal is applied.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use store_api::errors;
use store_mvcc::{Caller, Command, KeepAliveOp};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::answer::Answer;
use crate::limits::{KEEP_ALIVES_EVERY, KEEP_ALIVES_MAX, KEEP_ALIVES_PART, Limits};
use crate::patience::Patience;
use crate::writes::Writes;

/// The way of keep-alives into the log. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Renewals {
    inner: Arc<Inner>,
}

struct Inner {
    writes: Writes,
    limits: Limits,
    /// Those who wait for the proposal that is still to be made.
    next: Mutex<Option<Gathering>>,
    /// One proposal is under way at a time. When the next one may begin.
    turn: tokio::sync::Mutex<Option<Instant>>,
}

struct Gathering {
    ids: Vec<i64>,
    round: Round,
}

/// An outcome that many wait for.
type Round = Shared<BoxFuture<'static, Result<Arc<Renewed>, Status>>>;

/// What became of the leases of a whole round.
struct Renewed {
    ttls: Vec<i64>,
    revision: i64,
}

/// What became of the leases that somebody asked for.
pub(crate) struct Kept {
    round: Arc<Renewed>,
    mine: Range<usize>,
}

impl Kept {
    /// The seconds that each lives from now on, in the order of the request; 0 if there is none.
    pub(crate) fn ttls(&self) -> &[i64] {
        &self.round.ttls[self.mine.clone()]
    }

    /// The newest revision then.
    pub(crate) fn revision(&self) -> i64 {
        self.round.revision
    }
}

impl Renewals {
    pub(crate) fn new(writes: Writes, limits: Limits) -> Self {
        Self {
            inner: Arc::new(Inner {
                writes,
                limits,
                next: Mutex::default(),
                turn: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// Gives leases their whole time again.
    ///
    /// # Errors
    /// "Too many requests" at [`KEEP_ALIVES_MAX`], `Unavailable` for lack of a leader.
    pub(crate) async fn keep_alive(&self, ids: &[i64]) -> Result<Kept, Status> {
        let (round, mine) = self.join(ids)?;
        let round = round.await?;
        // The leader's version would be at fault; no range of it may be trusted then.
        if round.ttls.len() < mine.end {
            return Err(Status::internal(
                "skein: the leader left out leases; run the same version everywhere",
            ));
        }
        Ok(Kept { round, mine })
    }

    fn join(&self, ids: &[i64]) -> Result<(Round, Range<usize>), Status> {
        let mut next = self
            .inner
            .next
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let gathering = next.get_or_insert_with(|| {
            // A task of its own, because a stream whose client does not read is not polled, and
            // must not hold up the round that it is part of, nor those behind.
            let round = tokio::spawn(self.inner.clone().round());
            let round = round.map(|ended| {
                ended.unwrap_or_else(|fault| Err(Status::internal(format!("skein: {fault}"))))
            });
            Gathering {
                ids: Vec::new(),
                round: round.boxed().shared(),
            }
        });
        let begin = gathering.ids.len();
        if begin + ids.len() > KEEP_ALIVES_MAX {
            return Err(errors::too_many_requests());
        }
        gathering.ids.extend_from_slice(ids);
        Ok((gathering.round.clone(), begin..gathering.ids.len()))
    }
}

impl Inner {
    async fn round(self: Arc<Self>) -> Result<Arc<Renewed>, Status> {
        let mut turn = self.turn.lock().await;
        if let Some(from) = *turn {
            sleep_until(from).await;
        }
        let began = Instant::now();
        *turn = Some(began + KEEP_ALIVES_EVERY);
        // From here on nobody can join.
        let gathered = self
            .next
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let ids = gathered.map_or_else(Vec::new, |gathered| gathered.ids);
        let command = Command::KeepAlive(KeepAliveOp { ids, age_ms: 0 });
        let written = self
            .writes
            .submit(&Caller::Own, command, Patience::own(&self.limits))
            .await?;
        match written.answer {
            Answer::KeepAlive(ttls) => {
                *turn = Some(began + pause(&ttls));
                Ok(Arc::new(Renewed {
                    ttls,
                    revision: written.revision,
                }))
            }
            _ => Err(crate::answer::misfit()),
        }
    }
}

/// The time between two proposals, when the last one gave leases these seconds, 0 for one that is gone.
fn pause(ttls: &[i64]) -> Duration {
    let shortest = ttls.iter().filter(|ttl| **ttl > 0).min();
    shortest.map_or(KEEP_ALIVES_EVERY, |ttl| {
        (Duration::from_secs(ttl.unsigned_abs()) / KEEP_ALIVES_PART).min(KEEP_ALIVES_EVERY)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_leases_wait_less_and_none_waits_longer_than_the_limit() {
        assert_eq!(pause(&[300, 2, 0, 60]), Duration::from_millis(100));
        assert_eq!(pause(&[300, 5]), Duration::from_millis(250));
        assert_eq!(pause(&[10]), KEEP_ALIVES_EVERY);
        assert_eq!(pause(&[i64::MAX]), KEEP_ALIVES_EVERY);
        assert_eq!(pause(&[0, 0]), KEEP_ALIVES_EVERY);
        assert_eq!(pause(&[]), KEEP_ALIVES_EVERY);
    }
}
