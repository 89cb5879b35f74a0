//! What is worked out about clusters aside from requests: which endpoints were found, who is ejected
//! as an outlier, who may be chosen, and the tables of balancers that hash.
//!
//! Owns one thread, which is no worker: a table of many endpoints takes a while, and meanwhile the
//! workers serve by the one before. What it is told replaces what it was told before, so nothing
//! queues up: however often health changes while a table is made, one more is made for all of that.

mod agenda;
mod found;
mod news;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

use mesh_health::{Health, HealthView};
use proxy_balance::{Fitness, Groups};
use proxy_config::compiled::{Cluster, CompiledConfig, Endpoint, Origin};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::{oneshot, watch as channel};

use crate::upstream::{Bell, ClusterShared, Ejections, Members};
use agenda::{Agenda, Urgency};
use found::Found;
pub use news::Moves;
pub(crate) use news::News;
use watch::Watch;

/// The clusters of a config by their keys.
pub(crate) type Clusters = BTreeMap<Arc<str>, Arc<ClusterShared>>;

/// Works out who may be chosen among these endpoints on a node of this zone.
type Work = dyn Fn(&Cluster, &Fitness, Option<&str>) -> Groups + Send;

/// The handle of the thread. Dropping it stops nothing: it ends with the last worker.
#[derive(Debug)]
pub(crate) struct Upkeep {
    orders: Arc<Mutex<Orders>>,
    thread: Thread,
}

/// What the thread was told and has not seen yet.
#[derive(Debug, Default)]
struct Orders {
    health: Option<Arc<HealthView>>,
    config: Option<(Arc<CompiledConfig>, Arc<Clusters>)>,
    found: BTreeMap<Origin, Arc<[Endpoint]>>,
    /// Told when the clusters of the config can be served.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Upkeep {
    /// Starts the thread. `moved` hears which clusters got other members; when nobody listens there
    /// any more, the thread ends.
    pub(crate) fn start(moved: channel::Sender<News>) -> io::Result<Self> {
        Self::with(moved, Box::new(Groups::new))
    }

    fn with(moved: channel::Sender<News>, work: Box<Work>) -> io::Result<Self> {
        let orders: Arc<Mutex<Orders>> = Arc::default();
        let heard = orders.clone();
        let named = thread::Builder::new().name("upkeep".to_owned());
        let thread = named.spawn(move || Keeper::new(heard, moved, work).run())?;
        let thread = thread.thread().clone();
        Ok(Self { orders, thread })
    }

    /// Puts a view of health in force, soon.
    pub(crate) fn set_health(&self, view: Arc<HealthView>) {
        self.order(|orders| orders.health = Some(view));
    }

    /// Puts other endpoints in force, soon: all that there are at each of these origins now.
    pub(crate) fn set_found(&self, found: impl IntoIterator<Item = (Origin, Arc<[Endpoint]>)>) {
        self.order(|orders| orders.found.extend(found));
    }

    /// Takes over the clusters of a config, and returns when each of them can be served.
    pub(crate) async fn adopt(&self, config: &Arc<CompiledConfig>, clusters: &Arc<Clusters>) {
        let (ready, told) = oneshot::channel();
        self.order(|orders| {
            orders.config = Some((config.clone(), clusters.clone()));
            orders.waiting.push(ready);
        });
        let _ = told.await;
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut lock(&self.orders));
        self.thread.unpark();
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        // It looks whether there are workers left.
        self.thread.unpark();
    }
}

/// Whoever panicked with it left whole orders: each change of them is one assignment, or a map that
/// has some more entries.
fn lock(orders: &Mutex<Orders>) -> MutexGuard<'_, Orders> {
    orders.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread knows.
struct Keeper {
    orders: Arc<Mutex<Orders>>,
    moved: channel::Sender<News>,
    work: Box<Work>,
    /// The clusters whose members were published, and the workers have not been told.
    untold: Vec<Arc<str>>,
    waiting: Vec<oneshot::Sender<()>>,
    health: Arc<HealthView>,
    /// The node's.
    zone: Option<Arc<str>>,
    known: BTreeMap<Arc<str>, Known>,
    found: Found,
    agenda: Agenda,
    /// Rung by workers that saw an endpoint fail too often in a row.
    bell: Arc<Bell>,
    rng: SmallRng,
}

