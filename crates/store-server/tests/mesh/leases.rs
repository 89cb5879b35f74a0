//! Leases over real connections: any node, a change of leader, slow and broken clients.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use store_api::errors;
use store_api::etcdserverpb::lease_client::LeaseClient;
use store_api::etcdserverpb::*;
use store_api::verdict::Proposed;
use store_client::ClientError;
use store_server::Limits;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::harness::{Mesh, Node, get, put, until};

fn lease(node: &Node) -> LeaseClient<Channel> {
    LeaseClient::new(node.channel())
}

async fn grant(node: &Node, id: i64, ttl: i64) -> Result<LeaseGrantResponse, Status> {
    let request = LeaseGrantRequest { id, ttl };
    Ok(lease(node).lease_grant(request).await?.into_inner())
}

async fn revoke(node: &Node, id: i64) -> Result<LeaseRevokeResponse, Status> {
    let request = LeaseRevokeRequest { id };
    Ok(lease(node).lease_revoke(request).await?.into_inner())
}

async fn time_to_live(node: &Node, id: i64) -> LeaseTimeToLiveResponse {
    let request = LeaseTimeToLiveRequest { id, keys: true };
    let answer = lease(node).lease_time_to_live(request).await.unwrap();
    answer.into_inner()
}

async fn leases(node: &Node) -> HashSet<i64> {
    let answer = lease(node)
        .lease_leases(LeaseLeasesRequest {})
        .await
        .unwrap();
    let leases = answer.into_inner().leases;
    leases.into_iter().map(|lease| lease.id).collect()
}

fn leased(key: &str, lease: i64) -> PutRequest {
    PutRequest {
        lease,
        ..put(key, "v")
    }
}

/// A stream of keep-alives; the sender is the client's half of it.
async fn keep_alive(
    node: &Node,
) -> (
    mpsc::Sender<LeaseKeepAliveRequest>,
    Streaming<LeaseKeepAliveResponse>,
) {
    let (sender, requests) = mpsc::channel(64);
    let requests = ReceiverStream::new(requests);
    let answers = lease(node).lease_keep_alive(requests).await;
    (sender, answers.unwrap().into_inner())
}

async fn next(answers: &mut Streaming<LeaseKeepAliveResponse>) -> LeaseKeepAliveResponse {
    let message = tokio::time::timeout(Duration::from_secs(20), answers.message());
    message.await.unwrap().unwrap().unwrap()
}

