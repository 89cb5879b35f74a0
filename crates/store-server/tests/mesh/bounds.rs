//! The bounds of a store: history, quota, sizes.

use std::time::Duration;

use futures_util::future::join_all;
use store_api::errors;
use store_api::etcdserverpb::alarm_request::AlarmAction;
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;
use store_api::etcdserverpb::request_op::Request as Op;
use store_api::etcdserverpb::watch_client::WatchClient;
use store_api::etcdserverpb::watch_request::RequestUnion;
use store_api::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, PutRequest, RequestOp, StatusRequest,
    TxnRequest, WatchCreateRequest, WatchRequest,
};
use store_mvcc::{Caller, Command, PutOp};
use store_server::{HistoryLimits, Limits};
use tonic::Status;

use crate::harness::{Mesh, Node, delete, get, put, until};

fn assert_same(got: &Status, expected: &Status) {
    assert_eq!(
        (got.code(), got.message()),
        (expected.code(), expected.message())
    );
}

fn large(key: &str, bytes: usize) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: vec![b'v'; bytes].into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_compacted_by_itself_and_watchers_behind_it_are_told() {
    let history = HistoryLimits {
        keep: Duration::ZERO,
        min_revisions: 5,
        max_bytes: u64::MAX,
    };
    let limits = Limits {
        history,
        ..Limits::default()
    };
    let mesh = Mesh::form_with(3, limits).await;
    let node = mesh.node(mesh.follower().await);
    for n in 0..30 {
        node.kv().put(put("a", &n.to_string())).await.unwrap();
    }
    until("all to have compacted", async || {
        mesh.running()
            .all(|node| node.store.image().compact_revision() == 31 - 5)
            .then_some(())
    })
    .await;

    let create = RequestUnion::CreateRequest(WatchCreateRequest {
        key: "a".into(),
        start_revision: 3,
        ..Default::default()
    });
    let request = WatchRequest {
        request_union: Some(create),
    };
    let requests = futures_util::stream::iter([request]);
    let requests = futures_util::StreamExt::chain(requests, futures_util::stream::pending());
    let mut watch = WatchClient::new(node.channel());
    let mut events = watch.watch(requests).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().unwrap().created);
    let told = events.message().await.unwrap().unwrap();
    assert!(told.canceled);
    assert_eq!(told.compact_revision, 26);
}

