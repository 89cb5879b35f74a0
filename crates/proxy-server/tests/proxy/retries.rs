//! When a request is tried again, and when it must not be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use crate::rig::{
    Backend, PATIENCE, Rig, config, eventually, fresh_address, ok, read_request, status,
};

/// An upstream that reads each request and closes without an answer.
async fn closing() -> (Backend, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            if read_request(&mut stream, &mut Vec::new(), 0)
                .await
                .is_some()
            {
                seen.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    (backend.await, count)
}

#[tokio::test]
async fn a_dead_upstream_costs_no_request() {
    let alive = Backend::saying("alive").await;
    let dead = fresh_address();
    let rig = Rig::start(&config("", "balance: round_robin", &[dead, alive.address])).await;
    let mut client = rig.connect().await;
    for method in ["GET", "POST"] {
        for _ in 0..10 {
            client
                .send(&format!(
                    "{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"
                ))
                .await;
            assert_eq!(client.response().await.text(), "alive");
        }
    }
    assert!(alive.seen().iter().all(|seen| seen.body == b"hi"));
    assert!(rig.metric("cluster_upstream_rq_retry_success_total", "") >= 5.0);
}

#[tokio::test]
async fn without_any_upstream_the_answer_says_so() {
    let rig = Rig::start(&config("", "", &[fresh_address()])).await;
    let response = rig.get("/").await;
    assert_eq!(response.status, 503);
    assert!(response.header("proxy-status")[0].contains("error=connection_refused"));
    rig.counts("http_downstream_rq_flags_total", "\"UF\"", 1.0)
        .await;
    rig.counts("cluster_upstream_rq_retry_limit_exceeded_total", "", 1.0)
        .await;
}

#[tokio::test]
async fn retries_that_are_off_are_off() {
    let off = "retry: { times: 0 }";
    let rig = Rig::start(&config(off, "", &[fresh_address()])).await;
    let response = rig.get("/").await;
    assert_eq!(response.status, 503);
    assert!(response.header("proxy-status")[0].contains("error=connection_refused"));
    assert_eq!(
        rig.metric("cluster_upstream_cx_connect_fail_total", ""),
        1.0
    );
    // No limit was met, for none was asked to be tried again.
    assert_eq!(
        rig.metric("cluster_upstream_rq_retry_limit_exceeded_total", ""),
        0.0
    );

    let (backend, count) = closing().await;
    let rig = Rig::start(&config(off, "", &[backend.address])).await;
    assert_eq!(rig.get("/").await.status, 502);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_request_lost_on_an_idle_connection_goes_again_unless_retries_are_off() {
    // Answers the first request of a connection, and reads the second one to no avail.
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            let mut buffer = Vec::new();
            for answer in [Some(ok("first")), None] {
                if read_request(&mut stream, &mut buffer, 0).await.is_none() {
                    return;
                }
                seen.fetch_add(1, Ordering::Relaxed);
                if let Some(answer) = answer {
                    stream.write_all(&answer).await.unwrap();
                }
            }
        }
    })
    .await;
    let policy = "retry: { when: [connect-failure], times: 1 }";
    for (policy, status, requests) in [(policy, 200, 3), ("retry: { times: 0 }", 502, 2)] {
        let rig = Rig::start(&config(policy, "", &[backend.address])).await;
        let mut client = rig.connect().await;
        for status in [200, status] {
            client.send("PUT / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert_eq!(client.response().await.status, status);
        }
        assert_eq!(count.swap(0, Ordering::Relaxed), requests);
    }
}

#[tokio::test]
async fn a_post_that_was_sent_is_never_sent_again() {
    let (backend, count) = closing().await;
    let spare = Backend::saying("spare").await;
    let policy = "retry: { when: [connect-failure, reset, 5xx], times: 3 }";
    let endpoints = [backend.address, spare.address];
    let rig = Rig::start(&config(policy, "balance: round_robin", &endpoints)).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        let mut client = rig.connect().await;
        client
            .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx")
            .await;
        answers.push(client.response().await.status);
    }
    let failed = answers.iter().filter(|status| **status == 502).count();
    assert_eq!(failed, count.load(Ordering::Relaxed));
    assert!(failed >= 2, "{answers:?}");
    assert_eq!(spare.seen().len() + failed, 6);
    // The same by an idempotent method reaches the spare one.
    for _ in 0..6 {
        let mut client = rig.connect().await;
        client
            .send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx")
            .await;
        assert_eq!(client.response().await.text(), "spare");
    }
}

