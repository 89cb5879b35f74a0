//! Random commands over a few short keys, so that they meet each other all the time.

use bytes::Bytes;
use model::{ConfigRevision, Version};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use store_mvcc::{
    Command, Compare, CompareResult, CompareTarget, DeleteOp, GrantOp, KeepAliveOp, KeyRange,
    LEASE_TTL_MAX, Op, Proposal, PutOp, RangeOp, SetVersionOp, SortOrder, SortTarget, TickOp,
    TxnOp,
};

/// Revisions that a history of this size reaches, and a few that it does not.
const REVISIONS: std::ops::Range<i64> = -2..30;

/// Up to `len` proposals.
pub(crate) fn history(len: usize) -> impl Strategy<Value = Vec<Proposal>> {
    vec(proposal(), 0..len)
}

/// Any range, in the past too.
pub(crate) fn range() -> impl Strategy<Value = RangeOp> {
    let revision = prop_oneof![2 => Just(0), 3 => REVISIONS];
    let bound = || prop_oneof![5 => Just(0), 1 => REVISIONS];
    let filters = (bound(), bound(), bound(), bound());
    let order = option::weighted(0.3, (targets(), orders()));
    let limit = prop_oneof![2 => Just(0_usize), 2 => 1..4_usize, 1 => Just(usize::MAX)];
    (key_range(), limit, revision, order, flag(), flag(), filters).prop_map(
        |(range, limit, revision, order, keys_only, count_only, filters)| RangeOp {
            range,
            limit,
            revision,
            order,
            keys_only,
            count_only,
            min_mod_revision: filters.0,
            max_mod_revision: filters.1,
            min_create_revision: filters.2,
            max_create_revision: filters.3,
        },
    )
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let command = prop_oneof![
        8 => put().prop_map(Command::Put),
        3 => delete().prop_map(Command::Delete),
        5 => txn(2).prop_map(Command::Txn),
        1 => REVISIONS.prop_map(|revision| Command::Compact { revision }),
        1 => versions().prop_map(Command::SetClusterVersion),
        4 => grant().prop_map(Command::Grant),
        1 => lease().prop_map(|lease| Command::Revoke { lease }),
        2 => keep_alive().prop_map(Command::KeepAlive),
        4 => tick().prop_map(Command::Tick),
    ];
    let guard = prop_oneof![3 => Just(None), 2 => (0..4_u64).prop_map(Some)];
    (command, guard).prop_map(|(command, guard)| Proposal {
        config_guard: guard.map(ConfigRevision),
        ..Proposal::new(command)
    })
}

fn versions() -> impl Strategy<Value = SetVersionOp> {
    (1..4_u16, flag()).prop_map(|(minor, downgrade)| SetVersionOp {
        version: Version { major: 0, minor },
        downgrade,
    })
}

fn txn(depth: u32) -> BoxedStrategy<TxnOp> {
    let branch = || vec(op(depth), 0..4);
    (vec(compare(), 0..2), branch(), branch())
        .prop_map(|(compares, success, failure)| TxnOp {
            compares,
            success,
            failure,
        })
        .boxed()
}

fn op(depth: u32) -> BoxedStrategy<Op> {
    let flat = prop_oneof![
        3 => put().prop_map(Op::Put),
        2 => delete().prop_map(Op::Delete),
        2 => range().prop_map(Op::Range),
    ];
    if depth == 0 {
        return flat.boxed();
    }
    let nested = txn(depth - 1).prop_map(|txn| Op::Txn(Box::new(txn)));
    prop_oneof![4 => flat, 1 => nested].boxed()
}

fn put() -> impl Strategy<Value = PutOp> {
    let lease = prop_oneof![2 => Just(0_i64), 1 => lease()];
    (key(), value(), lease, flag(), rarely(), rarely()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| {
            let value = if ignore_value && !key.starts_with(b"b") {
                Bytes::new()
            } else {
                value
            };
            PutOp {
                key,
                value,
                lease,
                prev_kv,
                ignore_value,
                ignore_lease,
            }
        },
    )
}

fn grant() -> impl Strategy<Value = GrantOp> {
    let ttl = prop_oneof![9 => -1..4_i64, 1 => Just(LEASE_TTL_MAX), 1 => Just(LEASE_TTL_MAX + 1)];
    (lease(), ttl, millis()).prop_map(|(id, ttl, age_ms)| GrantOp { id, ttl, age_ms })
}

fn keep_alive() -> impl Strategy<Value = KeepAliveOp> {
    (vec(lease(), 0..4), millis()).prop_map(|(ids, age_ms)| KeepAliveOp { ids, age_ms })
}

fn tick() -> impl Strategy<Value = TickOp> {
    // Readings that the clock has at its beginning or comes to.
    let from = select(vec![0, 0, 500, 1_000, 1_000, 1_500, 2_000, 3_000]);
    (from, millis()).prop_map(|(from_ms, advance_ms)| TickOp {
        from_ms,
        advance_ms,
        term: 1,
    })
}

/// Few, so that they are granted again after they ended; -1 and `i64::MAX` are ids as others.
fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![1 => Just(0), 20 => 1..4_i64, 1 => Just(-1), 1 => Just(i64::MAX)]
}

/// Around the most that counts.
fn millis() -> impl Strategy<Value = u64> {
    select(vec![0, 1, 499, 500, 1_000, 1_001, u64::MAX])
}

fn delete() -> impl Strategy<Value = DeleteOp> {
    (key_range(), flag()).prop_map(|(range, prev_kv)| DeleteOp { range, prev_kv })
}

fn compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        (0..3_i64).prop_map(CompareTarget::Version),
        REVISIONS.prop_map(CompareTarget::Create),
        REVISIONS.prop_map(CompareTarget::Mod),
        value().prop_map(CompareTarget::Value),
        (0..2_i64).prop_map(CompareTarget::Lease),
    ];
    let result = select(vec![
        CompareResult::Equal,
        CompareResult::NotEqual,
        CompareResult::Greater,
        CompareResult::Less,
    ]);
    (key_range(), result, target).prop_map(|(range, result, target)| Compare {
        range,
        result,
        target,
    })
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    let end = prop_oneof![
        4 => Just(Bytes::new()),
        1 => Just(Bytes::from_static(b"\0")),
        3 => key(),
    ];
    (key(), end).prop_map(|(key, end)| KeyRange::from_etcd(key, end))
}

fn key() -> impl Strategy<Value = Bytes> {
    let keys: [&'static [u8]; 8] = [
        b"\0",
        b"a",
        b"a\0",
        b"ab",
        b"b",
        b"c",
        b"/skein/config/d/k/n",
        b"",
    ];
    prop_oneof![30 => select(keys[..7].to_vec()), 1 => Just(keys[7])].prop_map(Bytes::from_static)
}

fn value() -> impl Strategy<Value = Bytes> {
    let values: [&'static [u8]; 4] = [b"", b"1", b"2", b"22"];
    select(values.to_vec()).prop_map(Bytes::from_static)
}

fn targets() -> impl Strategy<Value = SortTarget> {
    select(vec![
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ])
}

fn orders() -> impl Strategy<Value = SortOrder> {
    select(vec![SortOrder::None, SortOrder::Ascend, SortOrder::Descend])
}

fn flag() -> impl Strategy<Value = bool> {
    proptest::bool::weighted(0.3)
}

fn rarely() -> impl Strategy<Value = bool> {
    proptest::bool::weighted(0.1)
}
