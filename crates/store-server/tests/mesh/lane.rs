//! Changes below `/skein/`: admitted one by one, whoever makes them and however.

use std::sync::Arc;

use model::ConfigRevision;
use store_api::etcdserverpb::request_op::Request as Op;
use store_api::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use store_api::verdict::Proposed;
use store_mvcc::{Caller, Command, Proposal, PutOp};
use store_server::{Limits, Patience};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::harness::{Mesh, delete, put};

const WEB: &str = "/skein/config/default/Cluster/web";

#[track_caller]
fn assert_refused(status: &Status, words: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(
        status.message().starts_with("skein: config refused: "),
        "{status}"
    );
    assert!(status.message().contains(words), "{status}");
    assert_eq!(Proposed::of(status), Some(Proposed::No));
}

fn txn(puts: &[(&str, &str)]) -> TxnRequest {
    let op = |(key, value): &(&str, &str)| RequestOp {
        request: Some(Op::RequestPut(put(key, value))),
    };
    TxnRequest {
        failure: puts.iter().map(op).collect(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_leaves_the_store_as_it_was() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let mut kv = node.kv();
    kv.put(put(WEB, "good")).await.unwrap();
    let before = node.store.image();
    assert_eq!(before.config_revision(), ConfigRevision(1));

    assert_refused(
        &kv.put(put(WEB, "bad")).await.unwrap_err(),
        "endpoints: empty",
    );
    // The branch that would not be taken counts as well.
    let hidden = txn(&[("free", "1"), (WEB, "bad")]);
    assert_refused(&kv.txn(hidden).await.unwrap_err(), "endpoints: empty");
    let leased = PutRequest {
        lease: 3,
        ..put(WEB, "good")
    };
    assert_refused(&kv.put(leased).await.unwrap_err(), "lease");
    let foreign = put("/skein/secret", "x");
    assert_refused(&kv.put(foreign).await.unwrap_err(), "another prefix");
    assert_refused(
        &kv.delete_range(delete("/skein/secret")).await.unwrap_err(),
        "/skein/",
    );

    let after = node.store.image();
    assert_eq!(after.revision(), before.revision());
    assert_eq!(after.config_revision(), before.config_revision());
    assert_eq!(node.value(WEB).unwrap(), "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_changes_count_and_reach_every_road() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let mut kv = node.kv();
    kv.put(put(WEB, "1")).await.unwrap();
    kv.txn(txn(&[("free", "1")])).await.unwrap();
    kv.put(put("/skein/endpoints/default/web/1", "10.0.0.1:80"))
        .await
        .unwrap();
    assert_eq!(node.store.image().config_revision(), ConfigRevision(1));
    let everything = DeleteRangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        ..Default::default()
    };
    let deleted = kv
        .delete_range(everything)
        .await
        .unwrap()
        .into_inner()
        .deleted;
    assert_eq!(deleted, 2, "an empty transaction branch wrote nothing");
    assert_eq!(node.store.image().config_revision(), ConfigRevision(2));
    assert_eq!(
        node.rules.judgements(),
        3,
        "what does not touch /skein/ is not judged"
    );
    let written = node
        .server
        .writes()
        .submit(
            &Caller::Nobody,
            Command::Put(PutOp::new(WEB, "2")),
            Patience::own(&Limits::default()),
        )
        .await
        .unwrap();
    assert_eq!(written.config_revision, ConfigRevision(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_all_get_their_turn() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let mut writers = JoinSet::new();
    for n in 0..40 {
        let mut kv = node.kv();
        writers.spawn(async move { kv.put(put(&format!("{WEB}{n}"), "v")).await });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap().unwrap();
    }
    assert_eq!(node.store.image().config_revision(), ConfigRevision(40));
    assert_eq!(
        node.rules.judgements(),
        40,
        "in one lane nobody is judged twice"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_judged_on_a_stale_config_is_judged_anew() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let runtime = tokio::runtime::Handle::current();
    let store = node.store.clone();
    // While the first judgement is made the config moves, as by a leader before this one.
    node.rules.at_each(move |image, judgement| {
        if judgement == 1 {
            let command = Command::Put(PutOp::new(format!("{WEB}-other"), "v"));
            let config_guard = Some(image.config_revision());
            let proposal = Proposal {
                config_guard,
                ..Proposal::new(command)
            };
            runtime
                .block_on(store.propose(&proposal))
                .unwrap()
                .result
                .unwrap();
        }
    });
    node.kv().put(put(WEB, "mine")).await.unwrap();
    assert_eq!(node.rules.judgements(), 2);
    assert_eq!(node.store.image().config_revision(), ConfigRevision(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_never_rests_is_given_up_with_a_clear_no() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let runtime = tokio::runtime::Handle::current();
    let store = node.store.clone();
    node.rules.at_each(move |image, judgement| {
        let command = Command::Put(PutOp::new(format!("{WEB}-{judgement}"), "v"));
        let proposal = Proposal {
            config_guard: Some(image.config_revision()),
            ..Proposal::new(command)
        };
        runtime
            .block_on(store.propose(&proposal))
            .unwrap()
            .result
            .unwrap();
    });
    let error = node.kv().put(put(WEB, "mine")).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(Proposed::of(&error), Some(Proposed::No));
    assert_eq!(node.value(WEB), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_checks_refuses_and_the_lane_goes_on() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let panics = Arc::new(std::sync::atomic::AtomicBool::new(true));
    node.rules.at_each(move |_, _| {
        assert!(
            !panics.swap(false, std::sync::atomic::Ordering::SeqCst),
            "a fault in a check"
        );
    });
    let error = node.kv().put(put(WEB, "1")).await.unwrap_err();
    assert_eq!(
        (error.code(), Proposed::of(&error)),
        (Code::Internal, Some(Proposed::No))
    );
    assert_eq!(node.value(WEB), None);
    node.kv().put(put(WEB, "2")).await.unwrap();
}