/// A cluster of the config.
struct Known {
    /// As the config has it.
    origin: Arc<Cluster>,
    /// With the endpoints that were found.
    cluster: Arc<Cluster>,
    shared: Arc<ClusterShared>,
    /// Where outliers are looked for.
    watch: Option<Watch>,
}

impl Keeper {
    /// On its own thread, which the bell is to wake.
    fn new(orders: Arc<Mutex<Orders>>, moved: channel::Sender<News>, work: Box<Work>) -> Self {
        Self {
            orders,
            moved,
            work,
            untold: Vec::new(),
            waiting: Vec::new(),
            health: Arc::default(),
            zone: None,
            known: BTreeMap::new(),
            found: Found::default(),
            agenda: Agenda::default(),
            bell: Bell::here(),
            rng: SmallRng::from_rng(&mut rand::rng()),
        }
    }

    fn run(mut self) {
        loop {
            self.hear();
            self.look();
            let next = self.agenda.next();
            if let Some(key) = &next {
                self.work_out(key);
            }
            // Workers are woken for all that is quickly done at once, and for each table.
            if !self.untold.is_empty() && !self.agenda.has_quick() {
                let untold = self.untold.drain(..);
                self.moved
                    .send_modify(|news| untold.for_each(|key| news.add(key)));
            }
            if !self.agenda.is_awaited() {
                for ready in self.waiting.drain(..) {
                    let _ = ready.send(());
                }
            }
            if next.is_none() {
                if self.moved.is_closed() {
                    return;
                }
                self.rest();
            }
        }
    }

    /// Takes in what was ordered, and notes what has to be done for it.
    fn hear(&mut self) {
        let orders = std::mem::take(&mut *lock(&self.orders));
        self.waiting.extend(orders.waiting);
        if let Some(view) = orders.health {
            let before = std::mem::replace(&mut self.health, view);
            for (key, known) in &mut self.known {
                known.release_recovered(&before, &self.health);
                if known.cluster.probe.is_some() && !known.holds(&self.health) {
                    self.agenda.add(key.clone(), known.urgency());
                }
            }
        }
        let mut moved = BTreeSet::new();
        for (origin, endpoints) in orders.found {
            if self.found.tell(&origin, endpoints) {
                moved.extend(self.found.users(&origin));
            }
        }
        // A cluster that is new takes in what was found with its first look.
        if let Some((config, clusters)) = orders.config {
            self.follow(&config, &clusters);
        }
        for key in moved {
            self.complete(&key);
        }
    }

    fn follow(&mut self, config: &CompiledConfig, clusters: &Clusters) {
        self.zone.clone_from(&config.zone);
        let found = &mut self.found;
        self.known.retain(|key, known| {
            let stays = clusters.contains_key(key);
            if !stays {
                found.leave(&known.origin);
            }
            stays
        });
        for cluster in config.clusters.values() {
            let Some(shared) = clusters.get(&cluster.key) else {
                continue;
            };
            let known = self.known.get(&cluster.key);
            if known.is_some_and(|known| Arc::ptr_eq(&known.origin, cluster)) {
                continue;
            }
            let before = self.known.remove(&cluster.key);
            if let Some(before) = &before {
                self.found.leave(&before.origin);
            }
            self.found.enter(cluster);
            let mut known = Known {
                origin: cluster.clone(),
                cluster: self.found.complete(cluster),
                shared: shared.clone(),
                watch: before.and_then(|known| known.watch),
            };
            known.watch_on(&self.bell);
            let urgency = known.urgency().min(Urgency::Awaited);
            self.agenda.add(cluster.key.clone(), urgency);
            self.known.insert(cluster.key.clone(), known);
        }
    }

    /// Takes in what was found for a cluster of the config that is known.
    fn complete(&mut self, key: &Arc<str>) {
        let Some(known) = self.known.get_mut(key) else {
            return;
        };
        let cluster = self.found.complete(&known.origin);
        if cluster.endpoints == known.cluster.endpoints {
            return;
        }
        known.cluster = cluster;
        known.watch_on(&self.bell);
        self.agenda.add(key.clone(), known.urgency());
    }

