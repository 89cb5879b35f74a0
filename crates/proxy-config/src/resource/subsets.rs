//! Subsets of a cluster's endpoints, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the endpoints of a cluster are divided by their labels, for routes that want a `subset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubsetsSpec {
    /// Lists of labels that routes choose by: `[[version], [stage, version]]`. For each list there
    /// is a subset for each combination of values that endpoints have. At most 8.
    pub keys: Vec<Vec<String>>,
    /// What becomes of requests whose subset has no endpoint; left out: `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackWord>,
    /// For `fallback: default`: the labels of the endpoints that such requests go to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub default: BTreeMap<String, String>,
}

/// What becomes of requests whose subset has no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FallbackWord {
    /// They are answered 503.
    None,
    /// They go to any endpoint.
    Any,
    /// They go to the endpoints with the labels of `default`.
    Default,
}
