//! Which endpoint a request goes to, as this worker sees them.
//!
//! Owns what the balancer is told: health, requests in flight, response times, and since when an
//! endpoint may be chosen. The algorithms are `proxy-balance`'s.

use std::sync::Arc;
use std::time::Duration;

use proxy_balance::{Ask, Eligible, Load};
use proxy_config::compiled::{Balance, Labels};
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::{Seen, Upstream};

impl Upstream {
    /// Takes over what changed about who may be chosen, if anything did. Where the endpoints
    /// themselves changed: what serves by them from now on.
    pub(crate) fn follow(&self) -> Option<Self> {
        let version = self.shared.members.version();
        if version == self.version.get() {
            return None;
        }
        let members = self.shared.members.newest()?;
        if !Arc::ptr_eq(&members.origin, &self.origin) {
            // They are of a config that this worker is about to get.
            return None;
        }
        if !Arc::ptr_eq(&members.cluster, &self.cluster) {
            return Some(self.with(&members, version));
        }
        self.version.set(version);
        *self.groups.borrow_mut() = members.groups.clone();
        self.note_eligible(Instant::now());
        None
    }

    /// Notes which endpoints may be chosen from now on, and which no more.
    pub(super) fn note_eligible(&self, now: Instant) {
        let mut chosen = vec![false; self.endpoints.len()];
        for index in self.groups.borrow().iter().flat_map(Eligible::indices) {
            chosen[index] = true;
        }
        for (endpoint, chosen) in self.endpoints.iter().zip(chosen) {
            let since = chosen.then(|| endpoint.eligible_since.get().unwrap_or(now));
            endpoint.eligible_since.set(since);
        }
        let since = self.endpoints.iter().map(|e| e.eligible_since.get());
        self.youngest_since.set(since.max().flatten());
    }

    /// The places of the endpoints that may be chosen.
    #[cfg(test)]
    pub(crate) fn eligible_now(&self) -> Vec<usize> {
        let groups = self.groups.borrow();
        groups
            .group(proxy_balance::Groups::WHOLE)
            .unwrap()
            .indices()
            .collect()
    }

    /// The group of endpoints for requests that want this subset, if any; `None`: there is no
    /// endpoint for them.
    pub(crate) fn group(&self, subset: Option<&Labels>) -> Option<usize> {
        self.groups.borrow().number(subset)
    }

    /// The endpoint for the next try, of the group of this number, if any can be used.
    pub(crate) fn pick(&self, rng: &mut SmallRng, group: usize, ask: Ask<'_>) -> Option<usize> {
        let timed = self.is_measured() || self.cluster.slow_start.is_some();
        let load = LoadNow {
            upstream: self,
            now: timed.then(Instant::now),
        };
        let (groups, mut balancers) = (self.groups.borrow(), self.balancers.borrow_mut());
        let balancer = balancers.get_mut(group)?;
        balancer.pick(groups.group(group)?, &load, rng, ask)
    }

    /// Whether the balancer wants to know how long answers take.
    fn is_measured(&self) -> bool {
        self.cluster.balance == Balance::PeakEwma
    }

    fn see(&self, endpoint: usize, seen: Seen) {
        if let Some(policy) = &self.cluster.outlier
            && let Some(marks) = self.marks.get(endpoint)
        {
            marks.see(self.worker, policy, seen);
        }
    }

    /// An endpoint's answer to what was sent then has begun, with this status; 200 stands for what
    /// has none.
    pub(crate) fn answered(&self, endpoint: usize, status: u16, sent: Instant) {
        self.see(endpoint, Seen::Status(status));
        if self.is_measured() {
            let now = Instant::now();
            let cell = &self.endpoints[endpoint].ewma;
            let mut ewma = cell.get();
            ewma.observe(now - sent, now.into_std());
            cell.set(ewma);
        }
    }

    /// An endpoint gave no answer, which was known after `took`.
    pub(crate) fn failed(&self, endpoint: usize, seen: Seen, took: impl FnOnce() -> Duration) {
        self.see(endpoint, seen);
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
