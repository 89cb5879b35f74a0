//! What a store did since it started, in numbers.
//!
//! Owns the counting. Names no metric system: whoever exports them reads a snapshot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use store_disk::{SYNC_TIMES, WalCounters};

/// Totals since the start; each only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Proposals that went into entries.
    pub proposals: u64,
    /// Entries that they went into.
    pub entries: u64,
    /// Linearizable reads that asked for a round.
    pub reads: u64,
    /// Rounds that served them.
    pub read_rounds: u64,
    /// Proposals that got no outcome: not proposed, or not known.
    pub failed: u64,
    /// How often another leader was heard of than before.
    pub leader_changes: u64,
}

/// How long making the log durable took, since the start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SyncTimes(pub(crate) WalCounters);

impl SyncTimes {
    /// How many times it was done.
    pub fn count(&self) -> u64 {
        self.0.syncs
    }

    /// How long all of them took together, in seconds.
    pub fn seconds(&self) -> f64 {
        Duration::from_nanos(self.0.sync_nanos).as_secs_f64()
    }

    /// Upper bounds in seconds, and how many took no longer and longer than the bound before.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = (0..SYNC_TIMES - 1).map(|n| Duration::from_millis(1 << n).as_secs_f64());
        let bounds = bounds.chain(std::iter::once(f64::INFINITY));
        bounds.zip(self.0.sync_times).collect()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counting {
    proposals: AtomicU64,
    entries: AtomicU64,
    reads: AtomicU64,
    read_rounds: AtomicU64,
    failed: AtomicU64,
    leader_changes: AtomicU64,
}

impl Counting {
    pub(crate) fn entry(&self, proposals: usize) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.proposals
            .fetch_add(proposals as u64, Ordering::Relaxed);
    }

    pub(crate) fn read_round(&self, reads: usize) {
        self.read_rounds.fetch_add(1, Ordering::Relaxed);
        self.reads.fetch_add(reads as u64, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn leader_changed(&self) {
        self.leader_changes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Counters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            proposals: load(&self.proposals),
            entries: load(&self.entries),
            reads: load(&self.reads),
            read_rounds: load(&self.read_rounds),
            failed: load(&self.failed),
            leader_changes: load(&self.leader_changes),
        }
    }
}
