//! Which endpoint a request goes to, as this worker sees them.
//!
//! Owns what the balancer is told: health, requests in flight, response times, and since when an
//! endpoint may be chosen. The algorithms are `proxy-balance`'s.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_health::HealthView;
use proxy_balance::{Ask, Eligible, Load};
use proxy_config::compiled::{Balance, Cluster};
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::Upstream;

/// What was found eligible last, shared by the workers of a node: the tables of a cluster are made
/// once, by the worker that needs them first. The lock is taken when config or health changes, never
/// for a request.
#[derive(Debug, Default)]
pub(super) struct LastEligible(Mutex<Option<(Arc<Cluster>, Eligible)>>);

impl LastEligible {
    /// The eligible endpoints of `cluster` on a node of this zone, which never changes.
    pub(super) fn of(
        &self,
        cluster: &Arc<Cluster>,
        health: &HealthView,
        zone: Option<&str>,
    ) -> Eligible {
        // Whoever panicked here left what was there before.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, eligible))
                if Arc::ptr_eq(known, cluster) && eligible.holds(cluster, health) =>
            {
                eligible.clone()
            }
            _ => {
                let eligible = Eligible::new(cluster, health, zone);
                *last = Some((cluster.clone(), eligible.clone()));
                eligible
            }
        }
    }
}

impl Upstream {
    /// The mesh changed its mind about some endpoints.
    pub(crate) fn set_health(&self, health: &HealthView) {
        if !self.eligible.borrow().holds(&self.cluster, health) {
            let zone = self.zone.as_deref();
            let eligible = self.shared.eligible.of(&self.cluster, health, zone);
            *self.eligible.borrow_mut() = eligible;
            self.note_eligible(Instant::now());
        }
    }

    /// Notes which endpoints may be chosen from now on, and which no more.
    pub(super) fn note_eligible(&self, now: Instant) {
        let mut chosen = vec![false; self.endpoints.len()];
        for index in self.eligible.borrow().indices() {
            chosen[index] = true;
        }
        for (endpoint, chosen) in self.endpoints.iter().zip(chosen) {
            let since = chosen.then(|| endpoint.eligible_since.get().unwrap_or(now));
            endpoint.eligible_since.set(since);
        }
        let since = self.endpoints.iter().map(|e| e.eligible_since.get());
        self.youngest_since.set(since.max().flatten());
    }

    /// The endpoint for the next try, if any can be used.
    pub(crate) fn pick(&self, rng: &mut SmallRng, ask: Ask<'_>) -> Option<usize> {
        let timed = self.is_measured() || self.cluster.slow_start.is_some();
        let load = LoadNow {
            upstream: self,
            now: timed.then(Instant::now),
        };
        self.balancer
            .borrow_mut()
            .pick(&self.eligible.borrow(), &load, rng, ask)
    }

    /// Whether the balancer wants to know how long answers take.
    fn is_measured(&self) -> bool {
        self.cluster.balance == Balance::PeakEwma
    }

    /// An endpoint's answer to what was sent then has begun.
    pub(crate) fn answered(&self, endpoint: usize, sent: Instant) {
        if self.is_measured() {
            let now = Instant::now();
            let cell = &self.endpoints[endpoint].ewma;
            let mut ewma = cell.get();
            ewma.observe(now - sent, now.into_std());
            cell.set(ewma);
        }
    }

    /// An endpoint gave no answer, which was known after `took`.
    pub(crate) fn failed(&self, endpoint: usize, took: impl FnOnce() -> Duration) {
        if self.is_measured() {
            let cell = &self.endpoints[endpoint].ewma;
            let mut ewma = cell.get();
            ewma.fail(took(), Instant::now().into_std());
            cell.set(ewma);
        }
    }
}

/// The endpoints of an upstream at one instant, which is not looked up where time plays no part.
struct LoadNow<'a> {
    upstream: &'a Upstream,
    now: Option<Instant>,
}

impl LoadNow<'_> {
    fn since(&self, then: Option<Instant>) -> Duration {
        match (self.now, then) {
            (Some(now), Some(then)) => now.saturating_duration_since(then),
            _ => Duration::MAX,
        }
    }
}

impl Load for LoadNow<'_> {
    fn active(&self, index: usize) -> u32 {
        self.upstream.endpoints[index].active()
    }

    fn response_time(&self, index: usize) -> f64 {
        let endpoint = &self.upstream.endpoints[index];
        let idle = endpoint.active() == 0;
        self.now
            .map_or(1.0, |now| endpoint.ewma.get().seconds(now.into_std(), idle))
    }

    fn age(&self, index: usize) -> Duration {
        self.since(self.upstream.endpoints[index].eligible_since.get())
    }

    fn youngest(&self) -> Duration {
        self.since(self.upstream.youngest_since.get())
    }
}

#[cfg(test)]
mod tests;
