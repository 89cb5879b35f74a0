//! Walks a request through the compiled config without sending it, and tells every step.
//!
//! Owns the account that `skein explain` prints. Decides nothing: it calls the very functions that
//! the proxy calls, and asks the caller for the endpoints' health.

mod ask;
mod connection;
mod headers;
mod live;
mod retry;
mod text;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::compiled::{
    Asked, Cluster, CompiledConfig, Endpoint, HttpListener, Labels, Listener, Protocol, Rewrite,
    Route, Source, Split, SubsetFallback,
};
use crate::host::normalize_host;
use crate::path::normalize_path;
use crate::router::{RequestView, VirtualHost};
use crate::units::Time;

pub use ask::{Ask, AskFault};
pub use headers::ExplainedHeaders;
pub use live::Live;
pub use retry::ExplainedRetry;

/// The most routes that are told one by one; the rest are counted.
const ROUTES_TOLD_MAX: usize = 200;
/// The port that a Host header leaves out.
const HTTP_PORT: u16 = 80;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The config revision that was asked.
    pub config_revision: u64,
    /// The method.
    pub method: String,
    /// The host as it was matched, or as it was given where it is none.
    pub host: String,
    /// The path as it was matched and would be forwarded, or as it was given where it is refused.
    pub path: String,
    /// The listener that takes it.
    pub listener: Option<ExplainedListener>,
    /// The virtual host of the host.
    pub virtual_host: Option<ExplainedHost>,
    /// The routes in their order, up to the one that takes it.
    pub tried: Vec<TriedRoute>,
    /// The number of routes that were tried beyond those told.
    pub untold: usize,
    /// Where it goes.
    pub chosen: Option<Chosen>,
    /// The end of it in a sentence.
    pub outcome: String,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedListener {
    /// Its name.
    pub name: String,
    /// Its address.
    pub bind: String,
    /// `http` or `tcp`.
    pub protocol: String,
}

/// A virtual host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedHost {
    /// Its name.
    pub name: String,
    /// Its domains.
    pub domains: Vec<String>,
}

/// A route that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriedRoute {
    /// Its place in the virtual host's list.
    pub index: usize,
    /// What it asks for.
    pub conditions: String,
    /// Why it does not take the request; `None`: it does.
    pub mismatch: Option<String>,
}

/// Where a request or connection goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// The route's place in the list of its virtual host or listener; `None`: there is none.
    pub route: Option<usize>,
    /// The route's timeout, or the connection's idle timeout; `None`: no limit.
    pub timeout: Option<Time>,
    /// It is ended when nothing moves for so long; `None`: as Defaults say, 5m unless given.
    #[serde(default)]
    pub idle_timeout: Option<Time>,
    /// The whole time from its head to the end of the answer; `None`: no limit.
    #[serde(default)]
    pub max_stream_duration: Option<Time>,
    /// When it is tried again; `None`: it is no http request, or is sent to nobody.
    pub retry: Option<ExplainedRetry>,
    /// What its client may go over to; empty: nothing.
    #[serde(default)]
    pub upgrades: String,
    /// What it is known by, for clusters that hash.
    #[serde(default)]
    pub hash: Vec<String>,
    /// What is changed of headers, up to and with the route.
    #[serde(default)]
    pub headers: ExplainedHeaders,
    /// Where copies of it go, with their shares.
    #[serde(default)]
    pub mirror: Vec<String>,
    /// The clusters that share it; none where Skein answers.
    pub targets: Vec<ExplainedTarget>,
}

