//! The proxy's handle: starts the workers and gives them config, health and the end.
//!
//! Owns what is bound and by whom. Lives on the control runtime; nothing of it is on the path of a
//! request. Dropping it stops nothing: traffic goes on until [`ProxyServer::drain`].

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_health::HealthView;
use proxy_config::compiled::{Cluster, CompiledConfig, Endpoint, Listener, Origin, ResourceName};
use tls::Listening;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use crate::access_log::LogQueue;
use crate::bind::{BindError, Bound, Place, Transport, bind};
use crate::certificates::{Certificates, ListenersTls};
use crate::listener::Serving;
use crate::metrics::ProxyMetrics;
use crate::upkeep::{Moves, News, Upkeep};
use crate::upstream::ClusterShared;
use crate::worker::{Apply, COMMANDS_MAX, Command, Snapshot, WorkerStart};

/// A node accepts so many clients' connections at a time (Envoy's practice at the edge); more wait
/// in the kernel's queues.
const CONNECTIONS_MAX: usize = 50_000;

/// How to start a proxy.
pub struct ProxyOptions {
    /// Worker threads; 0: as many as there are cores.
    pub workers: usize,
    /// Where the access log goes, when the config turns it on.
    pub access_log: Box<dyn io::Write + Send>,
    /// How often the files with certificates are looked at.
    pub look_every: Duration,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            workers: 0,
            access_log: Box::new(io::stdout()),
            look_every: tls::LOOK_EVERY,
        }
    }
}

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A thread or its poller could not be made.
    #[error("cannot start a worker thread; raise the limits of threads and open files")]
    Thread(#[from] io::Error),
}

/// What became of one listener of a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerOutcome {
    /// The listener.
    pub name: ResourceName,
    /// The address it asks for.
    pub bind: SocketAddr,
    /// The address that serves it: the same, with the real port if it asks for port 0. If the new
    /// address could not be bound, the listener goes on at its old one, if it had one.
    pub result: Result<SocketAddr, BindError>,
}

/// The proxy of this node.
#[derive(Debug)]
pub struct ProxyServer {
    workers: Vec<mpsc::Sender<Command>>,
    upkeep: Upkeep,
    certificates: Arc<Certificates>,
    metrics: ProxyMetrics,
    moves: Moves,
    /// What is bound right now.
    bound: Mutex<Vec<Active>>,
    outcomes: watch::Sender<Vec<ListenerOutcome>>,
}

/// A listener that is served.
#[derive(Debug, Clone)]
struct Active {
    name: ResourceName,
    /// As the config has it.
    asked: Place,
    /// As the sockets have it.
    place: Place,
    listener: Arc<Listener>,
    tls: Option<Arc<Listening>>,
}

/// Sockets to hand to the workers.
type Opened = Vec<(Place, Vec<Bound>)>;

impl ProxyServer {
    /// Starts the workers. Nothing is served before the first [`ProxyServer::apply`].
    pub fn start(options: ProxyOptions) -> Result<Self, StartError> {
        let count = match options.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let log = LogQueue::start(options.access_log)?;
        let (moved, news) = watch::channel(News::default());
        let moves = Moves::new(news);
        let mut workers = Vec::with_capacity(count);
        let mut measured = Vec::with_capacity(count);
        for index in 0..count {
            let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
            let start = WorkerStart {
                index,
                connections_max: CONNECTIONS_MAX.div_ceil(count),
                log: log.clone(),
                commands: inbox,
                moved: moves.clone(),
            };
            measured.push(start.spawn()?);
            workers.push(commands);
        }
        let certificates = Arc::new(Certificates::start(options.look_every)?);
        Ok(Self {
            workers,
            upkeep: Upkeep::start(moved)?,
            moves,
            metrics: ProxyMetrics::new(log, measured.into(), certificates.clone()),
            certificates,
            bound: Mutex::default(),
            outcomes: watch::Sender::default(),
        })
    }

