//! One cluster as one worker sees it: its endpoints, their connections, and the choice among them.
//!
//! Owns balancer state and pools, all of one thread. Never parses HTTP and never decides about
//! retries. Limits that hold for the whole node are in `limits`.

mod choice;
mod connect;
mod datagrams;
mod ejections;
mod http2;
mod limits;
mod marks;
mod members;
mod pool;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use proxy_balance::{Balancer, Ewma, Groups};
use proxy_config::compiled::Cluster;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use connect::{ConnectFault, Limit, Wanted, connect};
pub(crate) use datagrams::{Datagrams, open as open_datagrams};
pub(crate) use ejections::Ejections;
pub(crate) use http2::{Agreed, Place, place};
pub(crate) use limits::{ClusterShared, Permit};
pub(crate) use marks::{Bell, Marks, Seen};
pub(crate) use members::Members;
pub(crate) use pool::{Connection, Endpoint};

use crate::counters::ClusterCounters;

/// A cluster in one worker. A change of its config or endpoints makes a new one that takes over the
/// endpoints which stay; requests under way finish with the one that they started with.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// As the config has it.
    pub(crate) origin: Arc<Cluster>,
    /// With the endpoints that were found.
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) shared: Arc<ClusterShared>,
    /// In the order of the cluster's.
    pub(crate) endpoints: Box<[Rc<Endpoint>]>,
    worker: usize,
    /// By the number of the group.
    balancers: RefCell<Box<[Balancer]>>,
    groups: RefCell<Groups>,
    /// By endpoint, where outliers are looked for.
    marks: Arc<[Arc<Marks>]>,
    /// The version of the members that it serves by.
    version: Cell<u64>,
    /// Since when the youngest of the eligible endpoints is eligible.
    youngest_since: Cell<Option<Instant>>,
    /// Requests of this worker that wait for a connection.
    waiting: Cell<u32>,
    freed: Notify,
}

impl Upstream {
    /// The cluster for the worker of this number, by its newest members; `None` while there are
    /// none. Endpoints of `previous` that stay keep their connections and what is known of them.
    pub(crate) fn new(
        shared: Arc<ClusterShared>,
        worker: usize,
        previous: Option<&Self>,
    ) -> Option<Self> {
        // In this order: if they change in between, they are taken again.
        let version = shared.members.version();
        let members = shared.members.newest()?;
        Some(Self::of(&members, version, (shared, worker), previous))
    }

    /// The same cluster with other members.
    fn with(&self, members: &Members, version: u64) -> Self {
        Self::of(
            members,
            version,
            (self.shared.clone(), self.worker),
            Some(self),
        )
    }

    fn of(
        members: &Members,
        version: u64,
        (shared, worker): (Arc<ClusterShared>, usize),
        previous: Option<&Self>,
    ) -> Self {
        let cluster = members.cluster.clone();
        let now = Instant::now();
        // What is spoken to an endpoint does not change within a connection.
        let previous = previous.filter(|previous| {
            let known = &previous.cluster;
            known.tls == cluster.tls && known.proxy_protocol == cluster.proxy_protocol
        });
        let known = previous.iter().flat_map(|previous| &previous.endpoints);
        let known: HashMap<SocketAddr, &Rc<Endpoint>> =
            known.map(|known| (known.address, known)).collect();
        let measured: Vec<Ewma> = known.values().map(|known| known.ewma.get()).collect();
        let unmeasured = Ewma::new(&measured, now.into_std());
        let endpoints = cluster.endpoints.iter().map(|endpoint| {
            let kept = known.get(&endpoint.address).map(|kept| Rc::clone(kept));
            kept.unwrap_or_else(|| Rc::new(Endpoint::new(endpoint, unmeasured)))
        });
        let endpoints = endpoints.collect();
        // Workers must not march in step, or all of them would start at the same endpoint; nor may
        // all turns begin with the same one where endpoints change often.
        let seed = (worker as u64) ^ version.rotate_left(32);
        let balancer = |_| Balancer::new(&cluster, seed);
        let balancers = members.groups.iter().map(balancer).collect();
        let upstream = Self {
            origin: members.origin.clone(),
            cluster,
            shared,
            endpoints,
            worker,
            balancers: RefCell::new(balancers),
            groups: RefCell::new(members.groups.clone()),
            marks: members.marks.clone(),
            version: Cell::new(version),
            youngest_since: Cell::new(None),
            waiting: Cell::new(0),
            freed: Notify::new(),
        };
        upstream.note_eligible(now);
        upstream
    }

    /// This worker's counters.
    pub(crate) fn counters(&self) -> &ClusterCounters {
        &self.shared.workers[self.worker]
    }

    /// Takes a connection back that can serve another request. Closes it instead when another
    /// worker is waiting for one (the limit is the node's, the pool is ours), or when it has served
    /// its time.
    pub(crate) fn release(&self, endpoint: &Endpoint, mut connection: Connection, now: Instant) {
        let spent = !connection.life.goes_on(now);
        if spent || self.shared.starving() > self.waiting.get() {
            connection.give_up();
        } else {
            endpoint.put(connection, now);
        }
        self.wake_one();
    }

    /// A connection or its permit is free again.
    pub(crate) fn wake_one(&self) {
        if self.waiting.get() > 0 {
            self.freed.notify_one();
        }
    }

    /// Closes what has been idle for too long or was closed by the other side, and all of it when
    /// another worker starves.
    pub(crate) fn sweep(&self, now: Instant) {
        let starved_elsewhere = self.shared.starving() > self.waiting.get();
        for endpoint in &self.endpoints {
            if starved_elsewhere {
                endpoint.clear();
            } else {
                endpoint.sweep(now, self.cluster.idle_timeout);
            }
        }
    }
}
