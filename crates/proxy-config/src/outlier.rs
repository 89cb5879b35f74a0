//! Outlier detection, as compiled: when an endpoint is taken out for what its answers are like.
//!
//! Owns the shape, with Envoy's words. Never judges: that is `proxy-balance`.

use std::time::Duration;

/// What makes an endpoint an outlier, and for how long it is ejected then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlier {
    /// So many answers of 500 and above in a row; 0: never for that. Where local failures are not
    /// told apart, they count, too.
    pub consecutive_5xx: u32,
    /// So many answers of 502, 503 or 504 in a row; 0: never for that.
    pub consecutive_gateway_failure: u32,
    /// Failures that are found here (no connection, no answer in time) are told apart from bad
    /// answers.
    pub split_local_origin: bool,
    /// So many local failures in a row, where they are told apart; 0: never for that.
    pub consecutive_local_origin_failure: u32,
    /// An endpoint that succeeds much less often than the others; `None`: never for that.
    pub success_rate: Option<SuccessRate>,
    /// An endpoint that fails so often, whatever the others do; `None`: never for that.
    pub failure_percentage: Option<FailurePercentage>,
    /// How often rates are looked at, and whether an ejection is over.
    pub interval: Duration,
    /// How long the first ejection lasts; the n-th in short order lasts n times that.
    pub base_ejection_time: Duration,
    /// But no longer than this.
    pub max_ejection_time: Duration,
    /// A random time up to this is added, so that endpoints do not return all at once.
    pub max_ejection_time_jitter: Duration,
    /// At most so many percent of the cluster's endpoints are ejected at a time; one always may be.
    pub max_ejection_percent: u8,
}

/// When an endpoint's share of good answers is too far below the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessRate {
    /// Nobody is judged unless so many endpoints have enough requests.
    pub minimum_hosts: u32,
    /// So many requests in an interval are enough.
    pub request_volume: u32,
    /// Too far is so many thousandths of a standard deviation.
    pub stdev_factor: u32,
}

/// When an endpoint's share of bad answers is too high.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailurePercentage {
    /// Too high is this share, in percent.
    pub threshold: u8,
    /// Nobody is judged unless so many endpoints have enough requests.
    pub minimum_hosts: u32,
    /// So many requests in an interval are enough.
    pub request_volume: u32,
}
