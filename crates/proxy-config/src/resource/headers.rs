//! Changes of headers as written: the same on a listener, a virtual host, a route and a cluster.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_default;
use crate::header::HeaderTemplate;
use crate::words::HeaderName;

/// What is changed of headers. The listener's changes come first, then the virtual host's, the
/// route's and the cluster's, so that the most specific one has the last word (as Envoy with
/// `most_specific_header_mutations_wins`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeadersSpec {
    /// Of requests, before they go to an upstream. Routes match what the client sent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub request: HeaderEditsSpec,
    /// Of answers, before they go to the client: of upstreams' and, once a route has taken the
    /// request, of Skein's own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub response: HeaderEditsSpec,
}

/// Changes of one head: first `remove`, then `set`, `add` and `add_if_absent`, each in the order of
/// the names. A value whose variables have nothing to say changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderEditsSpec {
    /// Headers that go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<HeaderName>,
    /// Headers that have this value alone, whatever was there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<HeaderName, HeaderTemplate>,
    /// Headers that have this value beside what is there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<HeaderName, HeaderTemplate>,
    /// Headers that have this value where there is none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add_if_absent: BTreeMap<HeaderName, HeaderTemplate>,
}
