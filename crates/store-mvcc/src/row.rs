//! One version of one key, and what it weighs.
//!
//! Owns the row's shape and identity. Rows never link to rows, so dropping a long history never
//! recurses.

use std::mem::size_of;
use std::sync::Arc;

use bytes::Bytes;

/// A shared row: history, the current keys and readers hold the same one.
pub type Row = Arc<KeyValue>;

/// What a row costs besides its key and value: itself, its reference counts, its slot among the
/// current keys or the graves (a handle of the key, a pointer, and the tree's slack), and the
/// headers of its two buffers.
const ROW_OVERHEAD: u64 = (size_of::<KeyValue>() + 2 * size_of::<usize>() + 64 + 64) as u64;

/// One version of one key. A tombstone (the version that a delete leaves) has `version` 0, no
/// value, no lease and `create_revision` 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyValue {
    /// The key; never empty.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The revision that created the key (the first put since it last did not exist).
    pub create_revision: i64,
    /// The revision that wrote this version.
    pub mod_revision: i64,
    /// How many puts since the key was created, this one included: 1 for the first. 0: a tombstone.
    pub version: i64,
    /// The lease that the key hangs on; 0 for none.
    pub lease: i64,
    /// This row's place among the changes of its revision, from 0.
    pub sub: u32,
}

/// A row's identity: no two rows of a store ever share it. Orders rows as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId {
    /// The revision that wrote the row.
    pub revision: i64,
    /// Its place among the changes of that revision, from 0.
    pub sub: u32,
}

impl KeyValue {
    /// Whether this version says that the key was deleted.
    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// The row's identity.
    pub fn id(&self) -> RowId {
        RowId {
            revision: self.mod_revision,
            sub: self.sub,
        }
    }

    /// The bytes of memory that this row is counted with: an estimate of the heap, the same on
    /// every node.
    pub(crate) fn resident_bytes(&self) -> u64 {
        Self::bytes_of(&self.key, &self.value)
    }

    /// The same for a row of this key and value.
    pub(crate) fn bytes_of(key: &[u8], value: &[u8]) -> u64 {
        ROW_OVERHEAD + key.len() as u64 + value.len() as u64
    }
}
