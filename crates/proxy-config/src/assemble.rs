//! One well-formed resource to its compiled shape, with what it refers to at hand.
//!
//! Owns the defaults. Never decides whether a resource may be in force: that is `link`.

mod action;
mod connections;
mod headers;
mod matching;
mod outlier;
mod retry;
mod server_names;
mod subset;
pub(crate) mod tls;

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;

use crate::compiled::{
    Cluster, ClusterTls, Defaults, Endpoint, GivenBy, HashOn, HashPolicy, HeaderChanges,
    Introductions, Limits, NewCookie, Origin, Probe, ProbeKind, ResourceName, RetryPolicy, Route,
    SlowStart, Source, Split, SplitTarget, Upgrades, UpstreamHttp,
};
use crate::link::Shared;
use crate::resource::{
    ClusterSpec, DefaultsSpec, HashSpec, HeadersSpec, LimitsSpec, ProbeSpec, ProxyProtocolSpec,
    Resource, SlowStartSpec, Targets, VirtualHostSpec,
};
use crate::router::VirtualHost;
use crate::units::Time;
use crate::words::Reference;

pub(crate) use headers::header_changes;
use retry::retry;
pub(crate) use server_names::tls_routes;
pub(crate) use subset::labels;

/// Envoy's, as are all that have no word of reason.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const UDP_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const PANIC_THRESHOLD: u8 = 50;
const RING_SIZE: u32 = 1024;
const AGGRESSION: u32 = 1;
const MIN_WEIGHT_PERCENT: u8 = 10;
const OVERPROVISIONING: u32 = 140;
const CONNECTIONS: u32 = 1024;
const PENDING: u32 = 1024;
const RETRIES: u32 = 3;
/// Envoy has this budget only on request; without it, retries storm.
const RETRY_BUDGET: u8 = 20;
/// Envoy asks for it; with three probers and a merge this is quick and still a light load.
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Two, for the merge of three observers already outvotes one that is wrong.
const UNHEALTHY_AFTER: u32 = 2;
const HEALTHY_AFTER: u32 = 2;

/// The settings that other resources take in when they are built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) route_timeout: Option<Duration>,
    pub(crate) retry: RetryPolicy,
    pub(crate) connect_timeout: Duration,
}

impl Base {
    pub(crate) fn new(spec: Option<&DefaultsSpec>) -> Self {
        let route_timeout = spec.and_then(|spec| spec.route_timeout);
        let connect_timeout = spec.and_then(|spec| spec.connect_timeout);
        let given = spec.and_then(|spec| spec.retry.as_ref());
        Self {
            route_timeout: limit(route_timeout, ROUTE_TIMEOUT),
            retry: given.map_or(RetryPolicy::BUILT_IN, |spec| retry(spec, GivenBy::Defaults)),
            connect_timeout: time(connect_timeout, CONNECT_TIMEOUT),
        }
    }
}

fn time(given: Option<Time>, default: Duration) -> Duration {
    given.map_or(default, |time| time.0)
}

/// A timeout of which `0s` means none.
fn limit(given: Option<Time>, default: Duration) -> Option<Duration> {
    Some(time(given, default)).filter(|time| !time.is_zero())
}

pub(crate) fn defaults(spec: &DefaultsSpec) -> Defaults {
    let base = Defaults::default();
    let size = spec
        .max_head_size
        .and_then(|size| usize::try_from(size.0).ok());
    Defaults {
        trusted_hops: spec.trusted_hops.unwrap_or(base.trusted_hops),
        access_log: spec.access_log.unwrap_or(base.access_log),
        escaped_slashes: spec.escaped_slashes.unwrap_or(base.escaped_slashes),
        max_head_bytes: size.unwrap_or(base.max_head_bytes),
        head_timeout: time(spec.head_timeout, base.head_timeout),
        idle_timeout: time(spec.idle_timeout, base.idle_timeout),
        stream_idle_timeout: time(spec.stream_idle_timeout, base.stream_idle_timeout),
        drain_timeout: time(spec.drain_timeout, base.drain_timeout),
    }
}

