//! The kind Listener as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HeadersSpec, ListenerTlsSpec, ProxyProtocolSpec, Targets, TlsRouteSpec, is_default};
use crate::units::Time;
use crate::words::Bind;

/// An address that nodes bind, and what is spoken there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerSpec {
    /// `":8080"` for the node's `--proxy-ip`, or `ip:port`.
    pub bind: Bind,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
    /// Whether, and how, TLS is spoken below that; left out: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTlsSpec>,
    /// Whether connections begin with a header of the PROXY protocol, version 1 or 2, that says
    /// who the client is: `required`, or `optional`, or a map with the sources that are trusted; without
    /// those, whoever can connect can claim to be anybody. It must come within Defaults' `head_timeout`. Left out: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolSpec>,
    /// For `tls_passthrough` only: where connections go by what they ask for. The nearest name wins,
    /// wherever it is written: a name itself, then the longest `*.x`, then routes without names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<TlsRouteSpec>,
    /// Where connections go: for `tcp` and `udp`, and needed there; for `tls_passthrough`, where those go that
    /// no route takes, which are closed otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Targets>,
    /// For all but `http`: a connection or session without a byte for so long is closed. `0s`: never.
    /// Left out: 1h, and 1m for `udp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Time>,
    /// What is changed of headers on this listener, for `http` only: before all other changes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub headers: HeadersSpec,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/2, whichever a client begins with; VirtualHosts attach to it.
    Http,
    /// Bytes, passed on as they are.
    Tcp,
    /// Datagrams: those of one client go to one endpoint, until neither sends any for the
    /// `idle_timeout`. A cluster's `limits.connections` bounds such sessions.
    Udp,
    /// TLS that is not ended here: where a connection goes is read from its first message, and every
    /// byte is passed on as it is. It must arrive within Defaults' `head_timeout`, in 16 KiB.
    TlsPassthrough,
}