#[tokio::test]
async fn a_body_too_long_to_keep_is_sent_once() {
    let (backend, count) = closing().await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let body = "x".repeat(100_000);
    let mut client = rig.connect().await;
    client
        .send(&format!(
            "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n{body}"
        ))
        .await;
    assert_eq!(client.response().await.status, 502);
    assert_eq!(count.load(Ordering::Relaxed), 1);
    // A short one is kept, chunks and all.
    let mut client = rig.connect().await;
    client
        .send("PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 502);
    assert_eq!(count.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn statuses_are_retried_by_policy_and_the_last_answer_passes() {
    let count = Arc::new(AtomicUsize::new(0));
    let tries = count.clone();
    let backend = Backend::http(move |seen| {
        let number = tries.fetch_add(1, Ordering::Relaxed);
        if seen.head.starts_with("GET /never") || number == 0 {
            status(503, "busy")
        } else {
            ok(&String::from_utf8_lossy(&seen.body))
        }
    })
    .await;
    let policy = "retry: { when: [gateway-error], times: 2 }";
    let rig = Rig::start(&config(policy, "", &[backend.address])).await;
    let mut client = rig.connect().await;
    client
        .send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody")
        .await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (200, "body"));
    assert_eq!(count.swap(0, Ordering::Relaxed), 2);

    let response = rig.get("/never").await;
    assert_eq!((response.status, response.text()), (503, "busy"));
    assert_eq!(count.load(Ordering::Relaxed), 3);
    rig.counts("cluster_upstream_rq_xx_total", "class=\"5\"", 4.0)
        .await;
}

#[tokio::test]
async fn retries_end_at_the_budget() {
    let backend = Backend::http(|_| status(503, "busy")).await;
    let policy = "retry: { when: [5xx], times: 1 }";
    let limits = "limits: { retries: 0 }";
    let rig = Rig::start(&config(policy, limits, &[backend.address])).await;
    // One request at a time: a fifth of one is none.
    assert_eq!(rig.get("/").await.status, 503);
    assert_eq!(backend.seen().len(), 1);
    rig.counts("cluster_upstream_rq_retry_overflow_total", "", 1.0)
        .await;
}

#[tokio::test]
async fn a_slow_answer_becomes_504_and_tells_why() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0).await;
        sleep(PATIENCE).await;
    })
    .await;
    let rig = Rig::start(&config("timeout: 100ms", "", &[backend.address])).await;
    let before = Instant::now();
    let response = rig.get("/").await;
    assert_eq!(response.status, 504);
    assert!(response.header("proxy-status")[0].contains("error=http_response_timeout"));
    assert!(before.elapsed() >= Duration::from_millis(100));
    rig.counts("cluster_upstream_rq_timeout_total", "", 1.0)
        .await;
    rig.counts("http_downstream_rq_flags_total", "\"UT\"", 1.0)
        .await;
}

#[tokio::test]
async fn a_slow_try_is_given_up_for_another_endpoint() {
    let slow = Backend::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0).await;
        sleep(PATIENCE).await;
    })
    .await;
    let quick = Backend::saying("quick").await;
    let policy = "retry: { when: [gateway-error], times: 1, per_try_timeout: 100ms }";
    let endpoints: [SocketAddr; 2] = [slow.address, quick.address];
    let rig = Rig::start(&config(policy, "balance: round_robin", &endpoints)).await;
    for _ in 0..4 {
        assert_eq!(rig.get("/").await.text(), "quick");
    }
    assert!(rig.metric("cluster_upstream_rq_per_try_timeout_total", "") >= 1.0);
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_cut() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            .await;
        while stream.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let rig = Rig::start(&config("timeout: 150ms", "", &[backend.address])).await;
    let mut client = rig.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.try_response().await.is_none());
    rig.counts("http_downstream_rq_flags_total", "\"UT\"", 1.0)
        .await;
}

#[tokio::test]
async fn an_upstream_that_closes_idle_connections_costs_no_request() {
    let backend = Backend::raw(|mut stream, _| async move {
        // Says nothing of closing, and closes after each answer.
        if read_request(&mut stream, &mut Vec::new(), 0)
            .await
            .is_some()
        {
            stream.write_all(&ok("once")).await.unwrap();
        }
    })
    .await;
    let policy = "retry: { when: [connect-failure], times: 1 }";
    let rig = Rig::start(&config(policy, "", &[backend.address])).await;
    let mut client = rig.connect().await;
    for _ in 0..50 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "once");
    }
    eventually("no request is active", || {
        rig.metric("cluster_upstream_rq_active", "") == 0.0
    })
    .await;
}
