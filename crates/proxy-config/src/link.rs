//! Which resources are in force together: every reference resolves and nothing gets into another's
//! way.
//!
//! Owns the largest consistent set that a change of config allows: what is at fault keeps its
//! previous version, the rest comes into force. Cost follows the change, by indexes of who refers
//! to what. Never knows for which node this is: what holds here holds on every node.

mod index;
mod rules;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};

use crate::assemble::{self, Base};
use crate::compiled::{Cluster, Defaults, ResourceName};
use crate::fault::Fault;
use crate::resource::{Kind, Resource, ResourceId, Spec};
use crate::router::VirtualHost;
use crate::set::ConfigSet;
use crate::words::DEFAULT_NAMESPACE;
use index::Index;
use rules::Rules;

/// The resources in force, linked, and what was refused. Cloning shares everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Linked {
    /// What was asked for.
    wanted: ConfigSet,
    /// What is in force: consistent always.
    pub(crate) in_force: ConfigSet,
    index: Index,
    pub(crate) clusters: OrdMap<ResourceName, Shared<Cluster>>,
    pub(crate) hosts: OrdMap<ResourceName, Shared<VirtualHost>>,
    pub(crate) defaults: Arc<Defaults>,
    /// Why a resource is not in force as wanted.
    refused: OrdMap<ResourceId, Arc<[Fault]>>,
    /// What is odd but harmless.
    warnings: OrdMap<ResourceId, Arc<[Fault]>>,
}

/// A fault and the resource whose change brought it about.
struct Blame {
    on: ResourceId,
    fault: Fault,
}

impl Linked {
    /// Brings `wanted` into force as far as it is consistent.
    pub(crate) fn advance(&self, wanted: &ConfigSet) -> Self {
        let mut candidates: BTreeSet<_> = wanted.changed_since(&self.wanted).collect();
        candidates.extend(self.refused.keys().cloned());
        let mut refused: BTreeMap<ResourceId, Vec<Fault>> = BTreeMap::new();
        candidates.retain(|id| match wanted.entry(id).map(|entry| &entry.content) {
            Some(Err(faults)) => {
                refused.insert(id.clone(), faults.to_vec());
                false
            }
            _ => true,
        });
        // Every round backs out at least one change; with none left, what was in force stays so.
        loop {
            let (mut trial, blames) = self.attempt(wanted, &candidates);
            if blames.is_empty() {
                let shared = |(id, faults): (ResourceId, Vec<Fault>)| (id, Arc::from(faults));
                trial.refused = refused.into_iter().map(shared).collect();
                return trial;
            }
            let before = candidates.len();
            for Blame { on, fault } in blames {
                candidates.remove(&on);
                refused.entry(on).or_default().push(fault);
            }
            debug_assert!(candidates.len() < before, "every blame is on a change");
            if candidates.len() == before {
                candidates.clear();
            }
        }
    }

    /// Whether this is `wanted`, all of it in force.
    pub(crate) fn is(&self, wanted: &ConfigSet) -> bool {
        self.refused.is_empty() && wanted.is(&self.wanted)
    }

    /// The resources that are not compiled as in `older`. The cost follows the difference where one
    /// came from the other.
    pub(crate) fn changed_since(&self, older: &Self) -> BTreeSet<ResourceId> {
        let id = |kind| move |name: ResourceName| ResourceId { kind, name };
        let clusters = changed(&older.clusters, &self.clusters).map(id(Kind::Cluster));
        let hosts = changed(&older.hosts, &self.hosts).map(id(Kind::VirtualHost));
        let mut all: BTreeSet<_> = clusters.chain(hosts).collect();
        all.extend(self.in_force.changed_since(&older.in_force));
        // A listener is compiled for its node, of the clusters that it names.
        self.touched(&all, self.base() == older.base())
    }

