//! One state of the store, immutable to its readers.
//!
//! Owns the structure: the current rows by key, the history by revision, and the graves, which
//! find deleted keys again in the past; beside them the leases and the users. All are persistent trees: an image is cloned in
//! constant time and shares everything with its successors. Older versions of a key are reached
//! from a newer one through the history (see `past`), so a put adds to one tree and one vector only.

use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, Vector};
use model::{ConfigRevision, Version};

use crate::leases::Leases;
use crate::{
    Auth, Changes, CommandError, Compacted, KeyRange, Op, RangeEnd, RangeOp, RangeResult, Row,
    TxnOp, query,
};

/// The revision of an empty store, as etcd counts: the first write makes revision 2.
const FIRST_REVISION: i64 = 1;

/// The compact revision of a store that was never compacted, as etcd counts.
const NEVER_COMPACTED: i64 = -1;

/// Looking at more rows than this takes a millisecond and more.
const LONG_ROWS: usize = 2_000;

/// One state of the store. Cloning is cheap (constant time) and readers never block writers.
#[derive(Debug, Clone)]
pub struct Image {
    pub(crate) meta: ImageMeta,
    pub(crate) resident_bytes: u64,
    /// The part of them that the current rows take.
    pub(crate) live_bytes: u64,
    /// The rows that exist now.
    pub(crate) live: OrdMap<Bytes, Row>,
    /// The tombstones after the compact revision.
    pub(crate) graves: OrdMap<Grave, Row>,
    /// One entry for each revision from [`ImageMeta::history_start`] to the newest.
    pub(crate) history: Vector<Arc<Changes>>,
    pub(crate) leases: Leases,
    pub(crate) auth: Auth,
}

/// The counters and marks of an [`Image`]: with its rows, all that it takes to rebuild it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageMeta {
    /// The newest revision; 1 for an empty store.
    pub revision: i64,
    /// The oldest revision that can be read; -1 if never compacted.
    pub compact_revision: i64,
    /// The count of accepted config changes.
    pub config_revision: ConfigRevision,
    /// What the members agreed on about their versions; `None` before they did.
    pub version: Option<AgreedVersion>,
    /// The reading of the lease clock, which only ticks move.
    pub lease_clock_ms: u64,
}

/// The version that a mesh agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgreedVersion {
    /// No member that is older can be part of the mesh, and nothing newer is written.
    pub version: Version,
    /// It is held, whatever the members run: a downgrade is under way.
    pub downgrade: bool,
}

/// Where a tombstone lies: by key, then by the revision that deleted it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Grave {
    pub(crate) key: Bytes,
    pub(crate) revision: i64,
}

impl ImageMeta {
    /// The oldest revision whose changes are kept: the compact revision itself, so that a watch
    /// can begin there.
    pub(crate) fn history_start(&self) -> i64 {
        self.compact_revision.max(FIRST_REVISION + 1)
    }
}

impl Default for Image {
    /// An empty store.
    fn default() -> Self {
        Self {
            meta: ImageMeta {
                revision: FIRST_REVISION,
                compact_revision: NEVER_COMPACTED,
                config_revision: ConfigRevision(0),
                version: None,
                lease_clock_ms: 0,
            },
            resident_bytes: 0,
            live_bytes: 0,
            live: OrdMap::new(),
            graves: OrdMap::new(),
            history: Vector::new(),
            leases: Leases::default(),
            auth: Auth::default(),
        }
    }
}

impl Image {
    /// The newest revision; 1 for an empty store.
    pub fn revision(&self) -> i64 {
        self.meta.revision
    }

    /// The oldest revision that can be read; -1 if never compacted.
    pub fn compact_revision(&self) -> i64 {
        self.meta.compact_revision
    }

    /// The count of accepted config changes.
    pub fn config_revision(&self) -> ConfigRevision {
        self.meta.config_revision
    }

    /// The version that gates what may be written; the first one as long as none is agreed on.
    pub fn cluster_version(&self) -> Version {
        self.meta
            .version
            .map_or(Version::FIRST, |agreed| agreed.version)
    }

    /// The users, the roles, and whether they count.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// All counters.
    pub fn meta(&self) -> ImageMeta {
        self.meta
    }

