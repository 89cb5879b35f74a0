//! The field `routes` of a listener that passes TLS on, as written to as compiled.

use imbl::OrdMap;

use super::split;
use crate::compiled::{Cluster, ResourceName, TlsRoute, TlsRoutes};
use crate::link::Shared;
use crate::resource::{Resource, TlsRouteSpec};

/// The routes, if all their clusters are there.
pub(crate) fn tls_routes(
    specs: &[TlsRouteSpec],
    resource: &Resource,
    clusters: &OrdMap<ResourceName, Shared<Cluster>>,
) -> Option<TlsRoutes> {
    let mut routes = Vec::with_capacity(specs.len());
    for spec in specs {
        let names = spec.matches.server_names.iter();
        let alpn = spec.matches.alpn.iter();
        routes.push(TlsRoute {
            server_names: names.map(|name| name.domain().clone()).collect(),
            alpn: alpn.map(|name| name.as_str().into()).collect(),
            to: split(&spec.to, resource, clusters)?,
        });
    }
    Some(TlsRoutes::new(routes))
}