    /// Puts a config in force and returns when all workers serve it. Listeners that stay keep their
    /// sockets and connections; new ones are opened; those that are gone are closed and drained for
    /// the config's `drain_timeout`. One that cannot be bound is told and hinders no other; the
    /// next call tries again.
    pub async fn apply(&self, config: Arc<CompiledConfig>) -> Vec<ListenerOutcome> {
        let mut bound = self.bound.lock().await;
        let tls = self.listeners_tls(&config).await;
        let mut plan = Plan::new(&bound, (&config, tls), self.workers.len());
        let mut opened = std::mem::take(&mut plan.opened);
        loop {
            let snapshot = Arc::new(self.snapshot(&config, &plan.active));
            self.certificates.serve(plan.listening());
            self.load_clusters(&config, &snapshot).await;
            self.upkeep.adopt(&config, &snapshot.clusters).await;
            let close = plan.closing(&bound);
            self.command_apply(&snapshot, opened, (&close, &plan.wanted()))
                .await;
            bound.clone_from(&plan.active);
            // An address may have been in the way of one that is wanted (`0.0.0.0` and `127.0.0.1`
            // with one port); now that it is closed, those can be bound.
            opened = plan.open_blocked(self.workers.len());
            if opened.is_empty() {
                break;
            }
        }
        let outcomes = plan.outcomes();
        self.outcomes.send_replace(outcomes.clone());
        outcomes
    }

    /// Puts a merged view of health in force: as soon as it is worked out who may be chosen by it,
    /// with the workers' next turn.
    pub fn set_health(&self, view: Arc<HealthView>) {
        self.metrics.sources().health = view.clone();
        self.upkeep.set_health(view);
    }

    /// Puts endpoints in force that were found: all that there are at each of these origins now. It
    /// costs what the clusters cost that look there, and is done with the workers' next turn.
    pub fn set_found(&self, found: impl IntoIterator<Item = (Origin, Arc<[Endpoint]>)>) {
        self.upkeep.set_found(found);
    }

    /// The cluster of this key (`namespace/name`) as it is served: with the endpoints that were found.
    pub fn cluster(&self, key: &str) -> Option<Arc<Cluster>> {
        let shared = self.metrics.sources().clusters.get(key).cloned()?;
        Some(shared.members.newest()?.cluster.clone())
    }

    /// Hears from now on which clusters have other endpoints.
    pub fn moves(&self) -> Moves {
        self.moves.clone()
    }

    /// Why an endpoint of the cluster of this key (`namespace/name`) is taken out by outlier
    /// detection right now, and for how long yet; `None`: it is not.
    pub fn ejection(&self, cluster: &str, address: SocketAddr) -> Option<(&'static str, Duration)> {
        let shared = self.metrics.sources().clusters.get(cluster).cloned()?;
        let ejections = shared.ejections.read();
        let mut active = ejections.active.iter();
        let (_, ejection) = active.find(|(ejected, _)| *ejected == address)?;
        let left = ejection.until.saturating_duration_since(Instant::now());
        Some((ejection.kind.as_str(), left))
    }

    /// The proxy's metrics.
    pub fn metrics(&self) -> ProxyMetrics {
        self.metrics.clone()
    }

    /// For how long each worker has been at work since it started: not waiting for anything to do,
    /// whether or not the system gave it a core.
    pub fn busy(&self) -> Vec<Duration> {
        self.metrics.busy().collect()
    }

    /// What became of each listener of the config in force.
    pub fn listeners(&self) -> Vec<ListenerOutcome> {
        self.outcomes.borrow().clone()
    }

    /// Closes all listeners, lets what is under way end within `limit`, and stops the workers.
    pub async fn drain(&self, limit: Duration) {
        let mut waits = Vec::new();
        for worker in &self.workers {
            let (done, told) = oneshot::channel();
            if worker.send(Command::Drain { limit, done }).await.is_ok() {
                waits.push(told);
            }
        }
        for wait in waits {
            let _ = wait.await;
        }
    }

    /// Loads the certificates of the listeners, where files may take as long as they like.
    async fn listeners_tls(&self, config: &Arc<CompiledConfig>) -> ListenersTls {
        if config.listeners.values().all(|one| one.tls.is_none()) {
            return ListenersTls::new();
        }
        let (certificates, config) = (self.certificates.clone(), config.clone());
        let loading = spawn_blocking(move || certificates.listeners(&config));
        loading.await.unwrap_or_default()
    }

