//! The kind Defaults as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RetrySpec;
use crate::compiled::AccessLog;
use crate::path::EscapedSlashes;
use crate::units::{Size, Time};

/// Mesh-wide settings. There is at most one, in namespace `default` under the name `default`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefaultsSpec {
    /// For routes that give no `timeout`; `0s`: no limit. Left out: 15s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_timeout: Option<Time>,
    /// For routes that give no `retry`; `{ times: 0 }`: never. Left out: twice, on
    /// `connect-failure` and `reset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
    /// For clusters that give none; left out: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Time>,
    /// Hops of proxies in front whose `x-forwarded-for` is believed; left out: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_hops: Option<u32>,
    /// Whether and how requests are logged; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// What to do with `%2F` and `%5C` in paths; left out: refuse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escaped_slashes: Option<EscapedSlashes>,
    /// The largest request head, 1KiB to 1MiB; left out: 60KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_head_size: Option<Size>,
    /// The time for a request head to arrive whole; left out: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_timeout: Option<Time>,
    /// A kept-alive client connection without a request for so long is closed; left out: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Time>,
    /// A body without progress for so long is cut; left out: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_idle_timeout: Option<Time>,
    /// The time that open requests get when a listener closes; left out: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<Time>,
}