#[track_caller]
fn assert_same(got: &Status, expected: &Status) {
    assert_eq!(
        (got.code(), got.message()),
        (expected.code(), expected.message())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_grants_tells_and_revokes() {
    let mesh = Mesh::form(3).await;
    for (n, node) in mesh.running().enumerate() {
        let granted = grant(node, 0, 60).await.unwrap();
        let id = granted.id;
        assert!(id > 0 && granted.ttl == 60, "{granted:?}");
        let header = granted.header.unwrap();
        assert_eq!(header.member_id, node.store.id().0);
        assert!(header.revision > 0 && header.raft_term > 0);
        let keys = [format!("{n}/b"), format!("{n}/a")];
        for key in &keys {
            node.kv().put(leased(key, id)).await.unwrap();
        }
        for other in mesh.running() {
            let told = time_to_live(other, id).await;
            assert!((58..=60).contains(&told.ttl), "{told:?}");
            assert_eq!((told.id, told.granted_ttl), (id, 60));
            assert_eq!(told.keys, [keys[1].clone(), keys[0].clone()]);
            assert_eq!(leases(other).await, HashSet::from([id]));
        }
        let before = told_revision(node).await;
        let revoked = revoke(node, id).await.unwrap();
        assert_eq!(revoked.header.unwrap().revision, before + 1, "one revision");
        let gone = node.kv().range(get(&keys[0])).await.unwrap().into_inner();
        assert_eq!(gone.count, 0);
        let told = time_to_live(node, id).await;
        assert_eq!((told.id, told.ttl, told.granted_ttl), (id, -1, 0));
        assert!(told.keys.is_empty() && leases(node).await.is_empty());
    }
}

async fn told_revision(node: &Node) -> i64 {
    let read = node.kv().range(get("x")).await.unwrap().into_inner();
    read.header.unwrap().revision
}

#[tokio::test(flavor = "multi_thread")]
async fn what_etcd_refuses_is_refused_in_its_words() {
    let mesh = Mesh::form(3).await;
    for node in mesh.running() {
        let too_long = grant(node, 0, 9_000_000_001).await.unwrap_err();
        assert_same(&too_long, &errors::lease_ttl_too_large());
        assert_eq!(Proposed::of(&too_long), Some(Proposed::No));
        assert_same(
            &revoke(node, 77).await.unwrap_err(),
            &errors::lease_not_found(),
        );
        let put = node.kv().put(leased("a", 77)).await.unwrap_err();
        assert_same(&put, &errors::lease_not_found());
        let short = grant(node, 0, -5).await.unwrap();
        assert_eq!(short.ttl, Limits::default().lease_ttl_min);
    }
    let named = grant(mesh.node(0), 7, 9_000_000_000).await.unwrap();
    assert_eq!((named.id, named.ttl), (7, 9_000_000_000));
    for node in mesh.running() {
        assert_same(
            &grant(node, 7, 5).await.unwrap_err(),
            &errors::lease_exists(),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_key_gets_no_lease_and_an_endpoint_does() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    grant(node, 7, 60).await.unwrap();
    let key = "/skein/config/default/Cluster/web";
    let refused = node.kv().put(leased(key, 7)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().contains("cannot have a lease"),
        "{refused}"
    );
    let key = "/skein/endpoints/default/web/1";
    node.kv().put(leased(key, 7)).await.unwrap();
    assert_eq!(time_to_live(node, 7).await.keys, [key]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_nobody_keeps_ends_and_watchers_see_its_keys_go() {
    let mesh = Mesh::form(3).await;
    let node = mesh.node(mesh.follower().await);
    grant(node, 7, 2).await.unwrap();
    let begun = tokio::time::Instant::now();
    for key in ["a", "b"] {
        node.kv().put(leased(key, 7)).await.unwrap();
    }
    let create = WatchCreateRequest {
        key: "a".into(),
        range_end: "c".into(),
        prev_kv: true,
        ..Default::default()
    };
    let mut events = crate::watching::watch(node, create).await;
    let answer = crate::watching::next(&mut events).await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "it ended early");
    let gone = answer.events.iter().map(|event| {
        assert_eq!(event.r#type, 1, "a delete");
        assert_eq!(event.prev_kv.as_ref().unwrap().lease, 7);
        event.kv.as_ref().unwrap().key.clone()
    });
    assert_eq!(gone.collect::<Vec<_>>(), ["a", "b"], "one revision");
    assert_eq!(time_to_live(node, 7).await.ttl, -1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_keeps_many_leases_alive_and_tells_which_are_gone() {
    let mesh = Mesh::form(3).await;
    let node = mesh.node(mesh.follower().await);
    let (count, ttl) = (100, 4);
    let granting = (1..=count).map(|id| grant(node, id, ttl));
    for granted in futures_util::future::join_all(granting).await {
        granted.unwrap();
    }
    let clock = || node.store.image().meta().lease_clock_ms;
    let begun = clock();
    let (requests, mut answers) = keep_alive(node).await;
    while clock() < begun + 6_000 {
        let sending = async {
            for id in 1..=count + 1 {
                requests.send(LeaseKeepAliveRequest { id }).await.unwrap();
            }
        };
        let reading = async {
            for id in 1..=count + 1 {
                let answer = next(&mut answers).await;
                assert_eq!(
                    (answer.id, answer.ttl),
                    (id, if id > count { 0 } else { ttl })
                );
                assert!(answer.header.unwrap().revision > 0);
            }
        };
        tokio::join!(sending, reading);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(leases(node).await.len(), 100);
    drop(requests);
    assert!(
        answers.message().await.unwrap().is_none(),
        "the stream ends"
    );
    until("them to end", async || {
        leases(node).await.is_empty().then_some(())
    })
    .await;
}

/// However slowly they come in: a proposal for each would cost all members as much as a put does.
#[tokio::test(flavor = "multi_thread")]
async fn keep_alives_of_some_time_share_a_proposal() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    grant(node, 7, 600).await.unwrap();
    let (before, began) = (node.store.status().last_log, Instant::now());
    let mut streams = Vec::new();
    for _ in 0..40 {
        let (requests, answers) = keep_alive(node).await;
        requests
            .send(LeaseKeepAliveRequest { id: 7 })
            .await
            .unwrap();
        streams.push((requests, answers));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (_, answers) in &mut streams {
        assert_eq!(next(answers).await.ttl, 600);
    }
    let entries = u128::from(node.store.status().last_log - before);
    // Four a second, the first and the last, and two ticks of the clock each second.
    let most = began.elapsed().as_millis() * 6 / 1000 + 4;
    assert!(
        entries <= most,
        "{entries} entries for 40 keep-alives, not {most}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_keep_alives_stops_itself_only() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    grant(node, 7, 60).await.unwrap();
    let (requests, _unread) = keep_alive(node).await;
    // The flood comes to a stand when the buffers of the connection are full.
    let send = || {
        let sending = requests.send(LeaseKeepAliveRequest { id: 7 });
        tokio::time::timeout(Duration::from_secs(2), sending)
    };
    while let Ok(sent) = send().await {
        sent.unwrap();
    }
    let (others, mut answers) = keep_alive(node).await;
    others.send(LeaseKeepAliveRequest { id: 7 }).await.unwrap();
    assert_eq!(next(&mut answers).await.ttl, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_keep_alives_end_when_the_node_stops() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let (_requests, mut answers) = keep_alive(node).await;
    assert!(node.stop().await);
    let end = tokio::time::timeout(Duration::from_secs(20), answers.message()).await;
    assert!(
        end.unwrap().is_err(),
        "it is told that this is no regular end"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_time_goes_on_under_a_new_leader() {
    let mut mesh = Mesh::form(3).await;
    let leader = mesh.leader().await;
    grant(mesh.node(leader), 7, 3_600).await.unwrap();
    grant(mesh.node(leader), 8, 12).await.unwrap();
    let begun = tokio::time::Instant::now();
    let clock = |mesh: &Mesh, place| mesh.node(place).store.image().meta().lease_clock_ms;
    until("time to pass", async || {
        (clock(&mesh, leader) > 3_000).then_some(())
    })
    .await;
    let before = clock(&mesh, leader);
    let ends = |mesh: &Mesh, place: usize, id| {
        mesh.node(place)
            .store
            .image()
            .lease(id)
            .map(|lease| lease.expires_at_ms)
    };
    let (seven, eight) = (ends(&mesh, leader, 7), ends(&mesh, leader, 8));
    mesh.kill(leader);
    let successor = mesh.leader().await;
    until("time to go on", async || {
        (clock(&mesh, successor) > before).then_some(())
    })
    .await;
    assert_eq!(ends(&mesh, successor, 7), seven, "no silent reset");
    assert_eq!(ends(&mesh, successor, 8), eight);
    until("the shorter one to end", async || {
        ends(&mesh, successor, 8).is_none().then_some(())
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_secs(12), "it ended early");
    assert!(ends(&mesh, successor, 7).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_lease_time_stands_still() {
    let limits = Limits {
        request_deadline: Duration::from_secs(1),
        leader_wait: Duration::from_secs(1),
        ..Limits::default()
    };
    let mut mesh = Mesh::form_with(3, limits).await;
    let leader = mesh.leader().await;
    grant(mesh.node(leader), 7, 2).await.unwrap();
    mesh.node(leader).kv().put(leased("a", 7)).await.unwrap();
    for place in (0..3).filter(|place| *place != leader) {
        mesh.kill(place);
    }
    let node = mesh.node(leader);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        node.value("a").is_some(),
        "its owner may have been unable to say that it lives"
    );
    let (requests, mut answers) = keep_alive(node).await;
    requests
        .send(LeaseKeepAliveRequest { id: 7 })
        .await
        .unwrap();
    let error = tokio::time::timeout(Duration::from_secs(20), answers.message()).await;
    assert_eq!(error.unwrap().unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_there_is_no_lease_nothing_is_proposed() {
    let mesh = Mesh::form(1).await;
    let store = &mesh.node(0).store;
    grant(mesh.node(0), 7, 60).await.unwrap();
    let clock = || store.image().meta().lease_clock_ms;
    until("ticks", async || (clock() > 0).then_some(())).await;
    revoke(mesh.node(0), 7).await.unwrap();
    // One tick may be under way.
    until("quiet", async || {
        let before = store.status().last_log;
        tokio::time::sleep(Duration::from_secs(2)).await;
        (store.status().last_log == before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_keeps_a_lease_over_the_death_of_a_leader() {
    let mut mesh = Mesh::form(3).await;
    let leader = mesh.leader().await;
    let client = mesh.client(leader);
    let request = LeaseGrantRequest { id: 0, ttl: 4 };
    let id = client.lease_grant(request).await.unwrap().id;
    let keeping = tokio::spawn({
        let client = client.clone();
        async move { client.keep_lease(id).await }
    });
    mesh.kill(leader);
    let survivor = mesh.node(mesh.leader().await);
    let clock = || survivor.store.image().meta().lease_clock_ms;
    let begun = clock();
    until("twice its time", async || {
        (clock() > begun + 8_000).then_some(())
    })
    .await;
    assert_eq!(client.lease_leases().await.unwrap().leases.len(), 1);
    client.lease_revoke(id).await.unwrap();
    let end = keeping.await.unwrap();
    assert!(matches!(end, ClientError::NotFound { .. }), "{end}");
    let request = LeaseTimeToLiveRequest { id, keys: false };
    assert_eq!(client.lease_time_to_live(request).await.unwrap().ttl, -1);
}
