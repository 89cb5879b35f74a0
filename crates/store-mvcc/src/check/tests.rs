//! The checks of a request's form.

use bytes::Bytes;

use super::*;
use crate::{Compare, CompareResult, CompareTarget};

fn put(key: &'static str) -> Op {
    Op::Put(PutOp::new(key, "v"))
}

fn delete(key: &'static str, end: &'static str) -> Op {
    let range = KeyRange::from_etcd(Bytes::from(key), Bytes::from(end));
    Op::Delete(DeleteOp::new(range))
}

fn txn(success: Vec<Op>, failure: Vec<Op>) -> TxnOp {
    TxnOp {
        compares: Vec::new(),
        success,
        failure,
    }
}

fn nest(success: Vec<Op>, failure: Vec<Op>) -> Op {
    Op::Txn(Box::new(txn(success, failure)))
}

fn duplicate(success: Vec<Op>) -> bool {
    match txn(success, Vec::new()).check(TXN_OPS_MAX) {
        Ok(()) => false,
        Err(CommandError::DuplicateKey) => true,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_key_is_written_once_in_a_branch() {
    assert!(duplicate(vec![put("a"), put("a")]));
    assert!(!duplicate(vec![put("a"), put("b")]));
    assert!(duplicate(vec![put("b"), delete("a", "c")]));
    assert!(duplicate(vec![delete("a", "c"), put("b")]));
    assert!(
        duplicate(vec![delete("a", "\0"), put("b")]),
        "a delete without an end"
    );
    assert!(duplicate(vec![delete("b", ""), put("b")]));
    assert!(!duplicate(vec![delete("b", ""), put("b\0"), put("a")]));
    assert!(!duplicate(vec![delete("a", "c"), put("c")]));
    assert!(
        !duplicate(vec![delete("c", "a"), put("b")]),
        "an inverted range deletes nothing"
    );
}

#[test]
fn deletes_may_overlap() {
    assert!(!duplicate(vec![
        delete("a", "c"),
        delete("b", "d"),
        delete("a", "z"),
        put("z")
    ]));
    assert!(duplicate(vec![
        delete("a", "c"),
        delete("e", "g"),
        delete("b", "f"),
        put("d")
    ]));
    // The last one swallows both of the first.
    assert!(duplicate(vec![
        delete("b", "c"),
        delete("d", "e"),
        delete("a", "z"),
        put("f")
    ]));
}

#[test]
fn the_branches_of_one_transaction_exclude_each_other() {
    assert!(!duplicate(vec![nest(vec![put("a")], vec![put("a")])]));
    assert!(!duplicate(vec![nest(
        vec![put("a")],
        vec![delete("a", "")]
    )]));
    let both = txn(vec![put("a")], vec![put("a")]);
    assert_eq!(both.check(TXN_OPS_MAX), Ok(()));
}

#[test]
fn nested_writes_count_against_their_siblings_and_parents() {
    assert!(duplicate(vec![
        nest(vec![put("a")], vec![]),
        nest(vec![], vec![put("a")])
    ]));
    assert!(duplicate(vec![nest(vec![put("a")], vec![]), put("a")]));
    assert!(duplicate(vec![
        put("a"),
        nest(vec![nest(vec![put("a")], vec![])], vec![])
    ]));
    assert!(duplicate(vec![
        nest(vec![put("a")], vec![]),
        nest(vec![delete("a", "")], vec![])
    ]));
    assert!(duplicate(vec![
        nest(vec![delete("a", "c")], vec![]),
        nest(vec![put("b")], vec![])
    ]));
    assert!(duplicate(vec![nest(vec![], vec![put("a"), put("a")])]));
}

#[test]
fn the_longest_list_counts_and_nesting_eats_into_the_limit() {
    let keys = ["a", "b", "c", "d"];
    let puts = |n: usize| keys[..n].iter().map(|key| put(key)).collect::<Vec<_>>();
    let too_many = Err(CommandError::TooManyOps { limit: 3 });
    assert_eq!(txn(puts(3), puts(3)).check(3), Ok(()));
    assert_eq!(txn(puts(3), puts(4)).check(3), too_many);
    assert_eq!(txn(vec![nest(puts(2), vec![])], vec![]).check(3), Ok(()));
    assert_eq!(txn(vec![nest(puts(3), vec![])], vec![]).check(3), too_many);

    let compare = Compare {
        range: KeyRange::key("a"),
        result: CompareResult::Equal,
        target: CompareTarget::Version(0),
    };
    let compares = vec![compare; 4];
    assert_eq!(
        TxnOp {
            compares,
            ..TxnOp::default()
        }
        .check(3),
        too_many
    );
}

#[test]
fn keys_are_never_empty_and_options_never_contradict() {
    let empty = KeyRange::from_etcd(Bytes::new(), Bytes::from("\0"));
    assert_eq!(
        RangeOp::new(empty.clone()).check(),
        Err(CommandError::EmptyKey)
    );
    assert_eq!(
        DeleteOp::new(empty.clone()).check(),
        Err(CommandError::EmptyKey)
    );
    assert_eq!(
        Command::Put(PutOp::new("", "v")).check(1),
        Err(CommandError::EmptyKey)
    );
    let inside = txn(
        vec![nest(vec![Op::Delete(DeleteOp::new(empty.clone()))], vec![])],
        vec![],
    );
    assert_eq!(
        Command::Txn(inside).check(TXN_OPS_MAX),
        Err(CommandError::EmptyKey)
    );
    let compare = Compare {
        range: empty,
        result: CompareResult::Equal,
        target: CompareTarget::Version(0),
    };
    let compared = TxnOp {
        compares: vec![compare],
        ..TxnOp::default()
    };
    assert_eq!(compared.check(TXN_OPS_MAX), Err(CommandError::EmptyKey));

    let value = PutOp {
        ignore_value: true,
        ..PutOp::new("a", "v")
    };
    assert_eq!(value.check(), Err(CommandError::ValueProvided));
    let lease = PutOp {
        ignore_lease: true,
        lease: 7,
        ..PutOp::new("a", "v")
    };
    assert_eq!(lease.check(), Err(CommandError::LeaseProvided));
}

#[test]
fn thousands_of_deletes_are_checked_in_no_time() {
    // Pairs of disjoint spans with a put between each: quadratic work would take minutes.
    let keys: Vec<Bytes> = (0..60_000_u32)
        .map(|n| Bytes::from(format!("{n:08}")))
        .collect();
    let ops = keys.iter().enumerate().map(|(n, key)| match n % 2 {
        0 => Op::Delete(DeleteOp::new(KeyRange::key(key.clone()))),
        _ => Op::Put(PutOp::new(key.clone(), "v")),
    });
    assert_eq!(txn(ops.collect(), Vec::new()).check(usize::MAX), Ok(()));
}
