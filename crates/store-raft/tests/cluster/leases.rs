//! Leases on nodes that come back from their disk, and on nodes that get a snapshot.

use store_mvcc::{
    Command, GrantOp, Image, KeepAliveOp, Outcome, Proposal, PutOp, Response, TickOp,
};
use store_raft::SnapshotLimits;

use crate::harness::{Mesh, Options, until};
use crate::recovery::restart_in_order;

fn often() -> Options {
    let snapshots = SnapshotLimits {
        every_entries: 50,
        keep_entries: 10,
        ..SnapshotLimits::default()
    };
    Options {
        snapshots,
        ..Options::default()
    }
}

async fn propose(mesh: &Mesh, command: Command) -> Outcome {
    let leader = mesh.leading().await;
    let outcome = leader.store.propose(&Proposal::new(command)).await.unwrap();
    assert!(outcome.result.is_ok(), "{outcome:?}");
    outcome
}

/// Grants, renews, revokes, lets time go by and lets some leases end, `rounds` times.
async fn live(mesh: &Mesh, rounds: i64) {
    for round in 0..rounds {
        for id in round * 10 + 1..=round * 10 + 10 {
            let (ttl, age_ms) = (if id % 5 == 0 { 2 } else { 3_600 }, 0);
            propose(mesh, Command::Grant(GrantOp { id, ttl, age_ms })).await;
            let put = PutOp {
                lease: id,
                ..PutOp::new(format!("leased/{id}"), "v")
            };
            propose(mesh, Command::Put(put)).await;
        }
        let store = &mesh.leading().await.store;
        let op = TickOp {
            from_ms: store.image().meta().lease_clock_ms,
            advance_ms: 900,
            term: store.status().term,
        };
        propose(mesh, Command::Tick(op)).await;
        let ids = (1..=round * 10 + 10).step_by(3).collect();
        let outcome = propose(mesh, Command::KeepAlive(KeepAliveOp { ids, age_ms: 0 })).await;
        assert!(matches!(outcome.result, Ok(Response::KeepAlive(_))));
        propose(
            mesh,
            Command::Revoke {
                lease: round * 10 + 1,
            },
        )
        .await;
    }
}

async fn image(mesh: &Mesh, place: usize) -> Image {
    mesh.leader().await;
    mesh.settle().await;
    mesh.node(place).store.image()
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_the_same_after_every_way_back_from_the_disk() {
    let mut mesh = Mesh::form(1, often()).await;
    live(&mesh, 6).await;
    let before = image(&mesh, 0).await;
    assert!(before.lease_count() > 30, "{}", before.lease_count());
    assert!(before.lease(5).is_none(), "it ended");

    mesh.kill(0);
    mesh.restart(0).await;
    assert_eq!(image(&mesh, 0).await, before);
    let last = mesh.node(0).store.status().applied;
    restart_in_order(&mut mesh, last).await;
    assert_eq!(image(&mesh, 0).await, before);

    // What rows said is what they go on from.
    live_on(&mesh).await;
    let later = image(&mesh, 0).await;
    let last = mesh.node(0).store.status().applied;
    restart_in_order(&mut mesh, last).await;
    assert_eq!(image(&mesh, 0).await, later);
}

/// One more round, on a mesh that had some.
async fn live_on(mesh: &Mesh) {
    let ids = (1..=60).collect();
    propose(mesh, Command::KeepAlive(KeepAliveOp { ids, age_ms: 7 })).await;
    propose(mesh, Command::Revoke { lease: 2 }).await;
    let (id, ttl, age_ms) = (1_000, 60, 0);
    propose(mesh, Command::Grant(GrantOp { id, ttl, age_ms })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_far_behind_gets_the_leases_with_the_snapshot() {
    let mut mesh = Mesh::form(3, often()).await;
    mesh.put("a", "1").await;
    mesh.settle().await;
    let behind = (mesh.leader().await + 1) % 3;
    let had = mesh.node(behind).store.status().last_log;
    mesh.kill(behind);
    live(&mesh, 6).await;
    let leader = mesh.leading().await;
    until("the log to be purged", async || {
        (leader.store.status().purged > had).then_some(())
    })
    .await;
    mesh.restart(behind).await;
    mesh.settle().await;
    assert!(mesh.node(behind).store.status().snapshot > had);
    let (theirs, ours) = (
        mesh.leading().await.store.image(),
        image(&mesh, behind).await,
    );
    assert_eq!(ours, theirs);
    assert!(ours.lease_count() > 30);
    // Its rows were made anew from the snapshot, and follow on.
    live_on(&mesh).await;
    let later = image(&mesh, behind).await;
    mesh.kill(behind);
    mesh.restart(behind).await;
    assert_eq!(image(&mesh, behind).await, later);
}
