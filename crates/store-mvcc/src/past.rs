//! Reading the store as of an older revision.
//!
//! Owns the walk from a key's newer version to the one that was valid then. Each version's change
//! in the history names the version before it, so no index of versions has to be kept: the walk
//! begins at the current row, or at the tombstone of a key that existed then and is gone.

use std::cmp::Ordering;
use std::ops::Bound;

use crate::image::Grave;
use crate::{ChangedRow, Image, KeyRange, KeyValue, RangeEnd, Row};

/// An image's rows as of the revision `at`, which must not be compacted.
#[derive(Clone, Copy)]
pub(crate) struct Past<'a> {
    image: &'a Image,
    /// The changes of the revision that is in the making, which the history does not have yet.
    pending: &'a [ChangedRow],
    at: i64,
}

impl Image {
    /// The rows as of `at`. `pending` are the changes since the newest revision that are already in
    /// `live` and `graves`.
    pub(crate) fn past<'a>(&'a self, at: i64, pending: &'a [ChangedRow]) -> Past<'a> {
        Past {
            image: self,
            pending,
            at,
        }
    }
}

impl<'a> Past<'a> {
    /// The rows of `range`, by key.
    pub(crate) fn rows(self, range: &KeyRange) -> impl Iterator<Item = &'a Row> + use<'a> {
        let mut kept = self.kept(range).peekable();
        let mut gone = self.gone(range).peekable();
        // At most one incarnation of a key existed then, so the two never have the same key.
        std::iter::from_fn(move || match (kept.peek(), gone.peek()) {
            (Some(left), Some(right)) => match left.key.cmp(&right.key) {
                Ordering::Less | Ordering::Equal => kept.next(),
                Ordering::Greater => gone.next(),
            },
            (Some(_), None) => kept.next(),
            (None, _) => gone.next(),
        })
    }

    /// The rows of the keys that exist now and did then, without a delete in between.
    fn kept(self, range: &KeyRange) -> impl Iterator<Item = &'a Row> + use<'a> {
        let rows = range
            .bounds()
            .map(|bounds| self.image.live.range::<_, [u8]>(bounds));
        rows.into_iter()
            .flatten()
            .filter_map(move |(_, row)| self.version_of(row))
    }

    /// The rows of the keys that existed then and were deleted since.
    fn gone(self, range: &KeyRange) -> impl Iterator<Item = &'a Row> + use<'a> {
        let graves = self.image.graves.range(grave_bounds(range));
        graves.filter_map(move |(grave, tombstone)| {
            if grave.revision <= self.at {
                return None;
            }
            self.version_of(self.before(tombstone)?)
        })
    }

    /// The version that was valid then, of the incarnation that `newer` belongs to.
    fn version_of(self, newer: &'a Row) -> Option<&'a Row> {
        if newer.create_revision > self.at {
            return None;
        }
        let mut row = newer;
        while row.mod_revision > self.at {
            row = self.before(row)?;
        }
        Some(row)
    }

    /// The version that `row` replaced.
    fn before(self, row: &KeyValue) -> Option<&'a Row> {
        let rows = if row.mod_revision > self.image.revision() {
            self.pending
        } else {
            &self.image.changes(row.mod_revision)?.rows
        };
        rows.get(row.sub as usize)?.prev.as_ref()
    }
}

fn grave_bounds(range: &KeyRange) -> (Bound<Grave>, Bound<Grave>) {
    let least = |key: &bytes::Bytes| Grave {
        key: key.clone(),
        revision: i64::MIN,
    };
    let start = Bound::Included(least(range.start()));
    let end = match range.end() {
        RangeEnd::Only => Bound::Included(Grave {
            key: range.start().clone(),
            revision: i64::MAX,
        }),
        // An inverted range is empty, but a tree refuses inverted bounds.
        RangeEnd::Before(end) => Bound::Excluded(least(end.max(range.start()))),
        RangeEnd::Unbounded => Bound::Unbounded,
    };
    (start, end)
}
