//! What may be in flight to a cluster from the whole node.
//!
//! Owns the numbers that all workers share. They change when connections are made, requests have to
//! wait or are tried again, never on the path of a request that finds an idle connection.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use proxy_config::compiled::Limits;
use tls::Calling;

use super::ejections::Told;
use super::members::Published;
use crate::counters::ClusterCounters;

/// A cluster's numbers, shared by all workers and kept over config changes.
#[derive(Debug)]
pub(crate) struct ClusterShared {
    /// By the number of the worker.
    pub(crate) workers: Box<[ClusterCounters]>,
    pub(crate) members: Published,
    pub(crate) ejections: Told,
    /// How its endpoints are called with TLS. The lock is taken for new connections only.
    calling: Mutex<Option<Arc<Calling>>>,
    connections: AtomicU32,
    pending: AtomicU32,
    retries: AtomicU32,
}

/// What a [`Permit`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Connection,
    Pending,
    Retry,
}

/// Holds one place within a limit, and gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    shared: Arc<ClusterShared>,
    held: Use,
}

impl ClusterShared {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| ClusterCounters::default()).collect(),
            members: Published::default(),
            ejections: Told::default(),
            calling: Mutex::default(),
            connections: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            retries: AtomicU32::new(0),
        }
    }

    /// How its endpoints are called with TLS, if that could be loaded.
    pub(crate) fn calling(&self) -> Option<Arc<Calling>> {
        let calling = self.calling.lock();
        calling.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on they are called so.
    pub(crate) fn set_calling(&self, calling: Arc<Calling>) {
        let mut known = self.calling.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(calling);
    }

    /// A place among the connections; `None` at the limit.
    pub(crate) fn connection(self: &Arc<Self>, limits: &Limits) -> Option<Permit> {
        self.acquire(Use::Connection, limits.connections)
    }

    /// A place among the requests that wait for a connection; `None` at the limit.
    pub(crate) fn pending(self: &Arc<Self>, limits: &Limits) -> Option<Permit> {
        self.acquire(Use::Pending, limits.pending)
    }

    /// A place among the retries, which is held from the decision (so back-off counts) to the end
    /// of the try; `None` when the budget is used up.
    pub(crate) fn retry(self: &Arc<Self>, limits: &Limits) -> Option<Permit> {
        let active: u64 = self
            .workers
            .iter()
            .map(|worker| worker.requests_active.read())
            .sum();
        let share = active.saturating_mul(u64::from(limits.retry_budget)) / 100;
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        self.acquire(Use::Retry, share.max(limits.retries))
    }

    /// How many requests of the node wait for a connection.
    pub(crate) fn starving(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Connections, waiting requests and retries, for metrics.
    pub(crate) fn in_use(&self) -> [u32; 3] {
        [Use::Connection, Use::Pending, Use::Retry]
            .map(|held| self.number(held).load(Ordering::Relaxed))
    }

    fn number(&self, held: Use) -> &AtomicU32 {
        match held {
            Use::Connection => &self.connections,
            Use::Pending => &self.pending,
            Use::Retry => &self.retries,
        }
    }

    fn acquire(self: &Arc<Self>, held: Use, max: u32) -> Option<Permit> {
        let below = |now: u32| (now < max).then(|| now + 1);
        self.number(held)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .ok()?;
        Some(Permit {
            shared: self.clone(),
            held,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared
            .number(self.held)
            .fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Arc<ClusterShared> {
        Arc::new(ClusterShared::new(2))
    }

    const LIMITS: Limits = Limits {
        connections: 2,
        pending: 1,
        retries: 3,
        retry_budget: 20,
    };

    #[test]
    fn permits_end_at_the_limit_and_come_back() {
        let shared = shared();
        let first = shared.connection(&LIMITS).unwrap();
        let _second = shared.connection(&LIMITS).unwrap();
        assert!(shared.connection(&LIMITS).is_none());
        drop(first);
        assert!(shared.connection(&LIMITS).is_some());
        let _pending = shared.pending(&LIMITS).unwrap();
        assert!(shared.pending(&LIMITS).is_none());
        assert_eq!((shared.starving(), shared.in_use()), (1, [1, 1, 0]));
    }

    #[test]
    fn the_retry_budget_is_a_share_of_the_active_with_a_floor() {
        let shared = shared();
        let held = || {
            let mut held = Vec::new();
            while let Some(permit) = shared.retry(&LIMITS) {
                held.push(permit);
            }
            held.len()
        };
        assert_eq!(held(), 3);
        shared.workers[0].requests_active.add(60);
        shared.workers[1].requests_active.add(40);
        assert_eq!(held(), 20);
    }
}
