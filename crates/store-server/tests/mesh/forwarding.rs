//! Any node answers: followers forward, and say what is known when the leader is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::ConfigRevision;
use store_api::errors;
use store_api::etcdserverpb::{MemberListRequest, RangeRequest};
use store_api::skeinpb as pb;
use store_api::skeinpb::forward_client::ForwardClient;
use store_api::verdict::Proposed;
use store_client::ClientError;
use store_mvcc::{Caller, Command, PutOp};
use store_server::Limits;
use tonic::Code;
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;

use crate::harness::{Mesh, get, put};

#[tokio::test(flavor = "multi_thread")]
async fn every_node_writes_and_every_node_reads_it_at_once() {
    let mesh = Mesh::form(3).await;
    for (round, writer) in mesh.running().enumerate() {
        for n in 0..20 {
            let (key, value) = (format!("k{n}"), format!("{round}-{n}"));
            let written = writer
                .kv()
                .put(put(&key, &value))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(written.header.unwrap().member_id, writer.store.id().0);
            for reader in mesh.running() {
                let read = reader.kv().range(get(&key)).await.unwrap().into_inner();
                assert_eq!(read.kvs[0].value, value);
            }
        }
    }
    let list = mesh
        .client(0)
        .member_list(MemberListRequest { linearizable: true })
        .await
        .unwrap();
    assert_eq!(list.members.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_a_follower_share_few_calls_and_all_see_their_writes() {
    let mesh = Mesh::form(3).await;
    let follower = mesh.node(mesh.follower().await);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..32 {
        let mut kv = follower.kv();
        clients.spawn(async move {
            for n in 0..20 {
                let (key, value) = (format!("c{client}"), n.to_string());
                kv.put(put(&key, &value)).await.unwrap();
                let read = kv.range(get(&key)).await.unwrap().into_inner();
                assert_eq!(read.kvs[0].value, value);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_admits_what_a_follower_takes() {
    let mesh = Mesh::form(3).await;
    let (leader, follower) = (
        mesh.node(mesh.leader().await),
        mesh.node(mesh.follower().await),
    );
    let key = "/skein/config/default/Cluster/web";
    let mut kv = follower.kv();
    let error = kv.put(put(key, "bad")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(
        error
            .message()
            .starts_with("skein: config refused: Cluster/web"),
        "{error}"
    );
    assert_eq!(Proposed::of(&error), Some(Proposed::No));
    kv.put(put(key, "good")).await.unwrap();
    assert_eq!(
        (leader.rules.judgements(), follower.rules.judgements()),
        (2, 0)
    );
    assert_eq!(leader.store.image().config_revision(), ConfigRevision(1));

    let error = kv
        .put(store_api::etcdserverpb::PutRequest {
            lease: 1,
            ..put("a", "v")
        })
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.message(), errors::lease_not_found().message());
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_goes_on_past_a_killed_leader_and_no_acknowledged_write_is_lost() {
    let mut mesh = Mesh::form(3).await;
    let leader = mesh.leader().await;
    let client = mesh.client((leader + 1) % 3);
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut acknowledged = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let key = format!("k{}", acknowledged.len());
                match client.put(put(&key, "v")).await {
                    Ok(_) => acknowledged.push(key),
                    // Perhaps done: writing the same again is right for this test.
                    Err(ClientError::OutcomeUnknown { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            acknowledged
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    mesh.kill(leader);
    let survivor = mesh.node(mesh.leader().await);
    survivor.kv().put(put("after", "v")).await.unwrap();
    stop.store(true, Ordering::SeqCst);
    let acknowledged = writing.await.unwrap();
    assert!(!acknowledged.is_empty());
    for node in mesh.running() {
        for key in &acknowledged {
            let read = node.kv().range(get(key)).await.unwrap().into_inner();
            assert_eq!(read.count, 1, "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_errors_come_in_time_and_say_what_is_known() {
    let limits = Limits {
        request_deadline: Duration::from_secs(1),
        leader_wait: Duration::from_secs(1),
        ..Limits::default()
    };
    let mut mesh = Mesh::form_with(3, limits).await;
    mesh.node(0).kv().put(put("a", "1")).await.unwrap();
    let alone = mesh.follower().await;
    for place in (0..3).filter(|place| *place != alone) {
        mesh.kill(place);
    }
    let node = mesh.node(alone);
    let mut status = node.store.status_watch();
    status
        .wait_for(|status| status.leader.is_none())
        .await
        .unwrap();
    let error = node.kv().put(put("a", "2")).await.unwrap_err();
    assert_eq!(error.message(), errors::no_leader().message());
    assert_eq!(Proposed::of(&error), Some(Proposed::No));
    let error = node.kv().range(get("a")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let stale = RangeRequest {
        serializable: true,
        ..get("a")
    };
    let read = node.kv().range(stale).await.unwrap().into_inner();
    assert_eq!(read.kvs[0].value, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forward_service_serves_its_own_mesh_and_points_to_the_leader() {
    let mesh = Mesh::form(3).await;
    let (leader, follower) = (
        mesh.node(mesh.leader().await),
        mesh.node(mesh.follower().await),
    );
    let endpoint = Endpoint::from_shared(format!("http://{}", follower.peer)).unwrap();
    let mut forward = ForwardClient::new(endpoint.connect_lazy());
    let error = forward
        .read_index(pb::ReadIndexRequest {})
        .await
        .unwrap_err();
    assert!(error.message().contains("mesh"), "{error}");

    let message = pb::ProposeManyRequest {
        proposals: vec![pb::NumberedProposal {
            number: 7,
            proposal: None,
        }],
    };
    let stranger = tonic::Request::new(tokio_stream::iter([message.clone()]));
    let error = forward.propose_many(stranger).await.unwrap_err();
    assert!(error.message().contains("mesh"), "{error}");
    assert_eq!(Proposed::of(&error), Some(Proposed::No));
    let mut request = tonic::Request::new(tokio_stream::iter([message]));
    request
        .metadata_mut()
        .insert("skein-mesh-id", "00000000000005ee".parse().unwrap());
    let mut replies = forward.propose_many(request).await.unwrap().into_inner();
    let mut reply = replies.message().await.unwrap().unwrap().replies;
    let reply = reply.pop().unwrap();
    assert_eq!(reply.number, 7);
    let Some(pb::propose_reply::Result::Failure(failure)) = reply.reply.unwrap().result else {
        panic!("no")
    };
    assert_eq!(failure.proposed(), pb::failure::Proposed::No);
    assert_eq!(replies.message().await.unwrap(), None);

    let mut request = tonic::Request::new(pb::ReadIndexRequest {});
    request
        .metadata_mut()
        .insert("skein-mesh-id", "00000000000005ee".parse().unwrap());
    let reply = forward.read_index(request).await.unwrap().into_inner();
    let Some(pb::read_index_reply::Result::Failure(failure)) = reply.result else {
        panic!("no")
    };
    assert_eq!(failure.leader_id, leader.store.id().0);
    assert_eq!(failure.leader_peer_addr, leader.peer.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_node_can_propose_is_refused_by_every_node_at_once() {
    let mesh = Mesh::form(2).await;
    let put = PutOp::new("k", vec![0; store_raft::PROPOSAL_BYTES_MAX]);
    for node in mesh.running() {
        let patience = node.server.patience(&MetadataMap::new());
        let written = node.server.writes();
        let command = Command::Put(put.clone());
        let refused = written.submit(&Caller::Nobody, command, patience).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert_eq!(refused.message(), "etcdserver: request is too large");
        assert_eq!(Proposed::of(&refused), Some(Proposed::No));
    }
}
