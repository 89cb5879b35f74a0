//! Which answers are tried again, after what pause, and when a request's time is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;

use crate::rig::{Backend, Rig, config, eventually, ok, read_request};

/// An upstream whose first answer is this, and whose others are good.
async fn at_first(answer: &'static str) -> Backend {
    let seen = Arc::new(AtomicUsize::new(0));
    Backend::http(move |_| match seen.fetch_add(1, Ordering::Relaxed) {
        0 => format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").into(),
        _ => ok("again"),
    })
    .await
}

#[tokio::test]
async fn answers_are_tried_again_by_status_header_and_grpc_status() {
    let codes = "when: [retriable-status-codes], status_codes: [429, 200]";
    let headers = "when: [retriable-headers], headers: [{ name: x-again, prefix: y }]";
    for (retry, method, answer, again) in [
        (codes, "GET", "429 Said", true),
        (codes, "GET", "503 Said", false),
        (codes, "POST", "429 Said", false),
        (
            "when: [5xx], non_idempotent: true",
            "POST",
            "503 Said",
            true,
        ),
        (headers, "GET", "200 Said\r\nx-again: yes", true),
        (headers, "GET", "200 Said\r\nx-again: no", false),
        (
            "when: [envoy-ratelimited]",
            "GET",
            "429 Said\r\nx-envoy-ratelimited: 1",
            true,
        ),
        (
            "when: [unavailable]",
            "POST",
            "200 Said\r\ngrpc-status: 14",
            true,
        ),
        (
            "when: [unavailable]",
            "POST",
            "200 Said\r\ngrpc-status: 4",
            false,
        ),
        (
            "when: [deadline-exceeded]",
            "POST",
            "200 Said\r\ngrpc-status: 4",
            true,
        ),
    ] {
        let backend = at_first(answer).await;
        let route = format!("retry: {{ {retry} }}");
        let rig = Rig::start(&config(&route, "", &[backend.address])).await;
        let mut client = rig.connect().await;
        client
            .send(&format!(
                "{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"
            ))
            .await;
        let response = client.response().await;
        let wanted = if again { "again" } else { "" };
        assert_eq!(response.text(), wanted, "{retry} {answer}");
        let seen = backend.seen();
        assert_eq!(seen.len(), 1 + usize::from(again), "{retry} {answer}");
        assert!(seen.iter().all(|seen| seen.body == b"hi"));
    }
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_kept_if_there_is_time_for_it() {
    for (answer, again) in [
        // The back-off would be longer than any test.
        ("503 Said\r\nretry-after: 0", true),
        // There is no time for it, so the answer is as good as it gets.
        ("503 Said\r\nretry-after: 3600", false),
    ] {
        let backend = at_first(answer).await;
        let route =
            "timeout: 1m\n    retry: { when: [5xx], back_off: { base: 1h }, retry_after: 1h }";
        let rig = Rig::start(&config(route, "", &[backend.address])).await;
        let response = rig.get("/").await;
        assert_eq!(response.status, if again { 200 } else { 503 }, "{answer}");
        assert_eq!(backend.seen().len(), 1 + usize::from(again));
    }
}

#[tokio::test]
async fn a_request_ends_by_the_limits_of_its_route() {
    // It answers the head, and then nothing more.
    let backend = Backend::raw(|mut stream, connection| async move {
        let mut buffer = Vec::new();
        let read = read_request(&mut stream, &mut buffer, connection).await;
        if read.is_some_and(|seen| seen.head.starts_with("GET /begun")) {
            let head = b"HTTP/1.1 200 Said\r\ncontent-length: 9\r\n\r\nab";
            stream.write_all(head).await.unwrap();
        }
        let _ = read_request(&mut stream, &mut buffer, connection).await;
    })
    .await;
    for (limit, details) in [
        ("idle_timeout: 50ms", "the answer stood still"),
        (
            "max_stream_duration: 50ms",
            "the route's time was over mid-answer",
        ),
    ] {
        let route = format!("timeout: 0s\n    {limit}");
        let yaml =
            config(&route, "", &[backend.address]) + "---\nkind: Defaults\naccess_log: json\n";
        let rig = Rig::start(&yaml).await;
        assert_eq!(rig.get("/none").await.status, 504, "{limit}");
        let mut client = rig.connect().await;
        client.send("GET /begun HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(client.try_response().await.is_none(), "{limit}");
        let line = |line: &serde_json::Value| line["details"] == details;
        eventually(details, || rig.log.lines().iter().any(line)).await;
    }
}
