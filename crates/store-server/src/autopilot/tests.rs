//! What the leader does about its members.

use store_raft::Member;

use super::*;
use crate::fixture::leading_status;

fn member(id: u64, name: &str) -> Member {
    let addr = |port: u64| format!("127.0.0.1:{}", port + id);
    Member {
        id: NodeId(id),
        name: name.to_owned(),
        peer_addr: addr(2380),
        client_addr: addr(2379),
    }
}

/// The leader is node 1; everybody has the log up to 1000.
fn mesh(voters: &[(u64, &str)], learners: &[(u64, &str)]) -> RaftStatus {
    let members = |list: &[(u64, &str)]| list.iter().map(|(id, name)| member(*id, name)).collect();
    RaftStatus {
        voters: members(voters),
        learners: members(learners),
        matched: voters
            .iter()
            .chain(learners)
            .map(|(id, _)| (NodeId(*id), 1000))
            .collect(),
        answering: voters
            .iter()
            .chain(learners)
            .map(|(id, _)| NodeId(*id))
            .collect(),
        ..leading_status()
    }
}

const THREE: &[(u64, &str)] = &[(1, "a"), (2, "b"), (3, "c")];

fn dead(ids: &'static [u64]) -> impl Fn(NodeId) -> Judgement {
    |id| {
        if ids.contains(&id.0) {
            Judgement::Dead
        } else {
            Judgement::Alive
        }
    }
}

#[test]
fn a_learner_gets_a_vote_when_it_caught_up() {
    let mut status = mesh(THREE, &[(4, "d")]);
    assert_eq!(plan(&status, dead(&[])), Some(Change::Promote(NodeId(4))));
    status.matched.retain(|(id, _)| id.0 != 4);
    status.matched.push((NodeId(4), 1000 - LAG_MAX - 1));
    assert_eq!(plan(&status, dead(&[])), None, "it lags");
    status.matched.retain(|(id, _)| id.0 != 4);
    assert_eq!(
        plan(&status, dead(&[])),
        None,
        "nothing is known of its log"
    );
}

#[test]
fn a_learner_that_was_never_reached_gets_no_vote() {
    // So short a log that even one who has nothing of it is not far behind.
    let short = RaftStatus {
        last_log: 5,
        matched: vec![(NodeId(2), 5)],
        ..mesh(&[(1, "a")], &[(2, "b")])
    };
    let promoted = Some(Change::Promote(NodeId(2)));
    assert_eq!(plan(&short, dead(&[])), promoted);
    assert_eq!(
        plan(&short, |_| Judgement::Unknown),
        None,
        "nobody saw it alive"
    );
    let matching = |matched| RaftStatus {
        matched,
        ..short.clone()
    };
    assert_eq!(plan(&matching(vec![(NodeId(2), 0)]), dead(&[])), None);
    assert_eq!(plan(&matching(vec![]), dead(&[])), None);
    let silent = RaftStatus {
        answering: vec![],
        ..short
    };
    assert_eq!(plan(&silent, dead(&[])), None, "it answers no more");
}

#[test]
fn an_interrupted_change_is_finished_before_another_begins() {
    let joint = RaftStatus {
        joint: true,
        ..mesh(THREE, &[(4, "d")])
    };
    assert_eq!(plan(&joint, dead(&[])), Some(Change::Finish));
    let stays = RaftStatus {
        joint: true,
        ..mesh(THREE, &[])
    };
    assert_eq!(plan(&stays, dead(&[3])), Some(Change::Finish));
}

#[test]
fn nothing_is_done_without_leading_a_quorum() {
    let status = mesh(THREE, &[(4, "d")]);
    let follower = RaftStatus {
        role: Role::Follower,
        ..status.clone()
    };
    assert_eq!(plan(&follower, dead(&[])), None);
    let alone = RaftStatus {
        quorum: false,
        ..status
    };
    assert_eq!(plan(&alone, dead(&[])), None);
}

#[test]
fn a_successor_takes_the_vote_of_its_dead_namesake_only() {
    let status = mesh(THREE, &[(4, "c")]);
    let change = Change::Replace {
        dead: NodeId(3),
        by: NodeId(4),
    };
    assert_eq!(plan(&status, dead(&[3])), Some(change));
    assert_eq!(plan(&status, dead(&[])), None, "its namesake lives");
    assert_eq!(
        plan(&status, dead(&[2])),
        None,
        "another one's death is no reason"
    );
    assert_eq!(
        plan(&status, |_| Judgement::Unknown),
        None,
        "no evidence is no reason"
    );
}

#[test]
fn the_dead_get_no_vote_and_the_leader_is_not_dead() {
    assert_eq!(plan(&mesh(THREE, &[(4, "d")]), dead(&[4])), None);
    assert_eq!(
        plan(&mesh(THREE, &[(4, "a")]), dead(&[1])),
        None,
        "gossip errs: I lead"
    );
}

#[test]
fn a_dead_learner_is_forgotten_when_its_successor_is_there() {
    let status = mesh(THREE, &[(4, "d"), (5, "d")]);
    assert_eq!(plan(&status, dead(&[4])), Some(Change::Forget(NodeId(4))));
    let alone = mesh(THREE, &[(4, "d")]);
    assert_eq!(plan(&alone, dead(&[4])), None, "it may come back");
}

#[test]
fn votes_end_at_the_maximum_but_a_successor_still_replaces() {
    let full: Vec<(u64, &str)> = [1, 2, 3, 4, 5, 6, 7]
        .into_iter()
        .zip(["a", "b", "c", "d", "e", "f", "g"])
        .collect();
    assert_eq!(full.len(), VOTERS_MAX);
    assert_eq!(plan(&mesh(&full, &[(8, "h")]), dead(&[])), None);
    let change = Change::Replace {
        dead: NodeId(7),
        by: NodeId(9),
    };
    assert_eq!(
        plan(&mesh(&full, &[(8, "h"), (9, "g")]), dead(&[7])),
        Some(change)
    );
}
