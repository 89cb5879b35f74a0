//! How much time went by since the lease clock stood where it stands.
//!
//! Owns the measuring on the leader, by its own monotonic clock, which comes as an argument. Only
//! time since this node saw a reading of the lease clock in its term counts, so a new leader begins
//! at zero, and a tick moves the clock only in that term, and if it is still at that reading.

use std::time::{Duration, Instant};

use store_mvcc::{TickOp, TickResult};

/// While there are leases, the clock is moved this often.
const TICK_EVERY: Duration = Duration::from_millis(500);
/// And not more often than this, however many leases end one after the other.
const TICKS_APART: Duration = Duration::from_millis(20);

/// A reading of the lease clock, and when this node saw it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    term: u64,
    clock_ms: u64,
    at: Instant,
}

/// Runs while this node leads and there are leases.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    seen: Option<Seen>,
}

/// A tick to propose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) op: TickOp,
    /// Up to when it counts.
    until: Instant,
}

impl Stopwatch {
    /// This node leads in `term`, and the lease clock is at `clock_ms` now. If that was so already,
    /// the time since then goes on.
    pub(crate) fn see(&mut self, term: u64, clock_ms: u64, now: Instant) {
        let same = |seen: Seen| (seen.term, seen.clock_ms) == (term, clock_ms);
        if !self.seen.is_some_and(same) {
            self.seen = Some(Seen {
                term,
                clock_ms,
                at: now,
            });
        }
    }

    /// Somebody else leads, or no time needs to be counted.
    pub(crate) fn stop(&mut self) {
        self.seen = None;
    }

    /// The milliseconds since the reading that is known, for grants and keep-alives: they begin
    /// now, not then.
    pub(crate) fn age_ms(&self, now: Instant) -> u64 {
        self.seen.map_or(0, |seen| millis(now - seen.at))
    }

    /// When to propose the next tick, if the first lease ends at `first_end_ms`.
    pub(crate) fn due(&self, first_end_ms: u64) -> Option<Instant> {
        let seen = self.seen?;
        let Some(left) = first_end_ms.checked_sub(seen.clock_ms).filter(|ms| *ms > 0) else {
            // A tick left some behind.
            return Some(seen.at);
        };
        let left = Duration::from_millis(left).clamp(TICKS_APART, TICK_EVERY);
        Some(seen.at + left)
    }

    /// The tick that counts all time up to `now`.
    pub(crate) fn step(&self, now: Instant) -> Option<Step> {
        let seen = self.seen?;
        let advance_ms = millis(now - seen.at);
        Some(Step {
            op: TickOp {
                from_ms: seen.clock_ms,
                advance_ms,
                term: seen.term,
            },
            // Not `now`: what is less than a millisecond counts in the next tick.
            until: seen.at + Duration::from_millis(advance_ms),
        })
    }

    /// A step was applied. What it left out, because it was longer than one step may be, is lost.
    pub(crate) fn stepped(&mut self, step: Step, result: TickResult, now: Instant) {
        self.seen = Some(Seen {
            term: step.op.term,
            clock_ms: result.clock_ms,
            at: if result.moved { step.until } else { now },
        });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
