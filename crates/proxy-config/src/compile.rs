//! The linked resources to what one node's proxy runs.
//!
//! Owns the choice by `nodes` and the addresses to bind. Incremental: what did not change keeps its
//! `Arc`, and costs nothing. Never refuses: that is done in `link`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::ConfigRevision;

use crate::assemble;
use crate::compiled::{
    CompiledConfig, HttpListener, Listener, Protocol, ResourceName, Target, TcpListener,
    TlsPassthrough, UdpListener,
};
use crate::fault::Fault;
use crate::link::{Linked, attaches};
use crate::resource::{Kind, ListenerProtocol, ListenerSpec, Resource, ResourceId, Spec};
use crate::router::Router;
use crate::set::ConfigSet;

/// The most resources of a mesh; a change that leads to more is refused.
pub const RESOURCES_MAX: usize = 100_000;

/// A set of resources that is consistent: what admission accepts. Cloning shares everything.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    linked: Linked,
}

/// Whether a set of resources may come into force: every value readable, every reference resolved,
/// no two in each other's way on any node, every `expect` true.
///
/// # Errors
/// All faults.
pub fn check(set: &ConfigSet) -> Result<Checked, Vec<Fault>> {
    Checked::default().next(set)
}

impl Checked {
    /// As [`check`], at the cost of what changed since this set.
    ///
    /// # Errors
    /// All faults.
    pub fn next(&self, set: &ConfigSet) -> Result<Self, Vec<Fault>> {
        let linked = self.linked.advance(set);
        let mut faults = linked.faults();
        if set.len() > RESOURCES_MAX {
            let text = format!(
                "there would be {} resources, more than the limit of {RESOURCES_MAX}; remove some",
                set.len()
            );
            faults.push(Fault::new("config", "", &text));
        }
        if faults.is_empty() {
            Ok(Self { linked })
        } else {
            Err(faults)
        }
    }

    /// Whether this is `set`.
    pub fn is(&self, set: &ConfigSet) -> bool {
        self.linked.is(set)
    }

    /// What one node runs of it; as [`compile`], but what is compiled for every node alike is
    /// shared with this.
    pub fn compile(
        &self,
        target: &Target,
        previous: Option<&Compiled>,
        config_revision: ConfigRevision,
    ) -> Compiled {
        let previous = previous.filter(|previous| previous.target == *target);
        project(self.linked.clone(), target, previous, config_revision)
    }

    /// What is odd but harmless, such as a route that can never match.
    pub fn warnings(&self) -> Vec<Fault> {
        self.linked.warnings()
    }

    /// The resources.
    pub fn resources(&self) -> &ConfigSet {
        &self.linked.in_force
    }
}

/// What one node runs, and what it could not bring into force. Cloning shares everything but the
/// list of faults.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// What the proxy runs.
    pub config: Arc<CompiledConfig>,
    /// The faults of the resources that keep their previous version, or are left out for want of
    /// one.
    pub refused: Vec<Fault>,
    linked: Linked,
    target: Target,
}

impl Compiled {
    /// The same for all nodes, if nothing is refused.
    pub fn checked(&self) -> Option<Checked> {
        let linked = self.linked.clone();
        self.refused.is_empty().then_some(Checked { linked })
    }

    /// The resources in force, at their previous version where the newest is refused: what a node
    /// keeps as its last-known-good.
    pub fn in_force(&self) -> &ConfigSet {
        &self.linked.in_force
    }
}

/// Compiles for one node, as far as `set` is consistent. With a `previous` result for the same
/// node, the cost follows the change, and what did not change keeps its `Arc`.
pub fn compile(
    set: &ConfigSet,
    target: &Target,
    previous: Option<&Compiled>,
    config_revision: ConfigRevision,
) -> Compiled {
    let previous = previous.filter(|previous| previous.target == *target);
    let linked = match previous {
        Some(previous) => previous.linked.advance(set),
        None => Linked::default().advance(set),
    };
    project(linked, target, previous, config_revision)
}

/// What of `linked` one node runs. `previous` is for the same node.
fn project(
    linked: Linked,
    target: &Target,
    previous: Option<&Compiled>,
    config_revision: ConfigRevision,
) -> Compiled {
    let nothing = Linked::default();
    let before = previous.map_or(&nothing, |previous| &previous.linked);
    let mut config = match previous {
        Some(previous) => CompiledConfig::clone(&previous.config),
        None => CompiledConfig::default(),
    };
    config.config_revision = config_revision;
    config.defaults = linked.defaults.clone();
    config.zone = target.labels.get("zone").map(|zone| zone.as_str().into());
    let projection = Projection {
        linked: &linked,
        before,
        target,
        touched: &linked.changed_since(before),
    };
    projection.clusters(&mut config);
    projection.listeners(&mut config);
    Compiled {
        config: Arc::new(config),
        refused: linked.faults(),
        linked,
        target: target.clone(),
    }
}

/// From one linked state to the next, on one node.
struct Projection<'a> {
    linked: &'a Linked,
    before: &'a Linked,
    target: &'a Target,
    touched: &'a BTreeSet<ResourceId>,
}