    /// Loads the TLS of the clusters before anybody may call one.
    async fn load_clusters(&self, config: &Arc<CompiledConfig>, snapshot: &Snapshot) {
        let (certificates, config) = (self.certificates.clone(), config.clone());
        let clusters = snapshot.clusters.clone();
        if config.clusters.values().all(|one| one.tls.is_none()) {
            certificates.call(&config, &clusters);
            return;
        }
        // It ends with an error only if it panicked; what was in force stays so.
        let _ = spawn_blocking(move || certificates.call(&config, &clusters)).await;
    }

    /// What the workers shall see, and the sources of the metrics with it.
    fn snapshot(&self, config: &Arc<CompiledConfig>, active: &[Active]) -> Snapshot {
        let workers = self.workers.len();
        let mut sources = self.metrics.sources();
        let known = sources.clusters.clone();
        let same = known.len() == config.clusters.len()
            && config.clusters.values().all(|c| known.contains_key(&c.key));
        if !same {
            let shared = config.clusters.values().map(|cluster| {
                let kept = known.get(&cluster.key).cloned();
                let new = || Arc::new(ClusterShared::new(workers));
                (cluster.key.clone(), kept.unwrap_or_else(new))
            });
            sources.clusters = Arc::new(shared.collect());
        }
        let mut listeners = BTreeMap::new();
        let mut serving = BTreeMap::new();
        for active in active {
            let label = active.name.to_string();
            let kept = sources.listeners.get(&label).cloned();
            let counters =
                kept.unwrap_or_else(|| (0..workers).map(|_| Default::default()).collect());
            listeners.insert(label.clone(), counters.clone());
            let entry = Serving {
                listener: active.listener.clone(),
                address: active.place.address,
                label: label.into(),
                counters,
                tls: active.tls.clone(),
            };
            serving.insert(active.place, entry);
        }
        sources.listeners = listeners;
        sources.config = config.clone();
        Snapshot {
            config: config.clone(),
            clusters: sources.clusters.clone(),
            serving,
        }
    }

    /// Gives every worker its share and waits until all are done.
    async fn command_apply(
        &self,
        snapshot: &Arc<Snapshot>,
        mut opened: Opened,
        (close, wanted): (&[Place], &[Place]),
    ) {
        let mut waits = Vec::new();
        for (index, worker) in self.workers.iter().enumerate() {
            let share = opened
                .iter_mut()
                .filter_map(|(place, sockets)| sockets.pop().map(|socket| (*place, socket)));
            let (done, told) = oneshot::channel();
            let apply = Apply {
                snapshot: snapshot.clone(),
                open: share.collect(),
                close: close.to_vec(),
                wanted: wanted.to_vec(),
                done,
            };
            if worker.send(Command::Apply(apply)).await.is_ok() {
                waits.push(told);
            } else {
                tracing::error!(worker = index, "a worker has stopped; restart the node");
            }
        }
        for wait in waits {
            let _ = wait.await;
        }
    }
}

/// What is to be done for a config.
struct Plan {
    /// What will be served.
    active: Vec<Active>,
    opened: Opened,
    /// Listeners whose address is in use, perhaps by one that is about to close.
    blocked: Vec<(ResourceName, Arc<Listener>)>,
    failed: Vec<(ResourceName, SocketAddr, BindError)>,
    asked: Vec<(ResourceName, SocketAddr)>,
    tls: ListenersTls,
}

