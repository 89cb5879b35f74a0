//! Locks and elections over real connections: one after the other, whoever dies or gives up.

use std::time::Duration;

use bytes::Bytes;
use store_api::etcdserverpb::lease_client::LeaseClient;
use store_api::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest};
use store_api::v3electionpb::election_client::ElectionClient;
use store_api::v3electionpb::*;
use store_api::v3lockpb::lock_client::LockClient;
use store_api::v3lockpb::{LockRequest, UnlockRequest};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::harness::{Mesh, Node, delete, until};

fn lock(node: &Node) -> LockClient<Channel> {
    LockClient::new(node.channel())
}

fn election(node: &Node) -> ElectionClient<Channel> {
    ElectionClient::new(node.channel())
}

async fn lease(node: &Node, id: i64) {
    let request = LeaseGrantRequest { id, ttl: 600 };
    LeaseClient::new(node.channel())
        .lease_grant(request)
        .await
        .unwrap();
}

async fn revoke(node: &Node, id: i64) {
    let request = LeaseRevokeRequest { id };
    LeaseClient::new(node.channel())
        .lease_revoke(request)
        .await
        .unwrap();
}

/// Waits for the lock `door` beside the test.
fn wait_for_lock(node: &Node, lease: i64) -> JoinHandle<Result<Bytes, Status>> {
    let (mut client, name) = (lock(node), Bytes::from("door"));
    tokio::spawn(async move {
        let locked = client.lock(LockRequest { name, lease }).await?;
        Ok(locked.into_inner().key)
    })
}

/// Until a place in line is taken.
async fn stands(node: &Node, key: &str) {
    until("a place in line", async || node.value(key).map(drop)).await;
}