pub(crate) fn cluster(resource: &Resource, spec: &ClusterSpec, base: &Base) -> Cluster {
    let tls = spec
        .tls
        .as_ref()
        .map(|tls| Arc::new(tls::cluster(tls, spec.http)));
    let name = resource.name();
    let endpoint = |endpoint: &crate::resource::EndpointSpec| Endpoint {
        address: endpoint.address().identity(),
        socket: endpoint.address().socket().cloned(),
        weight: endpoint.weight(),
        zone: endpoint.zone().map(|zone| zone.shared().clone()),
        priority: endpoint.priority(),
        labels: endpoint.labels().map(labels).unwrap_or_default(),
        hostname: None,
        source: Source::Config,
    };
    let service = |service: &Reference| Origin::Service(service.resolve(resource.namespace()));
    Cluster {
        key: format!("{}/{}", name.namespace, name.name).into(),
        name,
        endpoints: spec.endpoints.iter().map(endpoint).collect(),
        origins: spec.service.iter().map(service).collect(),
        http: spec.http,
        balance: spec.balance,
        probe: spec
            .probe
            .as_ref()
            .map(|given| probe_of(given, spec, tls.as_ref())),
        tls,
        proxy_protocol: spec.proxy_protocol,
        limits: limits(&spec.limits),
        connect_timeout: time(spec.connect_timeout, base.connect_timeout),
        idle_timeout: time(spec.idle_timeout, IDLE_TIMEOUT),
        connections: connections::connections(&spec.connections),
        panic_threshold: spec.panic_threshold.unwrap_or(PANIC_THRESHOLD),
        minimum_ring_size: spec.minimum_ring_size.unwrap_or(RING_SIZE),
        hash_balance_factor: spec.hash_balance_factor,
        slow_start: spec.slow_start.as_ref().map(slow_start),
        subsets: spec.subsets.as_ref().map(subset::subsets),
        outlier: spec.outlier.as_ref().map(outlier::outlier),
        prefer_zone: spec.prefer_zone,
        overprovisioning_factor: spec.overprovisioning_factor.unwrap_or(OVERPROVISIONING),
        headers: header_changes(&spec.headers),
    }
}

/// The probe of a cluster that is called with this TLS. What a probe speaks does not follow from what
/// requests do.
fn probe_of(given: &ProbeSpec, cluster: &ClusterSpec, tls: Option<&Arc<ClusterTls>>) -> Probe {
    let probe = probe(given);
    let spoken = match probe.kind {
        ProbeKind::Http { .. } => UpstreamHttp::H1,
        ProbeKind::Grpc { .. } => UpstreamHttp::H2,
        ProbeKind::Tcp => cluster.http,
    };
    let tls = match &cluster.tls {
        Some(spec) if spoken != cluster.http => Some(Arc::new(tls::cluster(spec, spoken))),
        _ => tls.cloned(),
    };
    Probe {
        tls,
        proxy_protocol: cluster.proxy_protocol,
        ..probe
    }
}

fn slow_start(spec: &SlowStartSpec) -> SlowStart {
    SlowStart {
        window: spec.window.0,
        aggression: spec.aggression.unwrap_or(AGGRESSION),
        min_weight_percent: spec.min_weight_percent.unwrap_or(MIN_WEIGHT_PERCENT),
    }
}

fn probe(spec: &ProbeSpec) -> Probe {
    let host = spec.host.as_deref().map(Into::into);
    let kind = match (&spec.http, &spec.grpc) {
        (Some(path), _) => ProbeKind::Http {
            path: path.as_str().into(),
            host,
        },
        (None, Some(service)) => ProbeKind::Grpc {
            service: service.as_str().into(),
            host,
        },
        (None, None) => ProbeKind::Tcp,
    };
    Probe {
        kind,
        tls: None,
        socket: None,
        proxy_protocol: None,
        every: time(spec.every, PROBE_EVERY),
        timeout: time(spec.timeout, PROBE_TIMEOUT),
        unhealthy_after: spec.unhealthy_after.unwrap_or(UNHEALTHY_AFTER),
        healthy_after: spec.healthy_after.unwrap_or(HEALTHY_AFTER),
    }
}

fn limits(spec: &LimitsSpec) -> Limits {
    Limits {
        connections: spec.connections.unwrap_or(CONNECTIONS),
        pending: spec.pending.unwrap_or(PENDING),
        retries: spec.retries.unwrap_or(RETRIES),
        retry_budget: spec.retry_budget.unwrap_or(RETRY_BUDGET),
    }
}

