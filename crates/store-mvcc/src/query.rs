//! The options of a range: limit, revision filters, sorting, keys only, count only.
//!
//! Owns their meaning, which is etcd's, including what it says when they are combined. Never
//! decides which rows are visible: it is handed those.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;

use crate::{KeyValue, RangeOp, RangeResult, Row, SortOrder, SortTarget};

/// Answers `op` from the visible rows of its range, which come by key.
pub(crate) fn run<'a>(op: &RangeOp, visible: impl Iterator<Item = &'a Row>) -> RangeResult {
    if op.count_only {
        return RangeResult {
            count: visible.count(),
            ..RangeResult::default()
        };
    }
    let wanted = fetch_limit(op);
    let mut rows = Vec::new();
    let mut count = 0;
    for row in visible {
        count += 1;
        if rows.len() < wanted && passes(op, row) {
            rows.push(row.clone());
        }
    }
    sort(op, &mut rows);
    let more = op.limit > 0 && rows.len() > op.limit;
    if more {
        rows.truncate(op.limit);
    }
    if op.keys_only {
        rows.iter_mut().for_each(strip_value);
    }
    RangeResult { rows, more, count }
}

/// How many rows to collect: all if sorting or filters may still choose among them, else one above
/// the limit, which tells whether there are more.
fn fetch_limit(op: &RangeOp) -> usize {
    let sorted = match op.order {
        None | Some((_, SortOrder::None) | (SortTarget::Key, SortOrder::Ascend)) => false,
        Some(_) => true,
    };
    let filtered = op.min_mod_revision != 0
        || op.max_mod_revision != 0
        || op.min_create_revision != 0
        || op.max_create_revision != 0;
    if op.limit == 0 || sorted || filtered {
        usize::MAX
    } else {
        op.limit.saturating_add(1)
    }
}

fn passes(op: &RangeOp, row: &KeyValue) -> bool {
    let within =
        |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(row.mod_revision, op.min_mod_revision, op.max_mod_revision)
        && within(
            row.create_revision,
            op.min_create_revision,
            op.max_create_revision,
        )
}

fn sort(op: &RangeOp, rows: &mut [Row]) {
    match op.order {
        None | Some((SortTarget::Key, SortOrder::None | SortOrder::Ascend)) => {}
        Some((SortTarget::Key, SortOrder::Descend)) => rows.reverse(),
        Some((target, SortOrder::None | SortOrder::Ascend)) => {
            rows.sort_by(|left, right| by_target(target, left, right));
        }
        Some((target, SortOrder::Descend)) => {
            rows.sort_by(|left, right| by_target(target, right, left));
        }
    }
}

fn by_target(target: SortTarget, left: &KeyValue, right: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => left.key.cmp(&right.key),
        SortTarget::Version => left.version.cmp(&right.version),
        SortTarget::Create => left.create_revision.cmp(&right.create_revision),
        SortTarget::Mod => left.mod_revision.cmp(&right.mod_revision),
        SortTarget::Value => left.value.cmp(&right.value),
    }
}

fn strip_value(row: &mut Row) {
    if !row.value.is_empty() {
        *row = Arc::new(KeyValue {
            value: Bytes::new(),
            ..KeyValue::clone(row)
        });
    }
}