impl<'a> Projection<'a> {
    /// The resource, where it is in force on this node.
    fn here(&self, state: &'a Linked, id: &ResourceId) -> Option<&'a Arc<Resource>> {
        let selected = |resource: &&Arc<Resource>| {
            let nodes = resource.metadata.nodes.as_ref();
            nodes.is_none_or(|nodes| nodes.selects(self.target))
        };
        state.in_force.resource(id).filter(selected)
    }

    fn touched(&self, kind: Kind) -> impl Iterator<Item = &'a ResourceId> {
        self.touched.iter().filter(move |id| id.kind == kind)
    }

    fn clusters(&self, config: &mut CompiledConfig) {
        for id in self.touched(Kind::Cluster) {
            let here = self.here(self.linked, id);
            let here =
                here.and_then(|_| self.linked.clusters.get(&id.name).map(|cluster| &cluster.0));
            match here {
                Some(cluster) => drop(config.clusters.insert(id.name.clone(), cluster.clone())),
                None => drop(config.clusters.remove(&id.name)),
            }
        }
    }

    fn listeners(&self, config: &mut CompiledConfig) {
        let old_routers: BTreeMap<ResourceName, Arc<Router>> = config
            .listeners
            .iter()
            .filter_map(|(name, listener)| Some((name.clone(), listener.router()?.clone())))
            .collect();
        let mut anew: BTreeMap<ResourceName, Option<Arc<Router>>> = BTreeMap::new();
        for (name, router) in &old_routers {
            if let Some(router) = self.patched(name, router) {
                anew.insert(name.clone(), Some(router));
            }
        }
        for id in self.touched(Kind::Listener) {
            let known = old_routers.get(&id.name).cloned();
            anew.entry(id.name.clone()).or_insert(known);
        }
        for (name, router) in anew {
            let id = ResourceId {
                kind: Kind::Listener,
                name: name.clone(),
            };
            let listener = self.here(self.linked, &id).and_then(|resource| {
                let Spec::Listener(spec) = &resource.spec else {
                    return None;
                };
                self.listener(resource, spec, router)
            });
            match listener {
                Some(listener) => drop(config.listeners.insert(name, Arc::new(listener))),
                None => drop(config.listeners.remove(&name)),
            }
        }
    }

    fn listener(
        &self,
        resource: &Resource,
        spec: &ListenerSpec,
        router: Option<Arc<Router>>,
    ) -> Option<Listener> {
        let name = resource.name();
        let protocol = match spec.protocol {
            ListenerProtocol::Http => {
                let router = router.unwrap_or_else(|| self.router(&name));
                let headers = assemble::header_changes(&spec.headers);
                Protocol::Http(HttpListener { router, headers })
            }
            ListenerProtocol::Tcp => {
                let to = assemble::split(spec.to.as_ref()?, resource, &self.linked.clusters)?;
                let idle_timeout = assemble::tcp_idle_timeout(spec.idle_timeout);
                Protocol::Tcp(TcpListener { to, idle_timeout })
            }
            ListenerProtocol::Udp => {
                let to = assemble::split(spec.to.as_ref()?, resource, &self.linked.clusters)?;
                let idle_timeout = assemble::udp_idle_timeout(spec.idle_timeout);
                Protocol::Udp(UdpListener { to, idle_timeout })
            }
            ListenerProtocol::TlsPassthrough => {
                let clusters = &self.linked.clusters;
                let to = match &spec.to {
                    Some(to) => Some(assemble::split(to, resource, clusters)?),
                    None => None,
                };
                Protocol::TlsPassthrough(TlsPassthrough {
                    routes: assemble::tls_routes(&spec.routes, resource, clusters)?,
                    to,
                    idle_timeout: assemble::tcp_idle_timeout(spec.idle_timeout),
                })
            }
        };
        Some(Listener {
            name,
            bind: spec.bind.resolve(self.target.proxy_ip),
            protocol,
            proxy_protocol: spec.proxy_protocol.as_ref().map(assemble::introductions),
            tls: spec
                .tls
                .as_ref()
                .map(|tls| assemble::tls::listener(tls, spec.protocol)),
        })
    }

    /// The router of a listener that had none.
    fn router(&self, listener: &ResourceName) -> Arc<Router> {
        let attached = self.linked.hosts.iter().filter_map(|(name, host)| {
            let id = ResourceId {
                kind: Kind::VirtualHost,
                name: name.clone(),
            };
            let resource = self.here(self.linked, &id)?;
            attaches(resource, listener).then(|| host.0.clone())
        });
        Arc::new(Router::new(attached))
    }

    /// The router with its virtual hosts that changed; `None` where none did.
    fn patched(&self, listener: &ResourceName, router: &Arc<Router>) -> Option<Arc<Router>> {
        let attached = |state: &'a Linked, id: &ResourceId| {
            let resource = self.here(state, id)?;
            state
                .hosts
                .get(&id.name)
                .map(|host| &host.0)
                .filter(|_| attaches(resource, listener))
        };
        let hosts: Vec<_> = self.touched(Kind::VirtualHost).collect();
        let gone: Vec<_> = hosts
            .iter()
            .filter_map(|id| attached(self.before, id))
            .collect();
        let come: Vec<_> = hosts
            .iter()
            .filter_map(|id| attached(self.linked, id))
            .collect();
        if gone.is_empty() && come.is_empty() {
            return None;
        }
        let mut next = Router::clone(router);
        // First all that go: a domain may move from one to another.
        gone.iter().for_each(|host| next.remove(host));
        come.iter().for_each(|host| next.insert(host));
        Some(Arc::new(next))
    }
}