async fn finished<T>(task: JoinHandle<Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(Duration::from_secs(20), task)
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_goes_through_the_line_in_its_order() {
    let mesh = Mesh::form(3).await;
    let node = mesh.node(0);
    for id in [0xa1, 0xb2, 0xc3] {
        lease(node, id).await;
    }
    let first = finished(wait_for_lock(mesh.node(0), 0xa1)).await.unwrap();
    assert_eq!(first, "door/a1");
    // Who holds it already gets it again.
    assert_eq!(
        finished(wait_for_lock(mesh.node(1), 0xa1)).await.unwrap(),
        first
    );
    let second = wait_for_lock(mesh.node(1), 0xb2);
    stands(node, "door/b2").await;
    let third = wait_for_lock(mesh.node(2), 0xc3);
    stands(node, "door/c3").await;
    assert!(!second.is_finished() && !third.is_finished());

    let request = UnlockRequest { key: first };
    let unlocked = lock(mesh.node(2))
        .unlock(request)
        .await
        .unwrap()
        .into_inner();
    assert!(unlocked.header.unwrap().revision > 0);
    assert_eq!(finished(second).await.unwrap(), "door/b2");
    assert!(!third.is_finished());
    // The holder's lease ends, and with it its hold.
    revoke(node, 0xb2).await;
    assert_eq!(finished(third).await.unwrap(), "door/c3");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_stops_to_wait_leaves_the_line() {
    let mesh = Mesh::form(3).await;
    let node = mesh.node(0);
    for id in [0xa1, 0xb2, 0xc3] {
        lease(node, id).await;
    }
    let first = finished(wait_for_lock(node, 0xa1)).await.unwrap();
    let second = wait_for_lock(mesh.node(1), 0xb2);
    stands(node, "door/b2").await;
    let third = wait_for_lock(mesh.node(2), 0xc3);
    stands(node, "door/c3").await;
    second.abort();
    until("its place to be free", async || {
        node.value("door/b2").is_none().then_some(())
    })
    .await;
    assert!(!third.is_finished(), "the first still holds it");
    lock(node)
        .unlock(UnlockRequest { key: first })
        .await
        .unwrap();
    assert_eq!(finished(third).await.unwrap(), "door/c3");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_lease_ends_in_line_is_told_and_one_without_gets_a_lease() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let unknown = finished(wait_for_lock(node, 0xdead)).await.unwrap_err();
    assert_eq!(unknown.message(), "etcdserver: requested lease not found");
    let first = finished(wait_for_lock(node, 0)).await.unwrap();
    let id = std::str::from_utf8(&first)
        .unwrap()
        .strip_prefix("door/")
        .unwrap();
    let id = i64::from_str_radix(id, 16).unwrap();
    let request = LeaseTimeToLiveRequest { id, keys: false };
    let mut leases = LeaseClient::new(node.channel());
    let told = leases
        .lease_time_to_live(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(told.granted_ttl, 60);

    lease(node, 0xb2).await;
    let second = wait_for_lock(node, 0xb2);
    stands(node, "door/b2").await;
    revoke(node, 0xb2).await;
    node.kv()
        .delete_range(delete(&format!("door/{id:x}")))
        .await
        .unwrap();
    let error = finished(second).await.unwrap_err();
    assert_eq!(error.message(), "mutex: session is expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_that_wait_end_when_the_node_stops() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    lease(node, 0xa1).await;
    lease(node, 0xb2).await;
    finished(wait_for_lock(node, 0xa1)).await.unwrap();
    let second = wait_for_lock(node, 0xb2);
    stands(node, "door/b2").await;
    assert!(node.stop().await);
    finished(second).await.unwrap_err();
}

async fn campaign(node: &Node, lease: i64, value: &'static str) -> Result<LeaderKey, Status> {
    let request = CampaignRequest {
        name: "chair".into(),
        lease,
        value: value.into(),
    };
    let won = election(node).campaign(request).await?.into_inner();
    assert!(won.header.unwrap().revision > 0);
    Ok(won.leader.unwrap())
}

async fn leader(node: &Node) -> Result<Bytes, Status> {
    let name = "chair".into();
    let answer = election(node).leader(LeaderRequest { name }).await?;
    Ok(answer.into_inner().kv.unwrap().value)
}

async fn heard(answers: &mut Streaming<LeaderResponse>) -> Bytes {
    let message = tokio::time::timeout(Duration::from_secs(20), answers.message());
    message.await.unwrap().unwrap().unwrap().kv.unwrap().value
}

#[tokio::test(flavor = "multi_thread")]
async fn an_election_is_won_spoken_for_observed_and_resigned() {
    let mesh = Mesh::form(3).await;
    let node = mesh.node(0);
    lease(node, 0xa1).await;
    lease(node, 0xb2).await;
    assert_eq!(
        leader(node).await.unwrap_err().message(),
        "election: no leader"
    );
    let name = Bytes::from("chair");
    let observing = election(mesh.node(2)).observe(LeaderRequest { name }).await;
    let mut observing = observing.unwrap().into_inner();

    let first = campaign(mesh.node(0), 0xa1, "anna").await.unwrap();
    assert_eq!(
        (&first.name[..], &first.key[..]),
        (&b"chair"[..], &b"chair/a1"[..])
    );
    assert_eq!(first.lease, 0xa1);
    assert_eq!(heard(&mut observing).await, "anna");
    for node in mesh.running() {
        assert_eq!(leader(node).await.unwrap(), "anna");
    }
    // The same lease again, with other words.
    let again = campaign(mesh.node(1), 0xa1, "anna II").await.unwrap();
    assert_eq!(again, first);
    assert_eq!(heard(&mut observing).await, "anna II");
    let proclaim = |leader: &LeaderKey, value: &'static str| ProclaimRequest {
        leader: Some(leader.clone()),
        value: value.into(),
    };
    election(mesh.node(2))
        .proclaim(proclaim(&first, "anna III"))
        .await
        .unwrap();
    assert_eq!(heard(&mut observing).await, "anna III");

    let second = tokio::spawn({
        let mut client = election(mesh.node(1));
        let (name, value) = (Bytes::from("chair"), Bytes::from("berta"));
        let lease = 0xb2;
        async move {
            client
                .campaign(CampaignRequest { name, lease, value })
                .await
        }
    });
    stands(node, "chair/b2").await;
    let resign = |leader: &LeaderKey| ResignRequest {
        leader: Some(leader.clone()),
    };
    election(node).resign(resign(&first)).await.unwrap();
    let second = finished(second).await.unwrap().into_inner().leader.unwrap();
    assert_eq!(heard(&mut observing).await, "berta");
    let late = election(node)
        .proclaim(proclaim(&first, "x"))
        .await
        .unwrap_err();
    assert_eq!(late.message(), "election: not leader");
    // Resigning twice is no error, and does not unseat the next.
    election(node).resign(resign(&first)).await.unwrap();
    assert_eq!(leader(node).await.unwrap(), "berta");
    assert_eq!(
        second.rev,
        node.store.image().get(b"chair/b2").unwrap().create_revision
    );
    let nobody = election(node).resign(ResignRequest { leader: None }).await;
    assert!(nobody.unwrap_err().message().contains("must be provided"));
}
