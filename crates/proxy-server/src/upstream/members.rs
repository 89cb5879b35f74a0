//! A cluster's endpoints and who of them may be chosen, worked out once for all workers of a node.
//!
//! Owns the hand-over from the thread that works it out to the workers. Never works anything out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use proxy_balance::Groups;
use proxy_config::compiled::Cluster;

use super::marks::Marks;

/// What workers serve a cluster by. Immutable: a change makes a new one.
#[derive(Debug)]
pub(crate) struct Members {
    /// As the config has it.
    pub(crate) origin: Arc<Cluster>,
    /// With the endpoints that were found.
    pub(crate) cluster: Arc<Cluster>,
    /// Of the endpoints of that cluster.
    pub(crate) groups: Groups,
    /// Where workers count what outliers are known by, in the order of these endpoints; empty where
    /// nobody looks for outliers.
    pub(crate) marks: Arc<[Arc<Marks>]>,
}

/// The newest members of a cluster. The lock is taken when they change, never for a request.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Grows with each change, so that who looks for news takes no lock where there are none.
    version: AtomicU64,
    newest: Mutex<Option<Arc<Members>>>,
}

impl Published {
    pub(crate) fn publish(&self, members: Arc<Members>) {
        // Whoever panicked here left what was there before.
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(members);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// How often they changed.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The newest ones; `None`: none were worked out yet.
    pub(crate) fn newest(&self) -> Option<Arc<Members>> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.clone()
    }
}