/// A cluster and its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedTarget {
    /// The cluster.
    pub cluster: String,
    /// Its weight.
    pub weight: u32,
    /// The sum of all targets' weights.
    pub of: u32,
    /// Which HTTP its endpoints are spoken to.
    #[serde(default)]
    pub http: crate::compiled::UpstreamHttp,
    /// The version of the PROXY header that its connections begin with; `None`: none.
    #[serde(default)]
    pub proxy_protocol: Option<crate::compiled::ProxyProtocolVersion>,
    /// What the route's subset leads to; `None`: it wants none.
    #[serde(default)]
    pub subset: Option<String>,
    /// How an endpoint is chosen.
    pub balance: crate::compiled::Balance,
    /// The time for making a connection.
    pub connect_timeout: Time,
    /// After so many requests a connection is closed.
    #[serde(default)]
    pub max_requests_per_connection: Option<u32>,
    /// A connection that is so old takes no further request.
    #[serde(default)]
    pub max_connection_duration: Option<Time>,
    /// It is asked by PING so often whether it is still there, and has so long to answer.
    #[serde(default)]
    pub connection_keepalive: Option<(Time, Time)>,
    /// Below this share of healthy endpoints, in percent, all are used.
    pub panic_threshold: u8,
    /// How long endpoints take to come to their whole share; `None`: they have it at once.
    #[serde(default)]
    pub slow_start: Option<Time>,
    /// Whether endpoints in the node's own zone come first.
    #[serde(default)]
    pub prefer_zone: bool,
    /// What is changed of headers for this cluster.
    #[serde(default)]
    pub headers: ExplainedHeaders,
    /// The endpoints.
    pub endpoints: Vec<ExplainedEndpoint>,
    /// Where further endpoints are looked for.
    #[serde(default)]
    pub origins: Vec<String>,
    /// What was found there and is not used, and why.
    #[serde(default)]
    pub unused: Vec<String>,
}

/// An endpoint and what the mesh thinks of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedEndpoint {
    /// Its address.
    pub address: String,
    /// Its weight.
    pub weight: u32,
    /// Its zone.
    pub zone: Option<String>,
    /// Its priority; 0 is the first choice.
    #[serde(default)]
    pub priority: u32,
    /// Its labels; empty: none.
    #[serde(default)]
    pub labels: String,
    /// Who told of it, if not the config.
    #[serde(default)]
    pub source: Option<String>,
    /// It is not in the subset that the route wants.
    #[serde(default)]
    pub left_out: bool,
    /// Its health.
    pub health: EndpointHealth,
}

/// What is known of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndpointHealth {
    /// The merged opinion.
    pub verdict: Verdict,
    /// The nodes that call it unhealthy.
    pub unhealthy_by: Vec<String>,
    /// Why outlier detection of the node that answers has taken it out, and for how long yet.
    #[serde(default)]
    pub ejected: Option<ExplainedEjection>,
}

/// An ejection that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedEjection {
    /// What for, such as `consecutive_5xx`.
    pub why: String,
    /// The time until it may return.
    pub left: Time,
}

/// A merged opinion of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nobody reported: it is used.
    #[default]
    Unknown,
    /// It is used.
    Healthy,
    /// It is not used, unless the cluster is below its panic threshold.
    Unhealthy,
}

/// Explains what becomes of a request; `health` tells what is known of an endpoint.
pub fn explain(
    config: &CompiledConfig,
    ask: &Ask,
    health: &dyn Fn(&Cluster, &Endpoint) -> EndpointHealth,
) -> Explanation {
    explain_live(config, ask, &live::HealthAlone(health))
}

/// As [`explain`], with all that is known while the proxy runs.
pub fn explain_live(config: &CompiledConfig, ask: &Ask, live: &dyn Live) -> Explanation {
    let mut explanation = Explanation {
        config_revision: config.config_revision.0,
        method: ask.method.clone(),
        host: ask.host.clone(),
        path: ask.path.clone(),
        listener: None,
        virtual_host: None,
        tried: Vec::new(),
        untold: 0,
        chosen: None,
        outcome: String::new(),
    };
    explanation.outcome = match listener(config, ask) {
        Err(outcome) => outcome,
        Ok(listener) => {
            explanation.listener = Some(ExplainedListener::new(listener));
            match &listener.protocol {
                Protocol::Tcp(tcp) => explanation.pass(&tcp.to, tcp.idle_timeout, live),
                Protocol::Udp(udp) => explanation.pass(&udp.to, udp.idle_timeout, live),
                Protocol::TlsPassthrough(tls) => explanation.pass_tls(tls, ask, live),
                Protocol::Http(http) => explanation
                    .walk(config, http, ask, live)
                    .unwrap_or_else(|end| end),
            }
        }
    };
    explanation
}

