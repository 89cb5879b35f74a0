//! The field `routes` of a listener that passes TLS on, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Targets;
use crate::words::{AlpnName, ServerName};

/// Where connections go that ask for some names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsRouteSpec {
    /// What a connection must ask for.
    #[serde(rename = "match")]
    pub matches: TlsMatchSpec,
    /// Where it goes.
    pub to: Targets,
}

/// What the first message of a TLS connection is known by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsMatchSpec {
    /// The name that it asks for (SNI) is one of these; left out: whatever it asks for, and also if
    /// it asks for none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<ServerName>,
    /// It offers one of these protocols (ALPN); left out: whatever it offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<AlpnName>,
}
