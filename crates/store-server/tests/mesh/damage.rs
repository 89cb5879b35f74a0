//! A node whose state is damaged says so on its client port, and answers nothing else.

use store_api::etcdserverpb::cluster_client::ClusterClient;
use store_api::etcdserverpb::lease_client::LeaseClient;
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;
use store_api::etcdserverpb::watch_client::WatchClient;
use store_api::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, HashKvRequest, LeaseGrantRequest, MemberListRequest,
    RangeRequest, SnapshotRequest, StatusRequest, WatchRequest,
};
use store_api::verdict::Proposed;
use store_disk::{DataDir, Doubt};
use tonic::{Code, Status};

use crate::harness::{Mesh, Node, get, put, until};

/// A node of three that knows from before its restart that it is damaged, and that nobody heals.
async fn damaged() -> Mesh {
    let mut mesh = Mesh::form(3).await;
    let leader = mesh.leader().await;
    mesh.node(leader).kv().put(put("a", "1")).await.unwrap();
    until("node 0 to have it", async || mesh.node(0).value("a")).await;
    for place in 0..3 {
        mesh.kill(place);
    }
    let data = until("the directory to be free", async || {
        DataDir::open(mesh.dirs[0].path()).ok()
    })
    .await;
    Doubt::State.save(&data).unwrap();
    drop(data);
    mesh.start_again(0).await;
    mesh
}

fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let text = status.message();
    assert!(text.contains("found to differ"), "the fault: {text}");
    assert!(text.contains("ask another"), "the remedy: {text}");
    assert_eq!(Proposed::of(&status), Some(Proposed::No));
}

async fn alarms(node: &Node) -> Vec<AlarmMember> {
    let mut chores = MaintenanceClient::new(node.channel());
    let listed = chores.alarm(AlarmRequest::default()).await.unwrap();
    listed.into_inner().alarms
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_nothing_from_its_state() {
    let mesh = damaged().await;
    let node = mesh.node(0);
    let mut kv = node.kv();
    assert_refused(kv.range(get("a")).await);
    let serializable = RangeRequest {
        serializable: true,
        ..get("a")
    };
    assert_refused(kv.range(serializable.clone()).await);
    assert_refused(kv.range_stream(serializable).await);
    assert_refused(kv.put(put("a", "2")).await);
    let mut leases = LeaseClient::new(node.channel());
    let grant = LeaseGrantRequest { ttl: 9, id: 0 };
    assert_refused(leases.lease_grant(grant).await);
    let mut watches = WatchClient::new(node.channel());
    let requests = futures_util::stream::pending::<WatchRequest>();
    assert_refused(watches.watch(requests).await);
    let mut chores = MaintenanceClient::new(node.channel());
    assert_refused(chores.snapshot(SnapshotRequest {}).await);
    assert_refused(chores.hash_kv(HashKvRequest { revision: 0 }).await);
    let mut members = ClusterClient::new(node.channel());
    assert_refused(members.member_list(MemberListRequest::default()).await);
    // By the way of the node's own services, too.
    let patience = node.server.patience(&tonic::metadata::MetadataMap::new());
    assert_refused(node.server.linearizable_image(patience).await.map(drop));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_so() {
    let mesh = damaged().await;
    let node = mesh.node(0);
    let mut chores = MaintenanceClient::new(node.channel());
    let status = chores.status(StatusRequest {}).await.unwrap().into_inner();
    let id = node.store.id().0;
    assert!(
        status
            .errors
            .contains(&format!("memberID:{id} alarm:CORRUPT ")),
        "{:?}",
        status.errors
    );
    let told = |text: &String| text.contains("found to differ");
    assert!(status.errors.iter().any(told), "{:?}", status.errors);
    let corrupt = AlarmMember {
        member_id: id,
        alarm: AlarmType::Corrupt.into(),
    };
    assert_eq!(alarms(node).await, [corrupt]);
}
