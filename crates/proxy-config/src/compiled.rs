//! What the proxy runs: immutable, fully resolved, cheap to share.
//!
//! Owns the shapes that workers read on the request path. Never parses, never does I/O; every
//! reference is an `Arc`, so two revisions share what did not change (`Arc::ptr_eq` tells).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::ConfigRevision;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::action::{Action, Asked, HostChange, PathChange, Redirect, Respond, Rewrite};
pub use crate::balance::{Balance, HashOn, HashPolicy, NewCookie, SlowStart};
pub use crate::connections::{ConnectionKeepalive, Connections, TcpKeepalive};
pub use crate::header::{HeaderChange, HeaderChanges, HeaderTemplate, Variable};
pub use crate::mirror::Mirror;
pub use crate::origin::{Origin, Source};
pub use crate::outlier::{FailurePercentage, Outlier, SuccessRate};
pub use crate::path::EscapedSlashes;
pub use crate::proxy_protocol::{Introductions, ProxyProtocol, ProxyProtocolVersion};
pub use crate::resource::Percent;
pub use crate::retry::{AnswerVerdict, BackOff, GrpcStatuses, RetryAnswers, RetryOn, RetryPolicy};
pub use crate::rewrite::RewriteFault;
pub use crate::router::{RouteMatch, Router};
pub use crate::sni::{TlsAsked, TlsRoute, TlsRoutes};
pub use crate::subset::{Labels, SubsetFallback, Subsets};
pub use crate::tls::{CertificateSource, ClientCertificate, ClusterTls, ListenerTls, TlsVersion};
pub use crate::upgrade::Upgrades;
pub use crate::upstream_http::UpstreamHttp;

/// A resource's name within its kind. Shown as `name` in namespace `default`, else
/// `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName {
    /// The namespace; `default` unless given.
    pub namespace: Arc<str>,
    /// The name, unique for its kind in the namespace.
    pub name: Arc<str>,
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if &*self.namespace == "default" {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Everything one node's proxy needs, compiled for that node.
#[derive(Debug, Clone, Default)]
pub struct CompiledConfig {
    /// The accepted config change that this is compiled from.
    pub config_revision: ConfigRevision,
    /// The listeners of this node.
    pub listeners: BTreeMap<ResourceName, Arc<Listener>>,
    /// The clusters of this node.
    pub clusters: BTreeMap<ResourceName, Arc<Cluster>>,
    /// Mesh-wide settings.
    pub defaults: Arc<Defaults>,
    /// The zone that the node is in.
    pub zone: Option<Arc<str>>,
}

/// One bound address and what is served there.
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: ResourceName,
    /// The resolved address (`":8080"` became this node's `--proxy-ip`).
    pub bind: SocketAddr,
    /// What is spoken there.
    pub protocol: Protocol,
    /// How TLS is spoken below that, if it is.
    pub tls: Option<ListenerTls>,
    /// Whether connections begin with a header of the PROXY protocol; `None`: they do not.
    pub proxy_protocol: Option<Introductions>,
}

impl Listener {
    /// The router, where HTTP is spoken.
    pub fn router(&self) -> Option<&Arc<Router>> {
        match &self.protocol {
            Protocol::Http(http) => Some(&http.router),
            Protocol::Tcp(_) | Protocol::Udp(_) | Protocol::TlsPassthrough(_) => None,
        }
    }

    /// Whether it takes datagrams, which have ports of their own.
    pub fn is_udp(&self) -> bool {
        matches!(self.protocol, Protocol::Udp(_))
    }

    /// What is spoken there, for people.
    pub fn spoken(&self) -> &'static str {
        let is_optional = self.tls.as_ref().is_some_and(|tls| tls.is_optional);
        match (&self.protocol, &self.tls) {
            (Protocol::Http(_), Some(_)) if is_optional => "http, over TLS or plain",
            (Protocol::Tcp(_), Some(_)) if is_optional => "tcp, over TLS or plain",
            (Protocol::Http(_), None) => "http",
            (Protocol::Http(_), Some(_)) => "http over TLS",
            (Protocol::Tcp(_), None) => "tcp",
            (Protocol::Tcp(_), Some(_)) => "tcp over TLS",
            (Protocol::Udp(_), _) => "udp",
            (Protocol::TlsPassthrough(_), _) => "TLS, passed on",
        }
    }
}

/// What a listener speaks.
#[derive(Debug)]
pub enum Protocol {
    /// HTTP/1.1, routed by host and path.
    Http(HttpListener),
    /// Bytes, passed to one of some clusters.
    Tcp(TcpListener),
    /// Datagrams, in sessions.
    Udp(UdpListener),
    /// TLS that is passed on as it is, by the name that is asked for.
    TlsPassthrough(TlsPassthrough),
}

/// An HTTP listener's routing.
#[derive(Debug)]
pub struct HttpListener {
    /// Finds the route of a request.
    pub router: Arc<Router>,
    /// What is changed of headers before all else.
    pub headers: HeaderChanges,
}

