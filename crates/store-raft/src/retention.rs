//! The log's size in bytes.
//!
//! Owns what openraft does not count: an entry may be anything up to a megabyte, so a limit in
//! entries alone bounds no disk. Never purges what is not in a snapshot: openraft sees to that.

use std::collections::VecDeque;

use openraft::RaftMetrics;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use tokio::sync::watch;

use crate::Raft;
use crate::config::SnapshotLimits;
use crate::machine::State;
use crate::types::Types;

/// The log is known to the precision of this part of what is kept.
const MARKS: u64 = 8;

/// Asks for snapshots and purges by bytes.
pub(crate) struct Retention {
    raft: Raft,
    states: watch::Receiver<State>,
    metrics: WatchReceiverOf<Types, RaftMetrics<Types>>,
    sizes: Sizes,
}

impl Retention {
    pub(crate) fn new(raft: Raft, states: watch::Receiver<State>, limits: SnapshotLimits) -> Self {
        Self {
            metrics: raft.metrics(),
            raft,
            states,
            sizes: Sizes::new(limits),
        }
    }

    /// Runs until Raft has stopped.
    pub(crate) async fn run(mut self) {
        loop {
            let (index, bytes) = {
                let state = self.states.borrow_and_update();
                (state.applied_index(), state.bytes)
            };
            let snapshot = self
                .metrics
                .borrow_watched()
                .snapshot
                .map_or(0, |id| id.index);
            self.sizes.snapshot_at(snapshot);
            if self.sizes.grown_to(index, bytes) && self.raft.trigger().snapshot().await.is_err() {
                return;
            }
            if let Some(upto) = self.sizes.purge(snapshot)
                && self.raft.trigger().purge_log(upto).await.is_err()
            {
                return;
            }
            if self.states.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Where in the log how many bytes were reached.
struct Sizes {
    limits: SnapshotLimits,
    bytes: u64,
    /// What was reached at the newest snapshot, whoever asked for it.
    at_snapshot: u64,
    /// What was reached when this last asked for one, which may not be written yet.
    asked: u64,
    /// Index and bytes, a fraction of the kept bytes apart.
    marks: VecDeque<(u64, u64)>,
}

impl Sizes {
    fn new(limits: SnapshotLimits) -> Self {
        Self {
            limits,
            bytes: 0,
            at_snapshot: 0,
            asked: 0,
            marks: VecDeque::new(),
        }
    }

    /// The newest snapshot goes up to `index`: the next one is due so many bytes after it. Known
    /// to the precision of the marks, on the early side.
    fn snapshot_at(&mut self, index: u64) {
        let before = self.marks.partition_point(|(at, _)| *at <= index);
        if let Some((_, bytes)) = before.checked_sub(1).and_then(|last| self.marks.get(last)) {
            self.at_snapshot = self.at_snapshot.max(*bytes);
        }
    }

    /// The log has `bytes` up to `index`. Whether a snapshot is due.
    fn grown_to(&mut self, index: u64, bytes: u64) -> bool {
        self.bytes = bytes;
        let last = self.marks.back().map_or(0, |(_, at)| *at);
        if bytes - last >= (self.limits.keep_bytes / MARKS).max(1) {
            self.marks.push_back((index, bytes));
        }
        let due = bytes - self.at_snapshot.max(self.asked) >= self.limits.every_bytes;
        if due {
            self.asked = bytes;
        }
        due
    }

    /// Up to where the log is more than is kept, and in the snapshot.
    fn purge(&mut self, snapshot: u64) -> Option<u64> {
        let mut upto = None;
        while let Some((index, at)) = self.marks.front()
            && *index <= snapshot
            && self.bytes - at >= self.limits.keep_bytes
        {
            upto = Some(*index);
            self.marks.pop_front();
        }
        upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_and_purges_follow_bytes() {
        let limits = SnapshotLimits {
            every_bytes: 1000,
            keep_bytes: 400,
            ..SnapshotLimits::default()
        };
        let mut sizes = Sizes::new(limits);
        let due: Vec<u64> = (1..=25)
            .filter(|index| sizes.grown_to(*index, index * 100))
            .collect();
        assert_eq!(due, [10, 20]);
        assert_eq!(sizes.purge(0), None);
        assert_eq!(sizes.purge(10), Some(10));
        assert_eq!(sizes.purge(10), None);
        // 400 bytes stay, whatever the snapshot holds.
        assert_eq!(sizes.purge(25), Some(21));
    }

    #[test]
    fn bytes_count_from_the_newest_snapshot_whoever_asked_for_it() {
        let limits = SnapshotLimits {
            every_bytes: 1000,
            keep_bytes: 400,
            ..SnapshotLimits::default()
        };
        let mut sizes = Sizes::new(limits);
        assert!((1..=6).all(|index| !sizes.grown_to(index, index * 100)));
        // Written because of the count of entries, or sent by the leader.
        sizes.snapshot_at(6);
        let due: Vec<u64> = (7..=30)
            .filter(|index| sizes.grown_to(*index, index * 100))
            .collect();
        // The one that was asked for at 16 is late: it is not asked for with every entry meanwhile.
        assert_eq!(due, [16, 26]);
        sizes.snapshot_at(14);
        assert!(!sizes.grown_to(31, 3100), "an older one changes nothing");
    }
}
