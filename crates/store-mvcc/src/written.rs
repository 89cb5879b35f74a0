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
            match op {
                Op::Range(_) => {}
                Op::Put(put) => all.put(&put.key)?,
                Op::Delete(delete) => all.delete(span(&delete.range))?,
                Op::Txn(txn) => {
                    let mut either = Self::by(&txn.success)?;
                    either.union(Self::by(&txn.failure)?);
                    all.add(either)?;
                }
            }
        }
        Ok(all)
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), WrittenTwice> {
        if self.deletes(key) || !self.puts.insert(key) {
            Err(WrittenTwice)
        } else {
            Ok(())
        }
    }

    fn delete(&mut self, (start, end): (Cut<'a>, Cut<'a>)) -> Result<(), WrittenTwice> {
        if let Cut::At(key, _) = start
            && let Some(put) = self.puts.range(key..).next()
            && Cut::At(put, Side::Before) < end
        {
            return Err(WrittenTwice);
        }
        self.cover(start, end);
        Ok(())
    }

    fn add(&mut self, other: Self) -> Result<(), WrittenTwice> {
        for key in other.puts {
            self.put(key)?;
        }
        for span in other.deletes {
            self.delete(span)?;
        }
        Ok(())
    }

    fn union(&mut self, other: Self) {
        self.puts.extend(other.puts);
        for (start, end) in other.deletes {
            self.cover(start, end);
        }
    }

    fn deletes(&self, key: &'a [u8]) -> bool {
        let last = self
            .deletes
            .range(..=Cut::At(key, Side::Before))
            .next_back();
        last.is_some_and(|(_, &end)| Cut::At(key, Side::Before) < end)
    }

    /// Adds a span to the deletes, merging it with those that it meets.
    fn cover(&mut self, mut start: Cut<'a>, mut end: Cut<'a>) {
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
