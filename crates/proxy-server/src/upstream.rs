//! One cluster as one worker sees it: its endpoints, their connections, and the choice among them.
//!
//! Owns balancer state and pools, all of one thread. Never parses HTTP and never decides about
//! retries. Limits that hold for the whole node are in `limits`.

mod connect;
mod limits;
mod pool;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use mesh_health::HealthView;
use proxy_balance::{Balancer, Eligible};
use proxy_config::compiled::Cluster;
use rand::rngs::SmallRng;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use connect::{ConnectFault, Limit, Wanted, connect};
pub(crate) use limits::{ClusterShared, Permit};
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
    balancer: RefCell<Balancer>,
    eligible: RefCell<Eligible>,
    /// Requests of this worker that wait for a connection.
    waiting: Cell<u32>,
    freed: Notify,
}

impl Upstream {
    /// The cluster for the worker of this number. Endpoints of `previous` that stay keep their
    /// connections.
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        shared: Arc<ClusterShared>,
        worker: usize,
        health: &HealthView,
        previous: Option<&Self>,
    ) -> Self {
        let endpoints = cluster.endpoints.iter().map(|endpoint| {
            let kept = previous.and_then(|previous| {
                let mut known = previous.endpoints.iter();
                known.find(|known| known.address == endpoint.address)
            });
            kept.cloned()
                .unwrap_or_else(|| Rc::new(Endpoint::new(endpoint.address)))
        });
        let endpoints = endpoints.collect();
        // Workers must not march in step, or all of them would start at the same endpoint.
        let balancer = Balancer::new(&cluster, worker as u64);
        let eligible = Eligible::new(&cluster, health);
        Self {
            cluster,
            shared,
            endpoints,
            worker,
            balancer: RefCell::new(balancer),
            eligible: RefCell::new(eligible),
            waiting: Cell::new(0),
            freed: Notify::new(),
        }
    }

    /// The mesh changed its mind about some endpoints.
    pub(crate) fn set_health(&self, health: &HealthView) {
        *self.eligible.borrow_mut() = Eligible::new(&self.cluster, health);
    }

    /// The endpoint for the next try, if any can be used; those to `avoid` come last.
    pub(crate) fn pick(&self, rng: &mut SmallRng, avoid: &[usize]) -> Option<usize> {
        let active = |index: usize| self.endpoints[index].active();
        self.balancer
            .borrow_mut()
            .pick(&self.eligible.borrow(), active, rng, avoid)
    }

    /// This worker's counters.
    pub(crate) fn counters(&self) -> &ClusterCounters {
        &self.shared.workers[self.worker]
    }

    /// Takes a connection back that can serve another request. Closes it instead when another
    /// worker is waiting for one: the limit is the node's, the pool is ours.
    pub(crate) fn release(&self, endpoint: &Endpoint, connection: Connection, now: Instant) {
        if self.shared.starving() > self.waiting.get() {
            drop(connection);
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
