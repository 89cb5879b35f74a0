//! What one revision changed: the unit that watches deliver.
//!
//! Owns the pairing of each new row with the one that it replaced. Never spans two revisions.

use std::mem::size_of;

use smallvec::SmallVec;

use crate::Row;

/// All changes of one revision, in the order of the operations that made them. A key occurs at
/// most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The revision.
    pub revision: i64,
    /// Its changes; at least one. A row's `sub` is its index here.
    pub rows: SmallVec<[ChangedRow; 1]>,
}

/// One key's change within a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedRow {
    /// The key's state from this revision on; a tombstone when it was deleted.
    pub row: Row,
    /// The key's state before; `None` when it did not exist, or when compaction took it.
    pub prev: Option<Row>,
}

impl Changes {
    /// The bytes of memory that a revision is counted with, its rows aside.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let counts_and_slot = 3 * size_of::<usize>();
        let spilled = if self.rows.spilled() {
            self.rows.len()
        } else {
            0
        };
        (size_of::<Self>() + counts_and_slot + spilled * size_of::<ChangedRow>()) as u64
    }
}
