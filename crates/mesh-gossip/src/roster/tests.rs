//! The rules of the roster, without a network.

use super::*;
use crate::facts::tests::facts;

const INTERVAL: Duration = Duration::from_millis(500);

struct Known {
    id: ChitchatId,
    state: NodeState,
    live: bool,
}

fn known(node: u64, generation: u64, name: &str) -> Known {
    let id = ChitchatId::new(
        NodeId(node).to_string(),
        generation,
        ([127, 0, 0, 1], 7946).into(),
    );
    let mut state = NodeState::for_test();
    for (key, value) in facts(node, name).encode().unwrap() {
        state.set(key, value);
    }
    Known {
        id,
        state,
        live: true,
    }
}

struct World {
    roster: Roster,
    start: Instant,
    moment: Moment,
}

impl World {
    fn new() -> Self {
        let start = Instant::now();
        let wall = SystemTime::UNIX_EPOCH;
        let moment = Moment {
            now: start,
            wall,
            frozen: false,
            mesh_id: None,
        };
        Self {
            roster: Roster::new(NodeId(1), INTERVAL),
            start,
            moment,
        }
    }

    fn look(&mut self, after: u32, known: &[&Known]) -> Peers {
        self.moment.now = self.start + INTERVAL * after;
        self.moment.wall = SystemTime::UNIX_EPOCH + INTERVAL * after;
        let sightings = known.iter().map(|known| Sighting {
            id: &known.id,
            state: &known.state,
            live: known.live,
        });
        self.roster.update(sightings, self.moment)
    }
}

fn liveness(peers: &Peers, node: u64) -> Option<(Liveness, u64)> {
    peers
        .peer(NodeId(node))
        .map(|peer| (peer.liveness, peer.generation))
}

#[test]
fn a_peer_goes_down_and_comes_back_with_the_times_of_both() {
    let mut world = World::new();
    let mut b = known(2, 1, "b");
    world.look(0, &[&b]);
    b.live = false;
    let down = world.look(10, &[&b]);
    assert_eq!(liveness(&down, 2), Some((Liveness::Down, 1)));
    assert!(down.alive_ids().is_empty());
    let later = world.look(20, &[&b]);
    assert!(later.is_same(&down), "nothing changed");
    assert_eq!(
        later.peer(NodeId(2)).unwrap().since,
        SystemTime::UNIX_EPOCH + INTERVAL * 10
    );
    b.live = true;
    assert_eq!(
        liveness(&world.look(21, &[&b]), 2),
        Some((Liveness::Alive, 1))
    );
}

#[test]
fn hearsay_is_not_down_at_once() {
    let mut world = World::new();
    let mut b = known(2, 1, "b");
    b.live = false;
    assert_eq!(liveness(&world.look(0, &[&b]), 2), None);
    assert_eq!(
        liveness(&world.look(HEARSAY_INTERVALS, &[&b]), 2),
        Some((Liveness::Down, 1))
    );
}

#[test]
fn leaving_counts_at_once_although_the_heart_still_beats() {
    let mut world = World::new();
    let mut b = known(2, 1, "b");
    world.look(0, &[&b]);
    b.state.set(LEFT_KEY, "1");
    assert_eq!(
        liveness(&world.look(1, &[&b]), 2),
        Some((Liveness::Left, 1))
    );
}

#[test]
fn a_restarted_node_is_its_living_or_else_its_latest_life() {
    let mut world = World::new();
    let mut old = known(2, 1, "b");
    let mut new = known(2, 2, "b");
    new.live = false;
    assert_eq!(
        liveness(&world.look(0, &[&old, &new]), 2),
        Some((Liveness::Alive, 1))
    );
    new.live = true;
    assert_eq!(
        liveness(&world.look(1, &[&old, &new]), 2),
        Some((Liveness::Alive, 2))
    );
    new.live = false;
    // An old life that is replayed, or a clock that went back: what is alive stands for the node.
    assert_eq!(
        liveness(&world.look(2, &[&old, &new]), 2),
        Some((Liveness::Alive, 1))
    );
    old.live = false;
    let both_down = world.look(3, &[&old, &new]);
    assert_eq!(liveness(&both_down, 2), Some((Liveness::Down, 2)));
    assert_eq!(both_down.iter().count(), 1);
}

#[test]
fn the_same_name_with_another_id_is_another_peer() {
    let mut world = World::new();
    let mut lost = known(2, 1, "b");
    lost.live = false;
    let replacement = known(3, 2, "b");
    let peers = world.look(HEARSAY_INTERVALS, &[&lost, &replacement]);
    let peers = if peers.iter().count() == 2 {
        peers
    } else {
        world.look(20, &[&lost, &replacement])
    };
    assert_eq!(liveness(&peers, 2), Some((Liveness::Down, 1)));
    assert_eq!(liveness(&peers, 3), Some((Liveness::Alive, 2)));
}

