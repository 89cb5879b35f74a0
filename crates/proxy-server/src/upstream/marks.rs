//! What is known of an endpoint's answers, for outlier detection.
//!
//! Owns the counting, without a lock: totals are counted by each worker for itself and added up at
//! each sweep; what failed in a row is counted for the node, in numbers that nobody writes while all
//! is well. Never ejects: it rings for the thread that does (`upkeep`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::thread::Thread;

use proxy_balance::{OutlierKind, Tally};
use proxy_config::compiled::Outlier;

use crate::counters::Counter;

/// How a try at an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// With a response of this status.
    Status(u16),
    /// With a connection that broke before a response, or an answer that is none.
    Broken,
    /// Without a connection, or without an answer in time: found here, not told by the endpoint.
    Local,
}

/// What may make an endpoint an outlier in a row, in the order of [`OutlierKind::index`].
const IN_A_ROW: [OutlierKind; 3] = [
    OutlierKind::Consecutive5xx,
    OutlierKind::ConsecutiveGatewayFailure,
    OutlierKind::ConsecutiveLocalOriginFailure,
];

/// One endpoint's answers, as all workers of a node saw them.
#[derive(Debug)]
pub(crate) struct Marks {
    /// Failures in a row, by [`OutlierKind::index`].
    streaks: [AtomicU32; IN_A_ROW.len()],
    /// Whose limit was met: the bits of these.
    met: AtomicU8,
    /// By the number of the worker.
    totals: Box<[Totals]>,
    bell: Arc<Bell>,
}

/// What one worker counted.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Totals {
    requests: Counter,
    successes: Counter,
}

/// Wakes the thread that ejects.
#[derive(Debug)]
pub(crate) struct Bell {
    rung: AtomicBool,
    thread: Thread,
}

impl Bell {
    /// One that wakes this thread.
    pub(crate) fn here() -> Arc<Self> {
        Arc::new(Self {
            rung: AtomicBool::new(false),
            thread: std::thread::current(),
        })
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }

    /// Whether it rang since the last time.
    pub(crate) fn rang(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }
}

impl Marks {
    pub(crate) fn new(workers: usize, bell: Arc<Bell>) -> Self {
        Self {
            streaks: Default::default(),
            met: AtomicU8::new(0),
            totals: (0..workers).map(|_| Totals::default()).collect(),
            bell,
        }
    }

    /// Takes in how a try ended, as this worker saw it.
    pub(crate) fn see(&self, worker: usize, policy: &Outlier, seen: Seen) {
        let local = seen == Seen::Local;
        if policy.split_local_origin {
            self.count(OutlierKind::ConsecutiveLocalOriginFailure, local, policy);
            if local {
                return;
            }
        }
        // Envoy counts what it finds itself as 503 and 504.
        let (is_bad, is_gateway) = match seen {
            Seen::Status(status) => (status >= 500, matches!(status, 502..=504)),
            Seen::Broken => (true, false),
            Seen::Local => (true, true),
        };
        let totals = &self.totals[worker];
        totals.requests.increment();
        if !is_bad {
            totals.successes.increment();
        }
        self.count(OutlierKind::Consecutive5xx, is_bad, policy);
        self.count(OutlierKind::ConsecutiveGatewayFailure, is_gateway, policy);
    }

    fn count(&self, kind: OutlierKind, failed: bool, policy: &Outlier) {
        let streak = &self.streaks[kind.index()];
        if !failed {
            // A write would take the number away from the other workers' cores.
            if streak.load(Ordering::Relaxed) != 0 {
                streak.store(0, Ordering::Relaxed);
            }
            return;
        }
        let limit = match kind {
            OutlierKind::Consecutive5xx => policy.consecutive_5xx,
            OutlierKind::ConsecutiveGatewayFailure => policy.consecutive_gateway_failure,
            _ => policy.consecutive_local_origin_failure,
        };
        let count = streak.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if limit > 0 && count >= limit {
            streak.store(0, Ordering::Relaxed);
            self.met.fetch_or(1 << kind.index(), Ordering::AcqRel);
            self.bell.ring();
        }
    }

    /// Whose limit was met since the last time.
    pub(crate) fn take_met(&self) -> impl Iterator<Item = OutlierKind> + use<> {
        let met = self.met.swap(0, Ordering::AcqRel);
        let is_met = move |kind: &OutlierKind| met & (1 << kind.index()) != 0;
        IN_A_ROW.into_iter().filter(is_met)
    }

    /// Begins anew, for an endpoint that returns.
    pub(crate) fn forgive(&self) {
        for streak in &self.streaks {
            streak.store(0, Ordering::Relaxed);
        }
    }

    /// All requests and successes so far, which only grow.
    pub(crate) fn total(&self) -> Tally {
        let add = |number: fn(&Totals) -> &Counter| {
            let numbers = self.totals.iter().map(|totals| number(totals).read());
            numbers.fold(0, u64::wrapping_add)
        };
        Tally {
            requests: add(|totals| &totals.requests),
            successes: add(|totals| &totals.successes),
        }
    }
}
