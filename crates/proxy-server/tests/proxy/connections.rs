//! How long connections to upstreams are used.

use std::time::Duration;

use tokio::time::sleep;

use crate::rig::{Backend, Client, Rig, config};

async fn ask(client: &mut Client) {
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
}

/// On which connection each request came.
fn connections(backend: &Backend) -> Vec<usize> {
    backend.seen().iter().map(|seen| seen.connection).collect()
}

#[tokio::test]
async fn a_connection_carries_as_many_requests_as_it_may() {
    let backend = Backend::saying("hi").await;
    let limit = "connections: { max_requests_per_connection: 2 }";
    let rig = Rig::start(&config("", limit, &[backend.address])).await;
    // One client is served by one worker, and so by one pool.
    let mut client = rig.connect().await;
    for _ in 0..5 {
        ask(&mut client).await;
    }
    assert_eq!(connections(&backend), [0, 0, 1, 1, 2]);
    rig.counts("cluster_upstream_cx_total", "", 3.0).await;
    rig.counts("cluster_upstream_cx_active", "", 1.0).await;
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_used_no_more_and_closed() {
    let backend = Backend::saying("hi").await;
    let limit = "connections: { max_connection_duration: 20ms }";
    let rig = Rig::start(&config("", limit, &[backend.address])).await;
    let mut client = rig.connect().await;
    ask(&mut client).await;
    // It is older than that by then, whatever else happened.
    sleep(Duration::from_millis(25)).await;
    ask(&mut client).await;
    assert_eq!(connections(&backend), [0, 1]);
    rig.counts("cluster_upstream_cx_active", "", 0.0).await;
}
