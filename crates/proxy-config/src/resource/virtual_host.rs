//! The kind VirtualHost as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::matching::{HeaderSpec, QuerySpec};
use super::{
    HashSpec, HeadersSpec, MirrorSpec, RedirectSpec, RespondSpec, RetrySpec, RewriteSpec, Targets,
    is_default,
};
use crate::host::Authority;
use crate::pattern::{PathTemplate, Pattern};
use crate::units::Time;
use crate::words::{GrpcName, HeaderName, Method, PathText, Reference, UpgradeName};

/// Routes for some domains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VirtualHostSpec {
    /// The http listeners that it attaches to; left out: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listeners: Option<Vec<Reference>>,
    /// The hosts that it serves: exact, `*.x` for all below x, `x.*` for all that begin with x, or
    /// `"*"`. With `:8443` behind it, requests for that port alone, as the client wrote it (it leaves
    /// out 80, or 443 over TLS); without, for any. Exact comes before `*.x`, that before `x.*`, longer
    /// ones before shorter ones, and of the same hosts those with a port first.
    pub domains: Vec<Authority>,
    /// The routes; the first that matches wins.
    pub routes: Vec<RouteSpec>,
    /// What is changed of headers for all routes: after the listener's changes, before the route's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub headers: HeadersSpec,
    /// Requests and where they must go: checked before any change of this is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<Expectation>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// Which requests; left out: all.
    #[serde(default, rename = "match", skip_serializing_if = "is_default")]
    pub matches: MatchSpec,
    /// Where they go. A route has `to`, `redirect` or `respond`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Targets>,
    /// What is changed of a request before it goes there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Box<RewriteSpec>>,
    /// Another URL that the client shall ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Box<RedirectSpec>>,
    /// An answer without any upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<Box<RespondSpec>>,
    /// The whole time for a request, retries included. `0s`: no limit. Left out: Defaults'
    /// `route_timeout`, 15s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Time>,
    /// A request without a byte in either direction for so long is ended; `0s`: never. Left out: the
    /// Defaults' `stream_idle_timeout`, 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Time>,
    /// The whole time from a request's head to the end of its answer, also while it is still being
    /// received. Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_stream_duration: Option<Time>,
    /// For gRPC: a call's own `grpc-timeout` counts from its begin in place of `timeout`, up to this.
    /// `0s`: however long it is. Left out: up to `timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_timeout_max: Option<Time>,
    /// When to try again; `{ times: 0 }`: never. Left out: Defaults' `retry`, twice on
    /// `connect-failure` and `reset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Box<RetrySpec>>,
    /// What clients may go over to: `websocket`, or another protocol by the name that they ask for it
    /// with, over HTTP/1.1 and over HTTP/2 (RFC 8441), whichever the cluster is spoken to; and `connect`
    /// for the method CONNECT, whose bytes go to an endpoint of `to` as they are, wherever the client
    /// wanted them to. `timeout` counts until then, afterwards `idle_timeout` does. Left out: nothing.
    /// Who asks for WebSocket is answered 403 then, who asks for CONNECT 405; other protocols are not
    /// passed on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upgrades: Vec<UpgradeName>,
    /// What a request is known by, for clusters that balance by `ring_hash` or `maglev`: requests
    /// alike in it go to the same endpoint, whichever node or worker takes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hash: Vec<HashSpec>,
    /// Where copies of the requests go, beside `to`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirror: Vec<MirrorSpec>,
    /// The endpoints that have these labels, such as `{ version: v2 }`: one of the cluster's
    /// `subsets`. Left out: any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subset: BTreeMap<String, String>,
    /// What is changed of headers: after the virtual host's changes, before the cluster's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub headers: HeadersSpec,
}

/// Which requests a route takes: all that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatchSpec {
    /// This path and all below it, on whole segments: `/api` takes `/api` and `/api/x`, never
    /// `/apis`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<PathText>,
    /// This path alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathText>,
    /// Paths of this form: `/users/{id}/files/{*rest}`. `{id}` is one segment that is not empty,
    /// `{*rest}` all that is left, at least a character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_template: Option<PathTemplate>,
    /// Paths all of which match this regular expression (RE2's syntax).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<Pattern>,
    /// gRPC calls, known by their content type, of this method (`package.Service/Method`) or of all
    /// methods of this service (`package.Service`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcName>,
    /// One of these methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
    /// All of these headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderSpec>,
    /// All of these query parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<QuerySpec>,
}

/// A request, and where it must go: `to` a cluster, to another URL (`redirect`), or to an answer of
/// Skein's own (`status`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// The path, and a query if routes look at it.
    pub get: String,
    /// The method; left out: GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// The host; left out: one of the virtual host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<HeaderName, String>,
    /// The cluster: the only one, or one of a split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Reference>,
    /// The status that Skein answers with: a `respond`'s, a `redirect`'s, or 404 where no route
    /// takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The URL that it is redirected to, if it was asked for over http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<String>,
}