impl Plan {
    fn new(
        before: &[Active],
        (config, tls): (&CompiledConfig, ListenersTls),
        workers: usize,
    ) -> Self {
        let mut plan = Self {
            active: Vec::new(),
            opened: Vec::new(),
            blocked: Vec::new(),
            failed: Vec::new(),
            asked: Vec::new(),
            tls,
        };
        for (name, listener) in &config.listeners {
            let address = listener.bind;
            let asked = place(listener);
            plan.asked.push((name.clone(), address));
            let twin = plan
                .active
                .iter()
                .find(|a| a.asked == asked && address.port() != 0);
            if let Some(twin) = twin {
                let by = twin.name.to_string();
                let error = BindError::Conflict { address, by };
                plan.failed.push((name.clone(), address, error));
                continue;
            }
            if let Some(Err(fault)) = plan.tls.get(name) {
                let error = BindError::Tls(fault.clone());
                plan.fail(name, address, error, before, |old| old.clone());
                continue;
            }
            let kept = before
                .iter()
                .find(|known| known.asked == asked && (address.port() != 0 || known.name == *name));
            if let Some(kept) = kept {
                plan.serve(name, listener, kept.place);
                continue;
            }
            // One that was closed before may still answer its clients from there.
            let may_go = |a: &Active| a.place.overlaps(asked);
            let may_go = asked.transport == Transport::Udp || before.iter().any(may_go);
            match bind(asked, workers) {
                Ok((place, sockets)) => {
                    plan.opened.push((place, sockets));
                    plan.serve(name, listener, place);
                }
                Err(BindError::InUse(_)) if may_go => {
                    plan.blocked.push((name.clone(), listener.clone()));
                }
                Err(error) => {
                    let tls = plan.listener_tls(name);
                    plan.fail(name, address, error, before, |old| Active {
                        listener: listener.clone(),
                        tls,
                        ..old.clone()
                    });
                }
            }
        }
        plan
    }

    fn serve(&mut self, name: &ResourceName, listener: &Arc<Listener>, at: Place) {
        self.active.push(Active {
            name: name.clone(),
            asked: place(listener),
            place: at,
            listener: listener.clone(),
            tls: self.listener_tls(name),
        });
    }

    /// What was loaded for it.
    fn listener_tls(&self, name: &ResourceName) -> Option<Arc<Listening>> {
        self.tls.get(name)?.as_ref().ok().cloned()
    }

    /// The certificates that will be shown.
    fn listening(&self) -> BTreeMap<ResourceName, Arc<Listening>> {
        let active = self.active.iter();
        let shown = active.filter_map(|one| Some((one.name.clone(), one.tls.clone()?)));
        shown.collect()
    }

    /// The listener cannot be as it should: it goes on at its old address, if it had one that
    /// nobody else wants.
    fn fail(
        &mut self,
        name: &ResourceName,
        asked: SocketAddr,
        error: BindError,
        before: &[Active],
        goes_on: impl FnOnce(&Active) -> Active,
    ) {
        self.failed.push((name.clone(), asked, error));
        let old = before.iter().find(|known| known.name == *name);
        if let Some(old) = old
            && !self.active.iter().any(|active| active.place == old.place)
        {
            self.active.push(goes_on(old));
        }
    }

    /// Where was served before and is not any more.
    fn closing(&self, before: &[Active]) -> Vec<Place> {
        let stays = |place| self.active.iter().any(|active| active.place == place);
        let places = before.iter().map(|known| known.place);
        places.filter(|place| !stays(*place)).collect()
    }

    /// What is blocked wants these places, whoever still answers from there.
    fn wanted(&self) -> Vec<Place> {
        let blocked = self.blocked.iter();
        blocked.map(|(_, listener)| place(listener)).collect()
    }

    /// Binds what was blocked, each once.
    fn open_blocked(&mut self, workers: usize) -> Opened {
        let mut opened = Vec::new();
        for (name, listener) in std::mem::take(&mut self.blocked) {
            match bind(place(&listener), workers) {
                Ok((place, sockets)) => {
                    opened.push((place, sockets));
                    self.serve(&name, &listener, place);
                }
                Err(error) => self.failed.push((name, listener.bind, error)),
            }
        }
        opened
    }

    fn outcomes(&self) -> Vec<ListenerOutcome> {
        let outcome = |(name, bind): &(ResourceName, SocketAddr)| {
            let failed = self.failed.iter().find(|(failed, ..)| failed == name);
            let active = self.active.iter().find(|active| active.name == *name);
            let result = match (failed, active) {
                (Some((_, _, error)), _) => Err(error.clone()),
                (None, Some(active)) => Ok(active.place.address),
                (None, None) => Err(BindError::InUse(*bind)),
            };
            ListenerOutcome {
                name: name.clone(),
                bind: *bind,
                result,
            }
        };
        self.asked.iter().map(outcome).collect()
    }
}

/// Where a listener wants to be.
fn place(listener: &Listener) -> Place {
    let transport = match listener.is_udp() {
        true => Transport::Udp,
        false => Transport::Tcp,
    };
    Place {
        transport,
        address: listener.bind,
    }
}
