//! Members whose applied state is not what the log makes: found, taken out, healed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::Message;
use store_api::skeinpb as pb;
use store_disk::{DataDir, Doubt, Rows, RowsBatch};
use store_raft::{ProposeError, ReadError, Role, SnapshotLimits};

use crate::harness::{Mesh, Options, until};

async fn mesh_with_keys(options: Options) -> Mesh {
    let mesh = Mesh::form(3, options).await;
    for n in 0..20 {
        mesh.put(&format!("k{n}"), "v").await;
    }
    mesh.settle().await;
    mesh
}

async fn data_of(mesh: &Mesh, place: usize) -> DataDir {
    until("the directory to be free", async || {
        DataDir::open(mesh.dir(place)).ok()
    })
    .await
}

/// Changes one value in what a member has applied, behind all checksums, and restarts it.
async fn damage(mesh: &mut Mesh, place: usize, key: &str, value: &'static str) {
    for _ in 0..50 {
        mesh.kill(place);
        let changed = change_row(data_of(mesh, place).await, key, value);
        mesh.restart(place).await;
        if changed {
            assert_eq!(mesh.node(place).value(key).as_deref(), Some(value));
            mesh.leader().await;
            mesh.settle().await;
            return;
        }
        // Time to write the rows.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("the rows never came to have {key}");
}

fn change_row(data: DataDir, key: &str, value: &'static str) -> bool {
    let (rows, loaded) = Rows::open(&data).unwrap();
    let found = loaded.rows.iter().find_map(|(id, row)| {
        // Revisions: leases and users have other keys.
        let row = (id[0] < 0x80).then(|| pb::Row::decode(row.clone()).unwrap())?;
        let found = row.kv.as_ref().is_some_and(|kv| kv.key == key);
        found.then(|| (id.clone(), row))
    });
    let (Some((id, mut row)), Some(applied)) = (found, loaded.applied) else {
        return false;
    };
    row.kv.as_mut().unwrap().value = value.into();
    rows.write(RowsBatch {
        puts: vec![(id, row.encode_to_vec().into())],
        deletes: vec![],
        applied,
    });
    rows.flush().unwrap();
    true
}

/// Has whoever leads compare, until `done`.
async fn compare_until(mesh: &Mesh, what: &str, done: impl Fn(&Mesh) -> bool) {
    until(what, async || {
        mesh.leading().await.store.compare();
        done(mesh).then_some(())
    })
    .await;
}

fn all_agree(mesh: &Mesh, since: u64) -> bool {
    let mut known = mesh
        .running()
        .map(|it| it.store.soundness().borrow().clone());
    known.all(|it| it.agreed > since && it.damage.is_none() && it.undecided.is_none())
}

fn heals(mesh: &Mesh) -> Vec<u64> {
    let known = mesh.running().map(|it| it.store.soundness());
    known.map(|it| it.borrow().heals).collect()
}

fn are_equal(mesh: &Mesh) {
    let first = mesh.node(0).store.image();
    assert!(mesh.running().all(|node| node.store.image() == first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_follower_is_found_and_healed_while_writes_go_on() {
    let mut mesh = mesh_with_keys(Options::default()).await;
    let place = (mesh.leader().await + 1) % 3;
    damage(&mut mesh, place, "k3", "wrong").await;
    let term = mesh.node(place).store.status().term;
    let mesh = Arc::new(mesh);
    let done = Arc::new(AtomicBool::new(false));
    let writes = tokio::spawn({
        let (mesh, done) = (mesh.clone(), done.clone());
        async move {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                mesh.put("busy", &count.to_string()).await;
                count += 1;
            }
            count
        }
    });
    compare_until(&mesh, "the heal", |mesh| heals(mesh)[place] > 0).await;
    let since = mesh.node(place).store.status().applied;
    compare_until(&mesh, "all to agree", |mesh| all_agree(mesh, since)).await;
    done.store(true, Ordering::Relaxed);
    let count = writes.await.unwrap();
    mesh.settle().await;
    assert!(count > 0);
    assert_eq!(mesh.node(place).value("k3").as_deref(), Some("v"));
    are_equal(&mesh);
    assert_eq!(heals(&mesh).iter().sum::<u64>(), 1, "only that one, once");
    let status = mesh.node(place).store.status();
    assert!(status.fatal.is_none() && status.term == term, "{status:?}");
    assert_eq!(status.purged, 0, "its log is what it was");

    // What it starts from next time is sound, too.
    let mut mesh = Arc::into_inner(mesh).unwrap();
    mesh.kill(place);
    mesh.restart(place).await;
    mesh.settle().await;
    assert_eq!(mesh.node(place).value("k3").as_deref(), Some("v"));
    let damage = mesh.node(place).store.status().recovery.damage;
    assert!(damage[0].contains("differed"), "{damage:?}");
    are_equal(&mesh);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_leader_hands_over_and_is_healed() {
    let mut mesh = mesh_with_keys(Options::default()).await;
    let place = mesh.leader().await;
    damage(&mut mesh, place, "k3", "wrong").await;
    let id = mesh.node(place).store.id();
    until("it to lead again", async || {
        let leader = mesh.leading().await;
        let _ = leader.store.transfer_leadership(Some(id)).await;
        (mesh.leader().await == place).then_some(())
    })
    .await;
    let led = mesh.node(place).store.status().term;
    mesh.node(place).store.compare();
    until("the heal", async || (heals(&mesh)[place] > 0).then_some(())).await;
    let leader = mesh.leading().await.store.status();
    assert!(leader.term > led && leader.id != id, "{leader:?}");
    let since = leader.applied;
    compare_until(&mesh, "all to agree", |mesh| all_agree(mesh, since)).await;
    mesh.put("on", "we go").await;
    mesh.settle().await;
    are_equal(&mesh);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_it_is_said_and_nobody_is_healed() {
    let mut mesh = mesh_with_keys(Options::default()).await;
    let leader = mesh.leader().await;
    let (place, away) = ((leader + 1) % 3, (leader + 2) % 3);
    damage(&mut mesh, place, "k3", "wrong").await;
    mesh.kill(away);
    compare_until(&mesh, "the alarm", |mesh| {
        let mut known = mesh.running().map(|it| it.store.soundness());
        known.all(|it| it.borrow().undecided.is_some())
    })
    .await;
    let text = mesh
        .leading()
        .await
        .store
        .soundness()
        .borrow()
        .undecided
        .clone();
    let text = text.unwrap();
    for node in mesh.running() {
        assert!(text.contains(&node.member().name), "{text}");
        assert_eq!(node.store.damage(), None);
    }
    assert_eq!(heals(&mesh), [0, 0]);
    mesh.put("on", "we go").await;
    assert_eq!(mesh.node(place).value("k3").as_deref(), Some("wrong"));

    // The third one decides.
    mesh.restart(away).await;
    mesh.settle().await;
    let since = mesh.leading().await.store.status().applied;
    compare_until(&mesh, "all to agree", |mesh| all_agree(mesh, since)).await;
    assert_eq!(mesh.node(place).value("k3").as_deref(), Some("v"));
    assert_eq!(heals(&mesh).iter().sum::<u64>(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_states_of_three_are_nobodys_fault() {
    let mut mesh = mesh_with_keys(Options::default()).await;
    damage(&mut mesh, 0, "k3", "wrong").await;
    damage(&mut mesh, 1, "k3", "odd").await;
    compare_until(&mesh, "the alarm", |mesh| {
        let mut known = mesh.running().map(|it| it.store.soundness());
        known.all(|it| it.borrow().undecided.is_some())
    })
    .await;
    assert_eq!(heals(&mesh), [0, 0, 0]);
    assert!(mesh.running().all(|node| node.store.damage().is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_lags_is_not_taken_for_damaged() {
    let snapshots = SnapshotLimits {
        every_entries: 100,
        keep_entries: 10,
        ..SnapshotLimits::default()
    };
    let options = Options {
        snapshots,
        ..Options::default()
    };
    let mut mesh = mesh_with_keys(options).await;
    let place = (mesh.leader().await + 1) % 3;
    for round in 0..3 {
        mesh.kill(place);
        for n in 0..150 {
            mesh.put(&format!("k{n}"), &format!("{round}")).await;
            if n % 10 == 0 {
                mesh.leading().await.store.compare();
            }
        }
        mesh.restart(place).await;
        let since = mesh.leading().await.store.status().applied;
        compare_until(&mesh, "all to agree", |mesh| all_agree(mesh, since)).await;
    }
    assert_eq!(heals(&mesh), [0, 0, 0]);
    mesh.settle().await;
    are_equal(&mesh);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_forget_the_damage() {
    let mut mesh = mesh_with_keys(Options::default()).await;
    for place in 0..3 {
        mesh.kill(place);
    }
    Doubt::State.save(&data_of(&mesh, 0).await).unwrap();
    mesh.restart(0).await;
    // Nobody else is there to heal it.
    let damaged = &mesh.node(0).store;
    let text = damaged.damage().unwrap();
    assert!(text.contains("before the restart"), "{text}");
    mesh.restart(1).await;
    mesh.restart(2).await;
    until("the heal", async || (heals(&mesh)[0] > 0).then_some(())).await;
    let leader = mesh.leader().await;
    assert_ne!(leader, 0, "it stood for nothing before");
    mesh.put("on", "we go").await;
    mesh.settle().await;
    are_equal(&mesh);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_leader_takes_no_proposal_and_no_read() {
    let mut mesh = Mesh::form(1, Options::default()).await;
    mesh.put("a", "1").await;
    mesh.kill(0);
    Doubt::State.save(&data_of(&mesh, 0).await).unwrap();
    mesh.restart(0).await;
    // The only voter leads, whatever becomes of its state: openraft asks nobody then.
    let node = mesh.node(0);
    until("it to lead", async || {
        (node.store.status().role == Role::Leader).then_some(())
    })
    .await;
    let refused = node.put("a", "2").await.unwrap_err();
    assert_eq!(refused, ProposeError::NotLeader { leader: None });
    let refused = node.store.read_index().await.unwrap_err();
    assert_eq!(refused, ReadError::NotLeader { leader: None });
}
