//! Whole meshes over real UDP sockets on loopback.
//!
//! Owns the behaviour that users see: finding each other, dying, leaving, restarting, keys,
//! garbage. Never looks inside.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail their test by panicking"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use mesh_gossip::{
    DropReason, Facts, GOSSIP_INTERVAL, GossipConfig, HEARD_WITHIN_INTERVALS, Identity, KeyRing,
    Liveness, Mesh, NodeState, Peer, Peers, StartError,
};
use mesh_health::{Report, Verdict};
use model::{ConfigRevision, MeshId, NodeId};
use tokio::net::UdpSocket;

const QUICK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

fn facts(id: u64, name: &str) -> Facts {
    let identity = Identity {
        node_id: NodeId(id),
        name: name.parse().unwrap(),
        mesh_id: Some(MeshId(77)),
        promise: None,
        bootstrap_expect: Some(3),
        client_addr: Some(([127, 0, 0, 1], 2379).into()),
        client_tls: false,
        peer_addr: None,
        admin_addr: None,
        gossip_addr: None,
        zone: Some("z".to_owned()),
        labels: BTreeMap::from([("rack".to_owned(), "1".to_owned())]),
        version: "0.1.0".to_owned(),
        roles: vec!["store".to_owned()],
    };
    Facts {
        identity,
        state: NodeState::default(),
    }
}

fn config(id: u64, seeds: &[&Mesh]) -> GossipConfig {
    GossipConfig {
        generation: 1,
        bind: ([127, 0, 0, 1], 0).into(),
        seeds: seeds
            .iter()
            .map(|mesh| mesh.address().to_string())
            .collect(),
        keys: KeyRing::development(),
        interval: QUICK,
        facts: facts(id, &format!("node-{id}")),
    }
}

fn start(id: u64, seeds: &[&Mesh]) -> Mesh {
    Mesh::start(config(id, seeds)).unwrap()
}

/// Waits until `holds`; the peers at that moment.
async fn until(mesh: &Mesh, what: &str, holds: impl Fn(&Peers) -> bool) -> Arc<Peers> {
    let mut peers = mesh.peers();
    let found = tokio::time::timeout(PATIENCE, peers.wait_for(|peers| holds(peers))).await;
    match found {
        Ok(found) => Arc::clone(&found.unwrap()),
        Err(_) => panic!("{what}: did not happen: {:#?}", mesh.peers().borrow()),
    }
}

