//! Figures for people: `cargo test --release -p store-raft --test cluster -- --ignored --nocapture`.

use std::time::Duration;

use store_mvcc::{Command, Proposal, PutOp};
use store_raft::Store;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::{Mesh, Options};

const RUN: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures and proves nothing"]
async fn puts_and_reads() {
    let mesh = Mesh::form(3, Options::default()).await;
    let store = &mesh.leading().await.store;
    for clients in [1, 64, 256] {
        let before = store.counters();
        measure("puts", store, clients, |store, client, n| async move {
            let put = PutOp::new(format!("k{client}-{}", n % 100), vec![b'v'; 256]);
            store
                .propose(&Proposal::new(Command::Put(put)))
                .await
                .unwrap();
        })
        .await;
        measure("reads", store, clients, |store, _, _| async move {
            store.read_barrier().await.unwrap();
        })
        .await;
        let after = store.counters();
        let per = |what: u64, of: u64| what as f64 / of as f64;
        println!(
            "    {:.1} puts per entry, {:.1} reads per round",
            per(
                after.proposals - before.proposals,
                after.entries - before.entries
            ),
            per(
                after.reads - before.reads,
                after.read_rounds - before.read_rounds
            ),
        );
    }
}

/// Does one thing after the other in each of `clients` tasks.
async fn measure<F>(
    what: &str,
    store: &Store,
    clients: usize,
    act: impl Fn(Store, usize, usize) -> F + Copy + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send,
{
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let store = store.clone();
        tasks.spawn(async move {
            let begin = Instant::now();
            let mut times = Vec::new();
            while begin.elapsed() < RUN {
                let at = Instant::now();
                act(store.clone(), client, times.len()).await;
                times.push(at.elapsed());
            }
            times
        });
    }
    let mut times = tasks.join_all().await.concat();
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    let rate = times.len() as u64 / RUN.as_secs();
    println!(
        "{clients} clients: {rate} {what}/s, p50 {:?}, p99 {:?}",
        at(50),
        at(99)
    );
}