/// A TCP listener's target.
#[derive(Debug)]
pub struct TcpListener {
    /// Where connections go.
    pub to: Split,
    /// A connection without a byte in either direction for so long is closed. `None`: never.
    pub idle_timeout: Option<Duration>,
}

/// A UDP listener's target.
#[derive(Debug)]
pub struct UdpListener {
    /// Where sessions go.
    pub to: Split,
    /// A session without a datagram in either direction for so long is over. `None`: never.
    pub idle_timeout: Option<Duration>,
}

/// The targets of a listener that passes TLS on.
#[derive(Debug)]
pub struct TlsPassthrough {
    /// Where connections go by what they ask for.
    pub routes: TlsRoutes,
    /// Where those go that no route takes; `None`: they are closed.
    pub to: Option<Split>,
    /// A connection without a byte in either direction for so long is closed. `None`: never.
    pub idle_timeout: Option<Duration>,
}

/// One route of a virtual host.
#[derive(Debug)]
pub struct Route {
    /// The virtual host that it belongs to.
    pub virtual_host: ResourceName,
    /// Its place in the virtual host's list, from 0.
    pub index: usize,
    /// What becomes of requests.
    pub action: Action,
    /// What is changed of requests that are passed on.
    pub rewrite: Rewrite,
    /// The whole time for a request, retries included, from its last byte received to the end of
    /// the response. `None`: no limit.
    pub timeout: Option<Duration>,
    /// A request without progress for so long is ended; zero: never. `None`: as Defaults say.
    pub idle_timeout: Option<Duration>,
    /// The whole time of a request, from its head received. `None`: no limit.
    pub max_stream_duration: Option<Duration>,
    /// The most of a call's own `grpc-timeout`, which counts in place of the timeout; 0: all of it.
    /// `None`: as much as the timeout.
    pub grpc_timeout_max: Option<Duration>,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// What clients may go over to.
    pub upgrades: Upgrades,
    /// What a request is known by, for clusters that hash; empty: by nothing.
    pub hash: Box<[HashPolicy]>,
    /// Where copies of requests go.
    pub mirror: Box<[Mirror]>,
    /// The subset of the cluster's endpoints that requests go to; `None`: all of them.
    pub subset: Option<Labels>,
    /// What is changed of headers, by the virtual host and then by the route.
    pub headers: [Arc<HeaderChanges>; 2],
}

/// A weighted choice among clusters; at least one has a weight above 0.
#[derive(Debug)]
pub struct Split {
    /// Each target with the upper end of its share: a draw below `upto` (and not below the previous
    /// one's) chooses it. Ascending; the last one is `total`.
    pub targets: Box<[SplitTarget]>,
    /// The sum of the weights.
    pub total: u32,
}

/// One target of a [`Split`].
#[derive(Debug)]
pub struct SplitTarget {
    /// The cumulative weight up to and with this target.
    pub upto: u32,
    /// The cluster.
    pub cluster: Arc<Cluster>,
}

impl Split {
    /// The target for `draw`, which must be uniform in `0..total`.
    pub fn choose(&self, draw: u32) -> &Arc<Cluster> {
        let at = self.targets.partition_point(|target| target.upto <= draw);
        &self.targets[at.min(self.targets.len() - 1)].cluster
    }

    /// The targets, each with its own weight.
    pub fn shares(&self) -> impl Iterator<Item = (&Arc<Cluster>, u32)> {
        self.targets.iter().scan(0, |before, target| {
            let weight = target.upto - *before;
            *before = target.upto;
            Some((&target.cluster, weight))
        })
    }
}

impl fmt::Display for Split {
    /// The clusters, with their weights where there are several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (cluster, weight)) in self.shares().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{}", cluster.name)?;
            if self.targets.len() > 1 {
                write!(f, " {weight}")?;
            }
        }
        Ok(())
    }
}

/// Where a setting that can be left out comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenBy {
    /// The route itself.
    Route,
    /// The mesh-wide Defaults.
    Defaults,
    /// Nobody: Skein's own.
    BuiltIn,
}

