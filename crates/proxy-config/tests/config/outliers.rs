//! Outlier detection: as written, compiled and explained.

use std::time::Duration;

use proxy_config::compiled::{FailurePercentage, Outlier, SuccessRate};
use proxy_config::{Ask, EndpointHealth, ExplainedEjection, Time, explain, parse_documents};

use crate::{BASE, compiled, named, set, texts, with};

fn outlier(text: &str) -> Option<Outlier> {
    let text = format!("{{kind: Cluster, name: a, endpoints: ['10.0.0.1:80'], {text}}}");
    let compiled = compiled(&with(&set(BASE), &text));
    compiled.config.clusters[&named("a")].outlier.clone()
}

#[test]
fn it_is_off_unless_the_block_is_there_and_then_it_is_envoys() {
    assert_eq!(outlier(""), None);
    let envoys = Outlier {
        consecutive_5xx: 5,
        consecutive_gateway_failure: 0,
        split_local_origin: false,
        consecutive_local_origin_failure: 5,
        success_rate: Some(SuccessRate {
            minimum_hosts: 5,
            request_volume: 100,
            stdev_factor: 1900,
        }),
        failure_percentage: None,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 10,
    };
    assert_eq!(outlier("outlier: {}"), Some(envoys.clone()));
    let given = outlier(
        "outlier: {consecutive_5xx: 0, consecutive_gateway_failure: 3, success_rate: false,
          split_external_local_origin_errors: true, consecutive_local_origin_failure: 2,
          failure_percentage_threshold: 85, base_ejection_time: 10m, max_ejection_percent: 50}",
    );
    let expected = Outlier {
        consecutive_5xx: 0,
        consecutive_gateway_failure: 3,
        split_local_origin: true,
        consecutive_local_origin_failure: 2,
        success_rate: None,
        failure_percentage: Some(FailurePercentage {
            threshold: 85,
            minimum_hosts: 5,
            request_volume: 50,
        }),
        base_ejection_time: Duration::from_secs(600),
        // The longest is not shorter than the first.
        max_ejection_time: Duration::from_secs(600),
        max_ejection_percent: 50,
        ..envoys
    };
    assert_eq!(given, Some(expected));
}

#[test]
fn faults_are_told_at_their_place() {
    for (fields, part) in [
        (
            "consecutive_local_origin_failure: 3",
            "outlier.consecutive_local_origin_failure: local failures are not told apart; add",
        ),
        (
            "success_rate: false, success_rate_stdev_factor: 1000",
            "outlier.success_rate: it is off, but its numbers are given",
        ),
        (
            "failure_percentage_request_volume: 9",
            "outlier.failure_percentage_threshold: it is left out",
        ),
        (
            "failure_percentage_threshold: 101",
            "outlier.failure_percentage_threshold: out of bounds",
        ),
        (
            "success_rate_minimum_hosts: 0",
            "outlier.success_rate_minimum_hosts: it is 0",
        ),
        (
            "interval: 1ms",
            "outlier.interval: too often; give at least 10ms",
        ),
        (
            "base_ejection_time: 0s",
            "outlier.base_ejection_time: no time at all",
        ),
        (
            "base_ejection_time: 2s, max_ejection_time: 1s",
            "outlier.max_ejection_time: it is shorter than `base_ejection_time`",
        ),
        (
            "max_ejection_percent: 101",
            "outlier.max_ejection_percent: it is more than 100 percent",
        ),
        (
            "enforcing_success_rate: 5",
            "unknown field `enforcing_success_rate`",
        ),
    ] {
        let text = format!(
            "{{kind: Cluster, name: a, endpoints: ['10.0.0.1:80'], outlier: {{{fields}}}}}"
        );
        let faults = parse_documents("in.yaml", &text).expect_err("the text is faulty");
        let found = texts(&faults);
        assert!(
            found.len() == 1 && found[0].contains(part),
            "{found:?} should have {part}"
        );
    }
}

#[test]
fn explain_tells_who_is_ejected_and_for_how_long() {
    let compiled = compiled(&set(BASE));
    let ask = Ask::get("http://shop.test/").unwrap();
    let health = EndpointHealth {
        ejected: Some(ExplainedEjection {
            why: "consecutive_5xx".to_owned(),
            left: Time(Duration::from_secs(25)),
        }),
        ..EndpointHealth::default()
    };
    let text = explain(&compiled.config, &ask, &|_, _| health.clone()).to_string();
    let part = ": unknown, ejected for consecutive_5xx (25s left)\n";
    assert!(text.contains(part), "{text}\nshould have {part}");
}