    /// Looks for outliers where workers rang, or it is time.
    fn look(&mut self) {
        let (now, rang) = (Instant::now(), self.bell.rang());
        for (key, known) in &mut self.known {
            let Some(watch) = &mut known.watch else {
                continue;
            };
            if !rang && now < watch.next_sweep() {
                continue;
            }
            let changed = watch.look(now, &mut self.rng);
            watch.tell(&known.cluster, &known.shared);
            if changed {
                self.agenda.add(key.clone(), known.urgency());
            }
        }
    }

    /// Waits for an order, a bell or the next sweep.
    fn rest(&self) {
        let watches = self.known.values().filter_map(|known| known.watch.as_ref());
        match watches.map(Watch::next_sweep).min() {
            Some(next) => thread::park_timeout(next.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
    }

    /// Works out a cluster's members and publishes them. A panic ends this work alone: the workers
    /// keep what they have.
    fn work_out(&mut self, key: &Arc<str>) {
        let Some(known) = self.known.get(key) else {
            return;
        };
        if known.is_served() && known.holds(&self.health) {
            // It is as before again.
            return;
        }
        let work =
            AssertUnwindSafe(|| known.members(&self.work, &self.health, self.zone.as_deref()));
        match catch_unwind(work) {
            Ok(members) => {
                known.shared.members.publish(Arc::new(members));
                self.untold.push(key.clone());
            }
            Err(_) => {
                tracing::error!(cluster = %key, "choosing endpoints panicked; it goes on as before");
            }
        }
    }
}

impl Known {
    /// Looks for outliers among the endpoints that there are now; what is known of those that stay,
    /// stays.
    fn watch_on(&mut self, bell: &Arc<Bell>) {
        let before = self.watch.take();
        let watched = before.is_some();
        let workers = (self.shared.workers.len(), bell);
        self.watch = Watch::over(&self.cluster, before, workers, Instant::now());
        match &self.watch {
            Some(watch) => watch.tell(&self.cluster, &self.shared),
            None if watched => drop(self.shared.ejections.replace(Ejections::default())),
            None => {}
        }
    }

    fn urgency(&self) -> Urgency {
        if self.cluster.balance.is_hashing() {
            Urgency::Table
        } else {
            Urgency::Quick
        }
    }

    fn fitness(&self, health: &HealthView) -> Fitness {
        let ejected = |address| {
            let watch = self.watch.as_ref();
            watch.is_some_and(|watch| watch.is_ejected(address))
        };
        Fitness::new(&self.cluster, health, ejected)
    }

    /// Ends the ejections of those that were unhealthy and are not any more, as probes say: they saw
    /// it recover.
    fn release_recovered(&mut self, before: &HealthView, after: &HealthView) {
        let Some(watch) = &mut self.watch else {
            return;
        };
        let mut released = false;
        for endpoint in &self.cluster.endpoints {
            let (key, address) = (&self.cluster.key, endpoint.address);
            let was_bad = before.health(key, address) == Health::Unhealthy;
            if was_bad && after.health(key, address) == Health::Healthy {
                released |= watch.release(address);
            }
        }
        if released {
            watch.tell(&self.cluster, &self.shared);
        }
    }

    /// Whether what is published is of this config.
    fn is_served(&self) -> bool {
        let newest = self.shared.members.newest();
        newest.is_some_and(|members| Arc::ptr_eq(&members.cluster, &self.cluster))
    }

    /// Whether what is published is still true.
    fn holds(&self, health: &HealthView) -> bool {
        let newest = self.shared.members.newest();
        newest.is_some_and(|members| members.groups.hold(&self.fitness(health)))
    }

    fn members(&self, work: &Work, health: &HealthView, zone: Option<&str>) -> Members {
        Members {
            origin: self.origin.clone(),
            cluster: self.cluster.clone(),
            groups: work(&self.cluster, &self.fitness(health), zone),
            marks: self.watch.as_ref().map(Watch::marks).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;
