//! One revision in the making.
//!
//! Owns how puts and deletes change an image. The image's rows change at once, its revision on
//! `commit`; an edit that changed nothing makes no revision. Never fails: what can be refused was
//! refused before the edit began.

use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use model::{CONFIG_PREFIX, ConfigRevision};
use smallvec::SmallVec;

use crate::image::Grave;
use crate::{
    ChangedRow, Changes, DeleteOp, DeleteResult, Image, KeyValue, Op, PutOp, PutResult, RangeOp,
    RangeResult, Response, Row, TxnOp, TxnResult, query,
};

/// One revision in the making.
pub(crate) struct Edit<'a> {
    image: &'a mut Image,
    /// The revision that this becomes.
    revision: i64,
    rows: SmallVec<[ChangedRow; 1]>,
}

impl<'a> Edit<'a> {
    pub(crate) fn begin(image: &'a mut Image) -> Self {
        let revision = image.meta.revision + 1;
        Self {
            image,
            revision,
            rows: SmallVec::new(),
        }
    }

    /// Makes the changes a revision, if there are any.
    pub(crate) fn commit(self) {
        if self.rows.is_empty() {
            return;
        }
        let in_config = |change: &ChangedRow| change.row.key.starts_with(CONFIG_PREFIX.as_bytes());
        let config_changed = self.rows.iter().any(in_config);
        let changes = Changes {
            revision: self.revision,
            rows: self.rows,
        };
        self.image.resident_bytes += changes.resident_bytes();
        self.image.history.push_back(Arc::new(changes));
        self.image.meta.revision = self.revision;
        if config_changed {
            let ConfigRevision(count) = self.image.meta.config_revision;
            self.image.meta.config_revision = ConfigRevision(count + 1);
        }
    }

    pub(crate) fn put(&mut self, op: &PutOp) -> PutResult {
        let current = self.image.live.get(&op.key[..]);
        let value = match current {
            Some(row) if op.ignore_value => row.value.clone(),
            _ => Bytes::copy_from_slice(&op.value),
        };
        let lease = match current {
            Some(row) if op.ignore_lease => row.lease,
            _ => op.lease,
        };
        let (key, create_revision, version) = match current {
            Some(row) => (row.key.clone(), row.create_revision, row.version + 1),
            None => (Bytes::copy_from_slice(&op.key), self.revision, 1),
        };
        let (mod_revision, sub) = (self.revision, self.next_sub());
        let row = KeyValue {
            key,
            value,
            create_revision,
            mod_revision,
            version,
            lease,
            sub,
        };
        self.replace(Arc::new(row));
        let prev = self.rows.last().and_then(|change| change.prev.clone());
        PutResult {
            prev: prev.filter(|_| op.prev_kv),
        }
    }

    pub(crate) fn delete(&mut self, op: &DeleteOp) -> DeleteResult {
        let doomed: Vec<Row> = self.image.live(&op.range).cloned().collect();
        for row in &doomed {
            self.bury(row.key.clone());
        }
        let deleted = doomed.len();
        DeleteResult {
            deleted,
            prev: if op.prev_kv { doomed } else { Vec::new() },
        }
    }

    /// Deletes a key that exists.
    pub(crate) fn bury(&mut self, key: Bytes) {
        let (mod_revision, sub) = (self.revision, self.next_sub());
        self.replace(Arc::new(KeyValue {
            key,
            mod_revision,
            sub,
            ..KeyValue::default()
        }));
    }

    pub(crate) fn range(&self, op: &RangeOp) -> RangeResult {
        if op.revision <= 0 {
            query::run(op, self.image.live(&op.range))
        } else {
            query::run(op, self.image.past(op.revision, &self.rows).rows(&op.range))
        }
    }

    /// Does the branch of `txn` that `path` chose; `path` has one entry for each transaction on
    /// the way, outermost first, in the order of the operations.
    pub(crate) fn txn(&mut self, txn: &TxnOp, path: &mut slice::Iter<'_, bool>) -> TxnResult {
        let succeeded = *path
            .next()
            .expect("the path was made by walking this same transaction");
        let ops = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        let responses = ops.iter().map(|op| match op {
            Op::Range(range) => Response::Range(self.range(range)),
            Op::Put(put) => Response::Put(self.put(put)),
            Op::Delete(delete) => Response::Delete(self.delete(delete)),
            Op::Txn(inner) => Response::Txn(self.txn(inner, path)),
        });
        TxnResult {
            succeeded,
            responses: responses.collect(),
        }
    }

    /// Makes `row` its key's current version. A tombstone at or below the compact revision (which
    /// only a rebuild sees) gets no grave: nobody can read what it buried.
    pub(crate) fn replace(&mut self, row: Row) {
        let image = &mut *self.image;
        image.resident_bytes += row.resident_bytes();
        let prev = if row.is_tombstone() {
            if self.revision > image.meta.compact_revision {
                let grave = Grave {
                    key: row.key.clone(),
                    revision: self.revision,
                };
                image.graves.insert(grave, row.clone());
            }
            image.live.remove(&row.key[..])
        } else {
            image.live_bytes += row.resident_bytes();
            image.live.insert(row.key.clone(), row.clone())
        };
        image.live_bytes -= prev.as_ref().map_or(0, |prev| prev.resident_bytes());
        let old_lease = prev.as_ref().map_or(0, |prev| prev.lease);
        if old_lease != row.lease {
            if old_lease != 0 {
                image.leases.detach(old_lease, &row.key);
            }
            if row.lease != 0 {
                image.leases.attach(row.lease, &row.key);
            }
        }
        self.rows.push(ChangedRow { row, prev });
    }

    fn next_sub(&self) -> u32 {
        u32::try_from(self.rows.len()).expect("memory ends long before 4 G changes in a revision")
    }
}
