//! The endpoints that were found for the clusters of a config, by where they were found.
//!
//! Owns the newest of them, and which clusters look where: a change concerns those alone. Keeps what
//! no cluster asks for yet: one may, with the next config.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proxy_config::compiled::{Cluster, Endpoint, Origin};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    endpoints: BTreeMap<Origin, Arc<[Endpoint]>>,
    /// The keys of the clusters with that origin.
    users: BTreeMap<Origin, BTreeSet<Arc<str>>>,
}

impl Found {
    /// From now on that is what there is. Whether it is anything new.
    pub(super) fn tell(&mut self, origin: &Origin, endpoints: Arc<[Endpoint]>) -> bool {
        let known = self.endpoints.get(origin);
        if known.map_or(endpoints.is_empty(), |known| *known == endpoints) {
            return false;
        }
        if endpoints.is_empty() {
            self.endpoints.remove(origin);
        } else {
            self.endpoints.insert(origin.clone(), endpoints);
        }
        true
    }

    /// The cluster of the config with what was found for it.
    pub(super) fn complete(&self, cluster: &Arc<Cluster>) -> Arc<Cluster> {
        cluster.with_found(|origin| self.endpoints.get(origin).map(|found| &**found))
    }

    /// A cluster of the config looks there.
    pub(super) fn enter(&mut self, cluster: &Cluster) {
        for origin in &cluster.origins {
            let users = self.users.entry(origin.clone()).or_default();
            users.insert(cluster.key.clone());
        }
    }

    /// It does not any more.
    pub(super) fn leave(&mut self, cluster: &Cluster) {
        for origin in &cluster.origins {
            if let Some(users) = self.users.get_mut(origin) {
                users.remove(&cluster.key);
                if users.is_empty() {
                    self.users.remove(origin);
                }
            }
        }
    }

    /// The keys of the clusters that look there.
    pub(super) fn users(&self, origin: &Origin) -> Vec<Arc<str>> {
        let users = self.users.get(origin).into_iter().flatten();
        users.cloned().collect()
    }
}
