//! Nodes die and return at random while clients write: no promise is broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use store_mvcc::{Command, Proposal, PutOp};
use store_raft::{ProposeError, Store};
use tokio::sync::RwLock;
use tokio::task::JoinSet;

use crate::harness::{Mesh, Options};

const WRITERS: usize = 6;
const KILLS: usize = 8;

/// What a client was told about a key that it wrote once.
#[derive(Default)]
struct Told {
    written: Vec<String>,
    surely_not: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_stays_and_what_was_surely_not_proposed_never_appears() {
    let request = Some(Duration::from_millis(700));
    let mut mesh = Mesh::form(
        3,
        Options {
            request,
            ..Options::default()
        },
    )
    .await;
    let stores: Arc<RwLock<Vec<Store>>> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(writer, stores.clone(), stop.clone()));
    }
    for kill in 0..KILLS {
        *stores.write().await = mesh.running().map(|node| node.store.clone()).collect();
        tokio::time::sleep(Duration::from_millis(400)).await;
        // The leader more often than not, and now and then two at once.
        let mut victims = vec![if kill % 3 == 2 {
            kill % 3
        } else {
            mesh.leader().await
        }];
        if kill % 4 == 3 {
            victims.push((victims[0] + 1) % 3);
        }
        for victim in &victims {
            mesh.kill(*victim);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        stores.write().await.clear();
        for victim in victims {
            mesh.restart(victim).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let told = writers.join_all().await;
    mesh.put("the", "end").await;
    mesh.settle().await;
    let image = mesh.leading().await.store.image();
    for node in mesh.running() {
        assert!(
            node.store.image().rows().eq(image.rows()),
            "{} differs",
            node.addr
        );
    }
    let (mut written, mut surely_not) = (0, 0);
    for told in told {
        written += told.written.len();
        surely_not += told.surely_not.len();
        let lost = told
            .written
            .iter()
            .find(|key| image.get(key.as_bytes()).is_none());
        assert_eq!(lost, None, "acknowledged, and lost");
        let ghost = told
            .surely_not
            .iter()
            .find(|key| image.get(key.as_bytes()).is_some());
        assert_eq!(ghost, None, "said not to be proposed, and there");
    }
    println!(
        "{written} written, {surely_not} surely not, {} keys",
        image.len()
    );
    assert!(written > KILLS && surely_not > 0);
}

async fn write(writer: usize, stores: Arc<RwLock<Vec<Store>>>, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let store = {
            let stores = stores.read().await;
            if stores.is_empty() {
                None
            } else {
                Some(stores[n % stores.len()].clone())
            }
        };
        let Some(store) = store else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let key = format!("{writer}-{n}");
        let put = Proposal::new(Command::Put(PutOp::new(key.clone(), "v")));
        match store.propose(&put).await {
            Ok(_) => told.written.push(key),
            Err(ProposeError::OutcomeUnknown(_)) => {}
            Err(
                ProposeError::NotLeader { .. }
                | ProposeError::NoQuorum
                | ProposeError::NotProposed(_)
                | ProposeError::Unfit(_)
                | ProposeError::Overloaded
                | ProposeError::Stopped,
            ) => {
                told.surely_not.push(key);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
    told
}
