//! Leaders that die, quorums that are lost.

use std::time::Duration;

use store_raft::{ProposeError, ReadError, Role};
use tokio::time::Instant;

use crate::harness::{Mesh, Options, PATIENCE, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_succeeded_and_nothing_acknowledged_is_lost() {
    // Longer than the test waits: elections of Raft's own are not what succeeds the leader.
    let options = Options {
        election: Some([PATIENCE * 2, PATIENCE * 3]),
        ..Options::default()
    };
    let mut mesh = Mesh::form(3, options).await;
    let mut written = Vec::new();
    for round in 0..3 {
        let leader = mesh.leader().await;
        for n in 0..20 {
            let key = format!("k{round}-{n}");
            mesh.node(leader).put(&key, "v").await.unwrap();
            written.push(key);
        }
        mesh.kill(leader);
        let key = format!("after-{round}");
        mesh.put(&key, "v").await;
        written.push(key);
        mesh.restart(leader).await;
        mesh.settle().await;
        for node in mesh.running() {
            for key in &written {
                assert_eq!(
                    node.value(key).as_deref(),
                    Some("v"),
                    "{key} on {}",
                    node.addr
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_does_not_succeed_a_leader_that_it_never_heard() {
    let mut mesh = Mesh::form(3, Options::default()).await;
    mesh.put("a", "1").await;
    mesh.settle().await;
    let leader = mesh.leader().await;
    let restarted = (leader + 1) % 3;
    for place in 0..3 {
        mesh.kill(place);
    }
    // Its disk names a leader, whose port refuses. Nobody told this process that it leads.
    mesh.restart(restarted).await;
    let store = &mesh.node(restarted).store;
    until("the members to be known", async || {
        store.status().is_member().then_some(())
    })
    .await;
    let term = store.status().term;
    // A takeover comes within a few heartbeats. An election would take longer, and raise no term
    // before the others agree to it.
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        assert_eq!(store.status().term, term, "it stood for election at once");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    mesh.restart(leader).await;
    mesh.put("b", "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_errors_are_clear_and_timely() {
    let request = Some(Duration::from_millis(1500));
    let mut mesh = Mesh::form(
        3,
        Options {
            request,
            ..Options::default()
        },
    )
    .await;
    mesh.put("a", "1").await;
    let leader = mesh.leader().await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for place in others {
        mesh.kill(place);
    }
    let written = mesh.node(leader).put("b", "2").await;
    let unknown_or_not = matches!(
        written,
        Err(ProposeError::OutcomeUnknown(_) | ProposeError::NoQuorum)
    );
    assert!(unknown_or_not, "{written:?}");
    let read = mesh.node(leader).store.read_barrier().await;
    assert!(matches!(read, Err(ReadError::TimedOut(_))), "{read:?}");
    let alone = &mesh.node(leader).store;
    until("the status to say so", async || {
        (!alone.status().quorum).then_some(())
    })
    .await;
    // By now openraft refuses before it appends, so the answer is certain.
    let refused = mesh.node(leader).put("c", "3").await;
    assert!(
        matches!(refused, Err(ProposeError::NoQuorum)),
        "{refused:?}"
    );
    // Serializable reads go on.
    assert_eq!(mesh.node(leader).value("a").as_deref(), Some("1"));

    mesh.restart(others[0]).await;
    mesh.put("d", "4").await;
    assert_eq!(mesh.leading().await.value("c"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_returns_does_not_disturb_the_leader() {
    let mut mesh = Mesh::form(3, Options::default()).await;
    mesh.put("a", "1").await;
    let leader = mesh.leader().await;
    let term = mesh.node(leader).store.status().term;
    let other = (leader + 1) % 3;
    mesh.kill(other);
    mesh.put("b", "2").await;
    mesh.restart(other).await;
    mesh.node(other).has("b", "2").await;
    // Longer than any election timeout with its lease.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let status = mesh.node(leader).store.status();
    assert_eq!((status.role, status.term), (Role::Leader, term));
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_not_handed_to_the_dead() {
    let mut mesh = Mesh::form(3, Options::default()).await;
    mesh.put("a", "1").await;
    mesh.settle().await;
    let leader = mesh.leader().await;
    let store = mesh.node(leader).store.clone();
    let mut others = [(leader + 1) % 3, (leader + 2) % 3];
    // Of two with equal logs the one with the greater id would come first.
    others.sort_by_key(|place| mesh.node(*place).store.id());
    let [living, dead] = others;
    mesh.kill(dead);
    until("the leader to miss it", async || {
        (store.status().answering.len() == 1).then_some(())
    })
    .await;
    store.transfer_leadership(None).await.unwrap();
    until("the living one to lead", async || {
        (mesh.node(living).store.status().role == Role::Leader).then_some(())
    })
    .await;
}
