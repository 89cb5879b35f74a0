//! What a route does instead of passing a request on, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_default;
use crate::rewrite::{SearchPattern, TemplateText};
use crate::words::{HeaderName, HeaderText, HostPort, PathText};

/// Sends the client to another URL, made of the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedirectSpec {
    /// `http` or `https`; left out: the one that was asked. Where it becomes another, the old one's
    /// own port (80, 443) is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The host, perhaps with a port; left out: the one that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostPort>,
    /// The port; left out: as the host says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path; left out: the one that was asked, normalised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathText>,
    /// What stands for the route's `path_prefix` or `path` in the new path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<PathText>,
    /// What an expression matches in the path is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<RegexRewriteSpec>,
    /// The path, made of the variables of the route's `path_template`: `/v2/{id}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_template: Option<TemplateText>,
    /// 301, 302, 303, 307 or 308; left out: 301.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// `true`: the query is left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub strip_query: bool,
}

/// What is changed of a request before it goes to `to`. Where the path changes, the upstream is told
/// the old one in `x-envoy-original-path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewriteSpec {
    /// The whole path; the query stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathText>,
    /// What stands for the route's `path_prefix` or `path` in the new path, on whole segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<PathText>,
    /// What an expression matches in the path is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<RegexRewriteSpec>,
    /// The path, made of the variables of the route's `path_template`: `/v2/{id}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_template: Option<TemplateText>,
    /// The host, perhaps with a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostPort>,
    /// The host that this header of the request names; where it names none, the host stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_from_header: Option<HeaderName>,
}

/// Replaces every place of the path (without the query) where an expression matches, 32 at most.
/// What comes out is normalised; if it is no path, or longer than 16 KiB, the answer is 500.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegexRewriteSpec {
    /// What is looked for, anywhere in the path.
    pub pattern: SearchPattern,
    /// What stands there instead: `\1` to `\9` for the groups of the expression, `\0` for all that
    /// matched.
    pub substitution: String,
}

/// A scheme of URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

/// An answer without any upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RespondSpec {
    /// 200 to 599.
    pub status: u16,
    /// The body, at most 16 KiB; plain text, unless `headers` give a content-type.
    #[serde(default, skip_serializing_if = "is_default")]
    pub body: String,
    /// Further headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<HeaderName, HeaderText>,
}
