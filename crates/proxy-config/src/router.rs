//! Finds the route of a request: first the virtual host by host, then its first matching route.
//!
//! Owns the order of precedence. Look-up cost depends on the request, not on how many hosts and
//! routes there are. Never normalises a path: the caller gives the result of `normalize_path`.

mod conditions;
mod table;
#[cfg(test)]
mod tests;
mod value;

use std::borrow::Cow;
use std::sync::Arc;

use imbl::OrdMap;

use crate::compiled::{ResourceName, Route};
use crate::host::{Authority, Domain, split_host};

pub use conditions::{Conditions, Mismatch, PathCondition};
use table::RouteTable;
pub use value::{HeaderCondition, QueryCondition, ValueCondition};

/// Fixed keys: what is looked up never enters a map, so an attacker cannot make collisions, and
/// this crate draws no randomness.
type HashMap<K, V> =
    std::collections::HashMap<K, V, std::hash::BuildHasherDefault<std::hash::DefaultHasher>>;
type HostMap = imbl::GenericHashMap<
    Arc<str>,
    Arc<VirtualHost>,
    std::hash::BuildHasherDefault<std::hash::DefaultHasher>,
    imbl::shared_ptr::DefaultSharedPtr,
>;

/// What routing looks at.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// The host as the client sent it, with its port if it has one.
    pub host: &'a str,
    /// The path as `normalize_path` returns it, without the query.
    pub path: &'a str,
    /// The query as the client sent it, without its question mark; empty if there is none.
    pub query: &'a str,
    /// The method, in capitals.
    pub method: &'a str,
    /// The value of a header by its lower-case name. Several are one list, joined by `, ` (RFC 9110,
    /// 5.3): whoever saw only one of them could be shown another than the upstream reads.
    pub header: &'a dyn Fn(&str) -> Option<Cow<'a, str>>,
}

/// The route that a request takes.
#[derive(Debug, Clone, Copy)]
pub struct RouteMatch<'a> {
    /// The route.
    pub route: &'a Arc<Route>,
    /// The virtual host that it belongs to.
    pub virtual_host: &'a Arc<VirtualHost>,
}

/// The routes of some domains.
#[derive(Debug)]
pub struct VirtualHost {
    name: ResourceName,
    domains: Box<[Authority]>,
    table: RouteTable,
}

impl VirtualHost {
    /// A virtual host whose routes are tried in the given order.
    pub fn new(
        name: ResourceName,
        domains: impl IntoIterator<Item: Into<Authority>>,
        routes: Vec<(Conditions, Arc<Route>)>,
    ) -> Self {
        Self {
            name,
            domains: domains.into_iter().map(Into::into).collect(),
            table: RouteTable::new(routes),
        }
    }

    /// Its name.
    pub fn name(&self) -> &ResourceName {
        &self.name
    }

    /// The domains that it serves.
    pub fn domains(&self) -> &[Authority] {
        &self.domains
    }

    /// Its routes with their conditions, in the written order.
    pub fn routes(&self) -> &[(Conditions, Arc<Route>)] {
        self.table.routes()
    }

    /// The first route whose conditions hold.
    pub fn route(&self, request: &RequestView<'_>) -> Option<&Arc<Route>> {
        let index = self.table.find(request)?;
        Some(&self.routes()[index].1)
    }

    /// For each route that can never be chosen: its index and that of the earlier route which takes
    /// all its requests.
    pub(crate) fn unreachable(&self) -> Vec<(usize, usize)> {
        self.table.unreachable()
    }
}

/// The virtual hosts of one listener. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Router {
    /// Those of domains without a port.
    hosts: Hosts,
    /// Those of domains with this port.
    by_port: OrdMap<u16, Hosts>,
}

/// The virtual hosts of domains with the same port.
#[derive(Debug, Clone, Default)]
struct Hosts {
    exact: HostMap,
    below: HostMap,
    begins: HostMap,
    any: Option<Arc<VirtualHost>>,
}

impl Hosts {
    fn insert(&mut self, domain: &Domain, host: Arc<VirtualHost>) {
        match domain {
            Domain::Exact(name) => drop(self.exact.insert((&**name).into(), host)),
            Domain::Below(suffix) => drop(self.below.insert((&**suffix).into(), host)),
            Domain::Begins(start) => drop(self.begins.insert((&**start).into(), host)),
            Domain::Any => self.any = Some(host),
        }
    }

    fn remove(&mut self, domain: &Domain) {
        match domain {
            Domain::Exact(name) => drop(self.exact.remove(&**name)),
            Domain::Below(suffix) => drop(self.below.remove(&**suffix)),
            Domain::Begins(start) => drop(self.begins.remove(&**start)),
            Domain::Any => self.any = None,
        }
    }

