//! The keys that a list of operations writes, to find one that is written twice.
//!
//! Owns the rule that a transaction writes a key at most once: two puts of one key, or a put within
//! a delete, are refused in any order and at any depth; deletes may overlap, as only the first
//! finds anything. The branches of one nested transaction exclude each other, so only each of them
//! is held against the rest. (etcd has the same rule, but misses a delete after a put in sibling
//! transactions and a delete without an end; here every key changes once per revision, always.)

use std::collections::{BTreeMap, BTreeSet};

use crate::{KeyRange, Op, RangeEnd};

/// Some key is written twice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WrittenTwice;

/// The keys that a list of operations puts, and those that it deletes.
#[derive(Debug, Default)]
pub(crate) struct Written<'a> {
    puts: BTreeSet<&'a [u8]>,
    /// Disjoint, by start.
    deletes: BTreeMap<Cut<'a>, Cut<'a>>,
}

/// A place between keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cut<'a> {
    At(&'a [u8], Side),
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Before,
    After,
}

impl<'a> Written<'a> {
    /// What `ops` write, whichever branches their nested transactions take.
    pub(crate) fn by(ops: &'a [Op]) -> Result<Self, WrittenTwice> {
        let mut all = Self::default();
        for op in ops {
            let mut more = Self::default();
            match op {
                Op::Range(_) => {}
                Op::Put(put) => {
                    more.puts.insert(&put.key);
                }
                Op::Delete(delete) => more.cover(span(&delete.range)),
                Op::Txn(txn) => {
                    more = Self::by(&txn.success)?;
                    more.add(Self::by(&txn.failure)?);
                }
            }
            if all.conflicts(&more) {
                return Err(WrittenTwice);
            }
            all.add(more);
        }
        Ok(all)
    }

    /// Whether a transaction that does both writes a key twice. The cost follows `other`.
    fn conflicts(&self, other: &Self) -> bool {
        other
            .puts
            .iter()
            .any(|key| self.puts.contains(key) || self.deletes(key))
            || other
                .deletes
                .iter()
                .any(|(&start, &end)| self.puts_within(start, end))
    }

    fn add(&mut self, other: Self) {
        self.puts.extend(other.puts);
        other.deletes.into_iter().for_each(|span| self.cover(span));
    }

    fn deletes(&self, key: &'a [u8]) -> bool {
        let cut = Cut::At(key, Side::Before);
        self.deletes
            .range(..=cut)
            .next_back()
            .is_some_and(|(_, &end)| cut < end)
    }

    fn puts_within(&self, start: Cut<'a>, end: Cut<'a>) -> bool {
        let Cut::At(start, _) = start else {
            return false;
        };
        self.puts
            .range(start..)
            .next()
            .is_some_and(|put| Cut::At(put, Side::Before) < end)
    }

    /// Adds a span to the deletes, merging it with those that it meets.
    fn cover(&mut self, (mut start, mut end): (Cut<'a>, Cut<'a>)) {
        if start >= end {
            return;
        }
        while let Some((&other_start, &other_end)) = self.deletes.range(..=end).next_back()
            && other_end >= start
        {
            start = start.min(other_start);
            end = end.max(other_end);
            self.deletes.remove(&other_start);
        }
        self.deletes.insert(start, end);
    }
}

fn span(range: &KeyRange) -> (Cut<'_>, Cut<'_>) {
    let start = &range.start()[..];
    let end = match range.end() {
        RangeEnd::Only => Cut::At(start, Side::After),
        RangeEnd::Before(end) => Cut::At(end, Side::Before),
        RangeEnd::Unbounded => Cut::End,
    };
    (Cut::At(start, Side::Before), end)
}
