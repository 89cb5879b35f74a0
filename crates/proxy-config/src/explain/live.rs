//! What an explanation is told of the proxy while it runs.
//!
//! Owns the questions. Never knows who answers them.

use std::sync::Arc;

use super::EndpointHealth;
use crate::compiled::{Cluster, Endpoint};

/// What is known beside the config.
pub trait Live {
    /// What is known of an endpoint.
    fn health(&self, cluster: &Cluster, endpoint: &Endpoint) -> EndpointHealth;

    /// A cluster of the config with the endpoints that were found since.
    fn cluster(&self, cluster: &Arc<Cluster>) -> Arc<Cluster>;

    /// What was found for it and is not used, each with the reason.
    fn unused(&self, cluster: &Cluster) -> Vec<String>;
}

/// Nothing is known but health.
pub(super) struct HealthAlone<'a>(pub(super) &'a dyn Fn(&Cluster, &Endpoint) -> EndpointHealth);

impl Live for HealthAlone<'_> {
    fn health(&self, cluster: &Cluster, endpoint: &Endpoint) -> EndpointHealth {
        self.0(cluster, endpoint)
    }

    fn cluster(&self, cluster: &Arc<Cluster>) -> Arc<Cluster> {
        cluster.clone()
    }

    fn unused(&self, _: &Cluster) -> Vec<String> {
        Vec::new()
    }
}
