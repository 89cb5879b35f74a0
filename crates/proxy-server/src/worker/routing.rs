//! What a worker looks things up in: the config in force and its clusters.
//!
//! Owns the way from a route's cluster to the worker's state for it. Immutable; a change makes a
//! new one that shares what stayed.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use proxy_config::compiled::{Cluster, CompiledConfig};
use tokio::time::Instant;

use crate::bind::Place;
use crate::listener::Serving;
use crate::upkeep::Clusters;
use crate::upstream::Upstream;

/// What all workers are given.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) config: Arc<CompiledConfig>,
    /// By the clusters' keys.
    pub(crate) clusters: Arc<Clusters>,
    /// By where it is bound.
    pub(crate) serving: BTreeMap<Place, Serving>,
}

/// The clusters of a worker.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    pub(crate) config: Arc<CompiledConfig>,
    by_key: BTreeMap<Arc<str>, Rc<Upstream>>,
    /// By the address of the compiled cluster, which the upstream keeps alive: a route is one
    /// cheap look-up away from its cluster's state.
    by_pointer: HashMap<usize, Rc<Upstream>, BuildHasherDefault<PointerHasher>>,
}

impl Routing {
    pub(crate) fn new(snapshot: &Snapshot, worker: usize, previous: &Self) -> Self {
        let mut by_key = BTreeMap::new();
        let mut by_pointer = HashMap::default();
        for cluster in snapshot.config.clusters.values() {
            let Some(shared) = snapshot.clusters.get(&cluster.key) else {
                continue;
            };
            let known = previous.by_key.get(&cluster.key);
            let upstream = match known {
                Some(known) if Arc::ptr_eq(&known.cluster, cluster) => known.clone(),
                known => {
                    let previous = known.map(|known| &**known);
                    let Some(upstream) = Upstream::new(shared.clone(), worker, previous) else {
                        continue;
                    };
                    Rc::new(upstream)
                }
            };
            by_pointer.insert(Arc::as_ptr(cluster).addr(), upstream.clone());
            by_key.insert(cluster.key.clone(), upstream);
        }
        Self {
            config: snapshot.config.clone(),
            by_key,
            by_pointer,
        }
    }

    /// This worker's state of a route's cluster.
    pub(crate) fn upstream(&self, cluster: &Arc<Cluster>) -> Option<&Rc<Upstream>> {
        self.by_pointer
            .get(&Arc::as_ptr(cluster).addr())
            .or_else(|| self.by_key.get(&cluster.key))
    }

    /// Other endpoints of some clusters may be chosen now.
    pub(crate) fn follow(&self) {
        for upstream in self.by_key.values() {
            upstream.follow();
        }
    }

    /// Closes idle connections that are too old.
    pub(crate) fn sweep(&self, now: Instant) {
        for upstream in self.by_key.values() {
            upstream.sweep(now);
        }
    }
}

/// Spreads addresses (Fibonacci hashing; Knuth, The Art of Computer Programming, 6.4). They are
/// ours, so nobody can make them collide.
#[derive(Debug, Default)]
struct PointerHasher(u64);

impl Hasher for PointerHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