/// The idle timeout of a TCP listener.
pub(crate) fn tcp_idle_timeout(given: Option<Time>) -> Option<Duration> {
    limit(given, IDLE_TIMEOUT)
}

pub(crate) fn introductions(spec: &ProxyProtocolSpec) -> Introductions {
    Introductions {
        mode: spec.mode(),
        trusted: spec.trusted_sources().map(Into::into),
    }
}

/// The idle timeout of a UDP listener.
pub(crate) fn udp_idle_timeout(given: Option<Time>) -> Option<Duration> {
    limit(given, UDP_IDLE_TIMEOUT)
}

/// The choice among clusters that are all there. Those with weight 0 get nothing, and no place.
pub(crate) fn split(
    targets: &Targets,
    resource: &Resource,
    clusters: &OrdMap<ResourceName, Shared<Cluster>>,
) -> Option<Split> {
    let mut total = 0;
    let mut found = Vec::new();
    for (reference, weight) in targets.iter().filter(|(_, weight)| *weight > 0) {
        let cluster = clusters
            .get(&reference.resolve(resource.namespace()))?
            .0
            .clone();
        total += weight;
        found.push(SplitTarget {
            upto: total,
            cluster,
        });
    }
    Some(Split {
        targets: found.into(),
        total,
    })
}

/// The virtual host, if all its clusters are there.
pub(crate) fn virtual_host(
    resource: &Resource,
    spec: &VirtualHostSpec,
    base: &Base,
    clusters: &OrdMap<ResourceName, Shared<Cluster>>,
) -> Option<VirtualHost> {
    let mut routes = Vec::with_capacity(spec.routes.len());
    let unchanged: Arc<HeaderChanges> = Arc::default();
    let mine = shared_changes(&spec.headers, &unchanged);
    for (index, route) in spec.routes.iter().enumerate() {
        let compiled = Route {
            virtual_host: resource.name(),
            index,
            action: action::action(route, resource, clusters)?,
            rewrite: action::rewrite(route),
            timeout: match route.timeout {
                Some(_) => limit(route.timeout, ROUTE_TIMEOUT),
                None => base.route_timeout,
            },
            idle_timeout: route.idle_timeout.map(|time| time.0),
            max_stream_duration: route.max_stream_duration.map(|time| time.0),
            grpc_timeout_max: route.grpc_timeout_max.map(|time| time.0),
            retry: match &route.retry {
                Some(given) => retry(given, GivenBy::Route),
                None => base.retry.clone(),
            },
            upgrades: Upgrades::new(&route.upgrades),
            hash: route.hash.iter().filter_map(hash).collect(),
            mirror: action::mirrors(route, resource, clusters)?,
            subset: (!route.subset.is_empty()).then(|| labels(&route.subset)),
            headers: [mine.clone(), shared_changes(&route.headers, &unchanged)],
        };
        routes.push((matching::conditions(&route.matches), Arc::new(compiled)));
    }
    Some(VirtualHost::new(
        resource.name(),
        spec.domains.clone(),
        routes,
    ))
}

/// The changes; those of the many routes without any are one.
fn shared_changes(spec: &HeadersSpec, unchanged: &Arc<HeaderChanges>) -> Arc<HeaderChanges> {
    if *spec == HeadersSpec::default() {
        return unchanged.clone();
    }
    Arc::new(header_changes(spec))
}

/// What is written has one of them; else it would not be here.
fn hash(spec: &HashSpec) -> Option<HashPolicy> {
    let on = if let Some(header) = &spec.header {
        HashOn::Header(header.as_str().into())
    } else if let Some(cookie) = &spec.cookie {
        let new = |ttl: Time| NewCookie {
            ttl: ttl.0,
            path: cookie.path.as_ref().map(|path| path.as_str().into()),
        };
        HashOn::Cookie {
            name: cookie.name.as_str().into(),
            new: cookie.ttl.map(new),
        }
    } else if let Some(name) = &spec.query_parameter {
        HashOn::QueryParameter(name.as_str().into())
    } else if spec.source_ip == Some(true) {
        HashOn::SourceIp
    } else {
        return None;
    };
    let terminal = spec.terminal;
    Some(HashPolicy { on, terminal })
}
