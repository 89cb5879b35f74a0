//! How much history is kept, and the task of the leader that compacts the rest.
//!
//! Owns the decision up to where: by age, by number and by bytes, of which bytes win, since memory
//! ends and patience does not. The clock starts anew with the process: a node that was started
//! just now keeps longer than it was told, never shorter. Never compacts much at once: apply frees
//! what a step names before it goes on, so long histories go in small steps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use lifecycle::Shutdown;
use store_mvcc::{Caller, Command, CommandError, Image, Outcome, Proposal};
use store_raft::{ProposeError, Role, Store};
use tokio::time::{MissedTickBehavior, interval};

use crate::limits::{HistoryLimits, Limits};

/// How often history is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// Revisions that one log entry gives up: a few milliseconds of every member's time.
const STEP: i64 = 2_000;
/// Samples of one keeping time: history goes in pieces of about this part of it.
const SAMPLES: u32 = 64;
/// Above a bound of bytes, history goes down to so many sixteenths of it, and not again with every
/// write.
const ROOM_SIXTEENTHS: u64 = 15;

/// What the decision looks at in an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    revision: i64,
    compact_revision: i64,
    history_bytes: u64,
    live_bytes: u64,
}

impl View {
    fn of(image: &Image) -> Self {
        Self {
            revision: image.revision(),
            compact_revision: image.compact_revision(),
            history_bytes: image.history_bytes(),
            live_bytes: image.live_bytes(),
        }
    }

    /// The oldest revision whose changes are there.
    fn start(&self) -> i64 {
        self.compact_revision.max(1)
    }
}

/// Which revision was the newest at what time, as far back as it matters.
#[derive(Debug, Clone)]
pub(crate) struct HistoryClock {
    limits: HistoryLimits,
    /// The history and the current rows together.
    quota: u64,
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    revision: i64,
}

impl HistoryClock {
    pub(crate) fn new(limits: HistoryLimits, quota: u64) -> Self {
        Self {
            limits,
            quota,
            samples: VecDeque::new(),
        }
    }

    /// At `now`, counted from any fixed moment, `revision` is the newest.
    pub(crate) fn note(&mut self, now: Duration, revision: i64) {
        let keep = self.limits.keep;
        let spaced = |last: &Sample| now.saturating_sub(last.at) >= keep / SAMPLES;
        if self.samples.back().is_none_or(spaced) {
            self.samples.push_back(Sample { at: now, revision });
        }
        // Of those that are old enough, the newest says it all.
        while self
            .samples
            .get(1)
            .is_some_and(|next| now.saturating_sub(next.at) >= keep)
        {
            self.samples.pop_front();
        }
    }

    /// Up to where to compact next, if anything is due. Told again after each step.
    pub(crate) fn due(&self, now: Duration, view: View) -> Option<i64> {
        let start = view.start();
        let room = self.room(view);
        let to = if view.history_bytes > room {
            start.saturating_add(share(view, room))
        } else {
            self.spare(now, view)
        };
        let to = to.min(start.saturating_add(STEP)).min(view.revision);
        (to > start).then_some(to)
    }

    /// Up to where neither age nor number wants it kept.
    fn spare(&self, now: Duration, view: View) -> i64 {
        let old = |first: &&Sample| now.saturating_sub(first.at) >= self.limits.keep;
        let aged = self.samples.front().filter(old);
        let kept = i64::try_from(self.limits.min_revisions).unwrap_or(i64::MAX);
        let unneeded = view.revision.saturating_sub(kept);
        aged.map_or(i64::MIN, |aged| aged.revision.min(unneeded))
    }

    /// What history may take: its own bound, and what the current rows leave of the quota. It makes
    /// way before the quota is reached, or writes were refused for the sake of the past.
    fn room(&self, view: View) -> u64 {
        let free = sixteenths(self.quota).saturating_sub(view.live_bytes);
        self.limits.max_bytes.min(free)
    }
}

fn sixteenths(bytes: u64) -> u64 {
    bytes / 16 * ROOM_SIXTEENTHS
}

/// How many revisions to give up so that what is left fits `room`, if all were equally large.
fn share(view: View, room: u64) -> i64 {
    let excess = view.history_bytes.saturating_sub(sixteenths(room));
    let revisions = u128::try_from(view.revision.saturating_sub(view.start())).unwrap_or(0);
    let share = revisions * u128::from(excess) / u128::from(view.history_bytes.max(1));
    i64::try_from(share + 1).unwrap_or(i64::MAX)
}

/// Keeps history within its bounds while this node leads; runs until it stops.
pub(crate) async fn run(store: Store, limits: Limits, mut shutdown: Shutdown) {
    let begun = Instant::now();
    let mut history = HistoryClock::new(limits.history, limits.quota_bytes);
    let mut clock = interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = shutdown.requested() => return,
        }
        // Noted on every node, so that a new leader knows the past.
        history.note(begun.elapsed(), store.image().revision());
        while store.status().role == Role::Leader
            && let Some(revision) = history.due(begun.elapsed(), View::of(&store.image()))
        {
            let proposal = Proposal::own(Command::Compact { revision });
            match store.propose(&proposal).await {
                Ok(_) => tracing::debug!(revision, "compacted the history"),
                Err(error) => {
                    tracing::debug!(%error, "the history is not compacted yet");
                    break;
                }
            }
        }
    }
}

/// Compacts up to `to` as a client asked, in steps. The answer is the last step's.
pub(crate) async fn compact(
    store: &Store,
    caller: Caller,
    to: i64,
) -> Result<Outcome, ProposeError> {
    loop {
        let view = View::of(&store.image());
        // What apply refuses is refused at once.
        let step = if to > view.revision || to <= view.start() {
            to
        } else {
            to.min(view.start().saturating_add(STEP))
        };
        let proposal = Proposal {
            caller: caller.clone(),
            ..Proposal::new(Command::Compact { revision: step })
        };
        let outcome = store.propose(&proposal).await?;
        match &outcome.result {
            // Somebody else was faster; the image has it by now.
            Ok(_) | Err(CommandError::Compacted(_)) if step < to => {}
            _ => return Ok(outcome),
        }
    }
}

#[cfg(test)]
mod tests;
