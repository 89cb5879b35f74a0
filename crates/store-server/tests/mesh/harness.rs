//! Starts and kills nodes, and decides for them what admission and gossip would.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use lifecycle::{Shutdown, ShutdownTrigger};
use model::{CONFIG_PREFIX, MeshId, NodeId, Version};
use rpc::{Answer, Port, Services, Speaks};
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use store_client::{Client, ClientOptions};
use store_disk::{DataDir, WalOptions};
use store_mvcc::{Command, Image, Op};
use store_raft::{Member, Role, Store, StoreConfig};
use store_server::{
    Admission, Introduction, Judgement, Limits, Liveness, MetricsText, Refusal, StoreServer,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};

pub(crate) const MESH: MeshId = MeshId(0x5ee);
/// Far above what anything takes on an idle machine; tests run beside others.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a test does at every judgement.
type Hook = Box<dyn Fn(&Image, usize) + Send + Sync>;

/// Refuses every put of the value "bad" to config, and counts its judgements.
#[derive(Default)]
pub(crate) struct Rules {
    judgements: Mutex<usize>,
    hook: Mutex<Option<Hook>>,
}

impl Rules {
    pub(crate) fn judgements(&self) -> usize {
        *self.judgements.lock().unwrap()
    }

    pub(crate) fn at_each(&self, hook: impl Fn(&Image, usize) + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }
}

impl Admission for Rules {
    fn admit(&self, image: &Image, command: &Command) -> Result<(), Refusal> {
        let judgement = {
            let mut judgements = self.judgements.lock().unwrap();
            *judgements += 1;
            *judgements
        };
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            hook(image, judgement);
            self.hook.lock().unwrap().get_or_insert(hook);
        }
        if has_bad(command) {
            let message = "Cluster/web: endpoints: empty; name at least one".to_owned();
            return Err(Refusal { message });
        }
        Ok(())
    }
}

fn has_bad(command: &Command) -> bool {
    let bad =
        |key: &Bytes, value: &Bytes| key.starts_with(CONFIG_PREFIX.as_bytes()) && value == "bad";
    match command {
        Command::Put(put) => bad(&put.key, &put.value),
        Command::Txn(txn) => txn.success.iter().chain(&txn.failure).any(|op| match op {
            Op::Put(put) => bad(&put.key, &put.value),
            _ => false,
        }),
        _ => false,
    }
}

/// Everybody lives unless a test says otherwise.
#[derive(Default)]
pub(crate) struct Gossip {
    judgements: Mutex<HashMap<NodeId, Judgement>>,
    versions: Mutex<HashMap<NodeId, Version>>,
}

impl Gossip {
    pub(crate) fn say(&self, id: NodeId, judgement: Judgement) {
        self.judgements.lock().unwrap().insert(id, judgement);
    }

    /// What a node runs.
    pub(crate) fn runs(&self, id: NodeId, version: Version) {
        self.versions.lock().unwrap().insert(id, version);
    }

    /// Nobody heard of a node.
    pub(crate) fn forget(&self, id: NodeId) {
        self.versions.lock().unwrap().remove(&id);
    }
}

impl Liveness for Gossip {
    fn judge(&self, id: NodeId) -> Judgement {
        self.judgements
            .lock()
            .unwrap()
            .get(&id)
            .copied()
            .unwrap_or(Judgement::Alive)
    }

    fn version(&self, id: NodeId) -> Option<Version> {
        self.versions.lock().unwrap().get(&id).copied()
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) server: StoreServer,
    pub(crate) rules: Arc<Rules>,
    pub(crate) peer: SocketAddr,
    pub(crate) client: SocketAddr,
    name: String,
    shutdown: ShutdownTrigger,
    runtime: Option<Runtime>,
}

impl Node {
    async fn start(name: &str, dir: &TempDir, setting: &Setting) -> Self {
        let Setting {
            gossip,
            limits,
            version,
            told,
        } = setting.clone();
        let data = DataDir::open(dir.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let wal = WalOptions {
            segment_bytes: 1 << 20,
            ..WalOptions::default()
        };
        let config = StoreConfig {
            wal,
            version,
            ..StoreConfig::new(data)
        };
        let store = runtime.spawn(Store::start(config)).await.unwrap().unwrap();
        gossip.runs(store.id(), told.unwrap_or(version));
        let (shutdown, requested) = ShutdownTrigger::new();
        let rules = Arc::new(Rules::default());
        let server = StoreServer::new(
            store.clone(),
            rules.clone(),
            gossip,
            limits,
            requested.clone(),
        );
        runtime.spawn(server.watch_task());
        runtime.spawn(server.autopilot_task());
        runtime.spawn(server.lease_task());
        let metrics: MetricsText = Arc::new(|| "skein_up 1\n# EOF\n".to_owned());
        let clients = server.client_services(metrics, Services::default());
        let port = Port::plain(Speaks::Http1Or2);
        let client = serve(&runtime, port, clients, requested.clone(), listener());
        let listening = listener();
        let peer = listening.local_addr().unwrap();
        let introduction = Introduction {
            node: Member {
                id: store.id(),
                name: name.to_owned(),
                peer_addr: peer.to_string(),
                client_addr: client.to_string(),
            },
            promised: false,
        };
        let introduction = Arc::new(move || introduction.clone());
        let peers = Services::default()
            .with(store.peer_service())
            .with(server.forward_service(introduction));
        let port = Port::plain(Speaks::Http2);
        serve(&runtime, port, Arc::new(peers), requested, listening);
        let (name, runtime) = (name.to_owned(), Some(runtime));
        Self {
            store,
            server,
            rules,
            peer,
            client,
            name,
            shutdown,
            runtime,
        }
    }

    pub(crate) fn member(&self) -> Member {
        Member {
            id: self.store.id(),
            name: self.name.clone(),
            peer_addr: self.peer.to_string(),
            client_addr: self.client.to_string(),
        }
    }

    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.client))
            .unwrap()
            .connect_lazy()
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel())
    }

    pub(crate) fn value(&self, key: &str) -> Option<Bytes> {
        self.store
            .image()
            .get(key.as_bytes())
            .map(|row| row.value.clone())
    }

    /// Asks everything to stop; true if the client port has ended its connections in time.
    pub(crate) async fn stop(&self) -> bool {
        self.shutdown.request();
        let closed = async {
            while TcpListener::bind(self.client).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, closed).await.is_ok()
    }
}

