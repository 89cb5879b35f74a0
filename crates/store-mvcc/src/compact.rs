//! Forgetting history.
//!
//! Owns what compaction removes: every version that was replaced at or before the compact
//! revision, and every grave up to there. The changes *of* the compact revision stay, without what
//! they replaced, so that a watch can begin there. The cost follows what is removed.

use std::sync::Arc;

use crate::image::Grave;
use crate::{Changes, CommandError, Compacted, Image};

impl Image {
    /// Makes `to` the oldest revision that can be read. Compacting in steps ends in the same image
    /// as compacting at once.
    ///
    /// # Errors
    /// `to` is not above the compact revision, or in the future.
    pub(crate) fn compact(&mut self, to: i64) -> Result<(), CommandError> {
        if to <= self.meta.compact_revision {
            let compact_revision = self.meta.compact_revision;
            return Err(Compacted { compact_revision }.into());
        }
        if to > self.meta.revision {
            return Err(CommandError::FutureRevision {
                revision: self.meta.revision,
            });
        }
        self.meta.compact_revision = to;
        while self
            .history
            .front()
            .is_some_and(|changes| changes.revision < to)
            && let Some(changes) = self.history.pop_front()
        {
            self.forget_replaced(&changes);
            self.resident_bytes -= changes.resident_bytes();
            let tombstones = changes
                .rows
                .iter()
                .filter(|change| change.row.is_tombstone());
            let buried: u64 = tombstones.map(|change| change.row.resident_bytes()).sum();
            self.resident_bytes -= buried;
        }
        if let Some(changes) = self.history.front().cloned()
            && changes.revision == to
        {
            self.forget_replaced(&changes);
            let mut first = Changes::clone(&changes);
            first.rows.iter_mut().for_each(|change| change.prev = None);
            self.history.set(0, Arc::new(first));
        }
        Ok(())
    }

    /// Gives up the versions that `changes` replaced, and the graves that it dug.
    fn forget_replaced(&mut self, changes: &Changes) {
        for change in &changes.rows {
            if let Some(prev) = &change.prev {
                self.resident_bytes -= prev.resident_bytes();
            }
            if change.row.is_tombstone() {
                let grave = Grave {
                    key: change.row.key.clone(),
                    revision: changes.revision,
                };
                self.graves.remove(&grave);
            }
        }
    }
}
