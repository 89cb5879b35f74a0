//! The rules between resources.
//!
//! Owns who is to blame where two do not fit: of a change and what was in force before, the change.
//! Never asks which nodes there are: what two node selectors allow must be right.

use std::collections::BTreeSet;

use super::{Blame, Linked, attaches};
use crate::compiled::ResourceName;
use crate::expect;
use crate::fault::{Fault, nearest};
use crate::resource::selector::{covers, may_meet};
use crate::resource::{
    Kind, ListenerProtocol, ListenerSpec, NodeSelector, Resource, ResourceId, RouteSpec, Spec,
    Targets, VirtualHostSpec,
};
use crate::words::Reference;

/// The check of one resource against all others in force.
pub(super) struct Rules<'a> {
    linked: &'a Linked,
    resource: &'a Resource,
    id: ResourceId,
    candidates: &'a BTreeSet<ResourceId>,
    found: Vec<Blame>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(
        linked: &'a Linked,
        resource: &'a Resource,
        candidates: &'a BTreeSet<ResourceId>,
    ) -> Self {
        Self {
            linked,
            resource,
            id: resource.id(),
            candidates,
            found: Vec::new(),
        }
    }

    /// All faults.
    pub(super) fn check(mut self) -> Vec<Blame> {
        match &self.resource.spec {
            Spec::VirtualHost(spec) => self.check_virtual_host(spec),
            Spec::Listener(spec) => self.check_listener(spec),
            Spec::Defaults(_) | Spec::Cluster(_) => {}
        }
        self.found
    }

    fn check_virtual_host(&mut self, spec: &VirtualHostSpec) {
        for (index, route) in spec.routes.iter().enumerate() {
            if let Some(to) = &route.to {
                self.check_targets(to, &format!("routes[{index}].to"));
                self.check_subset(route, to, &format!("routes[{index}].subset"));
            }
            for (at, mirror) in route.mirror.iter().enumerate() {
                self.check_cluster(&mirror.to, &format!("routes[{index}].mirror[{at}].to"));
            }
        }
        for (index, listener) in spec.listeners.iter().flatten().enumerate() {
            self.check_attachment(listener, &format!("listeners[{index}]"));
        }
        for (index, domain) in spec.domains.iter().enumerate() {
            for other in self.linked.index.serving(domain) {
                if self.meets_host(other) {
                    let text = format!(
                        "{other} serves `{domain}` on the same listener already; remove it from one \
                         of them, or give them different listeners or nodes"
                    );
                    self.blame_one_of(other, &format!("domains[{index}]"), &text);
                }
            }
        }
        if let Some(host) = self.linked.hosts.get(&self.id.name) {
            for (path, text) in expect::run(spec, self.resource.namespace(), &host.0) {
                self.blame(self.id.clone(), &path, &text);
            }
        }
    }

    fn check_listener(&mut self, spec: &ListenerSpec) {
        if let Some(targets) = &spec.to {
            self.check_targets(targets, "to");
            if spec.protocol == ListenerProtocol::Udp {
                self.check_datagrams(targets);
            }
        }
        for (index, route) in spec.routes.iter().enumerate() {
            self.check_targets(&route.to, &format!("routes[{index}].to"));
        }
        for other in self.linked.index.on_port(spec.bind.port) {
            let Some(listener) = self.linked.in_force.resource(other) else {
                continue;
            };
            let Spec::Listener(theirs) = &listener.spec else {
                continue;
            };
            let is_udp = |spec: &ListenerSpec| spec.protocol == ListenerProtocol::Udp;
            let meets = *other != self.id
                && is_udp(spec) == is_udp(theirs)
                && spec.bind.conflicts(&theirs.bind)
                && may_meet(self.nodes(), listener.metadata.nodes.as_ref());
            if meets {
                let text = format!(
                    "`{}` is taken by {other} (`{}`); use another port, or keep the two apart by \
                     `nodes`",
                    spec.bind, theirs.bind
                );
                self.blame_one_of(other, "bind", &text);
            }
        }
    }

    fn check_targets(&mut self, targets: &Targets, path: &str) {
        for (reference, _) in targets.iter() {
            self.check_cluster(reference, path);
        }
    }

    fn check_cluster(&mut self, reference: &Reference, path: &str) {
        let name = reference.resolve(self.resource.namespace());
        let id = ResourceId {
            kind: Kind::Cluster,
            name,
        };
        match self.linked.in_force.resource(&id) {
            None => {
                let text = self.no_such(reference, Kind::Cluster);
                self.blame_reference(&id, path, &text);
            }
            Some(cluster) if !covers(cluster.metadata.nodes.as_ref(), self.nodes()) => {
                let text = format!(
                    "{id} is not on every node where this is; widen its `nodes`, or narrow these"
                );
                self.blame_reference(&id, path, &text);
            }
            Some(_) => {}
        }
    }

    /// Clusters of which something is wanted that datagrams cannot have.
    fn check_datagrams(&mut self, targets: &Targets) {
        for (reference, _) in targets.iter() {
            let name = reference.resolve(self.resource.namespace());
            let id = ResourceId {
                kind: Kind::Cluster,
                name,
            };
            let cluster = self.linked.in_force.resource(&id);
            let Some(Spec::Cluster(cluster)) = cluster.map(|resource| &resource.spec) else {
                continue;
            };
            let has_socket = cluster
                .endpoints
                .iter()
                .any(|e| e.address().socket().is_some());
            let wants = match (&cluster.tls, &cluster.proxy_protocol) {
                (Some(_), _) => Some("has `tls`"),
                (None, Some(_)) => Some("has `proxy_protocol`"),
                (None, None) => has_socket.then_some("has Unix sockets"),
            };
            if let Some(wants) = wants {
                let text =
                    format!("{id} {wants}, and a udp listener sends datagrams; name another");
                self.blame_reference(&id, "to", &text);
            }
        }
    }

    /// A subset that the cluster does not know would fall back for ever.
    fn check_subset(&mut self, route: &RouteSpec, to: &Targets, path: &str) {
        if route.subset.is_empty() {
            return;
        }
        let wanted: BTreeSet<&String> = route.subset.keys().collect();
        for (reference, _) in to.iter() {
            let name = reference.resolve(self.resource.namespace());
            let id = ResourceId {
                kind: Kind::Cluster,
                name,
            };
            let cluster = self.linked.in_force.resource(&id);
            let Some(Spec::Cluster(cluster)) = cluster.map(|resource| &resource.spec) else {
                continue;
            };
            let mut keys = cluster.subsets.iter().flat_map(|subsets| &subsets.keys);
            if !keys.any(|names| names.iter().collect::<BTreeSet<_>>() == wanted) {
                let names: Vec<&str> = wanted.iter().map(|name| name.as_str()).collect();
                let names = names.join(", ");
                let text = format!(
                    "{id} is not divided by [{names}]; add this list to its `subsets.keys`, or ask \
                     for labels that are there"
                );
                self.blame_reference(&id, path, &text);
            }
        }
    }

    fn check_attachment(&mut self, reference: &Reference, path: &str) {
        let name = reference.resolve(self.resource.namespace());
        let id = ResourceId {
            kind: Kind::Listener,
            name,
        };
        let Some(listener) = self.linked.in_force.resource(&id) else {
            let text = self.no_such(reference, Kind::Listener);
            return self.blame_reference(&id, path, &text);
        };
        let is_http = |spec: &ListenerSpec| spec.protocol == ListenerProtocol::Http;
        if !matches!(&listener.spec, Spec::Listener(spec) if is_http(spec)) {
            let text = format!("{id} is not an http listener; name one with `protocol: http`");
            self.blame_reference(&id, path, &text);
        }
        if !may_meet(listener.metadata.nodes.as_ref(), self.nodes()) {
            let text = format!("{id} is on none of the nodes where this is; let the `nodes` meet");
            self.blame_reference(&id, path, &text);
        }
    }

    fn nodes(&self) -> Option<&'a NodeSelector> {
        self.resource.metadata.nodes.as_ref()
    }

    /// Whether another virtual host could be on the same listener of the same node.
    fn meets_host(&self, other: &ResourceId) -> bool {
        let Some(host) = self.linked.in_force.resource(other) else {
            return false;
        };
        *other != self.id
            && may_meet(self.nodes(), host.metadata.nodes.as_ref())
            && share_listener(self.resource, host)
    }

    fn no_such(&self, reference: &Reference, kind: Kind) -> String {
        let namespace = self.resource.namespace();
        let written = reference.to_string();
        let known: Vec<String> = self
            .linked
            .in_force
            .resources()
            .filter(|resource| resource.kind() == kind)
            .map(|resource| spelled(&resource.name(), namespace))
            .collect();
        let remedy = match nearest(&written, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add a {kind} of this name, or name another"),
        };
        format!("there is no {kind} `{written}`; {remedy}")
    }

    /// A reference that does not hold: who changed is to blame.
    fn blame_reference(&mut self, target: &ResourceId, path: &str, text: &str) {
        let mine = self.candidates.contains(&self.id) || !self.candidates.contains(target);
        self.blame(
            if mine {
                self.id.clone()
            } else {
                target.clone()
            },
            path,
            text,
        );
    }

    /// Two that are in each other's way: who changed is to blame, of two the later by name.
    fn blame_one_of(&mut self, other: &ResourceId, path: &str, text: &str) {
        let both = self.candidates.contains(&self.id) && self.candidates.contains(other);
        if self.candidates.contains(&self.id) && (!both || self.id > *other) {
            self.blame(self.id.clone(), path, text);
        }
    }

    fn blame(&mut self, on: ResourceId, path: &str, text: &str) {
        let fault = Fault::new(self.id.to_string(), path, text).at(self.resource.location.clone());
        self.found.push(Blame { on, fault });
    }
}

/// How a resource in `namespace` would write this name.
fn spelled(name: &ResourceName, namespace: &str) -> String {
    if *name.namespace == *namespace {
        name.name.to_string()
    } else {
        format!("{}/{}", name.namespace, name.name)
    }
}

fn share_listener(one: &Resource, other: &Resource) -> bool {
    match &one.spec {
        Spec::VirtualHost(spec) => match &spec.listeners {
            None => true,
            Some(listeners) => listeners
                .iter()
                .any(|listener| attaches(other, &listener.resolve(one.namespace()))),
        },
        _ => false,
    }
}
