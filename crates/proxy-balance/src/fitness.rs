//! Which endpoints of a cluster nothing speaks against.
//!
//! Owns the sum of what is known against them. Never decides what follows from it: that is
//! `eligible`'s.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_health::{Health, HealthView};
use proxy_config::compiled::{Cluster, Endpoint};

/// For each endpoint of a cluster, in the cluster's order: whether nothing speaks against it. Cheap
/// to clone, and to compare: a balancer's tables need be made anew only if this differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitness(Arc<[bool]>);

impl Fitness {
    /// The endpoints of `cluster` that `view` does not call unhealthy, without those that are
    /// `ejected`.
    pub fn new(cluster: &Cluster, view: &HealthView, ejected: impl Fn(SocketAddr) -> bool) -> Self {
        let known = view.clusters.get(&cluster.key);
        let fit = |endpoint: &Endpoint| {
            let health = known.and_then(|endpoints| endpoints.get(&endpoint.address));
            let healthy = health.copied().unwrap_or_default() != Health::Unhealthy;
            healthy && !ejected(endpoint.address)
        };
        Self(cluster.endpoints.iter().map(fit).collect())
    }

    /// Whether nothing speaks against the endpoint at this place.
    pub fn is_fit(&self, index: usize) -> bool {
        self.0.get(index).copied().unwrap_or(false)
    }
}
