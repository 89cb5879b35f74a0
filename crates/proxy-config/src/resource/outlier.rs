//! Outlier detection as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Time;

/// Endpoints whose answers are bad are taken out for a while, with what this node sees of its own
/// traffic. Words and defaults are Envoy's; without this block nobody is taken out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutlierSpec {
    /// So many answers of 500 and above in a row, requests without connection or answer among
    /// them; 0: never for that. Left out: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_5xx: Option<u32>,
    /// So many answers of 502, 503 or 504 in a row, requests without connection or in vain among
    /// them; left out: never for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_gateway_failure: Option<u32>,
    /// `true`: no connection and no answer in time are told apart from bad answers, and count for
    /// `consecutive_local_origin_failure` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_external_local_origin_errors: Option<bool>,
    /// With `split_external_local_origin_errors`: so many of these in a row; 0: never for that.
    /// Left out: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_local_origin_failure: Option<u32>,
    /// `false`: endpoints are not compared with each other. Left out: who succeeds much less often
    /// than the others is taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<bool>,
    /// They are compared where at least so many have enough requests; left out: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate_minimum_hosts: Option<u32>,
    /// So many requests in an interval are enough; left out: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate_request_volume: Option<u32>,
    /// Too far below the mean is so many thousandths of a standard deviation; left out: 1900.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate_stdev_factor: Option<u32>,
    /// Who fails this share of its requests, in percent, is taken out whatever the others do, 1 to
    /// 100. Left out: never for that (Envoy's would be 85).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_percentage_threshold: Option<u8>,
    /// That is looked at where at least so many have enough requests; left out: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_percentage_minimum_hosts: Option<u32>,
    /// So many requests in an interval are enough; left out: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_percentage_request_volume: Option<u32>,
    /// How often rates are looked at, and whether somebody may return; left out: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Time>,
    /// How long the first ejection lasts; the n-th in short order lasts n times that. Left out: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ejection_time: Option<Time>,
    /// But no longer than this; left out: 300s, or `base_ejection_time` if that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ejection_time: Option<Time>,
    /// A random time up to this is added, so that not all return at once; left out: 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ejection_time_jitter: Option<Time>,
    /// At most so many percent of the endpoints are out at a time, but one may always be. Left out:
    /// 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ejection_percent: Option<u8>,
}
