//! Writers that must not notice what happens to the nodes, and a watcher that must not either.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use store_api::etcdserverpb::{PutRequest, WatchCreateRequest};
use store_client::{Client, ClientOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Mesh, Node, PATIENCE, until};

/// What all keys of the writers begin with, and the first one behind them.
const KEYS: [&str; 2] = ["w/", "w0"];

/// So many events wait to be looked at; then the watcher falls behind, and catches up in the end.
const SEEN_MAX: usize = 1_000;

/// Nine writers, a third of which begins at each node, and who watches them.
pub(crate) struct Writers {
    runtime: tokio::runtime::Runtime,
    tasks: Vec<JoinHandle<Vec<String>>>,
    watched: mpsc::Receiver<String>,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
}

impl Writers {
    pub(crate) fn start(mesh: &Mesh) -> Self {
        let mut endpoints: Vec<String> = mesh.nodes.iter().map(Node::client).collect();
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (seen, watched) = mpsc::channel(SEEN_MAX);
        let _entered = runtime.enter();
        runtime.spawn(watch(client(&endpoints), seen));
        let tasks = (0..9).map(|name| {
            endpoints.rotate_left(1);
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            runtime.spawn(write_until(client(&endpoints), name, stop, written))
        });
        let tasks = tasks.collect();
        Self {
            runtime,
            tasks,
            watched,
            stop,
            written,
        }
    }

    /// Waits for so many more writes.
    pub(crate) fn more(&self, count: usize) {
        let from = self.written.load(Ordering::Relaxed);
        until("writes go on", || {
            let failed = self.tasks.iter().any(JoinHandle::is_finished);
            assert!(!failed, "a writer failed");
            self.written.load(Ordering::Relaxed) >= from + count
        });
    }

    /// Ends them; all that was acknowledged must be at this node, and was seen once by the watcher.
    pub(crate) fn end(mut self, node: &Node) {
        self.stop.store(true, Ordering::Relaxed);
        let written = self.tasks.into_iter();
        let keys =
            written.flat_map(|writer| self.runtime.block_on(writer).expect("no write fails"));
        let keys: BTreeSet<String> = keys.collect();
        let stored = node
            .skein(&["get", KEYS[0], "--prefix", "--keys-only"])
            .ok();
        let stored: BTreeSet<&str> = stored.stdout.lines().collect();
        let lost: Vec<_> = keys
            .iter()
            .filter(|key| !stored.contains(&***key))
            .collect();
        assert!(lost.is_empty(), "{lost:?}");
        let mut seen = BTreeSet::new();
        while seen.len() < keys.len() {
            let next = async { tokio::time::timeout(PATIENCE, self.watched.recv()).await };
            let key = self.runtime.block_on(next);
            let key = key.unwrap_or_else(|_| panic!("{} of {} seen", seen.len(), keys.len()));
            let key = key.expect("the watcher goes on");
            assert!(keys.contains(&key), "{key} was never written");
            assert!(!seen.contains(&key), "{key} was seen twice");
            seen.insert(key);
        }
    }
}

fn client(endpoints: &[String]) -> Client {
    let options = ClientOptions {
        deadline: Duration::from_secs(20),
        ..ClientOptions::default()
    };
    Client::new(endpoints, options).expect("good endpoints")
}

/// Writes one key after the other; which ones were acknowledged.
async fn write_until(
    client: Client,
    name: usize,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut keys = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let key = format!("{}{name}/{}", KEYS[0], keys.len());
        let request = PutRequest {
            key: key.clone().into(),
            value: key.clone().into(),
            ..Default::default()
        };
        let put = client.put(request).await;
        put.unwrap_or_else(|error| panic!("{key}: {error}"));
        keys.push(key);
        written.fetch_add(1, Ordering::Relaxed);
    }
    keys
}

/// Tells the keys of all events, which must come in the order of their revisions.
async fn watch(client: Client, seen: mpsc::Sender<String>) {
    let mut last = 0;
    let mut watcher = client.watch(WatchCreateRequest {
        key: KEYS[0].into(),
        range_end: KEYS[1].into(),
        start_revision: 1,
        ..Default::default()
    });
    loop {
        let Ok(batch) = watcher.next().await else {
            continue;
        };
        for event in batch.events {
            let row = event.kv.expect("an event has a row");
            assert!(row.mod_revision > last, "{} after {last}", row.mod_revision);
            last = row.mod_revision;
            let key = String::from_utf8(row.key.to_vec()).expect("UTF-8");
            if seen.send(key).await.is_err() {
                return;
            }
        }
    }
}
