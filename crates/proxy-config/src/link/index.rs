//! Who refers to what, who has which port, who serves which domain.
//!
//! Owns the way from a change to what it concerns. Never judges.

use imbl::OrdMap;

use super::IdSet;
use crate::host::Authority;
use crate::resource::{Kind, Resource, ResourceId, Spec, Targets};

/// The indexes over the resources in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    users: OrdMap<ResourceId, IdSet>,
    ports: OrdMap<u16, IdSet>,
    domains: OrdMap<Authority, IdSet>,
}

impl Index {
    /// The resources that refer to this one, whether it is there or not.
    pub(super) fn users(&self, id: &ResourceId) -> impl Iterator<Item = &ResourceId> {
        self.users.get(id).into_iter().flatten()
    }

    /// The listeners on this port.
    pub(super) fn on_port(&self, port: u16) -> impl Iterator<Item = &ResourceId> {
        self.ports.get(&port).into_iter().flatten()
    }

    /// The virtual hosts with this very domain.
    pub(super) fn serving(&self, domain: &Authority) -> impl Iterator<Item = &ResourceId> {
        self.domains.get(domain).into_iter().flatten()
    }

    pub(super) fn insert(&mut self, resource: &Resource) {
        self.update(resource, |set, id| {
            set.insert(id.clone());
        });
    }

    pub(super) fn remove(&mut self, resource: &Resource) {
        self.update(resource, |set, id| {
            set.remove(id);
        });
    }

    fn update(&mut self, resource: &Resource, change: impl Fn(&mut IdSet, &ResourceId)) {
        let id = resource.id();
        for used in references(resource) {
            change_entry(&mut self.users, used, |set| change(set, &id));
        }
        match &resource.spec {
            Spec::Listener(spec) => {
                change_entry(&mut self.ports, spec.bind.port, |set| change(set, &id));
            }
            Spec::VirtualHost(spec) => {
                for domain in &spec.domains {
                    change_entry(&mut self.domains, domain.clone(), |set| change(set, &id));
                }
            }
            Spec::Defaults(_) | Spec::Cluster(_) => {}
        }
    }
}

/// Changes the set under a key; an empty set is no entry.
fn change_entry<K: Ord + Clone>(
    map: &mut OrdMap<K, IdSet>,
    key: K,
    change: impl FnOnce(&mut IdSet),
) {
    let mut set = map.get(&key).cloned().unwrap_or_default();
    change(&mut set);
    if set.is_empty() {
        map.remove(&key);
    } else {
        map.insert(key, set);
    }
}

/// The resources that this one names, once or several times.
fn references(resource: &Resource) -> Vec<ResourceId> {
    let namespace = resource.namespace();
    let clusters = |targets: &Targets| -> Vec<ResourceId> {
        let id = |name| ResourceId {
            kind: Kind::Cluster,
            name,
        };
        targets
            .iter()
            .map(|(cluster, _)| id(cluster.resolve(namespace)))
            .collect()
    };
    match &resource.spec {
        Spec::VirtualHost(spec) => {
            let listeners = spec.listeners.iter().flatten().map(|listener| ResourceId {
                kind: Kind::Listener,
                name: listener.resolve(namespace),
            });
            let mirrors = spec.routes.iter().flat_map(|route| &route.mirror);
            let mirrors = mirrors.map(|mirror| ResourceId {
                kind: Kind::Cluster,
                name: mirror.to.resolve(namespace),
            });
            let mut all: Vec<_> = spec
                .routes
                .iter()
                .filter_map(|route| route.to.as_ref())
                .flat_map(clusters)
                .chain(listeners)
                .chain(mirrors)
                .collect();
            all.sort_unstable();
            all.dedup();
            all
        }
        Spec::Listener(spec) => {
            let routes = spec.routes.iter().map(|route| &route.to);
            spec.to.iter().chain(routes).flat_map(clusters).collect()
        }
        Spec::Defaults(_) | Spec::Cluster(_) => Vec::new(),
    }
}
