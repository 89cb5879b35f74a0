//! What the leader does about its members.

use proptest::collection::btree_set;
use proptest::prelude::*;
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

/// What is done when nobody has been dead for long.
fn decide(status: &RaftStatus, judge: impl Fn(NodeId) -> Judgement) -> Option<Change> {
    plan(status, &BTreeSet::new(), judge)
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
    assert_eq!(decide(&status, dead(&[])), Some(Change::Promote(NodeId(4))));
    status.matched.retain(|(id, _)| id.0 != 4);
    status.matched.push((NodeId(4), 1000 - LAG_MAX - 1));
    assert_eq!(decide(&status, dead(&[])), None, "it lags");
    status.matched.retain(|(id, _)| id.0 != 4);
    assert_eq!(
        decide(&status, dead(&[])),
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
    assert_eq!(decide(&short, dead(&[])), promoted);
    assert_eq!(
        decide(&short, |_| Judgement::Unknown),
        None,
        "nobody saw it alive"
    );
    let matching = |matched| RaftStatus {
        matched,
        ..short.clone()
    };
    assert_eq!(decide(&matching(vec![(NodeId(2), 0)]), dead(&[])), None);
    assert_eq!(decide(&matching(vec![]), dead(&[])), None);
    let silent = RaftStatus {
        answering: vec![],
        ..short
    };
    assert_eq!(decide(&silent, dead(&[])), None, "it answers no more");
}

#[test]
fn an_interrupted_change_is_finished_before_another_begins() {
    let joint = RaftStatus {
        joint: true,
        ..mesh(THREE, &[(4, "d")])
    };
    assert_eq!(decide(&joint, dead(&[])), Some(Change::Finish));
    let stays = RaftStatus {
        joint: true,
        ..mesh(THREE, &[])
    };
    assert_eq!(decide(&stays, dead(&[3])), Some(Change::Finish));
}

#[test]
fn nothing_is_done_without_leading_a_quorum() {
    let status = mesh(THREE, &[(4, "d")]);
    let follower = RaftStatus {
        role: Role::Follower,
        ..status.clone()
    };
    assert_eq!(decide(&follower, dead(&[])), None);
    let alone = RaftStatus {
        quorum: false,
        ..status
    };
    assert_eq!(decide(&alone, dead(&[])), None);
}

#[test]
fn a_successor_takes_the_vote_of_its_dead_namesake_only() {
    let status = mesh(THREE, &[(4, "c")]);
    let change = Change::Replace {
        dead: NodeId(3),
        by: NodeId(4),
    };
    assert_eq!(decide(&status, dead(&[3])), Some(change));
    assert_eq!(decide(&status, dead(&[])), None, "its namesake lives");
    assert_eq!(
        decide(&status, dead(&[2])),
        None,
        "another one's death is no reason"
    );
    assert_eq!(
        decide(&status, |_| Judgement::Unknown),
        None,
        "no evidence is no reason"
    );
}

#[test]
fn the_dead_get_no_vote_and_the_leader_is_not_dead() {
    assert_eq!(decide(&mesh(THREE, &[(4, "d")]), dead(&[4])), None);
    assert_eq!(
        decide(&mesh(THREE, &[(4, "a")]), dead(&[1])),
        None,
        "gossip errs: I lead"
    );
}

#[test]
fn a_dead_learner_is_forgotten_when_its_successor_is_there() {
    let status = mesh(THREE, &[(4, "d"), (5, "d")]);
    assert_eq!(decide(&status, dead(&[4])), Some(Change::Forget(NodeId(4))));
    let alone = mesh(THREE, &[(4, "d")]);
    assert_eq!(decide(&alone, dead(&[4])), None, "it may come back");
}

#[test]
fn votes_end_at_the_maximum_but_a_successor_still_replaces() {
    let full: Vec<(u64, &str)> = [1, 2, 3, 4, 5, 6, 7]
        .into_iter()
        .zip(["a", "b", "c", "d", "e", "f", "g"])
        .collect();
    assert_eq!(full.len(), VOTERS_MAX);
    assert_eq!(decide(&mesh(&full, &[(8, "h")]), dead(&[])), None);
    let change = Change::Replace {
        dead: NodeId(7),
        by: NodeId(9),
    };
    assert_eq!(
        decide(&mesh(&full, &[(8, "h"), (9, "g")]), dead(&[7])),
        Some(change)
    );
}

const FIVE: &[(u64, &str)] = &[(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")];

/// `gone` are dead by gossip and silent to Raft, and have been for long.
fn bury_in(
    voters: &[(u64, &str)],
    learners: &[(u64, &str)],
    gone: &'static [u64],
) -> Option<Change> {
    let mut status = mesh(voters, learners);
    status.answering.retain(|id| !gone.contains(&id.0));
    let long_dead = gone.iter().map(|id| NodeId(*id)).collect();
    plan(&status, &long_dead, dead(gone))
}

#[test]
fn the_long_dead_go_while_three_voters_and_a_living_quorum_remain() {
    assert_eq!(bury_in(FIVE, &[], &[5]), Some(Change::Remove(NodeId(5))));
    assert_eq!(bury_in(FIVE, &[], &[4, 5]), Some(Change::Remove(NodeId(4))));
    assert_eq!(bury_in(THREE, &[], &[3]), None, "two voters are too few");
    let learner = bury_in(THREE, &[(4, "d")], &[4]);
    assert_eq!(learner, Some(Change::Forget(NodeId(4))));
    // Of the four that remain two live, and they need three.
    assert_eq!(bury_in(FIVE, &[], &[3, 4, 5]), None);
}

#[test]
fn whoever_answers_or_may_live_is_not_buried() {
    let status = mesh(FIVE, &[]);
    let long_dead = BTreeSet::from([NodeId(5)]);
    assert_eq!(
        plan(&status, &long_dead, dead(&[5])),
        None,
        "it answers Raft"
    );
    let mut silent = status;
    silent.answering.retain(|id| id.0 != 5);
    assert_eq!(plan(&silent, &long_dead, dead(&[])), None, "gossip sees it");
    let unknown = |_| Judgement::Unknown;
    assert_eq!(plan(&silent, &long_dead, unknown), None, "nobody knows");
    let removed = Some(Change::Remove(NodeId(5)));
    assert_eq!(plan(&silent, &long_dead, dead(&[5])), removed);
    assert_eq!(decide(&silent, dead(&[5])), None, "it died just now");
}

#[test]
fn a_death_counts_from_when_this_leader_saw_it() {
    let (begin, hour) = (Instant::now(), Duration::from_secs(3600));
    let mut status = mesh(FIVE, &[]);
    status.answering.retain(|id| id.0 != 5);
    let mut deaths = Deaths::default();
    let long_dead = |deaths: &Deaths, now| deaths.since_before(hour, now).len();
    deaths.note(&status, dead(&[5]), begin);
    deaths.note(&status, dead(&[5]), begin + hour / 2);
    assert_eq!(long_dead(&deaths, begin + hour / 2), 0);
    assert_eq!(long_dead(&deaths, begin + hour), 1);
    // A moment of doubt, and it begins anew.
    deaths.note(&status, |_| Judgement::Unknown, begin + hour);
    deaths.note(&status, dead(&[5]), begin + hour);
    assert_eq!(long_dead(&deaths, begin + hour), 0);
    assert_eq!(long_dead(&deaths, begin + hour * 2), 1);
    // So it does with another leadership, and without a quorum.
    let elected = RaftStatus {
        term: status.term + 1,
        ..status.clone()
    };
    deaths.note(&elected, dead(&[5]), begin + hour * 2);
    assert_eq!(long_dead(&deaths, begin + hour * 2), 0);
    let cut_off = RaftStatus {
        quorum: false,
        ..elected.clone()
    };
    deaths.note(&elected, dead(&[5]), begin + hour * 3);
    deaths.note(&cut_off, dead(&[5]), begin + hour * 3);
    assert_eq!(long_dead(&deaths, begin + hour * 4), 0);
}

/// Who votes after the change.
fn voters_after(status: &RaftStatus, change: Change) -> BTreeSet<NodeId> {
    let mut voters: BTreeSet<NodeId> = status.voters.iter().map(|voter| voter.id).collect();
    match change {
        Change::Finish => {}
        Change::Promote(id) => drop(voters.insert(id)),
        Change::Replace { dead, by } => {
            voters.remove(&dead);
            voters.insert(by);
        }
        Change::Forget(id) | Change::Remove(id) => drop(voters.remove(&id)),
    }
    voters
}

fn refs(members: &[(u64, String)]) -> Vec<(u64, &str)> {
    members.iter().map(|(id, name)| (*id, &**name)).collect()
}

fn ids(max: u64) -> impl Strategy<Value = BTreeSet<NodeId>> {
    btree_set((1..=max).prop_map(NodeId), 0..9)
}

proptest! {
    /// Whatever gossip says, and however the members came to be: where a quorum lives before a
    /// change, one lives after it, and nobody goes who lives or may live.
    #[test]
    fn no_plan_costs_the_quorum_or_a_living_member(
        voters in ids(9), learners in ids(12), answering in ids(12), dead in ids(12),
        unknown in ids(12), long_dead in ids(12), names in 1..13_u64,
    ) {
        let named = |id: &NodeId| (id.0, format!("n{}", id.0 % names));
        let leader = NodeId(1);
        let voters: Vec<_> = voters.iter().chain([&leader]).map(named).collect();
        let voters: std::collections::BTreeMap<_, _> = voters.into_iter().collect();
        let learners: Vec<_> = learners.iter().map(named).collect();
        let borrowed = |(id, name): &(u64, String)| (*id, name.clone());
        let learners: Vec<_> = learners
            .iter()
            .map(borrowed)
            .filter(|(id, _)| !voters.contains_key(id))
            .collect();
        let voters: Vec<_> = voters.into_iter().collect();
        let mut status = mesh(&refs(&voters), &refs(&learners));
        status.answering.retain(|id| answering.contains(id));
        let judge = |id: NodeId| match (dead.contains(&id), unknown.contains(&id)) {
            (_, true) => Judgement::Unknown,
            (true, false) => Judgement::Dead,
            (false, false) => Judgement::Alive,
        };
        let lives = |voters: &BTreeSet<NodeId>| {
            let living = voters.iter().filter(|id| answers(&status, **id));
            living.count() > voters.len() / 2
        };
        let before = status.voters.iter().map(|voter| voter.id).collect();
        if let Some(change) = plan(&status, &long_dead, judge) {
            let after = voters_after(&status, change);
            prop_assert!(!lives(&before) || lives(&after), "{change:?} in {status:?}");
            prop_assert!(after.contains(&leader), "{change:?}");
            if let Change::Remove(id) | Change::Forget(id) | Change::Replace { dead: id, .. } = change {
                prop_assert_eq!(judge(id), Judgement::Dead);
            }
            if let Change::Remove(id) = change {
                prop_assert!(long_dead.contains(&id) && !answers(&status, id));
                prop_assert!(after.len() >= VOTERS_MIN);
            }
        }
    }
}
