//! Starts, kills and asks nodes.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::ShutdownTrigger;
use model::{MeshId, NodeId};
use rpc::{Port, Services, Speaks};
use store_disk::{DataDir, Disk, WalOptions};
use store_mvcc::{Command, Outcome, Proposal, PutOp};
use store_raft::{Member, ProposeError, Role, SnapshotLimits, Store, StoreConfig, Timings};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

pub(crate) const MESH: MeshId = MeshId(0x5ee);

/// Far above what anything takes on an idle machine; tests run beside others.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running node.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) addr: SocketAddr,
    runtime: Option<Runtime>,
}

/// How nodes of a test are set up.
#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) snapshots: SnapshotLimits,
    pub(crate) request: Option<Duration>,
    /// The least and the greatest time that an election waits.
    pub(crate) election: Option<[Duration; 2]>,
    pub(crate) disk: Option<Arc<dyn Disk>>,
}

impl Options {
    fn config(&self, data: DataDir) -> StoreConfig {
        let mut timings = Timings::default();
        timings.request = self.request.unwrap_or(timings.request);
        if let Some(election) = self.election {
            [timings.election_min, timings.election_max] = election;
        }
        let mut wal = WalOptions {
            segment_bytes: 256 * 1024,
            ..WalOptions::default()
        };
        if let Some(disk) = &self.disk {
            wal.disk = disk.clone();
        }
        StoreConfig {
            timings,
            snapshots: self.snapshots,
            wal,
            ..StoreConfig::new(data)
        }
    }
}

impl Node {
    pub(crate) async fn start(dir: &Path, addr: Option<SocketAddr>, options: &Options) -> Self {
        let data = until("the directory to be free", async || DataDir::open(dir).ok()).await;
        let addr = addr.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let listener = until("the port to be free", async || {
            TcpListener::bind(addr).await.ok()
        });
        let listener = listener.await.into_std().unwrap();
        let addr = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let config = options.config(data);
        let store = runtime.spawn(Store::start(config)).await.unwrap().unwrap();
        let service = store.peer_service();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            // Nobody asks it to stop: it goes with the runtime.
            let (_stop, shutdown) = ShutdownTrigger::new();
            let services = Arc::new(Services::default().with(service));
            rpc::serve(listener, Port::plain(Speaks::Http2), services, shutdown).await;
        });
        Self {
            store,
            addr,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn member(&self) -> Member {
        Member {
            id: self.store.id(),
            name: format!("node-{}", self.addr.port()),
            peer_addr: self.addr.to_string(),
            client_addr: self.addr.to_string(),
        }
    }

    pub(crate) async fn put(&self, key: &str, value: &str) -> Result<Outcome, ProposeError> {
        let put = PutOp::new(key.to_owned(), value.to_owned());
        self.store.propose(&Proposal::new(Command::Put(put))).await
    }

    pub(crate) fn value(&self, key: &str) -> Option<String> {
        let image = self.store.image();
        image
            .get(key.as_bytes())
            .map(|row| String::from_utf8(row.value.to_vec()).unwrap())
    }

    /// Waits until the node has `value` for `key`.
    pub(crate) async fn has(&self, key: &str, value: &str) {
        let found = async || (self.value(key).as_deref() == Some(value)).then_some(());
        until(&format!("{key} = {value} on {}", self.addr), found).await;
    }
}

impl Drop for Node {
    /// As `kill -9` would: every task, connection and listener of the node is gone at once.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A mesh whose nodes can be killed and started again on their directory and address.
pub(crate) struct Mesh {
    pub(crate) nodes: Vec<Option<Node>>,
    dirs: Vec<TempDir>,
    addrs: Vec<SocketAddr>,
    options: Options,
}

impl Mesh {
    /// Forms a mesh of `size` nodes.
    pub(crate) async fn form(size: usize, options: Options) -> Self {
        let mesh = Self::strangers(size, options).await;
        let members: Vec<Member> = mesh.running().map(Node::member).collect();
        mesh.node(0).store.initialize(members, MESH).await.unwrap();
        mesh.leader().await;
        mesh
    }

    /// Starts `size` nodes that know nothing of each other.
    pub(crate) async fn strangers(size: usize, options: Options) -> Self {
        let mut mesh = Self {
            nodes: vec![],
            dirs: vec![],
            addrs: vec![],
            options,
        };
        for _ in 0..size {
            mesh.add().await;
        }
        mesh
    }

    /// Starts a node that is no member yet. Returns its place.
    pub(crate) async fn add(&mut self) -> usize {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start(dir.path(), None, &self.options).await;
        self.addrs.push(node.addr);
        self.dirs.push(dir);
        self.nodes.push(Some(node));
        self.nodes.len() - 1
    }

    pub(crate) fn node(&self, place: usize) -> &Node {
        self.nodes[place].as_ref().expect("this node runs")
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    pub(crate) fn dir(&self, place: usize) -> &Path {
        self.dirs[place].path()
    }

    pub(crate) fn kill(&mut self, place: usize) {
        self.nodes[place].take().expect("this node runs");
    }

    /// Starts a node on its directory, at another address.
    pub(crate) async fn move_away(&mut self, place: usize) {
        let node = Node::start(self.dirs[place].path(), None, &self.options).await;
        self.addrs[place] = node.addr;
        self.nodes[place] = Some(node);
    }

    pub(crate) async fn restart(&mut self, place: usize) {
        let addr = Some(self.addrs[place]);
        let node = Node::start(self.dirs[place].path(), addr, &self.options).await;
        self.nodes[place] = Some(node);
    }

    /// The place of the one node that leads with a quorum, once there is one.
    pub(crate) async fn leader(&self) -> usize {
        until("a leader", async || {
            self.nodes.iter().position(|node| {
                let status = node.as_ref().map(|node| node.store.status());
                status.is_some_and(|status| status.role == Role::Leader && status.quorum)
            })
        })
        .await
    }

    pub(crate) async fn leading(&self) -> &Node {
        self.node(self.leader().await)
    }

    /// Writes through whoever leads, until it is acknowledged.
    pub(crate) async fn put(&self, key: &str, value: &str) {
        until(&format!("{key} to be written"), async || {
            self.leading().await.put(key, value).await.ok()
        })
        .await;
    }

    /// Waits until all running nodes applied the same entries.
    pub(crate) async fn settle(&self) {
        until("all nodes to agree", async || {
            let mut applied = self.running().map(|node| node.store.status().applied);
            let first = applied.next()?;
            let last_log = self.leading().await.store.status().last_log;
            (first == last_log && applied.all(|other| other == first)).then_some(())
        })
        .await;
    }
}

pub(crate) fn id_of(node: &Node) -> NodeId {
    node.store.id()
}

/// Polls until `check` gives something.
pub(crate) async fn until<T, F>(what: &str, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let begin = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
