//! Endpoints that answer badly are taken out for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::rig::{Backend, PATIENCE, Rig, config, fresh_address, ok, status};
use crate::streams::{self, Call};

const ACTIVE: &str = "cluster_outlier_detection_ejections_active";
const ENFORCED: &str = "cluster_outlier_detection_ejections_enforced_total";
const OVERFLOW: &str = "cluster_outlier_detection_ejections_overflow_total";

/// An upstream whose n-th answer, from 0, has this status.
async fn scripted(script: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Backend {
    let count = AtomicUsize::new(0);
    Backend::http(move |_| status(script(count.fetch_add(1, Ordering::Relaxed)), "")).await
}

/// Retries off, and no panic: what is ejected gets nothing.
fn yaml(outlier: &str, endpoints: &[std::net::SocketAddr]) -> String {
    let route = "retry: { when: [connect-failure], times: 0 }";
    let cluster = format!("balance: round_robin\npanic_threshold: 0\noutlier: {{ {outlier} }}");
    config(route, &cluster, endpoints)
}

/// Sends requests until the metric has this value.
async fn ask_until(rig: &Rig, name: &str, labels: &str, value: f64) {
    let deadline = Instant::now() + PATIENCE;
    while rig.metric(name, labels) != value {
        assert!(Instant::now() < deadline, "never: {name} {labels} {value}");
        rig.get("/").await;
    }
}

#[tokio::test]
async fn failures_in_a_row_count_over_all_workers_and_a_success_ends_the_row() {
    // Four bad, one good, five bad: on connections of their own, so by both workers.
    let backend = scripted(|n| if n == 4 { 200 } else { 500 }).await;
    let rig = Rig::start(&yaml("", &[backend.address])).await;
    for _ in 0..10 {
        assert_ne!(rig.get("/").await.status, 503, "it is in place");
    }
    rig.counts(ACTIVE, "", 1.0).await;
    rig.counts(ENFORCED, "consecutive_5xx", 1.0).await;
    let (why, left) = rig.proxy.ejection("default/web", backend.address).unwrap();
    assert_eq!(why, "consecutive_5xx");
    assert!(left <= Duration::from_secs(30), "{left:?}");
    // Nobody is left, which the workers know with their next turn.
    let deadline = Instant::now() + PATIENCE;
    while rig.get("/").await.status != 503 {
        assert!(Instant::now() < deadline, "it never left");
    }
}

#[tokio::test]
async fn who_is_ejected_gets_nothing_until_its_time_is_over() {
    let bad = Arc::new(AtomicBool::new(true));
    let is_bad = bad.clone();
    let sick = Backend::http(move |_| match is_bad.load(Ordering::Relaxed) {
        true => status(502, "sick"),
        false => ok("sick"),
    })
    .await;
    let well = Backend::saying("well").await;
    let endpoints = [sick.address, well.address];
    let outlier = "consecutive_5xx: 0, consecutive_gateway_failure: 2";
    let mut rig = Rig::start(&yaml(outlier, &endpoints)).await;
    ask_until(&rig, ENFORCED, "consecutive_gateway_failure", 1.0).await;
    let deadline = Instant::now() + PATIENCE;
    let mut in_a_row = 0;
    while in_a_row < 20 {
        assert!(Instant::now() < deadline, "it never left");
        let is_well = rig.get("/").await.text() == "well";
        in_a_row = if is_well { in_a_row + 1 } else { 0 };
    }
    // Without the block, nobody is ejected any more.
    rig.apply(&config("", "balance: round_robin", &endpoints))
        .await;
    bad.store(false, Ordering::Relaxed);
    let before = sick.seen().len();
    for _ in 0..8 {
        rig.get("/").await;
    }
    assert!(sick.seen().len() > before);
    assert_eq!(rig.proxy.ejection("default/web", sick.address), None);

    // With a short time, it returns by itself.
    bad.store(true, Ordering::Relaxed);
    let short = format!("{outlier}, interval: 10ms, base_ejection_time: 20ms");
    rig.apply(&yaml(&short, &endpoints)).await;
    ask_until(&rig, ENFORCED, "consecutive_gateway_failure", 1.0).await;
    bad.store(false, Ordering::Relaxed);
    rig.counts(ACTIVE, "", 0.0).await;
    let deadline = Instant::now() + PATIENCE;
    while rig.get("/").await.text() != "sick" {
        assert!(Instant::now() < deadline, "it never returned");
    }
}

#[tokio::test]
async fn one_may_be_ejected_and_the_next_is_counted_as_too_many() {
    let (one, two) = (scripted(|_| 500).await, scripted(|_| 500).await);
    let rig = Rig::start(&yaml("consecutive_5xx: 1", &[one.address, two.address])).await;
    ask_until(&rig, ENFORCED, "", 1.0).await;
    let deadline = Instant::now() + PATIENCE;
    while rig.metric(OVERFLOW, "") < 1.0 {
        assert!(Instant::now() < deadline, "the other one is never too many");
        rig.get("/").await;
    }
    assert_eq!(
        (rig.metric(ACTIVE, ""), rig.metric(ENFORCED, "")),
        (1.0, 1.0)
    );
}

#[tokio::test]
async fn local_failures_are_told_apart_if_wanted() {
    // Nobody listens there.
    let dead = fresh_address();
    let rig = Rig::start(&yaml("", &[dead])).await;
    for _ in 0..5 {
        rig.get("/").await;
    }
    rig.counts(ENFORCED, "consecutive_5xx", 1.0).await;

    let split = "split_external_local_origin_errors: true, consecutive_local_origin_failure: 3";
    let rig = Rig::start(&yaml(split, &[dead])).await;
    for _ in 0..3 {
        rig.get("/").await;
    }
    rig.counts(ENFORCED, "consecutive_local_origin_failure", 1.0)
        .await;
    assert_eq!(rig.metric(ENFORCED, "consecutive_5xx"), 0.0);
}

#[tokio::test]
async fn who_breaks_connections_or_fails_too_often_is_ejected() {
    let broken = Backend::raw(|_, _| async {}).await;
    let rig = Rig::start(&yaml("consecutive_5xx: 3", &[broken.address])).await;
    for _ in 0..3 {
        rig.get("/").await;
    }
    rig.counts(ENFORCED, "consecutive_5xx", 1.0).await;

    // Two of three are bad, never three in a row.
    let often = scripted(|n| if n % 3 == 0 { 200 } else { 500 }).await;
    let outlier = "consecutive_5xx: 3, failure_percentage_threshold: 50, \
                   failure_percentage_minimum_hosts: 1, failure_percentage_request_volume: 3, \
                   interval: 20ms";
    let rig = Rig::start(&yaml(outlier, &[often.address])).await;
    ask_until(&rig, ENFORCED, "failure_percentage", 1.0).await;
    assert_eq!(rig.metric(ENFORCED, "consecutive_5xx"), 0.0);
}

#[tokio::test]
async fn a_tcp_endpoint_that_refuses_is_ejected() {
    let dead = fresh_address();
    let rig = Rig::start(&format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: tcp\nto: web\n\
         ---\nkind: Cluster\nname: web\nendpoints: [\"{dead}\"]\noutlier: {{}}\n"
    ))
    .await;
    for _ in 0..5 {
        // It is reset, perhaps before the client knows that it was made.
        if let Ok(mut stream) = TcpStream::connect(rig.address("edge")).await {
            let read = timeout(PATIENCE, stream.read(&mut [0])).await;
            assert!(matches!(read.expect("an end in time"), Ok(0) | Err(_)));
        }
    }
    rig.counts(ENFORCED, "consecutive_5xx", 1.0).await;
}

#[tokio::test]
async fn upstreams_of_http2_are_judged_by_their_answers_and_resets() {
    let refusing = |(_request, mut respond): Call, _| async move {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
    };
    let failing = |(_request, mut respond): Call, _| async move {
        let mut answer = http::Response::new(());
        *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        let _ = respond.send_response(answer, true);
    };
    let builder = h2::server::Builder::new;
    for sick in [
        streams::upstream(builder(), refusing).await,
        streams::upstream(builder(), failing).await,
    ] {
        let well = streams::upstream(builder(), |(_request, respond): Call, _| async move {
            streams::say(respond, "well");
        })
        .await;
        let endpoints = [sick.address, well.address];
        let outlier = "consecutive_5xx: 3, max_ejection_percent: 50";
        let yaml = format!("{}\nhttp: h2\n", yaml(outlier, &endpoints));
        let rig = Rig::start(&yaml).await;
        ask_until(&rig, ACTIVE, "", 1.0).await;
        rig.counts(ENFORCED, "consecutive_5xx", 1.0).await;
        assert!(rig.proxy.ejection("default/web", sick.address).is_some());
        // Both workers know with their next turn.
        let deadline = Instant::now() + PATIENCE;
        let mut in_a_row = 0;
        while in_a_row < 10 {
            assert!(Instant::now() < deadline, "it never left");
            let is_well = rig.get("/").await.status == 200;
            in_a_row = if is_well { in_a_row + 1 } else { 0 };
        }
    }
}
