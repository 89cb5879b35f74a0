//! What an operator may ask of the members, and what is refused.

use super::*;
use crate::fixture::leading_status;

fn member(id: u64) -> Member {
    Member {
        id: NodeId(id),
        name: format!("n{id}"),
        peer_addr: format!("10.0.0.{id}:2380"),
        client_addr: format!("10.0.0.{id}:2379"),
    }
}

/// Node 1 leads; `silent` do not answer.
fn mesh(voters: &[u64], learners: &[u64], silent: &[u64]) -> RaftStatus {
    let members = |ids: &[u64]| ids.iter().map(|id| member(*id)).collect();
    let others = || {
        let all = voters.iter().chain(learners);
        all.filter(|id| **id != 1 && !silent.contains(*id))
    };
    RaftStatus {
        voters: members(voters),
        learners: members(learners),
        matched: others().map(|id| (NodeId(*id), 1000)).collect(),
        answering: others().map(|id| NodeId(*id)).collect(),
        ..leading_status()
    }
}

fn message(result: Result<(), Status>) -> String {
    result.unwrap_err().message().to_owned()
}

#[test]
fn a_member_goes_only_if_those_that_remain_keep_a_quorum() {
    let not_enough = errors::member_not_enough_started().message().to_owned();
    let healthy = mesh(&[1, 2, 3], &[4], &[]);
    for id in [1, 2, 3, 4] {
        assert!(may_remove(&healthy, NodeId(id)).is_ok(), "{id}");
    }
    assert_eq!(
        message(may_remove(&healthy, NodeId(9))),
        errors::member_not_found().message()
    );
    // The dead one may go; a living one may not, for the dead one would be needed then.
    let one_dead = mesh(&[1, 2, 3], &[4], &[3]);
    assert!(may_remove(&one_dead, NodeId(3)).is_ok());
    assert_eq!(message(may_remove(&one_dead, NodeId(2))), not_enough);
    assert_eq!(message(may_remove(&one_dead, NodeId(1))), not_enough);
    assert!(may_remove(&one_dead, NodeId(4)).is_ok(), "it has no vote");
    // The last voter stays, whatever learners there are.
    let alone = mesh(&[1], &[2], &[]);
    assert_eq!(message(may_remove(&alone, NodeId(1))), not_enough);
}

#[test]
fn a_vote_is_for_a_learner_that_is_in_sync() {
    let status = mesh(&[1], &[2, 3], &[3]);
    assert!(may_promote(&status, NodeId(2)).is_ok());
    for (id, expected) in [
        (1, errors::member_not_learner()),
        (3, errors::learner_not_ready()),
        (9, errors::member_not_found()),
    ] {
        assert_eq!(
            message(may_promote(&status, NodeId(id))),
            expected.message()
        );
    }
}

#[test]
fn a_members_address_is_one_url() {
    let address = |urls: &[&str]| {
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        peer_address(&urls)
    };
    assert_eq!(address(&["http://10.0.0.4:2380"]).unwrap(), "10.0.0.4:2380");
    assert_eq!(address(&["https://[::1]:2380"]).unwrap(), "[::1]:2380");
    let bad: [&[&str]; 8] = [
        &[],
        &["http://10.0.0.4:2380", "http://10.0.0.5:2380"],
        &["10.0.0.4:2380"],
        &["http://10.0.0.4"],
        &["http://10.0.0.4:2380/path"],
        &["http://0.0.0.0:2380"],
        &["http://10.0.0.4:0"],
        &["http://"],
    ];
    for urls in bad {
        let error = address(urls).unwrap_err();
        assert_eq!(error.message(), errors::member_bad_urls().message());
    }
}

#[test]
fn only_a_node_without_a_mesh_is_taken_in() {
    let reply = |mesh_id: u64, promised: bool| pb::IntroduceReply {
        node: Some(pb::Member {
            node_id: 4,
            name: "n4".to_owned(),
            peer_addr: "10.0.0.4:2380".to_owned(),
            client_addr: "10.0.0.4:2379".to_owned(),
            mesh_id,
        }),
        promised,
        version: None,
    };
    let address = "10.0.0.4:2380";
    assert_eq!(
        joinable(reply(0, false), address, MeshId(9)).unwrap(),
        member(4)
    );
    for (node, address, said) in [
        (reply(9, false), address, "before"),
        (reply(8, false), address, "never merge"),
        (reply(0, true), address, "promised"),
        (
            reply(0, false),
            "10.0.0.5:2380",
            "calls itself 10.0.0.4:2380",
        ),
    ] {
        let error = joinable(node, address, MeshId(9)).unwrap_err();
        assert!(error.message().contains(said), "{}", error.message());
    }
}