async fn alarms(node: &Node, action: AlarmAction) -> Vec<AlarmMember> {
    let request = AlarmRequest {
        action: action.into(),
        ..Default::default()
    };
    let mut maintenance = MaintenanceClient::new(node.channel());
    maintenance
        .alarm(request)
        .await
        .unwrap()
        .into_inner()
        .alarms
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_takes_what_makes_room_and_recovers_by_itself() {
    let limits = Limits {
        quota_bytes: 100_000,
        ..Limits::default()
    };
    let mesh = Mesh::form_with(3, limits).await;
    let leader = mesh.node(mesh.leader().await);
    let follower = mesh.node(mesh.follower().await);
    assert!(alarms(leader, AlarmAction::Get).await.is_empty());
    for n in 0..10 {
        let filling = follower.kv().put(large(&format!("k{n}"), 10_000)).await;
        filling.unwrap();
    }
    for node in [leader, follower] {
        let refused = node.kv().put(put("new", "v")).await.unwrap_err();
        assert_same(&refused, &errors::no_space());
        let config = put("/skein/config/default/Cluster/web", "{}");
        let refused = node.kv().put(config).await.unwrap_err();
        assert_same(&refused, &errors::no_space());
    }
    assert_eq!(leader.rules.judgements(), 0, "it is not worth a judgement");
    let alarm = AlarmMember {
        member_id: leader.store.id().0,
        alarm: AlarmType::Nospace.into(),
    };
    // Disarming neither clears it nor does harm.
    assert!(alarms(leader, AlarmAction::Deactivate).await.is_empty());
    assert_eq!(alarms(leader, AlarmAction::Get).await, [alarm]);
    let mut maintenance = MaintenanceClient::new(leader.channel());
    let status = maintenance.status(StatusRequest {}).await.unwrap();
    let status = status.into_inner();
    assert_eq!(status.db_size_quota, 100_000);
    assert!(
        status.errors[0].ends_with("alarm:NOSPACE "),
        "{:?}",
        status.errors
    );

    // It still reads, and what makes room passes.
    assert_eq!(
        follower
            .kv()
            .range(get("k9"))
            .await
            .unwrap()
            .into_inner()
            .count,
        1
    );
    follower.kv().put(large("k0", 9_000)).await.unwrap();
    for n in 1..4 {
        follower
            .kv()
            .delete_range(delete(&format!("k{n}")))
            .await
            .unwrap();
    }
    until("room", async || {
        follower.kv().put(put("new", "v")).await.ok().map(drop)
    })
    .await;
    assert!(alarms(leader, AlarmAction::Get).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_history_is_compacted_in_steps_on_request() {
    let limits = Limits {
        history: HistoryLimits {
            min_revisions: u64::MAX,
            ..HistoryLimits::default()
        },
        ..Limits::default()
    };
    let mesh = Mesh::form_with(1, limits).await;
    let node = mesh.node(0);
    let writes = node.server.writes();
    let patience = node.server.patience(&tonic::metadata::MetadataMap::new());
    let put = || Command::Put(PutOp::new("a", "v"));
    let all = (0..4_500).map(|_| writes.submit(&Caller::Nobody, put(), patience));
    for written in join_all(all).await {
        written.unwrap();
    }
    let log = node.store.status().last_log;
    let compact = |revision| {
        let mut kv = node.kv();
        async move {
            let request = CompactionRequest {
                revision,
                physical: true,
            };
            kv.compact(request).await.map(drop)
        }
    };
    assert_same(
        &compact(4_502).await.unwrap_err(),
        &errors::future_revision(),
    );
    compact(4_501).await.unwrap();
    assert_eq!(node.store.image().compact_revision(), 4_501);
    assert!(
        node.store.status().last_log >= log + 4,
        "one refused, then three steps"
    );
    assert_same(&compact(4_501).await.unwrap_err(), &errors::compacted());
    assert_same(&compact(3).await.unwrap_err(), &errors::compacted());
}

fn txn_of(ops: usize) -> TxnRequest {
    let op = |n: usize| RequestOp {
        request: Some(Op::RequestPut(put(&format!("k{n}"), "v"))),
    };
    TxnRequest {
        success: (0..ops).map(op).collect(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_limited_as_they_are_set() {
    let small = Limits {
        request_bytes: 2_000,
        txn_ops: 3,
        ..Limits::default()
    };
    let mesh = Mesh::form_with(1, small).await;
    let mut kv = mesh.node(0).kv();
    kv.put(large("a", 1_900)).await.unwrap();
    let refused = kv.put(large("a", 2_000)).await.unwrap_err();
    assert_same(&refused, &errors::request_too_large());
    kv.txn(txn_of(3)).await.unwrap();
    let refused = kv.txn(txn_of(4)).await.unwrap_err();
    assert_same(&refused, &errors::too_many_ops());

    let large_ones = Limits {
        request_bytes: *store_server::REQUEST_BYTES.end(),
        ..Limits::default()
    };
    let mesh = Mesh::form_with(3, large_ones).await;
    let mut kv = mesh.node(mesh.follower().await).kv();
    kv.put(large("a", (8 << 20) - 64)).await.unwrap();
    let refused = kv.put(large("a", 8 << 20)).await.unwrap_err();
    assert_same(&refused, &errors::request_too_large());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_are_etcds_by_name() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let mut registry = telemetry::Registry::default();
    node.server.register(&mut registry);
    for n in 0..3 {
        node.kv().put(put(&format!("k{n}"), "v")).await.unwrap();
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let figure = |name: &str| -> f64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name} in {text}"))
            .parse()
            .unwrap()
    };
    assert_eq!(figure("etcd_server_has_leader"), 1.0);
    assert_eq!(figure("etcd_server_is_leader"), 1.0);
    assert_eq!(figure("etcd_server_leader_changes_seen_total"), 1.0);
    assert_eq!(figure("etcd_server_proposals_failed_total"), 0.0);
    assert_eq!(figure("etcd_server_proposals_pending"), 0.0);
    assert!(figure("etcd_server_proposals_applied_total") >= 4.0);
    assert_eq!(figure("etcd_debugging_mvcc_keys_total"), 3.0);
    assert_eq!(figure("etcd_debugging_mvcc_watcher_total"), 0.0);
    assert_eq!(
        figure("etcd_server_quota_backend_bytes"),
        (2_u64 << 30) as f64
    );
    let syncs = figure("etcd_disk_wal_fsync_duration_seconds_count");
    assert!(syncs >= 4.0);
    let all = figure("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"}");
    assert_eq!(all, syncs);
}
