//! Outlier detection, as written to as compiled.

use std::time::Duration;

use super::time;
use crate::compiled::{FailurePercentage, Outlier, SuccessRate};
use crate::resource::OutlierSpec;

/// Envoy's, all of them.
const CONSECUTIVE: u32 = 5;
const MINIMUM_HOSTS: u32 = 5;
const SUCCESS_RATE_VOLUME: u32 = 100;
const STDEV_FACTOR: u32 = 1900;
const FAILURE_PERCENTAGE_VOLUME: u32 = 50;
const INTERVAL: Duration = Duration::from_secs(10);
const BASE_EJECTION: Duration = Duration::from_secs(30);
const MAX_EJECTION: Duration = Duration::from_secs(300);
const MAX_EJECTION_PERCENT: u8 = 10;

pub(super) fn outlier(spec: &OutlierSpec) -> Outlier {
    let success_rate = SuccessRate {
        minimum_hosts: spec.success_rate_minimum_hosts.unwrap_or(MINIMUM_HOSTS),
        request_volume: (spec.success_rate_request_volume).unwrap_or(SUCCESS_RATE_VOLUME),
        stdev_factor: spec.success_rate_stdev_factor.unwrap_or(STDEV_FACTOR),
    };
    let failure_percentage = |threshold| FailurePercentage {
        threshold,
        minimum_hosts: (spec.failure_percentage_minimum_hosts).unwrap_or(MINIMUM_HOSTS),
        request_volume: (spec.failure_percentage_request_volume)
            .unwrap_or(FAILURE_PERCENTAGE_VOLUME),
    };
    let base = time(spec.base_ejection_time, BASE_EJECTION);
    Outlier {
        consecutive_5xx: spec.consecutive_5xx.unwrap_or(CONSECUTIVE),
        consecutive_gateway_failure: spec.consecutive_gateway_failure.unwrap_or(0),
        split_local_origin: spec.split_external_local_origin_errors == Some(true),
        consecutive_local_origin_failure: (spec.consecutive_local_origin_failure)
            .unwrap_or(CONSECUTIVE),
        success_rate: (spec.success_rate != Some(false)).then_some(success_rate),
        failure_percentage: spec.failure_percentage_threshold.map(failure_percentage),
        interval: time(spec.interval, INTERVAL),
        base_ejection_time: base,
        max_ejection_time: time(spec.max_ejection_time, MAX_EJECTION.max(base)),
        max_ejection_time_jitter: time(spec.max_ejection_time_jitter, Duration::ZERO),
        max_ejection_percent: spec.max_ejection_percent.unwrap_or(MAX_EJECTION_PERCENT),
    }
}
