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

/// A cluster in one worker. A config change makes a new one that takes over the endpoints which
/// stay; requests under way finish with the one that they started with.
#[derive(Debug)]
pub(crate) struct Upstream {
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
        let cluster = members.cluster.clone();
        let now = Instant::now();
        let known = previous.iter().flat_map(|previous| &previous.endpoints);
        let known: Vec<Ewma> = known.map(|known| known.ewma.get()).collect();
        let unmeasured = Ewma::new(&known, now.into_std());
        let endpoints = cluster.endpoints.iter().map(|endpoint| {
            let kept = previous.and_then(|previous| {
                // What is spoken to an endpoint does not change within a connection.
                let known = previous.endpoints.iter();
                let mut known = known.filter(|_| previous.cluster.tls == cluster.tls);
                known.find(|known| known.address == endpoint.address)
            });
            kept.cloned()
                .unwrap_or_else(|| Rc::new(Endpoint::new(endpoint, unmeasured)))
        });
        let endpoints = endpoints.collect();
        // Workers must not march in step, or all of them would start at the same endpoint.
        let balancer = |_| Balancer::new(&cluster, worker as u64);
        let balancers = members.groups.iter().map(balancer).collect();
        let upstream = Self {
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
        Some(upstream)
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
