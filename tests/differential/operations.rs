//! Random operations, in terms that fit any store: revisions count from the newest one, lease ids
//! from the sequence's first.

use proptest::prelude::*;

/// What a client may ask.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Range(Range),
    Put(Put),
    Delete(Delete),
    Txn(Txn),
    Compact { revision: Revision },
    Grant { id: u8, ttl: i64 },
    Revoke { id: u8 },
    KeepAlive { id: u8 },
    TimeToLive { id: u8, keys: bool },
    Leases,
    Watch(Watch),
}

/// Keys from `key` up to `end`; an empty `end` means `key` alone, a zero byte everything above.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) key: &'static str,
    pub(super) end: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Revision {
    /// The field is not set.
    Unset,
    /// So many before the newest.
    Back(i64),
    /// So many after it.
    Ahead(i64),
    Negative,
}

#[derive(Debug, Clone)]
pub(super) struct Range {
    pub(super) keys: Keys,
    pub(super) revision: Revision,
    pub(super) limit: i64,
    pub(super) order: i32,
    pub(super) target: i32,
    pub(super) serializable: bool,
    pub(super) keys_only: bool,
    pub(super) count_only: bool,
    /// Least and greatest mod revision, least and greatest create revision.
    pub(super) bounds: [Revision; 4],
}

#[derive(Debug, Clone)]
pub(super) struct Put {
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    /// 0: none
    pub(super) lease: u8,
    pub(super) prev_kv: bool,
    pub(super) ignore_value: bool,
    pub(super) ignore_lease: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Delete {
    pub(super) keys: Keys,
    pub(super) prev_kv: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Compare {
    pub(super) keys: Keys,
    pub(super) result: i32,
    pub(super) against: Against,
}

#[derive(Debug, Clone)]
pub(super) enum Against {
    Version(i64),
    Create(Revision),
    Mod(Revision),
    Value(&'static str),
    Lease(u8),
}

#[derive(Debug, Clone)]
pub(super) struct Txn {
    pub(super) compares: Vec<Compare>,
    pub(super) success: Vec<TxnOperation>,
    pub(super) failure: Vec<TxnOperation>,
}

#[derive(Debug, Clone)]
pub(super) enum TxnOperation {
    Range(Range),
    Put(Put),
    Delete(Delete),
    Txn(Txn),
}

#[derive(Debug, Clone)]
pub(super) struct Watch {
    pub(super) keys: Keys,
    pub(super) from: Revision,
    pub(super) filters: Vec<i32>,
    pub(super) prev_kv: bool,
}

/// Sequences of up to 24 operations.
pub(super) fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        6 => range().prop_map(Operation::Range),
        10 => put().prop_map(Operation::Put),
        3 => delete().prop_map(Operation::Delete),
        6 => txn().prop_map(Operation::Txn),
        1 => revision().prop_map(|revision| Operation::Compact { revision }),
        3 => (lease(), ttl()).prop_map(|(id, ttl)| Operation::Grant { id, ttl }),
        1 => lease().prop_map(|id| Operation::Revoke { id }),
        1 => lease().prop_map(|id| Operation::KeepAlive { id }),
        1 => (lease(), any::<bool>()).prop_map(|(id, keys)| Operation::TimeToLive { id, keys }),
        1 => Just(Operation::Leases),
        2 => watch().prop_map(Operation::Watch),
    ];
    proptest::collection::vec(operation, 1..24)
}

fn key() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        1 => Just(""),
        30 => prop::sample::select(&["a", "aa", "b", "c", "ca", "d"][..]),
    ]
}

fn keys() -> impl Strategy<Value = Keys> {
    let end = prop_oneof![
        6 => Just(""),
        2 => Just("\0"),
        4 => prop::sample::select(&["a", "b", "ab", "c", "d", "e"][..]),
    ];
    let key = prop_oneof![8 => key(), 1 => Just("\0")];
    (key, end).prop_map(|(key, end)| Keys { key, end })
}

fn value() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["", "1", "2", "long value"][..])
}

fn lease() -> impl Strategy<Value = u8> {
    1..4_u8
}

fn ttl() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => Just(3600),
        1 => Just(0),
        1 => Just(-1),
        1 => Just(9_000_000_000),
        1 => Just(9_000_000_001),
    ]
}

fn revision() -> impl Strategy<Value = Revision> {
    prop_oneof![
        8 => Just(Revision::Unset),
        6 => (0..8_i64).prop_map(Revision::Back),
        1 => (1..3_i64).prop_map(Revision::Ahead),
        1 => Just(Revision::Negative),
    ]
}

/// For fields that are seldom set.
fn bound() -> impl Strategy<Value = Revision> {
    prop_oneof![
        12 => Just(Revision::Unset),
        2 => (0..8_i64).prop_map(Revision::Back),
    ]
}

fn range() -> impl Strategy<Value = Range> {
    let flags = (
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    );
    let bounds = [bound(), bound(), bound(), bound()];
    (
        keys(),
        revision(),
        0..4_i64,
        0..3_i32,
        0..5_i32,
        flags,
        bounds,
    )
        .prop_map(
            |(keys, revision, limit, order, target, flags, bounds)| Range {
                keys,
                revision,
                limit,
                order,
                target,
                serializable: flags.0,
                keys_only: flags.1,
                count_only: flags.2,
                bounds,
            },
        )
}

fn put() -> impl Strategy<Value = Put> {
    let lease = prop_oneof![4 => Just(0), 2 => lease()];
    let rare = || prop::bool::weighted(0.1);
    (key(), value(), lease, any::<bool>(), rare(), rare()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| Put {
            key,
            value,
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = Delete> {
    (keys(), any::<bool>()).prop_map(|(keys, prev_kv)| Delete { keys, prev_kv })
}

fn compare() -> impl Strategy<Value = Compare> {
    let against = prop_oneof![
        (0..3_i64).prop_map(Against::Version),
        revision().prop_map(Against::Create),
        revision().prop_map(Against::Mod),
        value().prop_map(Against::Value),
        (0..4_u8).prop_map(Against::Lease),
    ];
    (keys(), 0..4_i32, against).prop_map(|(keys, result, against)| Compare {
        keys,
        result,
        against,
    })
}

/// Deletes stand in the outermost branches alone, and have an end: of the others, etcd overlooks
/// some that meet a put of the same transaction, which Skein refuses.
fn txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        2 => range().prop_map(TxnOperation::Range),
        4 => put().prop_map(TxnOperation::Put),
    ];
    let nested = leaf.prop_recursive(2, 12, 3, |inner| txn_of(inner).prop_map(TxnOperation::Txn));
    let bounded = delete().prop_filter("it ends", |delete| {
        delete.keys.end != "\0" && delete.keys.key != "\0"
    });
    txn_of(prop_oneof![
        4 => nested,
        1 => bounded.prop_map(TxnOperation::Delete),
    ])
}

fn txn_of(operation: impl Strategy<Value = TxnOperation> + Clone) -> impl Strategy<Value = Txn> {
    let operations = proptest::collection::vec(operation, 0..4);
    let compares = proptest::collection::vec(compare(), 0..3);
    (compares, operations.clone(), operations).prop_map(|(compares, success, failure)| Txn {
        compares,
        success,
        failure,
    })
}

fn watch() -> impl Strategy<Value = Watch> {
    let filters = prop_oneof![
        6 => Just(Vec::new()),
        1 => Just(vec![0]),
        1 => Just(vec![1]),
    ];
    (keys(), revision(), filters, any::<bool>()).prop_map(|(keys, from, filters, prev_kv)| Watch {
        keys,
        from,
        filters,
        prev_kv,
    })
}
