//! The merged opinion of the mesh about every probed endpoint: what balancers read.
//!
//! Owns the look-up. Never decides a verdict (that is `merge`) and never adds or removes endpoints:
//! an endpoint that is not in the view is unknown, and unknown is eligible.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// One endpoint of one cluster, as health reports name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// The cluster as `namespace/name`.
    pub cluster: Arc<str>,
    /// The endpoint's address.
    pub address: SocketAddr,
}

/// What the mesh thinks of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// Nobody reported yet: eligible.
    #[default]
    Unknown,
    /// Enough fresh observers reach it.
    Healthy,
    /// Enough fresh observers fail to reach it.
    Unhealthy,
}

/// The merged opinion of every probed endpoint, immutable, shared by all workers of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthView {
    /// Grows with every change, so that readers see that something moved.
    pub version: u64,
    /// By cluster (`namespace/name`), then by address.
    pub clusters: BTreeMap<Arc<str>, BTreeMap<SocketAddr, Health>>,
}

impl HealthView {
    /// The opinion about `address` in `cluster` (`namespace/name`).
    pub fn health(&self, cluster: &str, address: SocketAddr) -> Health {
        self.clusters
            .get(cluster)
            .and_then(|endpoints| endpoints.get(&address))
            .copied()
            .unwrap_or_default()
    }
}
