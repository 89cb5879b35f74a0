//! Which HTTP a cluster's endpoints are spoken to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which HTTP a cluster's endpoints are spoken to, whatever their clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamHttp {
    /// HTTP/1.1: one request at a time on a connection.
    #[default]
    H1,
    /// HTTP/2, known beforehand: up to 100 requests at a time on a connection. gRPC needs it.
    H2,
    /// As an endpoint and Skein agree in the TLS handshake (ALPN): HTTP/2 if it speaks that, else
    /// HTTP/1.1. Needs `tls`.
    Auto,
}

impl UpstreamHttp {
    /// The word of the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::Auto => "auto",
        }
    }
}