#[test]
fn a_late_node_keeps_its_live_set_but_revives_nobody() {
    let mut world = World::new();
    let (mut b, mut c) = (known(2, 1, "b"), known(3, 1, "c"));
    world.look(0, &[&b, &c]);
    c.live = false;
    world.look(10, &[&b, &c]);
    b.live = false;
    world.moment.frozen = true;
    let frozen = world.look(20, &[&b, &c]);
    assert_eq!(liveness(&frozen, 2), Some((Liveness::Alive, 1)));
    assert_eq!(liveness(&frozen, 3), Some((Liveness::Down, 1)));
    world.moment.frozen = false;
    assert_eq!(
        liveness(&world.look(26, &[&b, &c]), 2),
        Some((Liveness::Down, 1))
    );
}

#[test]
fn foreign_is_another_mesh_only_when_both_have_one() {
    let mut world = World::new();
    let mut b = known(2, 1, "b");
    let tell = |b: &mut Known, mesh| {
        let mut facts = facts(2, "b");
        facts.identity.mesh_id = mesh;
        b.state.set(IDENTITY_KEY, &facts.encode().unwrap()[0].1);
    };
    world.moment.mesh_id = Some(MeshId(1));
    assert!(
        !world.look(0, &[&b]).peer(NodeId(2)).unwrap().foreign,
        "it may join"
    );
    tell(&mut b, Some(MeshId(2)));
    let peers = world.look(1, &[&b]);
    assert!(peers.peer(NodeId(2)).unwrap().foreign);
    assert!(
        peers.alive_ids().is_empty(),
        "strangers are shown, but count for nothing"
    );
    tell(&mut b, Some(MeshId(1)));
    assert!(!world.look(2, &[&b]).peer(NodeId(2)).unwrap().foreign);
    world.moment.mesh_id = None;
    tell(&mut b, Some(MeshId(2)));
    assert!(
        !world.look(3, &[&b]).peer(NodeId(2)).unwrap().foreign,
        "we may join"
    );
}

#[test]
fn reports_carry_the_time_of_their_own_arrival() {
    let mut world = World::new();
    let mut b = known(2, 1, "b");
    b.state.set("health/default/api", "1 1 15 +10.0.0.1:80");
    b.state.set("health/default/web", "not a report");
    let first = world.look(0, &[&b]);
    let ages = |peers: &Peers, at: Instant| -> Vec<(String, Duration)> {
        peers
            .reports(at)
            .iter()
            .map(|one| (one.cluster.to_owned(), one.age))
            .collect()
    };
    assert_eq!(
        ages(&first, world.moment.now),
        [("default/api".to_owned(), Duration::ZERO)]
    );
    // Another key's news do not make this one younger; its own do.
    b.state.set("health/default/web", "1 1 15");
    let second = world.look(4, &[&b]);
    assert_eq!(ages(&second, world.moment.now)[0].1, INTERVAL * 4);
    assert_eq!(second.reports(world.moment.now).len(), 2);
    b.state.set("health/default/api", "1 2 15 +10.0.0.1:80");
    b.state.delete("health/default/web");
    let third = world.look(6, &[&b]);
    assert_eq!(
        ages(&third, world.moment.now),
        [("default/api".to_owned(), Duration::ZERO)]
    );
    b.live = false;
    assert!(
        world.look(9, &[&b]).reports(world.moment.now).is_empty(),
        "the dead have no say"
    );
}

#[test]
fn facts_under_another_nodes_id_are_not_believed() {
    let mut world = World::new();
    let mut b = known(2, 1, "b");
    b.state
        .set(IDENTITY_KEY, &facts(3, "c").encode().unwrap()[0].1);
    assert_eq!(world.look(0, &[&b]).iter().count(), 0);
}

#[test]
fn a_twin_is_believed_when_it_stays() {
    let mut world = World::new();
    let twin = known(1, 9, "a");
    assert_eq!(world.look(0, &[&twin]).twin, None);
    let peers = world.look(TWIN_INTERVALS, &[&twin]);
    assert_eq!(peers.twin, Some(twin.id.gossip_advertise_addr));
    assert_eq!(peers.iter().count(), 0, "not a peer of itself");
}

#[test]
fn what_chitchat_forgets_is_forgotten() {
    let mut world = World::new();
    let b = known(2, 1, "b");
    world.look(0, &[&b]);
    assert_eq!(world.look(1, &[]).iter().count(), 0);
    assert!(world.roster.lives.is_empty());
}
