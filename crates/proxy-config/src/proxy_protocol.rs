//! Who connects by way of another proxy, and who is told of it.
//!
//! Owns the settings. The bytes are the proxy's.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::words::Network;

/// Who connects by way of another proxy, which says so first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// Everybody; who does not is refused.
    Required,
    /// Some. Without a list of those who are trusted, whoever can connect can claim any address.
    Optional,
}

/// Whose headers of the PROXY protocol a listener believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introductions {
    /// Whether everybody must send one.
    pub mode: ProxyProtocol,
    /// Those who are believed; `None`: everybody.
    pub trusted: Option<Box<[Network]>>,
}

impl Introductions {
    /// Whether a header from this address is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let trusted = self.trusted.as_ref();
        trusted.is_none_or(|all| all.iter().any(|network| network.contains(address)))
    }
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocolVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl ProxyProtocolVersion {
    /// The word of the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}