async fn until_count(what: &str, count: impl Fn() -> u64, least: u64) {
    let deadline = Instant::now() + PATIENCE;
    while count() < least {
        assert!(
            Instant::now() < deadline,
            "{what}: {} instead of {least}",
            count()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is(peers: &Peers, id: u64, liveness: Liveness) -> bool {
    peers
        .peer(NodeId(id))
        .is_some_and(|peer| peer.liveness == liveness)
}

/// `count` meshes that all know each other.
async fn converged(count: u64) -> Vec<Mesh> {
    let mut meshes = vec![start(1, &[])];
    for id in 2..=count {
        let next = start(id, &[&meshes[0]]);
        meshes.push(next);
    }
    for mesh in &meshes {
        until(mesh, "convergence", |peers| {
            peers.alive().count() as u64 == count - 1
        })
        .await;
    }
    meshes
}

#[tokio::test]
async fn three_nodes_find_each_other_and_tell_their_facts() {
    let meshes = converged(3).await;
    let peers = until(&meshes[2], "facts", |peers| peers.peer(NodeId(2)).is_some()).await;
    let told: &Peer = peers.peer(NodeId(2)).unwrap();
    assert_eq!(told.facts.identity.name.as_str(), "node-2");
    assert_eq!(told.facts.identity.labels["rack"], "1");
    assert_eq!(told.facts.identity.gossip_addr, Some(meshes[1].address()));
    assert!(!told.foreign);

    let mut news = facts(2, "node-2");
    news.state.config_revision = ConfigRevision(5);
    meshes[1].publish(|| news.clone()).unwrap();
    for mesh in [&meshes[0], &meshes[2]] {
        until(mesh, "the new revision", |peers| {
            peers.peer(NodeId(2)).unwrap().facts.state.config_revision == ConfigRevision(5)
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_that_dies_is_down_within_five_seconds() {
    let interval = |id, seeds: &[&Mesh]| GossipConfig {
        interval: GOSSIP_INTERVAL,
        ..config(id, seeds)
    };
    let a = Mesh::start(interval(1, &[])).unwrap();
    let b = Mesh::start(interval(2, &[&a])).unwrap();
    let c = Mesh::start(interval(3, &[&a])).unwrap();
    for mesh in [&a, &b, &c] {
        until(mesh, "convergence", |peers| peers.alive().count() == 2).await;
    }
    drop(c);
    for mesh in [&a, &b] {
        let peers = until(mesh, "down", |peers| is(peers, 3, Liveness::Down)).await;
        assert_eq!(peers.alive().count(), 1, "the others are not blamed");
        assert_eq!(
            peers.peer(NodeId(3)).unwrap().facts.identity.name.as_str(),
            "node-3"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_last_tells_what_is_newest() {
    let meshes = converged(2).await;
    let teller: Arc<[Mesh]> = meshes.into();
    let newest = Arc::new(AtomicU64::new(1));
    let facts = |revision: u64| {
        let mut facts = facts(2, "node-2");
        facts.state.config_revision = ConfigRevision(revision);
        facts
    };
    let (gathers, gathering) = mpsc::channel();
    let slow = std::thread::spawn({
        let (teller, newest) = (teller.clone(), newest.clone());
        move || {
            let gather = || {
                let revision = newest.load(Ordering::SeqCst);
                gathers.send(()).unwrap();
                // Were the other let through, it would be done long before.
                std::thread::sleep(Duration::from_millis(300));
                facts(revision)
            };
            teller[1].publish(gather).unwrap();
        }
    });
    gathering.recv_timeout(PATIENCE).unwrap();
    newest.store(2, Ordering::SeqCst);
    let gather = || facts(newest.load(Ordering::SeqCst));
    teller[1].publish(gather).unwrap();
    slow.join().unwrap();
    until(&teller[0], "the newest", |peers| {
        let told = peers
            .peer(NodeId(2))
            .map(|peer| peer.facts.state.config_revision);
        told == Some(ConfigRevision(2))
    })
    .await;
}

#[tokio::test]
async fn a_node_that_leaves_has_left_at_once() {
    let meshes = converged(3).await;
    meshes[2].leave().await;
    for mesh in &meshes[..2] {
        // Nobody is first taken for dead.
        until(mesh, "left", |peers| {
            assert!(!is(peers, 3, Liveness::Down));
            is(peers, 3, Liveness::Left)
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_that_was_late_itself_does_not_blame_the_others() {
    let punctual = start(1, &[]);
    let seed = config(2, &[&punctual]);
    // The late node has a runtime of its own, to be stalled alone.
    let late = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let late = Mesh::start(seed).unwrap();
            until(&late, "the punctual node", |peers| {
                is(peers, 1, Liveness::Alive)
            })
            .await;
            // Far longer than the detector's patience.
            std::thread::sleep(QUICK * 20);
            let mut peers = late.peers();
            let blamed = peers.wait_for(|peers| is(peers, 1, Liveness::Down));
            let blamed = tokio::time::timeout(QUICK * 15, blamed).await.is_ok();
            let text = {
                let mut registry = prometheus_client::registry::Registry::default();
                late.counters().register(&mut registry);
                let mut text = String::new();
                prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
                text
            };
            (blamed, text)
        })
    });
    let (blamed, metrics) = late.await.unwrap();
    assert!(!blamed, "the punctual node was held for dead");
    assert!(
        metrics.contains("skein_gossip_freezes_total 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_restarted_node_and_its_replacement_are_told_apart() {
    let mut meshes = converged(3).await;
    let third = meshes.pop().unwrap();
    let address = third.address();
    drop(third);
    // The same node again, on its address, with its next generation.
    let again = GossipConfig {
        generation: 2,
        bind: address,
        ..config(3, &[&meshes[0]])
    };
    let again = start_when_free(again).await;
    for mesh in &meshes {
        until(mesh, "the second life", |peers| {
            let peer = peers.peer(NodeId(3)).unwrap();
            peer.generation == 2 && peer.liveness == Liveness::Alive
        })
        .await;
    }
    drop(again);
    // An emptied disk: the same name on the same address, but another node.
    let mut replacement = GossipConfig {
        bind: address,
        ..config(4, &[&meshes[0]])
    };
    replacement.facts = facts(4, "node-3");
    let _replacement = start_when_free(replacement).await;
    for mesh in &meshes {
        let peers = until(mesh, "the replacement", |peers| {
            is(peers, 3, Liveness::Down) && is(peers, 4, Liveness::Alive)
        })
        .await;
        assert_eq!(
            peers.peer(NodeId(4)).unwrap().facts.identity.name.as_str(),
            "node-3"
        );
    }
}

/// The heart of a dropped mesh ends a moment later, and its port with it.
async fn start_when_free(config: GossipConfig) -> Mesh {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Mesh::start(config.clone()) {
            Ok(mesh) => return mesh,
            Err(StartError::Bind { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_wrong_key_is_told_to_the_stranger_and_only_counted_by_the_mesh() {
    let meshes = converged(2).await;
    let mut stranger = config(9, &[&meshes[0]]);
    stranger.keys = KeyRing::parse(&"5a".repeat(32)).unwrap();
    let stranger = Mesh::start(stranger).unwrap();
    let told = tokio::time::timeout(PATIENCE, stranger.wrong_key())
        .await
        .unwrap();
    assert_eq!(told.seed, meshes[0].address().to_string());
    assert!(told.to_string().contains("--gossip-key-file"), "{told}");
    assert!(meshes[0].counters().dropped(DropReason::UnknownKey) > 0);
    assert!(meshes[0].peers().borrow().peer(NodeId(9)).is_none());
    assert_eq!(stranger.peers().borrow().iter().count(), 0);
    assert!(
        is(&meshes[0].peers().borrow(), 2, Liveness::Alive),
        "the mesh goes on"
    );
}

#[tokio::test]
async fn keys_rotate_without_a_gap() {
    let (old, new) = ("0a".repeat(32), "0b".repeat(32));
    let ring = |lines: &[&str]| KeyRing::parse(&lines.join("\n")).unwrap();
    let a = Mesh::start(GossipConfig {
        keys: ring(&[&old, &new]),
        ..config(1, &[])
    })
    .unwrap();
    let b = Mesh::start(GossipConfig {
        keys: ring(&[&new, &old]),
        ..config(2, &[&a])
    })
    .unwrap();
    until(&a, "b", |peers| is(peers, 2, Liveness::Alive)).await;
    until(&b, "a", |peers| is(peers, 1, Liveness::Alive)).await;
}

#[tokio::test]
async fn garbage_truncated_and_replayed_datagrams_are_dropped_and_counted() {
    let a = start(1, &[]);
    // Between b and a stands an eavesdropper who repeats, cuts and invents.
    let tap = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let tapped = tap.local_addr().unwrap();
    let mut b = config(2, &[]);
    b.seeds = vec![tapped.to_string()];
    let _b = Mesh::start(b).unwrap();
    let mut buffer = [0; 2048];
    let (length, _) = tap.recv_from(&mut buffer).await.unwrap();
    let seen = &buffer[..length];
    let count = |reason| a.counters().dropped(reason);
    let send = async |bytes: &[u8]| {
        tap.send_to(bytes, a.address()).await.unwrap();
    };

    for length in [0, 1, 2, 29, 45] {
        send(&seen[..length]).await;
    }
    send(&[0xff; 1500]).await;
    until_count("malformed", || count(DropReason::Malformed), 6).await;

    send(&seen[..length - 1]).await;
    let mut changed = seen.to_vec();
    changed[40] ^= 1;
    send(&changed).await;
    until_count("forged", || count(DropReason::Forged), 2).await;

    send(seen).await;
    until(&a, "the original is accepted", |_| true).await;
    send(seen).await;
    send(seen).await;
    until_count("replayed", || count(DropReason::Replayed), 2).await;

    let mut stray = vec![1, 2];
    stray.extend([7; 24]);
    send(&stray).await;
    until_count("stray rejects", || count(DropReason::StrayReject), 1).await;

    // After all that, an honest node is still welcome.
    let c = start(3, &[&a]);
    until(&a, "c", |peers| is(peers, 3, Liveness::Alive)).await;
    until(&c, "a", |peers| is(peers, 1, Liveness::Alive)).await;
}

#[tokio::test]
async fn strangers_are_answered_briefly_and_not_endlessly() {
    let a = start(1, &[]);
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut datagram = vec![1, 1, 9, 9, 9, 9];
    datagram.extend([3; 60]);
    for _ in 0..200 {
        stranger.send_to(&datagram, a.address()).await.unwrap();
    }
    until_count(
        "unknown keys",
        || a.counters().dropped(DropReason::UnknownKey),
        150,
    )
    .await;
    let mut answers = 0;
    let mut buffer = [0; 2048];
    while let Ok((length, _)) = stranger.try_recv_from(&mut buffer) {
        assert!(length < datagram.len(), "no amplification");
        assert_eq!(buffer[2..26], datagram[6..30], "the nonce is echoed");
        answers += 1;
    }
    assert!((1..100).contains(&answers), "{answers} answers");
}

#[tokio::test]
async fn reports_travel_and_more_than_a_message_of_them_too() {
    let meshes = converged(2).await;
    // 60 clusters of 2 KiB each: twice what one message holds.
    let reports: BTreeMap<Arc<str>, Report> = (0..60)
        .map(|cluster| {
            let verdicts = (0..100)
                .map(|n| {
                    (
                        SocketAddr::from(([10, 100, cluster, n], 8000)),
                        Verdict::Healthy,
                    )
                })
                .collect();
            let report = Report {
                stamp: 1,
                fresh_for: Duration::from_secs(15),
                verdicts,
            };
            (format!("default/cluster-{cluster}").into(), report)
        })
        .collect();
    let bytes: usize = reports.values().map(|report| report.encode().len()).sum();
    assert!(bytes > 100_000, "{bytes}");
    meshes[0].publish_reports(&reports);
    let all = |peers: &Peers| peers.reports(Instant::now()).len() == reports.len();
    let peers = until(&meshes[1], "all reports", all).await;
    for received in peers.reports(Instant::now()) {
        assert_eq!(received.node, NodeId(1));
        assert_eq!(Some(received.report), reports.get(received.cluster));
    }
    // A latecomer gets everything too, and what is withdrawn goes away.
    let late = start(3, &[&meshes[1]]);
    until(&late, "all reports for the latecomer", all).await;
    meshes[0].publish_reports(&BTreeMap::new());
    until(&late, "withdrawal", |peers| {
        peers.reports(Instant::now()).is_empty()
    })
    .await;
}

#[tokio::test]
async fn another_mesh_is_shown_as_foreign() {
    let a = start(1, &[]);
    let mut other = config(2, &[&a]);
    other.facts.identity.mesh_id = Some(MeshId(78));
    let _other = Mesh::start(other).unwrap();
    let peers = until(&a, "the foreign peer", |peers| {
        is(peers, 2, Liveness::Alive)
    })
    .await;
    assert!(peers.peer(NodeId(2)).unwrap().foreign);
    assert!(peers.alive_ids().is_empty());
}

#[tokio::test]
async fn a_node_may_be_among_its_own_seeds_and_seeds_may_come_later() {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let later = free.local_addr().unwrap();
    drop(free);
    let own = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let bind = own.local_addr().unwrap();
    drop(own);
    let mut a = config(1, &[]);
    a.bind = bind;
    a.seeds = vec![
        format!("localhost:{}", bind.port()),
        bind.to_string(),
        later.to_string(),
    ];
    let a = Mesh::start(a).unwrap();
    until_count("calls to nobody", || a.counters().sent(), 1).await;
    let b = Mesh::start(GossipConfig {
        bind: later,
        ..config(2, &[])
    })
    .unwrap();
    until(&a, "b", |peers| is(peers, 2, Liveness::Alive)).await;
    until(&b, "a", |peers| is(peers, 1, Liveness::Alive)).await;
    assert_eq!(a.peers().borrow().iter().count(), 1, "not a peer of itself");
}

/// Two nodes that have each other's company, and among their seeds one that is dead.
async fn survivors(dead: SocketAddr, interval: Duration) -> [Mesh; 2] {
    let survivor = |id, seeds: &[&Mesh]| {
        let mut survivor = config(id, seeds);
        survivor.interval = interval;
        survivor.seeds.push(dead.to_string());
        Mesh::start(survivor).unwrap()
    };
    let b = survivor(2, &[]);
    let c = survivor(3, &[&b]);
    for mesh in [&b, &c] {
        until(mesh, "company", |peers| peers.alive().count() == 1).await;
    }
    [b, c]
}

#[tokio::test]
async fn every_node_calls_a_silent_seed_at_every_interval() {
    // Now and then would not do: so many calls must fit into our patience.
    const CALLS: usize = 30;
    let seed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let survivors = survivors(seed.local_addr().unwrap(), QUICK).await;
    let mut buffer = [0; 2048];
    // What was said before they had company.
    while seed.try_recv_from(&mut buffer).is_ok() {}
    let mut calls: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !survivors
        .iter()
        .all(|mesh| calls.get(&mesh.address()) >= Some(&CALLS))
    {
        let call = tokio::time::timeout_at(deadline, seed.recv_from(&mut buffer)).await;
        let (_, caller) = call.unwrap_or_else(|_| panic!("only {calls:?}")).unwrap();
        *calls.entry(caller).or_default() += 1;
    }
}

#[tokio::test]
async fn who_starts_without_seeds_where_a_seed_died_sees_the_mesh_within_the_promise() {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = free.local_addr().unwrap();
    drop(free);
    let _survivors = survivors(dead, GOSSIP_INTERVAL).await;
    let wiped = Mesh::start(GossipConfig {
        bind: dead,
        interval: GOSSIP_INTERVAL,
        ..config(1, &[])
    })
    .unwrap();
    // Twice the promise: tests share the machine.
    let deadline = GOSSIP_INTERVAL * HEARD_WITHIN_INTERVALS * 2;
    let mut peers = wiped.peers();
    let heard = peers.wait_for(|peers| peers.alive().next().is_some());
    let heard = tokio::time::timeout(deadline, heard).await;
    assert!(heard.is_ok(), "heard of nobody within {deadline:?}");
}

#[tokio::test]
async fn a_heart_that_stops_is_named_and_the_mesh_can_still_be_left() {
    // No clock ticks at this rate, at which the heart panics.
    let mesh = Mesh::start(GossipConfig {
        interval: Duration::ZERO,
        ..config(1, &[])
    })
    .unwrap();
    let fault = tokio::time::timeout(PATIENCE, mesh.ended()).await.unwrap();
    assert_eq!(fault.task, "gossip heart");
    assert!(fault.fault.contains("must be non-zero"), "{fault:?}");
    tokio::time::timeout(PATIENCE, mesh.leave()).await.unwrap();
}

#[tokio::test]
async fn leaving_is_no_fault() {
    let mut seeded = config(1, &[]);
    seeded.seeds = vec!["localhost:9".to_owned()];
    let mesh = Mesh::start(seeded).unwrap();
    tokio::select! {
        fault = mesh.ended() => panic!("{fault:?}"),
        () = mesh.leave() => {}
    }
    let fault = tokio::time::timeout(QUICK, mesh.ended()).await;
    assert!(fault.is_err(), "{fault:?}");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let a = start(1, &[]);
    let taken = Mesh::start(GossipConfig {
        bind: a.address(),
        ..config(2, &[])
    })
    .unwrap_err();
    assert!(matches!(taken, StartError::Bind { .. }));
    assert!(
        taken.to_string().contains(&a.address().to_string()),
        "{taken}"
    );
    let any = Mesh::start(GossipConfig {
        bind: ([0, 0, 0, 0], 0).into(),
        ..config(2, &[])
    });
    assert!(matches!(any, Err(StartError::Unspecified(_))));
    let seed = Mesh::start(GossipConfig {
        seeds: vec!["nonsense".into()],
        ..config(2, &[])
    });
    assert!(matches!(seed, Err(StartError::Seed(seed)) if seed == "nonsense"));
    let mut labels = config(2, &[]);
    labels
        .facts
        .identity
        .labels
        .insert("big".into(), "x".repeat(70_000));
    assert!(matches!(Mesh::start(labels), Err(StartError::Facts(_))));
}

#[tokio::test]
async fn metrics_are_registered_and_move() {
    let meshes = converged(2).await;
    let mut registry = prometheus_client::registry::Registry::default();
    meshes[0].counters().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(
        text.contains("skein_gossip_peers{liveness=\"Alive\"} 1"),
        "{text}"
    );
    for name in [
        "datagrams_received_total",
        "datagrams_sent_total",
        "received_bytes_total",
    ] {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("skein_gossip_{name} ")));
        let value: u64 = line
            .and_then(|line| line.rsplit(' ').next())
            .unwrap()
            .parse()
            .unwrap();
        assert!(value > 0, "{text}");
    }
}
