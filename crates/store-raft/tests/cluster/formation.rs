//! Forming, reading, writing, changing members.

use std::collections::HashSet;
use std::time::Duration;

use store_api::skeinpb as pb;
use store_api::skeinpb::raft_client::RaftClient;
use store_mvcc::{Command, Proposal, PutOp};
use store_raft::{
    Member, MembershipError, PROPOSAL_BYTES_MAX, ProposeError, ReadError, Role, Unfit,
};

use crate::harness::{MESH, Mesh, Options, PATIENCE, id_of, until};

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_write_and_read_everywhere() {
    let mesh = Mesh::form(3, Options::default()).await;
    let leader = mesh.leader().await;
    let outcome = mesh.node(leader).put("a", "1").await.unwrap();
    assert_eq!(outcome.revision, 2);
    // Who has the answer finds its effect.
    assert_eq!(mesh.node(leader).value("a").as_deref(), Some("1"));

    // A follower's linearizable read: the leader's index, then its own image.
    for place in (0..3).filter(|place| *place != leader) {
        let follower = &mesh.node(place).store;
        let index = mesh.node(leader).store.read_index().await.unwrap();
        follower.wait_applied(index).await.unwrap();
        assert_eq!(mesh.node(place).value("a").as_deref(), Some("1"));
        let refused = mesh.node(place).put("b", "1").await.unwrap_err();
        let known = match refused {
            ProposeError::NotLeader { leader } => leader.unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(known.id, id_of(mesh.node(leader)));
        assert_eq!(known.peer_addr, mesh.node(leader).addr.to_string());
        assert!(matches!(
            follower.read_barrier().await,
            Err(ReadError::NotLeader { .. })
        ));
        assert_eq!(follower.mesh_id(), Some(MESH));
    }
    let status = mesh.node(leader).store.status();
    assert_eq!((status.voters.len(), status.learners.len()), (3, 0));
    assert!(status.quorum && status.is_member() && status.fatal.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_founder_may_initialize_and_they_end_in_one_mesh() {
    let mut mesh = Mesh::form(1, Options::default()).await;
    let again = mesh
        .node(0)
        .store
        .initialize(vec![mesh.node(0).member()], MESH)
        .await;
    assert!(
        matches!(again, Err(MembershipError::AlreadyFormed(_))),
        "{again:?}"
    );
    // A node of one mesh is never founded into another.
    let place = mesh.add().await;
    let other = &mesh.node(place).store;
    other
        .initialize(vec![mesh.node(place).member()], model::MeshId(9))
        .await
        .unwrap();
    let stolen = other
        .initialize(vec![mesh.node(place).member()], MESH)
        .await;
    assert!(
        matches!(stolen, Err(MembershipError::AlreadyFormed(_))),
        "{stolen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_founders_agree() {
    let mesh = Mesh::strangers(3, Options::default()).await;
    let members: Vec<_> = mesh.running().map(crate::harness::Node::member).collect();
    let founding = mesh
        .running()
        .map(|node| node.store.initialize(members.clone(), MESH));
    for founded in futures_util::future::join_all(founding).await {
        // Whoever is late was founded by another.
        assert!(matches!(
            founded,
            Ok(()) | Err(MembershipError::AlreadyFormed(_))
        ));
    }
    mesh.put("a", "1").await;
    mesh.settle().await;
    assert!(
        mesh.running()
            .all(|node| node.value("a").as_deref() == Some("1"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_share_entries() {
    let mesh = Mesh::form(3, Options::default()).await;
    let leader = mesh.leading().await;
    let before = leader.store.status().last_log;
    let keys: Vec<String> = (0..400).map(|n| format!("k{n}")).collect();
    let puts = keys.iter().map(|key| leader.put(key, "v"));
    let outcomes = futures_util::future::join_all(puts).await;
    let revisions: HashSet<i64> = outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap().revision)
        .collect();
    assert_eq!(revisions.len(), 400);
    assert_eq!(leader.store.image().len(), 400);
    mesh.settle().await;
    let entries = leader.store.status().last_log - before;
    assert!(entries < 100, "{entries} entries for 400 proposals");
}

/// Whoever waits for another leader is not woken by each write; whoever asks is told of each.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_no_news_of_the_status() {
    let mesh = Mesh::form(1, Options::default()).await;
    let store = &mesh.node(0).store;
    mesh.put("first", "v").await;
    mesh.settle().await;
    let mut watched = store.status_watch();
    let before = store.status().applied;
    watched.borrow_and_update();
    for n in 0..50 {
        mesh.put(&format!("k{n}"), "v").await;
    }
    until("the status tells of the writes", async || {
        (store.status().applied >= before + 50).then_some(())
    })
    .await;
    assert!(!watched.has_changed().unwrap(), "{:?}", watched.borrow());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_a_proposal_is_not_proposed() {
    let mesh = Mesh::form(1, Options::default()).await;
    let put = Command::Put(PutOp::new("k", vec![0; PROPOSAL_BYTES_MAX]));
    let refused = mesh.node(0).store.propose(&Proposal::new(put)).await;
    assert!(
        matches!(refused, Err(ProposeError::Unfit(Unfit::TooLarge(_)))),
        "{refused:?}"
    );
    // The largest that is allowed goes through, to disk and back.
    let put = Command::Put(PutOp::new("k", vec![0; PROPOSAL_BYTES_MAX - 64]));
    mesh.node(0)
        .store
        .propose(&Proposal::new(put))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_share_rounds() {
    let mesh = Mesh::form(3, Options::default()).await;
    let leader = mesh.leading().await;
    leader.put("a", "1").await.unwrap();
    let before = leader.store.counters();
    let reads = (0..200).map(|_| leader.store.read_barrier());
    for read in futures_util::future::join_all(reads).await {
        read.unwrap();
    }
    let after = leader.store.counters();
    assert_eq!(after.reads - before.reads, 200);
    let rounds = after.read_rounds - before.read_rounds;
    assert!(rounds < 100, "{rounds} rounds for 200 reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_an_empty_disk_replaces_its_predecessor() {
    let mut mesh = Mesh::form(3, Options::default()).await;
    mesh.put("a", "1").await;
    let lost = (mesh.leader().await + 1) % 3;
    let lost_id = id_of(mesh.node(lost));
    mesh.kill(lost);
    let new = mesh.add().await;
    let member = mesh.node(new).member();
    let leader = mesh.leading().await;
    leader.store.add_learner(member.clone()).await.unwrap();
    until("the learner to catch up", async || {
        let status = leader.store.status();
        let matched = status.matched.iter().find(|(id, _)| *id == member.id)?.1;
        (matched >= status.committed).then_some(())
    })
    .await;
    leader
        .store
        .replace_voter(lost_id, member.id)
        .await
        .unwrap();
    let status = leader.store.status();
    assert!(status.voters.contains(&member));
    assert_eq!((status.voters.len(), status.member(lost_id)), (3, None));
    mesh.node(new).has("a", "1").await;
    // The mesh id reached the newcomer, and its vote counts: another may die now.
    assert_eq!(mesh.node(new).store.mesh_id(), Some(MESH));
    let old = (0..3).find(|place| *place != lost && id_of(mesh.node(*place)) != id_of(leader));
    mesh.kill(old.unwrap());
    mesh.put("b", "2").await;
    mesh.node(new).has("b", "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_has_caught_up_when_it_holds_what_was_there_before_it() {
    let mut mesh = Mesh::form(1, Options::default()).await;
    for n in 0..200 {
        mesh.put(&format!("k{n}"), "v").await;
    }
    let new = mesh.add().await;
    let store = &mesh.node(new).store;
    let mut caught_up = Box::pin(store.caught_up());
    let early = tokio::time::timeout(Duration::ZERO, &mut caught_up).await;
    assert!(early.is_err(), "it has heard of nobody");
    let member = mesh.node(new).member();
    mesh.leading()
        .await
        .store
        .add_learner(member)
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, caught_up).await.unwrap();
    assert!((0..200).all(|n| store.image().get(format!("k{n}").as_bytes()).is_some()));
    // Who leads has nobody to wait for.
    let led = mesh.node(0).store.caught_up();
    tokio::time::timeout(PATIENCE, led).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_up_ends_the_streams_of_others_and_no_sooner() {
    let mesh = Mesh::form(1, Options::default()).await;
    let node = mesh.node(0);
    let mut client = RaftClient::connect(format!("http://{}", node.addr))
        .await
        .unwrap();
    let silence = tokio_stream::pending::<pb::AppendEntriesRequest>();
    let mut request = tonic::Request::new(silence);
    let target = id_of(node).to_string();
    for (key, value) in [
        ("skein-mesh-id", MESH.to_string()),
        ("skein-target-node-id", target),
    ] {
        request.metadata_mut().insert(key, value.parse().unwrap());
    }
    let mut answers = client.stream_append(request).await.unwrap().into_inner();
    let early = tokio::time::timeout(Duration::ZERO, answers.message()).await;
    assert!(early.is_err(), "{early:?}");
    node.store.hang_up();
    let end = tokio::time::timeout(PATIENCE, answers.message()).await;
    assert!(matches!(end, Ok(Ok(None))), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_on_request() {
    let mesh = Mesh::form(3, Options::default()).await;
    mesh.put("a", "1").await;
    let first = mesh.leader().await;
    mesh.node(first)
        .store
        .transfer_leadership(None)
        .await
        .unwrap();
    let second = mesh.leader().await;
    assert_ne!(first, second);
    mesh.put("b", "2").await;
    let alone = Mesh::form(1, Options::default()).await;
    let refused = alone.node(0).store.transfer_leadership(None).await;
    assert!(
        matches!(refused, Err(MembershipError::Refused(_))),
        "{refused:?}"
    );
    let follower = mesh
        .node(first)
        .store
        .remove(id_of(mesh.node(second)))
        .await;
    assert!(
        matches!(follower, Err(MembershipError::NotLeader { .. })),
        "{follower:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_leader_hands_over() {
    let mesh = Mesh::form(3, Options::default()).await;
    let first = mesh.leader().await;
    let gone = id_of(mesh.node(first));
    mesh.node(first).store.remove(gone).await.unwrap();
    until("the removed leader to step down", async || {
        (mesh.node(first).store.status().role != Role::Leader).then_some(())
    })
    .await;
    mesh.put("a", "1").await;
    let status = mesh.leading().await.store.status();
    assert_eq!((status.voters.len(), status.member(gone)), (2, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_from_another_mesh_or_for_another_node_does_not_reach_raft() {
    let mesh = Mesh::form(1, Options::default()).await;
    let node = mesh.node(0);
    let mut client = RaftClient::connect(format!("http://{}", node.addr))
        .await
        .unwrap();
    let vote = pb::Vote {
        term: 99,
        node_id: 1,
        committed: false,
    };
    let calls = [
        (None, None),
        (Some(MESH.to_string()), Some("1".to_owned())),
        (Some("abc".to_owned()), Some(id_of(node).to_string())),
    ];
    for (mesh_id, target) in calls {
        let message = pb::VoteRequest {
            vote: Some(vote),
            ..Default::default()
        };
        let mut request = tonic::Request::new(message);
        let metadata = request.metadata_mut();
        for (key, value) in [("skein-mesh-id", mesh_id), ("skein-target-node-id", target)] {
            if let Some(value) = value {
                metadata.insert(key, value.parse().unwrap());
            }
        }
        assert!(client.vote(request).await.is_err());
    }
    let status = node.store.status();
    assert_eq!((status.role, status.term < 99), (Role::Leader, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_is_called_at_its_new_address_once_that_is_recorded() {
    let mut mesh = Mesh::form(3, Options::default()).await;
    mesh.put("a", "1").await;
    let moved = (mesh.leader().await + 1) % 3;
    mesh.kill(moved);
    mesh.move_away(moved).await;
    let member = mesh.node(moved).member();
    let leader = mesh.leading().await;
    leader.store.update_member(member.clone()).await.unwrap();
    assert!(leader.store.status().voters.contains(&member));
    mesh.put("b", "2").await;
    mesh.node(moved).has("b", "2").await;
    let stranger = Member {
        id: model::NodeId(4),
        ..member
    };
    let refused = mesh.leading().await.store.update_member(stranger).await;
    assert!(
        matches!(refused, Err(MembershipError::Refused(_))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_all_moved_find_each_other_where_they_are_told_to_be() {
    let mut mesh = Mesh::form(3, Options::default()).await;
    mesh.put("a", "1").await;
    for place in 0..3 {
        mesh.kill(place);
    }
    for place in 0..3 {
        mesh.move_away(place).await;
    }
    let told: std::collections::BTreeMap<_, _> = mesh
        .running()
        .map(|node| (id_of(node), node.addr.to_string()))
        .collect();
    for node in mesh.running() {
        node.store.tell_addresses(told.clone());
    }
    mesh.put("b", "2").await;
    mesh.settle().await;
    for node in mesh.running() {
        let leader = node.store.status().leader.expect("it is heard");
        assert_eq!(Some(&leader.peer_addr), told.get(&leader.id));
    }
}
