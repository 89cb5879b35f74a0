//! The same random sequences of operations on etcd and on Skein, answer by answer.
//!
//! Owns what counts as equal: everything but ids, terms, raft's indexes, the rest of a lease's time,
//! and where revisions begin. `docs/etcd-compatibility.md` lists the differences that are meant.
//!
//! Thirty sequences are run, or as many as `SKEIN_SEQUENCES` says; one that differs is made as short
//! as it can be.

mod operations;
mod peer;

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use crate::harness::Mesh;
use operations::{Operation, operations};
use peer::{Etcd, Peer};

const SEQUENCES: u32 = 30;

#[test]
fn etcd_and_skein_answer_alike() {
    if peer::is_missing() {
        return;
    }
    let asked = std::env::var("SKEIN_SEQUENCES").ok();
    let cases = asked.map_or(SEQUENCES, |asked| asked.parse().expect("a number"));
    let mesh = Mesh::start(1);
    let etcd = Etcd::start(&mesh.subnet, mesh.dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let peers = runtime.block_on(async {
        let skein = Peer::connect(&mesh.nodes[0].client()).await;
        [Peer::connect(&etcd.client).await, skein]
    });
    let state = RefCell::new((peers, 0));
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&operations(), |sequence| {
        let ([etcd, skein], number) = &mut *state.borrow_mut();
        *number += 1;
        let (etcd, skein) = runtime.block_on(async {
            let etcd = etcd.play(&sequence, *number);
            tokio::join!(etcd, skein.play(&sequence, *number))
        });
        compare(&sequence, &etcd, &skein)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, sequence)) => panic!("{reason}\nin {sequence:#?}"),
        Err(error) => panic!("{error}"),
    }
}

fn compare(sequence: &[Operation], etcd: &[String], skein: &[String]) -> Result<(), TestCaseError> {
    prop_assert_eq!(etcd.len(), skein.len());
    for (at, (etcd, skein)) in etcd.iter().zip(skein).enumerate() {
        let of = sequence.get(at).map(|operation| format!("{operation:?}"));
        let of = of.unwrap_or_else(|| format!("watch {}", at - sequence.len()));
        let alike = etcd == skein
            || matches!(sequence.get(at), Some(Operation::Txn(_)))
                && [etcd, skein].into_iter().all(|answer| is_misfit(answer))
            || sequence.get(at).is_none() && was_compacted_away(etcd, skein);
        prop_assert!(alike, "\n{of}\netcd:  {etcd}\nSkein: {skein}");
    }
    Ok(())
}

/// Whether a transaction was refused because an operation of the branch that was taken does not fit the
/// state. Where several do not, etcd 3.4 tells of puts before it tells of ranges; newer ones, and
/// Skein, tell of the first.
fn is_misfit(answer: &str) -> bool {
    let told = [
        "NotFound: etcdserver: requested lease not found",
        "InvalidArgument: etcdserver: key not found",
        "OutOfRange: etcdserver: mvcc: required revision is a future revision",
        "OutOfRange: etcdserver: mvcc: required revision has been compacted",
    ];
    told.contains(&answer)
}

/// Whether etcd cancelled a watch that began in the past, because history was compacted before it
/// looked: it does so every 100 ms. Skein looks at once. What etcd told until then must be alike.
fn was_compacted_away(etcd: &str, skein: &str) -> bool {
    let Some((told, end)) = etcd.split_once(" and then ") else {
        return false;
    };
    let compacted = end.contains("canceled: true") && !end.contains("compact_revision: 0");
    compacted && skein.starts_with(told)
}