    /// An estimate of the memory that rows, history, leases and users take, in bytes: the same on every node, and
    /// known without counting.
    pub fn resident_bytes(&self) -> u64 {
        self.resident_bytes + self.leases.resident_bytes() + self.auth.resident_bytes()
    }

    /// The part of [`Image::resident_bytes`] that the rows take that exist now.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// The other part: what compaction to the newest revision would about give back.
    pub fn history_bytes(&self) -> u64 {
        self.resident_bytes.saturating_sub(self.live_bytes)
    }

    /// How many keys exist now.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether no key exists now.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// The row of `key`, now.
    pub fn get(&self, key: &[u8]) -> Option<&Row> {
        self.live.get(key)
    }

    /// The rows of `range`, now, by key.
    pub fn live(&self, range: &KeyRange) -> impl Iterator<Item = &Row> {
        // One key is by far the most frequent range, and a look-up is half the price of a scan.
        let (one, many) = match range.end() {
            RangeEnd::Only => (self.live.get(range.start()), None),
            _ => (
                None,
                range
                    .bounds()
                    .map(|bounds| self.live.range::<_, [u8]>(bounds)),
            ),
        };
        one.into_iter()
            .chain(many.into_iter().flatten().map(|(_, row)| row))
    }

    /// Reads a range, now or in the past.
    ///
    /// Reading the past costs a step for each version that is newer than the revision, for each
    /// key in the range.
    ///
    /// # Errors
    /// The revision is compacted or in the future, or the key is empty.
    pub fn range(&self, op: &RangeOp) -> Result<RangeResult, CommandError> {
        op.check()?;
        if op.revision <= 0 || op.revision == self.meta.revision {
            return Ok(query::run(op, self.live(&op.range)));
        }
        self.check_revision(op.revision)?;
        Ok(query::run(op, self.past(op.revision, &[]).rows(&op.range)))
    }

    /// Whether [`Image::range`] would look at so many rows that others should not wait for it. Looks
    /// at a part of them only.
    pub fn is_long(&self, op: &RangeOp) -> bool {
        match op.range.end() {
            RangeEnd::Only => false,
            // The past is put together from the history.
            _ if op.revision > 0 && op.revision != self.meta.revision => true,
            _ => self.live(&op.range).nth(LONG_ROWS).is_some(),
        }
    }

    /// The same of [`Image::read_txn`].
    pub fn is_long_txn(&self, txn: &TxnOp) -> bool {
        txn.ops().any(|op| match op {
            Op::Range(range) => self.is_long(range),
            Op::Txn(txn) => self.is_long_txn(txn),
            Op::Put(_) | Op::Delete(_) => false,
        })
    }

    /// The changes of `from_revision` and of every later revision, oldest first. None if
    /// `from_revision` is in the future.
    ///
    /// # Errors
    /// `from_revision` is older than the compact revision. (0 and below are, once compacted, too.)
    pub fn changes_since(
        &self,
        from_revision: i64,
    ) -> Result<impl Iterator<Item = &Arc<Changes>>, Compacted> {
        if from_revision < self.meta.compact_revision {
            return Err(Compacted {
                compact_revision: self.meta.compact_revision,
            });
        }
        let skipped = usize::try_from(from_revision.saturating_sub(self.meta.history_start()));
        let from = skipped.unwrap_or(0).min(self.history.len());
        Ok(self.history.focus().narrow(from..).into_iter())
    }

    /// The changes of one revision, if they are kept.
    pub fn changes(&self, revision: i64) -> Option<&Arc<Changes>> {
        let index = usize::try_from(revision.checked_sub(self.meta.history_start())?).ok()?;
        self.history.get(index)
    }

    /// Whether `revision` can be read.
    pub(crate) fn check_revision(&self, revision: i64) -> Result<(), CommandError> {
        if revision > self.meta.revision {
            Err(CommandError::FutureRevision {
                revision: self.meta.revision,
            })
        } else if revision < self.meta.compact_revision {
            Err(Compacted {
                compact_revision: self.meta.compact_revision,
            }
            .into())
        } else {
            Ok(())
        }
    }
}
