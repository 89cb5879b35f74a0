//! The life of a node: start, run, drain.
//!
//! Owns the order. At the start the proxy comes first, from last-known-good, then the ports, then
//! the store: traffic never waits for Raft or gossip, and goes on if the store cannot be opened. At
//! the end it drains before the store stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};

use lifecycle::{Shutdown, ShutdownTrigger, Tasks, terminate_signal};
use mesh_gossip::{GOSSIP_INTERVAL, GossipConfig, KeyError, KeyRing, Mesh, WrongKey};
use mesh_health::HealthView;
use proxy_server::probe::Prober;
use proxy_server::{ProxyOptions, ProxyServer};
use store_disk::DataDir;
use store_raft::{Role, Store, StoreConfig};
use store_server::StoreServer;
use telemetry::Registry;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::sync::watch::error::RecvError;

use crate::admission::ConfigAdmission;
use crate::certificates::Certificates;
use crate::committed::Committed;
use crate::options::NodeOptions;
use crate::parts::{GossipLiveness, Parts, first_facts};
use crate::registrations::Registrations;
use crate::scheduled::{self, Tally};
use crate::serve::{self, Ports, Serving, Sockets};
use crate::store_state::StoreState;
use crate::{form, health, known_peers, load, reconcile, registrations};

/// How long requests under way get when the node stops.
const DRAIN: Duration = Duration::from_secs(8);
/// How long handing leadership over may take; a successor is elected anyway.
const HAND_OVER: Duration = Duration::from_secs(1);
/// How long that election is then waited for: somewhat more than it takes when this leader is silent.
const SUCCESSION: Duration = Duration::from_secs(2);
/// The least time between two tellings of this node's state.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// A node cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory cannot be used.
    #[error("{0}")]
    DataDir(#[from] store_disk::OpenError),
    /// The gossip key cannot be used.
    #[error("{0}")]
    GossipKey(#[from] KeyError),
    /// A certificate, its key or a CA cannot be used.
    #[error("{0}")]
    Tls(#[from] tls::Fault),
    /// Gossip cannot start.
    #[error("{0}")]
    Gossip(#[from] mesh_gossip::StartError),
    /// This node would join with a key that the mesh does not know.
    #[error("{0}")]
    WrongKey(WrongKey),
    /// An address cannot be bound.
    #[error("{0}")]
    Bind(#[from] serve::BindError),
    /// The admin address cannot be bound.
    #[error("{0}")]
    Admin(#[from] admin::StartError),
    /// The store cannot start.
    #[error("{0}")]
    Store(#[from] store_raft::StartError),
    /// It ran for its traffic alone, until it was told to stop.
    #[error("this node ran without a store: {0}")]
    NoStore(Arc<str>),
    /// The proxy cannot start.
    #[error("{0}")]
    Proxy(#[from] proxy_server::StartError),
    /// The system refuses something basic.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Runs a node until SIGTERM or SIGINT; returns when everything is drained.
///
/// # Errors
/// [`RunError`], when it cannot start, or must not go on.
pub fn run(options: NodeOptions) -> Result<(), RunError> {
    raise_file_limit();
    let runtime = control_runtime(options.control_threads)?;
    let result = runtime.block_on(live(options));
    // Whatever still blocks (a slow disk) must not hold up the exit for long.
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

/// Where all but the traffic runs, which has threads of its own.
fn control_runtime(threads: usize) -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("control")
        .enable_all()
        .build()
}

/// A node whose traffic flows, before anything else of it runs.
struct Assembled {
    parts: Arc<Parts>,
    sockets: Sockets,
    registry: Registry,
    prober: Prober,
}

async fn assemble(options: NodeOptions) -> Result<Assembled, RunError> {
    let data = DataDir::open(&options.data_dir)?;
    let certificates = Certificates::load(&options)?;
    let mut registry = Registry::default();
    // A port that is taken must be said before any traffic is taken.
    let sockets = Sockets::bind(&options).await?;
    let (in_force, registrations, proxy) = start_proxy(&options, &mut registry).await?;
    let started = SystemTime::now();
    let generation = generation(started);
    let known_peers = known_peers::load(&options.data_dir);
    let knew_peers = !known_peers.is_empty();
    let mesh = Arc::new(start_mesh(&options, known_peers, &data, generation)?);
    mesh.counters().register(&mut registry);
    certificates.register(&mut registry);
    let prober = Prober::new();
    prober.register(&mut registry);
    let parts = Arc::new(Parts {
        node_id: data.identity().node_id,
        generation,
        knew_peers,
        started,
        data,
        certificates,
        store: watch::Sender::new(StoreState::Opening),
        mesh,
        proxy,
        committed: Committed::known(in_force.compiled.checked()),
        in_force: watch::channel(Arc::new(in_force)).0,
        registrations,
        health: watch::channel(Arc::new(HealthView::default())).0,
        standing: watch::channel(None).0,
        board: crate::status::StatusBoard::default(),
        snapshots: Tally::default(),
        tasks: Tasks::default(),
        reports: prober.reports(),
        load_percent: AtomicU8::new(0),
        load_told: AtomicU8::new(0),
        stopping: AtomicBool::new(false),
        options,
    });
    Ok(Assembled {
        parts,
        sockets,
        registry,
        prober,
    })
}

async fn live(options: NodeOptions) -> Result<(), RunError> {
    let Assembled {
        parts,
        sockets,
        registry,
        prober,
    } = assemble(options).await?;
    let (stop, shutdown) = ShutdownTrigger::new();
    let (ports, serving) = serve::start(&parts, sockets, registry, &shutdown);
    start_tasks(&parts, prober);

    let result = tokio::select! {
        signal = terminate_signal() => told_to_stop(&parts, signal),
        wrong = wrong_key(&parts) => Err(RunError::WrongKey(wrong)),
        never = keep_store(&parts, &ports, &shutdown) => Err(never),
    };
    // Whoever asks twice does not want to wait.
    tokio::spawn(async {
        if terminate_signal().await.is_ok() {
            std::process::exit(1);
        }
    });
    let led = hand_over(&parts).await;
    // The others hear of it while all else ends.
    tokio::join!(parts.mesh.leave(), async {
        drain(&parts).await;
        parts.tasks.expect_ends();
        end_ports(&parts, &stop, serving, led).await;
    });
    parts.tasks.stop();
    if let Some(store) = parts.store() {
        store.shutdown().await;
    }
    result
}

fn told_to_stop(parts: &Parts, signal: std::io::Result<&'static str>) -> Result<(), RunError> {
    tracing::info!(signal = signal?, "stopping");
    match &*parts.store.borrow() {
        StoreState::Failed(fault) => Err(RunError::NoStore(Arc::clone(fault))),
        StoreState::Opening | StoreState::Open(_) => Ok(()),
    }
}

/// Opens the store and serves it for as long as this node runs. A node whose store cannot be opened
/// goes on if it has a config in force: its traffic needs no store. Returns why it must end.
async fn keep_store(parts: &Arc<Parts>, ports: &Ports, shutdown: &Shutdown) -> RunError {
    let config = StoreConfig {
        peer_tls: parts.certificates.dialer(),
        compare_every: parts.options.compare_every,
        ..StoreConfig::new(parts.data.clone())
    };
    match Store::start(config).await {
        Ok(store) => {
            parts.store.send_replace(StoreState::Open(store.clone()));
            serve_store(parts, ports, &store, shutdown);
            let name = &parts.options.name;
            tracing::info!(%name, id = %parts.node_id, data_dir = %parts.options.data_dir.display(), "node started");
        }
        Err(fault) if parts.has_config() => {
            tracing::error!(%fault, "the store cannot be opened; traffic goes on as the last-known-good config says");
            let failed = StoreState::Failed(fault.to_string().into());
            parts.store.send_replace(failed);
        }
        Err(fault) => return fault.into(),
    }
    std::future::pending().await
}

fn serve_store(parts: &Arc<Parts>, ports: &Ports, store: &Store, shutdown: &Shutdown) {
    let server = StoreServer::new(
        store.clone(),
        Arc::new(ConfigAdmission::new(parts.committed.clone())),
        Arc::new(GossipLiveness::new(Arc::clone(&parts.mesh))),
        parts.options.limits.clone(),
        shutdown.clone(),
    );
    let (watched, tasks) = (Arc::clone(parts), &parts.tasks);
    tasks.spawn("watch hub", server.watch_task());
    tasks.spawn("autopilot", server.autopilot_task());
    tasks.spawn("lease clock", server.lease_task());
    let ended = store.clone();
    tasks.spawn("watch over the store", async move {
        watched.tasks.record(ended.ended().await);
        std::future::pending().await
    });
    ports.open(store, &server);
}

/// The proxy with what it ran last, before anything else is up.
async fn start_proxy(
    options: &NodeOptions,
    registry: &mut Registry,
) -> Result<(reconcile::InForce, Registrations, Arc<ProxyServer>), RunError> {
    let proxy = ProxyServer::start(ProxyOptions {
        workers: options.workers,
        ..ProxyOptions::default()
    })?;
    proxy.metrics().register(registry);
    let mut in_force = match reconcile::from_disk(options) {
        Ok(in_force) => in_force,
        Err(fault) => {
            tracing::error!(%fault, "no last-known-good config");
            reconcile::nothing(options)
        }
    };
    let registrations = Registrations::from_disk(&options.data_dir).unwrap_or_else(|fault| {
        tracing::error!(%fault, "no registered endpoints of before");
        Registrations::nothing()
    });
    proxy.set_found(registrations.found());
    let config = Arc::clone(&in_force.compiled.config);
    if config.config_revision.0 > 0 {
        in_force.listeners = proxy.apply(Arc::clone(&config)).await;
        reconcile::tell_failed(&in_force.listeners);
        let (revision, listeners) = (config.config_revision, in_force.listeners.len());
        tracing::info!(%revision, listeners, "serving the last-known-good config");
    }
    Ok((in_force, registrations, Arc::new(proxy)))
}

fn start_mesh(
    options: &NodeOptions,
    known_peers: Vec<String>,
    data: &DataDir,
    generation: u64,
) -> Result<Mesh, RunError> {
    let keys = match &options.gossip_key_file {
        Some(file) => KeyRing::load(file)?,
        None => KeyRing::development(),
    };
    let mut seeds = options.join.clone();
    seeds.extend(known_peers);
    Ok(Mesh::start(GossipConfig {
        generation,
        bind: options.gossip_addr,
        seeds,
        keys,
        interval: GOSSIP_INTERVAL,
        facts: first_facts(options, data),
    })?)
}

fn start_tasks(parts: &Arc<Parts>, prober: Prober) {
    let tasks = &parts.tasks;
    let mesh = Arc::clone(parts);
    tasks.spawn("watch over gossip", async move {
        mesh.tasks.record(mesh.mesh.ended().await);
        std::future::pending().await
    });
    parts.certificates.follow(tasks);
    tasks.spawn("last-known-good", reconcile::save(Arc::clone(parts)));
    tasks.spawn("reconcile", reconcile::follow(Arc::clone(parts)));
    tasks.spawn("endpoints", registrations::follow(Arc::clone(parts)));
    tasks.spawn(
        "last-known endpoints",
        registrations::save(Arc::clone(parts)),
    );
    tasks.spawn("health", health::share(Arc::clone(parts), prober));
    tasks.spawn("load", load::measure(Arc::clone(parts)));
    tasks.spawn("scheduled snapshots", scheduled::save(Arc::clone(parts)));
    tasks.spawn("known peers", known_peers::remember(Arc::clone(parts)));
    let (forming, telling) = (Arc::clone(parts), Arc::clone(parts));
    tasks.spawn("forming", async move {
        form::be_member(&forming).await;
        std::future::pending().await
    });
    tasks.spawn("facts", tell_facts(telling));
    tasks.spawn("revisions", note_revisions(Arc::clone(parts)));
}

/// Keeps what the others know of this node up to date.
async fn tell_facts(parts: Arc<Parts>) {
    let mut store = parts.store.subscribe();
    let (mut status, mut soundness) = (None, None);
    let mut peers = parts.mesh.peers();
    let mut faults = parts.tasks.faults_watch();
    let mut strangers = std::collections::BTreeSet::new();
    loop {
        if status.is_none() {
            let open = store.borrow_and_update().store();
            soundness = open.as_ref().map(Store::soundness);
            status = open.map(|store| store.status_watch());
        }
        parts.publish();
        for peer in peers.borrow_and_update().iter().filter(|peer| peer.foreign) {
            let identity = &peer.facts.identity;
            if strangers.insert(identity.node_id) {
                tracing::warn!(
                    name = %identity.name,
                    mesh = ?identity.mesh_id,
                    "a node of another mesh gossips here; the meshes do not merge"
                );
            }
        }
        tokio::select! {
            // A part that ended closes its channel; what the others tell goes on.
            Ok(()) = changed(&mut status) => {}
            Ok(()) = changed(&mut soundness) => {}
            Ok(()) = store.changed(), if status.is_none() => {}
            Ok(()) = peers.changed() => {}
            Ok(()) = faults.changed() => {}
            else => return std::future::pending().await,
        }
        // The store's state changes with every write; the others need it a few times a second.
        tokio::time::sleep(TELL_EVERY).await;
    }
}

/// Takes note of when each config revision is first heard of, asked or not.
async fn note_revisions(parts: Arc<Parts>) {
    let mut peers = parts.mesh.peers();
    let mut store = parts.store.subscribe();
    let mut images = None;
    let mut noted = None;
    loop {
        if images.is_none() {
            let open = store.borrow_and_update().store();
            images = open.map(|store| store.images());
        }
        if let Some(images) = &mut images {
            images.borrow_and_update();
        }
        let image = parts.committed();
        let known = peers.borrow_and_update().clone();
        if noted
            .as_ref()
            .is_none_or(|(i, p)| *i != image || !Arc::ptr_eq(p, &known))
        {
            parts.board.note(image, &known, Instant::now());
            noted = Some((image, known));
        }
        tokio::select! {
            Ok(()) = changed(&mut images) => {}
            Ok(()) = store.changed(), if images.is_none() => {}
            Ok(()) = peers.changed() => {}
            else => return std::future::pending().await,
        }
    }
}

/// Waits for news of the store; for ever while it is not open.
async fn changed<T>(news: &mut Option<watch::Receiver<T>>) -> Result<(), RecvError> {
    match news {
        Some(news) => news.changed().await,
        None => std::future::pending().await,
    }
}

/// A wrong key stops a node that never was in a mesh; one that was may be right against its seeds.
async fn wrong_key(parts: &Parts) -> WrongKey {
    let wrong = parts.mesh.wrong_key().await;
    if parts.data.mesh().is_none() {
        return wrong;
    }
    tracing::error!(fault = %wrong, "gossip does not reach the others");
    std::future::pending().await
}

/// The orderly end begins: another node is to lead. Whether this one led until then, and others are
/// there who can.
async fn hand_over(parts: &Parts) -> bool {
    parts.stopping.store(true, Ordering::Relaxed);
    let leads_others = |store: &Store| {
        let status = store.status();
        status.role == Role::Leader && status.voters.len() > 1 && status.quorum
    };
    let Some(store) = parts.store().filter(leads_others) else {
        return false;
    };
    let handed = tokio::time::timeout(HAND_OVER, store.transfer_leadership(None)).await;
    if !matches!(handed, Ok(Ok(()))) {
        tracing::warn!("leadership was not handed over; the others elect");
    }
    true
}

/// Clients first: what they wait for may need the others, be it to hear who leads now, or that an
/// entry of before is committed. So this node follows until no client waits for it any more.
async fn end_ports(parts: &Parts, stop: &ShutdownTrigger, mut serving: Serving, led: bool) {
    stop.request();
    let writes_end = parts.options.limits.request_deadline;
    serving.clients_ended(writes_end).await;
    if let Some(store) = parts.store() {
        if led {
            // Other nodes still send a leader what their clients write.
            let mut status = store.status_watch();
            let succeeded = status.wait_for(|now| now.role != Role::Leader && now.leader.is_some());
            if tokio::time::timeout(SUCCESSION, succeeded).await.is_err() {
                tracing::warn!("no other node leads yet");
            }
        }
        store.hang_up();
    }
    serving.end_peers().await;
}

/// Traffic drains.
async fn drain(parts: &Parts) {
    let drained = tokio::time::timeout(DRAIN + HAND_OVER, parts.proxy.drain(DRAIN));
    if drained.await.is_err() {
        tracing::warn!("a proxy worker did not end in time");
    }
}

/// Which life of the node this is: microseconds since 1970 grow with every start.
fn generation(started: SystemTime) -> u64 {
    let since = started
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A proxy needs two descriptors per request under way; the usual soft limit of 1024 is for `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is not permitted, the proxy's own limits and accept back-off hold.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

#[cfg(test)]
mod tests;
