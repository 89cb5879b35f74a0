//! Changes of the members that somebody asks for, through etcd's Cluster service of any node.

use std::time::Duration;

use model::NodeId;
use store_api::errors;
use store_api::etcdserverpb::cluster_client::ClusterClient;
use store_api::etcdserverpb::*;
use store_raft::Role;
use store_server::{Judgement, Limits};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{Mesh, get, put, until};

fn cluster(mesh: &Mesh, place: usize) -> ClusterClient<Channel> {
    ClusterClient::new(mesh.node(place).channel())
}

fn add(url: String) -> MemberAddRequest {
    MemberAddRequest {
        peer_ur_ls: vec![url],
        is_learner: true,
    }
}

fn remove(id: NodeId) -> MemberRemoveRequest {
    MemberRemoveRequest { id: id.0 }
}

#[track_caller]
fn assert_same(error: &Status, expected: &Status) {
    assert_eq!(
        (error.code(), error.message()),
        (expected.code(), expected.message())
    );
}

/// Waits until exactly the nodes at these places vote.
async fn voters(mesh: &Mesh, places: &[usize]) {
    let mut expected: Vec<_> = places.iter().map(|at| mesh.node(*at).store.id()).collect();
    expected.sort_unstable();
    until("these voters", async || {
        let status = mesh.node(mesh.leader().await).store.status();
        let voters: Vec<_> = status.voters.iter().map(|voter| voter.id).collect();
        (voters == expected && status.learners.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_is_added_by_its_address_and_becomes_a_voter() {
    let mut mesh = Mesh::form(3).await;
    mesh.node(0).kv().put(put("a", "1")).await.unwrap();
    let place = mesh.add("newcomer").await;
    let url = format!("http://{}", mesh.node(place).peer);
    let follower = mesh.follower().await;
    let added = cluster(&mesh, follower).member_add(add(url.clone())).await;
    let added = added.unwrap().into_inner();
    let member = added.member.unwrap();
    assert_eq!(member.id, mesh.node(place).store.id().0);
    assert_eq!((&*member.name, member.is_learner), ("newcomer", true));
    assert_eq!(
        (added.members.len(), member.peer_ur_ls),
        (4, vec![url.clone()])
    );
    voters(&mesh, &[0, 1, 2, place]).await;
    let read = mesh.node(place).kv().range(get("a")).await.unwrap();
    assert_eq!(read.into_inner().count, 1);

    let again = cluster(&mesh, follower).member_add(add(url)).await;
    assert_same(&again.unwrap_err(), &errors::peer_url_exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_added_who_is_not_there_or_belongs_elsewhere() {
    let mesh = Mesh::form(1).await;
    let other = Mesh::form(1).await;
    let mut cluster = cluster(&mesh, 0);
    let nobody = cluster.member_add(add("http://127.0.0.1:1".to_owned()));
    let nobody = nobody.await.unwrap_err();
    assert_eq!(nobody.code(), Code::FailedPrecondition);
    assert!(nobody.message().contains("skein node --join"), "{nobody}");
    // A client port is no peer port.
    let wrong = format!("http://{}", mesh.node(0).client);
    let wrong = cluster.member_add(add(wrong)).await.unwrap_err();
    assert_eq!(wrong.code(), Code::FailedPrecondition);
    // Nor is one whose disk says that it is of this mesh, and who is no member.
    let removed = format!("http://{}", other.node(0).peer);
    let removed = cluster.member_add(add(removed)).await.unwrap_err();
    assert!(removed.message().contains("used once"), "{removed}");
    for bad in ["127.0.0.1:2380", "ftp://127.0.0.1:2380", ""] {
        let refused = cluster.member_add(add(bad.to_owned())).await.unwrap_err();
        assert_same(&refused, &errors::member_bad_urls());
    }
    let none = cluster.member_add(MemberAddRequest::default()).await;
    assert_same(&none.unwrap_err(), &errors::member_bad_urls());
    assert_eq!(mesh.node(0).store.status().members().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_removed_unless_that_costs_the_quorum() {
    let mut mesh = Mesh::form(3).await;
    let leader = mesh.leader().await;
    let (asked, gone) = ((leader + 1) % 3, (leader + 2) % 3);
    let unknown = cluster(&mesh, asked).member_remove(remove(NodeId(1))).await;
    assert_same(&unknown.unwrap_err(), &errors::member_not_found());

    let lost = mesh.node(gone).store.id();
    mesh.kill(gone);
    until("the leader to miss it", async || {
        let status = mesh.node(leader).store.status();
        (!status.answering.contains(&lost)).then_some(())
    })
    .await;
    let living = remove(mesh.node(asked).store.id());
    let refused = cluster(&mesh, asked).member_remove(living).await;
    assert_same(&refused.unwrap_err(), &errors::member_not_enough_started());
    let removed = cluster(&mesh, asked).member_remove(remove(lost)).await;
    assert_eq!(removed.unwrap().into_inner().members.len(), 2);
    mesh.node(asked).kv().put(put("a", "1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_hands_over_before_it_is_removed() {
    let mesh = Mesh::form(3).await;
    let leader = mesh.leader().await;
    let gone = mesh.node(leader).store.id();
    let removed = cluster(&mesh, leader).member_remove(remove(gone)).await;
    assert_eq!(removed.unwrap().into_inner().members.len(), 2);
    assert_ne!(mesh.node(leader).store.status().role, Role::Leader);
    let successor = mesh.leader().await;
    assert_ne!(successor, leader);
    mesh.node(successor).kv().put(put("a", "1")).await.unwrap();
    // The last of them stays.
    let alone = Mesh::form(1).await;
    let last = remove(alone.node(0).store.id());
    let refused = cluster(&alone, 0).member_remove(last).await.unwrap_err();
    assert_same(&refused, &errors::member_not_enough_started());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_changed_and_a_vote_given_as_etcd_does() {
    let mut mesh = Mesh::form(3).await;
    let asked = mesh.follower().await;
    let mut cluster = cluster(&mesh, asked);
    let update = |id: u64, url: String| MemberUpdateRequest {
        id,
        peer_ur_ls: vec![url],
    };
    let (id, url) = (
        mesh.node(asked).store.id().0,
        "http://127.0.0.1:9".to_owned(),
    );
    let unknown = cluster.member_update(update(1, url.clone())).await;
    assert_same(&unknown.unwrap_err(), &errors::member_not_found());
    let taken = format!("http://{}", mesh.node((asked + 1) % 3).peer);
    let taken = cluster.member_update(update(id, taken)).await;
    assert_same(&taken.unwrap_err(), &errors::peer_url_exists());
    let bad = cluster
        .member_update(update(id, "nowhere".to_owned()))
        .await;
    assert_same(&bad.unwrap_err(), &errors::member_bad_urls());
    let updated = cluster.member_update(update(id, url.clone())).await;
    let members = updated.unwrap().into_inner().members;
    let member = members.iter().find(|member| member.id == id).unwrap();
    assert_eq!(member.peer_ur_ls, [url]);
    assert!(!member.is_learner);

    let promote = |id: u64| MemberPromoteRequest { id };
    let unknown = cluster.member_promote(promote(1)).await.unwrap_err();
    assert_same(&unknown, &errors::member_not_found());
    let voter = cluster.member_promote(promote(id)).await.unwrap_err();
    assert_same(&voter, &errors::member_not_learner());
    // A learner that nobody can reach is never in sync.
    let place = mesh.add("silent").await;
    let silent = mesh.node(place).member();
    mesh.kill(place);
    let leader = mesh.node(mesh.leader().await);
    leader.store.add_learner(silent.clone()).await.unwrap();
    let lags = cluster.member_promote(promote(silent.id.0)).await;
    assert_same(&lags.unwrap_err(), &errors::learner_not_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_been_dead_for_long_is_removed_and_nobody_else() {
    let limits = Limits {
        remove_dead_after: Some(Duration::from_secs(1)),
        ..Limits::default()
    };
    let mut mesh = Mesh::form_with(4, limits).await;
    let lost = mesh.follower().await;
    let id = mesh.node(lost).store.id();
    // Gossip errs about one that answers Raft.
    let wronged = mesh.node((lost + 1) % 4).store.id();
    mesh.gossip.say(wronged, Judgement::Dead);
    mesh.kill(lost);
    mesh.gossip.say(id, Judgement::Dead);
    let left: Vec<usize> = (0..4).filter(|at| *at != lost).collect();
    voters(&mesh, &left).await;
}