    fn at(&self, domain: &Domain) -> Option<&Arc<VirtualHost>> {
        match domain {
            Domain::Exact(name) => self.exact.get(&**name),
            Domain::Below(suffix) => self.below.get(&**suffix),
            Domain::Begins(start) => self.begins.get(&**start),
            Domain::Any => self.any.as_ref(),
        }
    }

    fn is_empty(&self) -> bool {
        let maps = [&self.exact, &self.below, &self.begins];
        maps.iter().all(|map| map.is_empty()) && self.any.is_none()
    }

    fn all(&self) -> impl Iterator<Item = &Arc<VirtualHost>> {
        let named = self.exact.values().chain(self.below.values());
        named.chain(self.begins.values()).chain(&self.any)
    }
}

impl Router {
    /// A router of these virtual hosts. Of two with the same domain the later one has it; the
    /// linker does not let that happen.
    pub fn new(virtual_hosts: impl IntoIterator<Item = Arc<VirtualHost>>) -> Self {
        let mut router = Self::default();
        for virtual_host in virtual_hosts {
            router.insert(&virtual_host);
        }
        router
    }

    /// Adds a virtual host under all its domains.
    pub(crate) fn insert(&mut self, virtual_host: &Arc<VirtualHost>) {
        for one in virtual_host.domains() {
            let hosts = match one.port {
                None => &mut self.hosts,
                Some(port) => self.by_port.entry(port).or_default(),
            };
            hosts.insert(&one.domain, virtual_host.clone());
        }
    }

    /// Takes away the domains that this very virtual host has.
    pub(crate) fn remove(&mut self, virtual_host: &Arc<VirtualHost>) {
        for one in virtual_host.domains() {
            let hosts = match one.port {
                None => Some(&mut self.hosts),
                Some(port) => self.by_port.get_mut(&port),
            };
            let Some(hosts) = hosts else { continue };
            let found = hosts.at(&one.domain);
            if found.is_some_and(|found| Arc::ptr_eq(found, virtual_host)) {
                hosts.remove(&one.domain);
                if let Some(port) = one.port.filter(|_| hosts.is_empty()) {
                    self.by_port.remove(&port);
                }
            }
        }
    }

    /// The route of a request, or `None` where nothing matches (a 404).
    pub fn route(&self, request: &RequestView<'_>) -> Option<RouteMatch<'_>> {
        let virtual_host = self.virtual_host(request.host)?;
        virtual_host.route(request).map(|route| RouteMatch {
            route,
            virtual_host,
        })
    }

    /// The virtual host of a host: an exact domain before `*.x`, a longer `*.x` before a shorter
    /// one, then `x.*` likewise, `*` last (Envoy's order); of the same hosts, those with the port
    /// that was asked first. A host that is none has no virtual host, not even `*`.
    pub fn virtual_host(&self, host: &str) -> Option<&Arc<VirtualHost>> {
        let (host, port) = split_host(host).ok()?;
        let host = &*host;
        // Where no domain has that port, as nearly always, there is one place to look.
        let ported = port.and_then(|port| self.by_port.get(&port));
        let places = [ported, Some(&self.hosts)];
        if let Some(found) = first(places, |hosts| hosts.exact.get(host)) {
            return Some(found);
        }
        let has_below = |hosts: &Hosts| !hosts.below.is_empty();
        if has_below(&self.hosts) || ported.is_some_and(has_below) {
            let mut suffixes = host.match_indices('.').filter(|(at, _)| *at > 0);
            let found =
                suffixes.find_map(|(at, _)| first(places, |hosts| hosts.below.get(&host[at..])));
            if found.is_some() {
                return found;
            }
        }
        let has_begins = |hosts: &Hosts| !hosts.begins.is_empty();
        if has_begins(&self.hosts) || ported.is_some_and(has_begins) {
            let mut starts = host.rmatch_indices('.');
            let found =
                starts.find_map(|(at, _)| first(places, |hosts| hosts.begins.get(&host[..=at])));
            if found.is_some() {
                return found;
            }
        }
        first(places, |hosts| hosts.any.as_ref())
    }

    /// Every virtual host once, ordered by name.
    pub fn virtual_hosts(&self) -> Vec<&Arc<VirtualHost>> {
        let ported = self.by_port.values().flat_map(Hosts::all);
        let mut all: Vec<_> = self.hosts.all().chain(ported).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|a, b| a.name == b.name);
        all
    }
}

/// What is found in the first of some places that has it.
fn first<'a>(
    places: [Option<&'a Hosts>; 2],
    find: impl Fn(&'a Hosts) -> Option<&'a Arc<VirtualHost>>,
) -> Option<&'a Arc<VirtualHost>> {
    places.into_iter().flatten().find_map(find)
}