/// A group of upstream endpoints and how to use it.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name.
    pub name: ResourceName,
    /// `namespace/name`, always with the namespace: the key of health reports and metrics.
    pub key: Arc<str>,
    /// Its endpoints: those written out, in that order, and then those that were found.
    pub endpoints: Box<[Endpoint]>,
    /// Where further endpoints are found.
    pub origins: Box<[Origin]>,
    /// Which HTTP its endpoints are spoken to.
    pub http: UpstreamHttp,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// The active health check, if any.
    pub probe: Option<Probe>,
    /// How TLS is spoken with the endpoints, if it is.
    pub tls: Option<Arc<ClusterTls>>,
    /// Whether connections begin with a PROXY header that names the client, and of which version.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// What at most may be in flight, per node.
    pub limits: Limits,
    /// The time for making a connection.
    pub connect_timeout: Duration,
    /// A pooled connection without use for so long is closed.
    pub idle_timeout: Duration,
    /// What connections to its endpoints are like.
    pub connections: Connections,
    /// Below this share (in percent) of healthy endpoints, all are used. 0: never.
    pub panic_threshold: u8,
    /// A ring has at least so many points.
    pub minimum_ring_size: u32,
    /// With balancers that hash: of its fair share of the requests in flight, an endpoint takes no
    /// more than so many percent. `None`: however many its keys bring.
    pub hash_balance_factor: Option<u32>,
    /// How endpoints that are new or healthy again come to their whole share, if not at once.
    pub slow_start: Option<SlowStart>,
    /// How its endpoints are divided by label, if they are.
    pub subsets: Option<Subsets>,
    /// When endpoints are taken out for what their answers are like, if ever.
    pub outlier: Option<Outlier>,
    /// Endpoints in the node's own zone come first.
    pub prefer_zone: bool,
    /// What a level of endpoints bears, in percent of its healthy share: 140 lets it keep all
    /// traffic down to 72 percent of healthy ones.
    pub overprovisioning_factor: u32,
    /// What is changed of headers, after the route.
    pub headers: HeaderChanges,
}

/// One upstream address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens; for a Unix socket, an address that stands for it.
    pub address: SocketAddr,
    /// The path of the Unix socket, if it is one.
    pub socket: Option<Arc<str>>,
    /// Its share, relative to the others'; at least 1.
    pub weight: u32,
    /// The zone that it is in.
    pub zone: Option<Arc<str>>,
    /// 0 is the first choice; a higher number is used where the lower ones bear too little.
    pub priority: u32,
    /// What subsets know it by.
    pub labels: Labels,
    /// The name of its host, if it has one.
    pub hostname: Option<Arc<str>>,
    /// Who told of it.
    pub source: Source,
}

impl Endpoint {
    /// Where it listens, for people.
    pub fn label(&self) -> String {
        match &self.socket {
            Some(path) => format!("unix:{path}"),
            None => self.address.to_string(),
        }
    }
}

/// An active health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is sent.
    pub kind: ProbeKind,
    /// How TLS is spoken below that, if it is.
    pub tls: Option<Arc<ClusterTls>>,
    /// The Unix socket to ask in place of an address.
    pub socket: Option<Arc<str>>,
    /// The version of the PROXY header to begin with, if any.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// The time between two probes of one prober.
    pub every: Duration,
    /// The time for an answer.
    pub timeout: Duration,
    /// So many failures in a row make an endpoint unhealthy.
    pub unhealthy_after: u32,
    /// So many successes in a row make it healthy again.
    pub healthy_after: u32,
}

/// What a probe sends and expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeKind {
    /// `GET path`; any 2xx is healthy.
    Http {
        /// The path.
        path: Box<str>,
        /// The `Host` header; the endpoint's address unless given.
        host: Option<Box<str>>,
    },
    /// A call of gRPC's health service; SERVING is healthy.
    Grpc {
        /// The service; empty for the whole server.
        service: Box<str>,
        /// The host that is asked for; the endpoint's address unless given.
        host: Option<Box<str>>,
    },
    /// A connection can be made.
    Tcp,
}

/// What at most may be in flight to a cluster, per node, whatever the number of workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    /// Retries at one time, as a floor of the budget.
    pub retries: u32,
    /// Retries at one time, in percent of the active requests; the larger of the two holds.
    pub retry_budget: u8,
}

/// Mesh-wide settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Hops of proxies in front of us whose `x-forwarded-for` is believed.
    pub trusted_hops: u32,
    /// Whether and how requests are logged.
    pub access_log: AccessLog,
    /// What to do with `%2F` and `%5C` in paths.
    pub escaped_slashes: EscapedSlashes,
    /// The largest request head: more is answered 431.
    pub max_head_bytes: usize,
    /// The time for a request head to arrive whole.
    pub head_timeout: Duration,
    /// A kept-alive connection without a request for so long is closed.
    pub idle_timeout: Duration,
    /// A request or response body without progress for so long is cut.
    pub stream_idle_timeout: Duration,
    /// The time that open requests get when a listener closes.
    pub drain_timeout: Duration,
}

/// Whether and how requests are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessLog {
    /// Not at all. Written `none`, for YAML readers may take `off` for a truth value.
    #[default]
    #[serde(rename = "none")]
    Off,
    /// One JSON object per request on stdout.
    Json,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            trusted_hops: 0,
            access_log: AccessLog::default(),
            escaped_slashes: EscapedSlashes::default(),
            max_head_bytes: 60 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            stream_idle_timeout: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// For whom a config is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The node's name.
    pub node: model::NodeName,
    /// Its labels; `zone` is the zone that it is in.
    pub labels: BTreeMap<String, String>,
    /// Where `bind: ":port"` binds.
    pub proxy_ip: IpAddr,
}
