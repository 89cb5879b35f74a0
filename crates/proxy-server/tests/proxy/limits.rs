//! What at most may be in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::rig::{Backend, Client, Rig, config, eventually, ok, read_request};

#[tokio::test]
async fn connections_are_limited_for_the_whole_node_and_requests_wait_their_turn() {
    let open = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, top) = (open.clone(), most.clone());
    let backend = Backend::raw(move |mut stream, _| {
        let (now, top) = (now.clone(), top.clone());
        async move {
            let count = now.fetch_add(1, Ordering::SeqCst) + 1;
            top.fetch_max(count, Ordering::SeqCst);
            let mut buffer = Vec::new();
            while read_request(&mut stream, &mut buffer, 0).await.is_some() {
                sleep(Duration::from_millis(5)).await;
                if stream.write_all(&ok("done")).await.is_err() {
                    break;
                }
            }
            now.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let limits = "limits: { connections: 3, pending: 100 }";
    let rig = Rig::start(&config("", limits, &[backend.address])).await;
    let address = rig.address("edge");
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            for _ in 0..5 {
                client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
                assert_eq!(client.response().await.status, 200);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    // A connection that the proxy closed may still be open at the other end for a moment.
    let most = most.load(Ordering::SeqCst);
    assert!((1..=5).contains(&most), "{most} connections");
    assert!(rig.metric("cluster_upstream_cx_overflow_total", "") > 0.0);
}

#[tokio::test]
async fn more_than_may_wait_are_refused_at_once() {
    let gate = Arc::new(Semaphore::new(0));
    let entry = gate.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let entry = entry.clone();
        async move {
            let mut buffer = Vec::new();
            while read_request(&mut stream, &mut buffer, 0).await.is_some() {
                entry.acquire().await.unwrap().forget();
                if stream.write_all(&ok("done")).await.is_err() {
                    break;
                }
            }
        }
    })
    .await;
    let limits = "limits: { connections: 1, pending: 1 }";
    let rig = Rig::start(&config("", limits, &[backend.address])).await;
    let ask = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut first = rig.connect().await;
    first.send(ask).await;
    eventually("the first is sent", || {
        rig.metric("cluster_upstream_rq_total", "") == 1.0
    })
    .await;
    let mut second = rig.connect().await;
    second.send(ask).await;
    eventually("the second waits", || {
        rig.metric("cluster_upstream_rq_pending_active", "") == 1.0
    })
    .await;
    let third = rig.get("/").await;
    assert_eq!(third.status, 503);
    assert!(third.header("proxy-status")[0].contains("error=connection_limit_reached"));
    rig.counts("http_downstream_rq_flags_total", "\"UO\"", 1.0)
        .await;
    gate.add_permits(2);
    assert_eq!(first.response().await.status, 200);
    assert_eq!(second.response().await.status, 200);
}

#[tokio::test]
async fn waiting_ends_with_the_connect_timeout() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0).await;
        sleep(crate::rig::PATIENCE).await;
    })
    .await;
    let limits = "limits: { connections: 1, pending: 10 }\nconnect_timeout: 100ms";
    let rig = Rig::start(&config("", limits, &[backend.address])).await;
    let mut first = rig.connect().await;
    first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    eventually("the first is sent", || {
        rig.metric("cluster_upstream_rq_total", "") == 1.0
    })
    .await;
    assert_eq!(rig.get("/").await.status, 503);
}