/// The listener that is named, or has the port, or is the only http one.
fn listener<'a>(config: &'a CompiledConfig, ask: &Ask) -> Result<&'a Listener, String> {
    let all = || config.listeners.values().map(|listener| &**listener);
    let found = match (&ask.listener, ask.port) {
        (Some(name), _) => all()
            .find(|listener| listener.name.to_string() == *name || *listener.name.name == **name),
        (None, Some(port)) => {
            all().find(|listener| listener.bind.port() == port && listener.is_udp() == ask.udp)
        }
        (None, None) => all().find(|listener| listener.router().is_some()),
    };
    found.ok_or_else(|| {
        let known: Vec<_> = all().map(|l| format!("{} ({})", l.name, l.bind)).collect();
        let wanted = match (&ask.listener, ask.port) {
            (Some(name), _) => format!("is called {name}"),
            (None, Some(port)) if ask.udp => format!("has port {port} of UDP"),
            (None, Some(port)) => format!("has port {port}"),
            (None, None) => "speaks http".to_owned(),
        };
        let known = if known.is_empty() {
            "there is none".to_owned()
        } else {
            known.join(", ")
        };
        format!("no listener of this node {wanted}: {known}")
    })
}

impl Explanation {
    /// Follows the request through a router. Either way the result is the outcome.
    fn walk(
        &mut self,
        config: &CompiledConfig,
        http: &HttpListener,
        ask: &Ask,
        live: &dyn Live,
    ) -> Result<String, String> {
        let host = normalize_host(&ask.host).map_err(|fault| format!("400: the host: {fault}"))?;
        self.host = host.to_string();
        let (path, query) = ask.path.split_once('?').unwrap_or((&ask.path, ""));
        let path = normalize_path(path, config.defaults.escaped_slashes)
            .map_err(|fault| format!("400: the path: {fault}"))?;
        self.path = path.to_string();
        let header = |wanted: &str| {
            let named = ask.headers.iter();
            let named = named.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            let values: Vec<_> = named.map(|(_, value)| value.as_str()).collect();
            (!values.is_empty()).then(|| values.join(", ").into())
        };
        let request = RequestView {
            host: &host,
            path: &path,
            query,
            method: &ask.method,
            header: &header,
        };
        let host_header = match ask.port {
            Some(port) if port != HTTP_PORT && *ask.host == *host => format!("{host}:{port}"),
            _ => ask.host.clone(),
        };
        let virtual_host = http
            .router
            .virtual_host(&host_header)
            .ok_or_else(|| format!("404: no virtual host of this listener serves {host}"))?;
        self.virtual_host = Some(ExplainedHost::new(virtual_host));
        let chosen = virtual_host.route(&request);
        self.try_routes(virtual_host, &request, chosen.map(|route| route.index));
        let route = chosen.ok_or("404: none of the routes takes it")?;
        self.chosen = Some(Chosen::new(http, route, live));
        let asked = Asked {
            scheme: "http",
            host: &host_header,
            path: &path,
            query,
        };
        let mut told = route.action.told(&asked);
        if route.rewrite != Rewrite::default() {
            let host = route
                .rewrite
                .host
                .apply(&host_header, |name| ask.header(name.as_str()));
            match route.rewrite.path.apply(&path) {
                Ok(path) => told.push_str(&format!(", as {path} for host {host}")),
                Err(fault) => told = format!("but answers 500: {fault}"),
            }
        }
        Ok(format!("routes[{}] takes it, {told}", route.index))
    }

    fn try_routes(&mut self, host: &VirtualHost, request: &RequestView<'_>, chosen: Option<usize>) {
        let count = chosen.map_or_else(|| host.routes().len(), |index| index + 1);
        for (index, (conditions, _)) in host.routes().iter().enumerate().take(count) {
            if index < ROUTES_TOLD_MAX || Some(index) == chosen {
                self.tried.push(TriedRoute {
                    index,
                    conditions: conditions.to_string(),
                    mismatch: conditions
                        .check(request)
                        .err()
                        .map(|fault| fault.to_string()),
                });
            }
        }
        self.untold = count - self.tried.len();
    }
}

impl ExplainedListener {
    fn new(listener: &Listener) -> Self {
        Self {
            name: listener.name.to_string(),
            bind: listener.bind.to_string(),
            protocol: listener.spoken().to_owned(),
        }
    }
}

