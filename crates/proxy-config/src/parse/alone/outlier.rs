//! The rules for outlier detection.

use super::Findings;
use crate::resource::OutlierSpec;
use crate::units::Time;

/// Sweeps closer together would be a load, and rates of so short a time say nothing.
const INTERVAL_MIN_MS: u128 = 10;

pub(super) fn check(spec: &OutlierSpec, findings: &mut Findings) {
    let split = spec.split_external_local_origin_errors == Some(true);
    let unsplit = spec.consecutive_local_origin_failure.is_some() && !split;
    findings.refuse_if(
        unsplit,
        "outlier.consecutive_local_origin_failure",
        || "local failures are not told apart; add `split_external_local_origin_errors: true`, or leave it out".into(),
    );
    let compared = [
        spec.success_rate_minimum_hosts,
        spec.success_rate_request_volume,
        spec.success_rate_stdev_factor,
    ];
    let idle = spec.success_rate == Some(false) && compared.iter().any(Option::is_some);
    findings.refuse_if(idle, "outlier.success_rate", || {
        "it is off, but its numbers are given; leave out one or the other".into()
    });
    let counted = [
        spec.failure_percentage_minimum_hosts,
        spec.failure_percentage_request_volume,
    ];
    let threshold = spec.failure_percentage_threshold;
    let path = "outlier.failure_percentage_threshold";
    let missing = threshold.is_none() && counted.iter().any(Option::is_some);
    findings.refuse_if(missing, path, || {
        "it is left out, so its other numbers do nothing; give 1 to 100, such as 85".into()
    });
    findings.refuse_if(
        threshold.is_some_and(|t| !(1..=100).contains(&t)),
        path,
        || "out of bounds; give 1 to 100 percent, or leave it out".into(),
    );
    for (word, number) in [
        ("success_rate_minimum_hosts", compared[0]),
        ("success_rate_request_volume", compared[1]),
        ("failure_percentage_minimum_hosts", counted[0]),
        ("failure_percentage_request_volume", counted[1]),
    ] {
        findings.refuse_zero(format!("outlier.{word}"), number);
    }
    let hasty = |time: Time| time.0.as_millis() < INTERVAL_MIN_MS;
    findings.refuse_if(spec.interval.is_some_and(hasty), "outlier.interval", || {
        format!("too often; give at least {INTERVAL_MIN_MS}ms")
    });
    findings.refuse_zero_time("outlier.base_ejection_time", spec.base_ejection_time);
    let crossed = matches!(
        (spec.base_ejection_time, spec.max_ejection_time),
        (Some(base), Some(max)) if max.0 < base.0
    );
    findings.refuse_if(crossed, "outlier.max_ejection_time", || {
        "it is shorter than `base_ejection_time`; give at least that".into()
    });
    findings.refuse_zero_time("outlier.max_ejection_time", spec.max_ejection_time);
    findings.refuse_percent("outlier.max_ejection_percent", spec.max_ejection_percent);
}
