//! What a store did since it started, in numbers.
//!
//! Owns the counting. Names no metric system: whoever exports them reads a snapshot.

use std::sync::atomic::{AtomicU64, Ordering};

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
}

#[derive(Debug, Default)]
pub(crate) struct Counting {
    proposals: AtomicU64,
    entries: AtomicU64,
    reads: AtomicU64,
    read_rounds: AtomicU64,
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

    pub(crate) fn snapshot(&self) -> Counters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            proposals: load(&self.proposals),
            entries: load(&self.entries),
            reads: load(&self.reads),
            read_rounds: load(&self.read_rounds),
        }
    }
}
