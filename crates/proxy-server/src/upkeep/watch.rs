//! The outlier detection of one cluster.
//!
//! Owns what was counted before the last sweep, and the telling of what changed. The rules are
//! `proxy-balance`'s, the counting is the workers'.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use proxy_balance::{Ejection, Outliers, Tally};
use proxy_config::compiled::{Cluster, Outlier};
use rand::Rng;

use crate::upstream::{Bell, ClusterShared, Ejections, Marks};

/// A cluster's endpoints under watch.
#[derive(Debug)]
pub(super) struct Watch {
    policy: Outlier,
    outliers: Outliers,
    /// In the order of the cluster's endpoints.
    watched: Vec<Watched>,
    marks: Arc<[Arc<Marks>]>,
    next_sweep: Instant,
}

#[derive(Debug)]
struct Watched {
    address: SocketAddr,
    marks: Arc<Marks>,
    /// All that was counted at the last sweep.
    before: Tally,
}

impl Watch {
    /// The watch over `cluster`, if it wants one. Of endpoints that stay, `previous` stands.
    pub(super) fn over(
        cluster: &Cluster,
        previous: Option<Self>,
        (workers, bell): (usize, &Arc<Bell>),
        now: Instant,
    ) -> Option<Self> {
        let policy = cluster.outlier.clone()?;
        let latest = now + policy.interval;
        let (mut outliers, next_sweep, mut known) = match previous {
            Some(previous) => {
                let next = previous.next_sweep.min(latest);
                (previous.outliers, next, previous.watched)
            }
            None => (Outliers::default(), latest, Vec::new()),
        };
        let addresses = cluster.endpoints.iter().map(|endpoint| endpoint.address);
        outliers.follow(addresses.clone());
        known.sort_unstable_by_key(|known| known.address);
        let watched = addresses.map(|address| {
            let new = || {
                (
                    Arc::new(Marks::new(workers, bell.clone())),
                    Tally::default(),
                )
            };
            let found = known.binary_search_by_key(&address, |known| known.address);
            let found = found.map(|at| (known[at].marks.clone(), known[at].before));
            let (marks, before) = found.unwrap_or_else(|_| new());
            Watched {
                address,
                marks,
                before,
            }
        });
        let watched: Vec<Watched> = watched.collect();
        Some(Self {
            policy,
            outliers,
            marks: watched
                .iter()
                .map(|watched| watched.marks.clone())
                .collect(),
            watched,
            next_sweep,
        })
    }

    /// Where the workers count, in the order of the cluster's endpoints.
    pub(super) fn marks(&self) -> Arc<[Arc<Marks>]> {
        self.marks.clone()
    }

    pub(super) fn is_ejected(&self, address: SocketAddr) -> bool {
        self.outliers.ejection(address).is_some()
    }

    /// When there is something to do at the latest.
    pub(super) fn next_sweep(&self) -> Instant {
        self.next_sweep
    }

    /// Ejects those that failed too often in a row, and sweeps when it is time. Whether it changed
    /// who is ejected.
    pub(super) fn look(&mut self, now: Instant, rng: &mut impl Rng) -> bool {
        let mut changed = false;
        for watched in &self.watched {
            for kind in watched.marks.take_met() {
                let found = (watched.address, kind);
                changed |= self.outliers.eject(&self.policy, found, now, rng);
            }
        }
        if now >= self.next_sweep {
            self.next_sweep = now + self.policy.interval;
            changed |= self.sweep(now, rng);
        }
        changed
    }

    fn sweep(&mut self, now: Instant, rng: &mut impl Rng) -> bool {
        let mut tallies = Vec::with_capacity(self.watched.len());
        for watched in &mut self.watched {
            let total = watched.marks.total();
            let before = std::mem::replace(&mut watched.before, total);
            let tally = Tally {
                requests: total.requests.wrapping_sub(before.requests),
                successes: total.successes.wrapping_sub(before.successes),
            };
            tallies.push((watched.address, tally));
        }
        let out: Vec<SocketAddr> = self.outliers.ejections().map(|(out, _)| out).collect();
        let changed = self.outliers.sweep(&self.policy, &tallies, now, rng);
        for address in out {
            if !self.is_ejected(address) {
                self.forgive(address);
            }
        }
        changed
    }

    /// Ends the ejection of an endpoint that is healthy again, as its probes say.
    pub(super) fn release(&mut self, address: SocketAddr) -> bool {
        let released = self.outliers.release(address);
        if released {
            self.forgive(address);
        }
        released
    }

    fn forgive(&self, address: SocketAddr) {
        let mut watched = self.watched.iter();
        if let Some(watched) = watched.find(|watched| watched.address == address) {
            watched.marks.forgive();
        }
    }

    /// Tells log, metrics and explanations who is ejected.
    pub(super) fn tell(&self, cluster: &Cluster, shared: &ClusterShared) {
        let active: Vec<(SocketAddr, Ejection)> = self.outliers.ejections().collect();
        let told = Ejections {
            active,
            enforced: self.outliers.enforced(),
            overflows: self.outliers.overflows(),
        };
        let before = shared.ejections.replace(told.clone());
        let is_in = |list: &[(SocketAddr, Ejection)], one: SocketAddr| {
            list.iter().any(|(address, _)| *address == one)
        };
        for (address, ejection) in &told.active {
            if !is_in(&before.active, *address) {
                let (cluster, why) = (&cluster.key, ejection.kind.as_str());
                tracing::warn!(%cluster, %address, why, "an endpoint is ejected");
            }
        }
        for (address, _) in &before.active {
            if !is_in(&told.active, *address) {
                tracing::info!(cluster = %cluster.key, %address, "an endpoint is back from its ejection");
            }
        }
    }
}