impl ExplainedHost {
    fn new(host: &VirtualHost) -> Self {
        Self {
            name: host.name().to_string(),
            domains: host.domains().iter().map(ToString::to_string).collect(),
        }
    }
}

impl Chosen {
    fn new(http: &HttpListener, route: &Route, live: &dyn Live) -> Self {
        let [host, own] = &route.headers;
        let levels = [
            ("listener", &http.headers),
            ("virtual host", &**host),
            ("route", &**own),
        ];
        let to = route.action.to();
        Self {
            route: Some(route.index),
            timeout: to.and(route.timeout).map(Time),
            idle_timeout: to.and(route.idle_timeout).map(Time),
            max_stream_duration: to.and(route.max_stream_duration).map(Time),
            retry: to.map(|_| ExplainedRetry::new(&route.retry)),
            upgrades: route.upgrades.to_string(),
            hash: route.hash.iter().map(ToString::to_string).collect(),
            headers: ExplainedHeaders::new(&levels),
            mirror: route.mirror.iter().map(ToString::to_string).collect(),
            targets: to.map_or_else(Vec::new, |to| targets(to, route.subset.as_ref(), live)),
        }
    }
}

fn targets(split: &Split, subset: Option<&Labels>, live: &dyn Live) -> Vec<ExplainedTarget> {
    let endpoint =
        |cluster: &Cluster, chosen: Option<&Labels>, endpoint: &Endpoint| ExplainedEndpoint {
            address: endpoint.label(),
            weight: endpoint.weight,
            zone: endpoint.zone.as_deref().map(str::to_owned),
            priority: endpoint.priority,
            labels: endpoint.labels.to_string(),
            source: (endpoint.source != Source::Config).then(|| endpoint.source.to_string()),
            left_out: chosen.is_some_and(|chosen| !chosen.are_in(&endpoint.labels)),
            health: live.health(cluster, endpoint),
        };
    let target = |(cluster, weight): (&std::sync::Arc<Cluster>, u32)| {
        let cluster = &live.cluster(cluster);
        let (told, chosen) = subset.map_or((None, None), |wanted| told_subset(cluster, wanted));
        ExplainedTarget {
            subset: told,
            cluster: cluster.name.to_string(),
            weight,
            of: split.total,
            http: cluster.http,
            proxy_protocol: cluster.proxy_protocol,
            balance: cluster.balance,
            connect_timeout: Time(cluster.connect_timeout),
            max_requests_per_connection: cluster.connections.max_requests,
            max_connection_duration: cluster.connections.max_duration.map(Time),
            connection_keepalive: (cluster.connections.keepalive)
                .map(|it| (Time(it.interval), Time(it.timeout))),
            panic_threshold: cluster.panic_threshold,
            slow_start: cluster.slow_start.map(|slow_start| Time(slow_start.window)),
            prefer_zone: cluster.prefer_zone,
            headers: ExplainedHeaders::new(&[("cluster", &cluster.headers)]),
            endpoints: cluster
                .endpoints
                .iter()
                .map(|e| endpoint(cluster, chosen, e))
                .collect(),
            origins: cluster.origins.iter().map(ToString::to_string).collect(),
            unused: live.unused(cluster),
        }
    };
    split.shares().map(target).collect()
}

/// What a subset leads to in this cluster, and the labels of those that are used; `None`: all are.
fn told_subset<'a>(
    cluster: &'a Cluster,
    wanted: &'a Labels,
) -> (Option<String>, Option<&'a Labels>) {
    let mut labels = cluster.endpoints.iter().map(|endpoint| &endpoint.labels);
    if labels.any(|labels| wanted.are_in(labels)) {
        return (Some(format!("those with {wanted} are used")), Some(wanted));
    }
    let missing = format!("no endpoint has {wanted}");
    match cluster.subsets.as_ref().map(|subsets| &subsets.fallback) {
        None | Some(SubsetFallback::None) => (
            Some(format!("{missing}, and there is no fallback")),
            Some(wanted),
        ),
        Some(SubsetFallback::Any) => (Some(format!("{missing}: any is used")), None),
        Some(SubsetFallback::Default(labels)) => (
            Some(format!("{missing}: those with {labels} are used")),
            Some(labels),
        ),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        })
    }
}
