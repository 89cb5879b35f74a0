//! What a worker looks things up in: the config in force and its clusters.
//!
//! Owns the way from a route's cluster to the worker's state for it. A new config makes a new one
//! that shares what stayed; other endpoints of a cluster take the place of those before.

use std::cell::RefCell;
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
    by_key: BTreeMap<Arc<str>, Rc<Home>>,
    /// By the address of the compiled cluster, which the upstream keeps alive: a route is one
    /// cheap look-up away from its cluster's state.
    by_pointer: HashMap<usize, Rc<Home>, BuildHasherDefault<PointerHasher>>,
    /// Whether there is a cluster that is told who its clients are.
    pub(crate) introduces: bool,
}

/// Where a cluster's state is found.
#[derive(Debug)]
struct Home(RefCell<Rc<Upstream>>);

impl Home {
    fn upstream(&self) -> Rc<Upstream> {
        self.0.borrow().clone()
    }

    fn follow(&self) {
        if let Some(next) = self.upstream().follow() {
            self.0.replace(Rc::new(next));
        }
    }
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
            let before = known.map(|known| known.upstream());
            let place = match (known, &before) {
                (Some(known), Some(before)) if Arc::ptr_eq(&before.origin, cluster) => {
                    known.clone()
                }
                _ => {
                    let previous = before.as_deref();
                    let Some(upstream) = Upstream::new(shared.clone(), worker, previous) else {
                        continue;
                    };
                    Rc::new(Home(RefCell::new(Rc::new(upstream))))
                }
            };
            by_pointer.insert(Arc::as_ptr(cluster).addr(), place.clone());
            by_key.insert(cluster.key.clone(), place);
        }
        let mut clusters = snapshot.config.clusters.values();
        Self {
            introduces: clusters.any(|cluster| cluster.proxy_protocol.is_some()),
            config: snapshot.config.clone(),
            by_key,
            by_pointer,
        }
    }

    /// This worker's state of a route's cluster.
    pub(crate) fn upstream(&self, cluster: &Arc<Cluster>) -> Option<Rc<Upstream>> {
        let place = self.by_pointer.get(&Arc::as_ptr(cluster).addr());
        let place = place.or_else(|| self.by_key.get(&cluster.key));
        place.map(|place| place.upstream())
    }

    /// Other endpoints of these clusters may be chosen now; of any, if it is not known of which.
    pub(crate) fn follow(&self, moved: Option<&[Arc<str>]>) {
        match moved {
            Some(keys) => {
                let places = keys.iter().filter_map(|key| self.by_key.get(key));
                places.for_each(|place| place.follow());
            }
            None => self.by_key.values().for_each(|place| place.follow()),
        }
    }

    /// Closes idle connections that are too old.
    pub(crate) fn sweep(&self, now: Instant) {
        for place in self.by_key.values() {
            place.upstream().sweep(now);
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
