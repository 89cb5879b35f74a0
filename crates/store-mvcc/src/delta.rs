//! What became of an image's rows since an older image: what a copy on disk has to write.
//!
//! Owns the comparison. Its cost follows the changes, unless compaction went beyond the older
//! image, when all rows are looked at.

use crate::{Image, ImageMeta, Row, RowId};

/// The way from one image's rows to a later one's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The later image's counters.
    pub meta: ImageMeta,
    /// The rows that only the later image has, as they were written.
    pub added: Vec<Row>,
    /// The rows that only the older image has.
    pub removed: Vec<RowId>,
}

impl Image {
    /// What changed since `older`, an earlier state of this same store.
    pub fn delta_since(&self, older: &Self) -> Delta {
        let (mut added, removed) = if self.compact_revision() <= older.revision() {
            (
                self.added_since(older),
                older.removed_until(self.compact_revision()),
            )
        } else {
            self.compare(older)
        };
        added.sort_unstable_by_key(|row| row.id());
        Delta {
            meta: self.meta(),
            added,
            removed,
        }
    }

    fn added_since(&self, older: &Self) -> Vec<Row> {
        let newer = self.changes_since(older.revision() + 1);
        let changes = newer
            .into_iter()
            .flatten()
            .flat_map(|changes| &changes.rows);
        changes.map(|change| change.row.clone()).collect()
    }

    /// The rows of this image that a compaction to `compact_revision` takes.
    fn removed_until(&self, compact_revision: i64) -> Vec<RowId> {
        let mut removed = Vec::new();
        for changes in self
            .history
            .iter()
            .take_while(|it| it.revision <= compact_revision)
        {
            for change in &changes.rows {
                removed.extend(change.prev.iter().map(|prev| prev.id()));
                if change.row.is_tombstone() && changes.revision < compact_revision {
                    removed.push(change.row.id());
                }
            }
        }
        removed
    }

    fn compare(&self, older: &Self) -> (Vec<Row>, Vec<RowId>) {
        let since = older.revision();
        let added = self
            .rows()
            .filter(|row| row.mod_revision > since)
            .cloned()
            .collect();
        let kept: std::collections::HashSet<RowId> = self
            .rows()
            .filter(|row| row.mod_revision <= since)
            .map(|row| row.id())
            .collect();
        let removed = older
            .rows()
            .map(|row| row.id())
            .filter(|id| !kept.contains(id))
            .collect();
        (added, removed)
    }
}
