//! Conditions on values as written: of headers and of query parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_default;
use crate::pattern::Pattern;
use crate::words::HeaderName;

/// A condition on one header: one of `exact`, `prefix`, `suffix`, `contains`, `regex`, `present`.
/// A header that is given several times has all its values, joined by `, `.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderSpec {
    /// The header's name.
    pub name: HeaderName,
    /// It must have this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// Its value must begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Its value must end so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// Its value must have this somewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// All of its value must match this regular expression (RE2's syntax).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<Pattern>,
    /// `true`: it must be there, with any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
    /// `true`: it must be there with another value; with `present`, it must be missing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub invert: bool,
}

/// A condition on one query parameter: one of `exact`, `prefix`, `regex`, `present`. Names and
/// values are decoded (`%41`, `+`); of several values the first counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuerySpec {
    /// The parameter's name.
    pub name: String,
    /// It must have this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// Its value must begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// All of its value must match this regular expression (RE2's syntax).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<Pattern>,
    /// `true`: it must be there, with any value or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}