    /// The faults of what is refused, keys that are none of a resource among them. Each is told
    /// once, also where it holds back two resources.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let refused = self.refused.values().flat_map(|faults| faults.iter());
        let mut seen = HashSet::new();
        let all = refused.chain(self.wanted.stray_faults());
        all.filter(|fault| seen.insert(*fault)).cloned().collect()
    }

    pub(crate) fn warnings(&self) -> Vec<Fault> {
        self.warnings
            .values()
            .flat_map(|faults| faults.iter())
            .cloned()
            .collect()
    }

    /// Brings these changes into force, whatever comes of it.
    fn attempt(&self, wanted: &ConfigSet, candidates: &BTreeSet<ResourceId>) -> (Self, Vec<Blame>) {
        let mut trial = Self {
            wanted: wanted.clone(),
            ..self.clone()
        };
        for id in candidates {
            if let Some(old) = self.in_force.resource(id) {
                trial.index.remove(old);
            }
            if let Some(new) = wanted.resource(id) {
                trial.index.insert(new);
            }
            trial.in_force.adopt(id, wanted);
        }
        let base = trial.base();
        let touched = trial.touched(candidates, base == self.base());
        trial.defaults = match trial.defaults_resource() {
            Some(spec) => Arc::new(assemble::defaults(spec)),
            None => Arc::default(),
        };
        if *trial.defaults == *self.defaults {
            trial.defaults = self.defaults.clone();
        }
        // By kind: a cluster is there before the virtual host that it is compiled into.
        for id in &touched {
            trial.warnings.remove(id);
            match trial.in_force.resource(id).cloned() {
                Some(resource) => trial.compile(&resource, &base),
                None => trial.forget(id),
            }
        }
        let listeners = candidates.iter().filter(|id| id.kind == Kind::Listener);
        let attached = listeners.flat_map(|id| trial.index.users(id)).cloned();
        let checked: BTreeSet<_> = attached.chain(touched.iter().cloned()).collect();
        let resources = checked.iter().filter_map(|id| trial.in_force.resource(id));
        let blames = resources.flat_map(|resource| trial.rules(resource, candidates).check());
        let blames = blames.collect();
        (trial, blames)
    }

    /// What must be compiled anew after these changes.
    fn touched(&self, candidates: &BTreeSet<ResourceId>, same_base: bool) -> BTreeSet<ResourceId> {
        let mut touched = candidates.clone();
        for cluster in candidates.iter().filter(|id| id.kind == Kind::Cluster) {
            touched.extend(self.index.users(cluster).cloned());
        }
        if !same_base {
            let all = self.in_force.resources().map(|resource| resource.id());
            touched.extend(all.filter(|id| id.kind != Kind::Defaults));
        }
        touched
    }

    fn compile(&mut self, resource: &Arc<Resource>, base: &Base) {
        match &resource.spec {
            Spec::Cluster(spec) => {
                let cluster = assemble::cluster(resource, spec, base);
                self.clusters
                    .insert(resource.name(), Shared(Arc::new(cluster)));
            }
            Spec::VirtualHost(spec) => {
                match assemble::virtual_host(resource, spec, base, &self.clusters) {
                    Some(host) => {
                        self.hosts.insert(resource.name(), Shared(Arc::new(host)));
                    }
                    // A cluster is missing: the rules say so.
                    None => drop(self.hosts.remove(&resource.name())),
                }
                let warnings = self.unreachable(resource);
                if !warnings.is_empty() {
                    self.warnings.insert(resource.id(), warnings.into());
                }
            }
            // A listener is compiled for its node.
            Spec::Defaults(_) | Spec::Listener(_) => {}
        }
    }

    fn forget(&mut self, id: &ResourceId) {
        match id.kind {
            Kind::Cluster => drop(self.clusters.remove(&id.name)),
            Kind::VirtualHost => drop(self.hosts.remove(&id.name)),
            Kind::Defaults | Kind::Listener => {}
        }
    }

    fn unreachable(&self, resource: &Resource) -> Vec<Fault> {
        let Some(host) = self.hosts.get(&resource.name()) else {
            return Vec::new();
        };
        let warning = |(index, by): (usize, usize)| {
            let text = format!(
                "this route can never match, for routes[{by}] takes all its requests before; move it \
                 before that one, or remove it"
            );
            Fault::new(resource.id().to_string(), format!("routes[{index}]"), &text)
                .at(resource.location.clone())
        };
        host.0.unreachable().into_iter().map(warning).collect()
    }

    fn base(&self) -> Base {
        Base::new(self.defaults_resource())
    }

    fn defaults_resource(&self) -> Option<&crate::resource::DefaultsSpec> {
        let name = ResourceName {
            namespace: DEFAULT_NAMESPACE.into(),
            name: DEFAULT_NAMESPACE.into(),
        };
        match &self
            .in_force
            .resource(&ResourceId {
                kind: Kind::Defaults,
                name,
            })?
            .spec
        {
            Spec::Defaults(spec) => Some(spec),
            _ => None,
        }
    }

    fn rules<'a>(
        &'a self,
        resource: &'a Resource,
        candidates: &'a BTreeSet<ResourceId>,
    ) -> Rules<'a> {
        Rules::new(self, resource, candidates)
    }
}

/// Whether a virtual host attaches to a listener: to those that it names, else to all.
pub(crate) fn attaches(resource: &Resource, listener: &ResourceName) -> bool {
    match &resource.spec {
        Spec::VirtualHost(spec) => spec.listeners.as_ref().is_none_or(|listeners| {
            listeners
                .iter()
                .any(|named| named.resolve(resource.namespace()) == *listener)
        }),
        _ => false,
    }
}

type IdSet = OrdSet<ResourceId>;

/// What is shared, and equal to itself alone: what is compiled anew differs, whatever came of it.
#[derive(Debug)]
pub(crate) struct Shared<T>(pub(crate) Arc<T>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The keys of what differs.
pub(crate) fn changed<'a, K: Ord + Clone, V: PartialEq>(
    older: &'a OrdMap<K, V>,
    newer: &'a OrdMap<K, V>,
) -> impl Iterator<Item = K> + 'a {
    older.diff(newer).map(|item| match item {
        DiffItem::Add(key, _)
        | DiffItem::Remove(key, _)
        | DiffItem::Update { new: (key, _), .. } => key.clone(),
    })
}

#[cfg(test)]
mod tests;