fn listener() -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn serve(
    runtime: &Runtime,
    port: Port,
    services: Arc<dyn Answer>,
    shutdown: Shutdown,
    listener: std::net::TcpListener,
) -> SocketAddr {
    let addr = listener.local_addr().unwrap();
    runtime.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        rpc::serve(listener, port, services, shutdown).await;
    });
    addr
}

impl Drop for Node {
    /// As `kill -9` would: every task, connection and listener of the node is gone at once.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A mesh whose nodes can be killed.
pub(crate) struct Mesh {
    nodes: Vec<Option<Node>>,
    names: Vec<String>,
    pub(crate) gossip: Arc<Gossip>,
    setting: Setting,
    pub(crate) dirs: Vec<TempDir>,
}

/// How a node is set up.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) gossip: Arc<Gossip>,
    pub(crate) limits: Limits,
    pub(crate) version: Version,
    /// What gossip says instead of it.
    pub(crate) told: Option<Version>,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            gossip: Arc::default(),
            limits: Limits::default(),
            version: Version::THIS,
            told: None,
        }
    }
}

impl Mesh {
    pub(crate) async fn form(size: usize) -> Self {
        Self::form_set(size, Setting::default()).await
    }

    pub(crate) async fn form_with(size: usize, limits: Limits) -> Self {
        let setting = Setting {
            limits,
            ..Setting::default()
        };
        Self::form_set(size, setting).await
    }

    pub(crate) async fn form_set(size: usize, setting: Setting) -> Self {
        let mut mesh = Self {
            nodes: vec![],
            names: vec![],
            gossip: setting.gossip.clone(),
            setting,
            dirs: vec![],
        };
        for place in 0..size {
            mesh.add(&format!("node-{place}")).await;
        }
        let members = mesh.running().map(Node::member).collect();
        mesh.node(0).store.initialize(members, MESH).await.unwrap();
        mesh.leader().await;
        mesh.settle().await;
        // The last thing that a mesh does to its log by itself.
        until("all to know a version", async || {
            mesh.running()
                .all(|node| node.store.image().meta().version.is_some())
                .then_some(())
        })
        .await;
        mesh
    }

    /// Starts a node that is no member yet; returns its place.
    pub(crate) async fn add(&mut self, name: &str) -> usize {
        let version = self.setting.version;
        self.add_at(name, version).await
    }

    /// The same, and the node is of this version.
    pub(crate) async fn add_at(&mut self, name: &str, version: Version) -> usize {
        let dir = tempfile::tempdir().unwrap();
        let setting = Setting {
            version,
            ..self.setting.clone()
        };
        let node = Node::start(name, &dir, &setting).await;
        self.names.push(name.to_owned());
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

    pub(crate) fn kill(&mut self, place: usize) {
        self.nodes[place].take().expect("this node runs");
    }

    /// Kills a node and starts it again on its data, at other addresses.
    pub(crate) async fn restart(&mut self, place: usize) {
        self.kill(place);
        self.start_again(place).await;
    }

    /// The second half of that.
    pub(crate) async fn start_again(&mut self, place: usize) {
        let name = self.names[place].clone();
        // Its threads let go of the files one after the other.
        until("the data directory to be free", async || {
            DataDir::open(self.dirs[place].path()).ok().map(drop)
        })
        .await;
        let node = Node::start(&name, &self.dirs[place], &self.setting).await;
        self.nodes[place] = Some(node);
    }

    pub(crate) async fn leader(&self) -> usize {
        until("a leader", async || {
            self.nodes.iter().position(|node| {
                let status = node.as_ref().map(|node| node.store.status());
                status.is_some_and(|status| status.role == Role::Leader && status.quorum)
            })
        })
        .await
    }

    pub(crate) async fn follower(&self) -> usize {
        let leader = self.leader().await;
        let follows = |(place, node): (usize, &Option<Node>)| {
            (node.is_some() && place != leader).then_some(place)
        };
        self.nodes
            .iter()
            .enumerate()
            .find_map(follows)
            .expect("a follower runs")
    }

    /// Waits until every running node knows a leader that all of them know.
    pub(crate) async fn settle(&self) {
        until("all to know the leader", async || {
            let mut leaders = self.running().map(|node| node.store.status().leader);
            let first = leaders.next()??;
            leaders
                .all(|leader| leader.as_ref() == Some(&first))
                .then_some(())
        })
        .await;
    }

    /// A client that begins with the node at `first`.
    pub(crate) fn client(&self, first: usize) -> Client {
        let (before, from) = self.nodes.split_at(first);
        let endpoints = from
            .iter()
            .chain(before)
            .flatten()
            .map(|node| node.client.to_string());
        Client::new(endpoints, ClientOptions::default()).unwrap()
    }
}

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

pub(crate) fn get(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

pub(crate) fn delete(key: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
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
