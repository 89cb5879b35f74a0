//! Retries and time limits of routes, as config writes them and `explain` tells them.

use std::time::Duration;

use proxy_config::compiled::{Defaults, GivenBy};
use proxy_config::{Ask, EndpointHealth, Explanation, explain, parse_documents};

use crate::{BASE, compiled, set, texts, with};

fn host(fields: &str) -> String {
    format!("{{kind: VirtualHost, name: shop, domains: [shop.test], routes: [{{{fields}}}]}}")
}

fn explained(fields: &str) -> Explanation {
    let config = compiled(&with(&set(BASE), &host(fields))).config;
    let ask = Ask::get("http://shop.test/").unwrap();
    explain(&config, &ask, &|_, _| EndpointHealth::default())
}

#[test]
fn faults_of_retries_and_limits_are_told_at_their_place() {
    for (fields, part) in [
        (
            "to: a, retry: {when: [retriable-status-codes]}",
            "retry.status_codes: `retriable-status-codes` does not say which; give them here",
        ),
        (
            "to: a, retry: {when: [5xx], status_codes: [429]}",
            "retry.status_codes: nothing asks for it; add `retriable-status-codes` to `when`",
        ),
        (
            "to: a, retry: {when: [retriable-headers]}",
            "retry.headers: `retriable-headers` does not say which",
        ),
        (
            "to: a, retry: {when: [retriable-status-codes], status_codes: [100]}",
            "retry.status_codes[0]: not the status of an answer; give 200 to 599",
        ),
        (
            "to: a, retry: {when: [retriable-headers], headers: [{name: x}]}",
            "retry.headers[0]: a header condition says one thing",
        ),
        (
            "to: a, retry: {when: [5xx], back_off: {base: 1s, max: 500ms}}",
            "retry.back_off.max: it is less than the first pause",
        ),
        (
            "to: a, retry: {when: [5xx], back_off: {max: 20ms}}",
            "retry.back_off.max: it is less than the first pause",
        ),
        (
            "to: a, retry: {when: [5xx], back_off: {base: 0s}}",
            "retry.back_off.base: no time at all",
        ),
        (
            "to: a, retry: {when: [unavailible]}",
            "retry.when[0]: unknown word `unavailible`; did you mean `unavailable`?",
        ),
        (
            "to: a, max_stream_duration: 0s",
            "max_stream_duration: no time at all; give more than 0s",
        ),
        (
            "respond: {status: 200}, idle_timeout: 1s",
            "idle_timeout: nothing is sent upstream",
        ),
    ] {
        let faults = texts(&parse_documents("in", &host(fields)).unwrap_err());
        let told = |fault: &String| fault.contains(&format!("routes[0].{part}"));
        assert!(faults.iter().any(told), "{faults:#?}\nshould have {part}");
    }
}

#[test]
fn every_condition_of_a_retry_is_told() {
    let words = "connect-failure, refused-stream, reset, 5xx, gateway-error, retriable-4xx, \
                 envoy-ratelimited, cancelled, deadline-exceeded, resource-exhausted, internal, \
                 unavailable";
    let explanation = explained(&format!(
        "to: a, retry: {{when: [{words}, retriable-status-codes, retriable-headers], \
         status_codes: [429], headers: [{{name: x-again, present: true}}], times: 3, \
         back_off: {{base: 10ms}}, retry_after: 5s, non_idempotent: true}}"
    ));
    let line = format!(
        "\nretry up to 3 times on {words}, status 429, header x-again present, pauses from 10ms to \
         100ms, retry-after up to 5s, whatever the method (the route says so)\n"
    );
    assert!(explanation.to_string().contains(&line), "{explanation}");
    let json = serde_json::to_string(&explanation).unwrap();
    assert!(
        json.contains(r#""back_off":["10ms","100ms"],"retry_after":"5s","non_idempotent":true"#)
    );
    assert_eq!(
        serde_json::from_str::<Explanation>(&json).unwrap(),
        explanation
    );
    let retry = explanation.chosen.unwrap().retry.unwrap();
    assert_eq!(retry.given_by, GivenBy::Route);
}

#[test]
fn limits_of_time_are_told_and_left_to_defaults() {
    let text = explained("to: a, idle_timeout: 1m, max_stream_duration: 10m").to_string();
    assert!(
        text.contains("\ntimeout 15s\nidle timeout 1m\nat most 10m from head to end\n"),
        "{text}"
    );
    let never = explained("to: a, idle_timeout: 0s").to_string();
    assert!(never.contains("\nno idle timeout\n"), "{never}");
    let plain = explained("to: a").chosen.unwrap();
    assert_eq!(
        (plain.idle_timeout, plain.max_stream_duration),
        (None, None)
    );
    let usual = Defaults::default().stream_idle_timeout;
    assert_eq!(usual, Duration::from_secs(300));
}
