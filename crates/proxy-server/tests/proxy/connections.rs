//! How long connections to upstreams are used.

use std::time::Duration;

use bytes::Bytes;
use h2::server;
use http::Response;
use tokio::time::sleep;

use crate::rig::{Backend, Client, Rig, config};
use crate::streams::{
    ACK, Call, END_HEADERS, END_STREAM, Frame, HEADERS, PING, Raw, block, upstream,
};

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

/// An upstream of HTTP/2 that answers with the number of the connection.
async fn numbering() -> Backend {
    upstream(
        server::Builder::new(),
        |(_request, mut respond): Call, number| async move {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            let number = Bytes::from(number.to_string());
            stream.send_data(number, true).unwrap();
        },
    )
    .await
}

/// Which connection answered.
async fn number(client: &mut Client) -> String {
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.response().await.text().to_owned()
}

#[tokio::test]
async fn a_connection_of_http2_carries_as_many_requests_as_it_may() {
    for (most, expected) in [(2, "00112"), (1, "01234")] {
        let backend = numbering().await;
        let limit = format!("http: h2\nconnections: {{ max_requests_per_connection: {most} }}");
        let rig = Rig::start(&config("", &limit, &[backend.address])).await;
        let mut client = rig.connect().await;
        let mut numbers = String::new();
        for _ in 0..5 {
            numbers += &number(&mut client).await;
        }
        assert_eq!(numbers, expected);
        // Those that are used up are closed.
        let left = if most == 2 { 1.0 } else { 0.0 };
        rig.counts("cluster_upstream_cx_active", "", left).await;
    }
}

#[tokio::test]
async fn a_connection_of_http2_that_is_too_old_is_used_no_more_and_closed() {
    let backend = numbering().await;
    let limit = "http: h2\nconnections: { max_connection_duration: 20ms }";
    let rig = Rig::start(&config("", limit, &[backend.address])).await;
    let mut client = rig.connect().await;
    assert_eq!(number(&mut client).await, "0");
    sleep(Duration::from_millis(25)).await;
    assert_eq!(number(&mut client).await, "1");
    rig.counts("cluster_upstream_cx_active", "", 0.0).await;
}

const PINGS: &str =
    "http: h2\nconnections: { connection_keepalive: { interval: 5ms, timeout: 50ms } }";

#[tokio::test]
async fn an_upstream_that_answers_to_pings_keeps_its_connection() {
    let backend = Backend::raw(|stream, _| async move {
        let mut raw = Raw::accept(stream).await;
        let request = raw.until(HEADERS).await.unwrap();
        for _ in 0..3 {
            let ping = raw.until(PING).await.unwrap();
            raw.send(&[Frame::new(PING, ACK, 0, &ping.payload)]).await;
        }
        let status = block(&[(":status", "204")]);
        let flags = END_HEADERS | END_STREAM;
        raw.send(&[Frame::new(HEADERS, flags, request.stream, &status)])
            .await;
        while raw.next().await.is_some() {}
    })
    .await;
    let rig = Rig::start(&config("", PINGS, &[backend.address])).await;
    assert_eq!(rig.get("/").await.status, 204);
}

#[tokio::test]
async fn an_upstream_that_is_silent_to_pings_loses_its_connection() {
    let backend = Backend::raw(|stream, _| async move {
        let mut raw = Raw::accept(stream).await;
        while raw.next().await.is_some() {}
    })
    .await;
    let route = "retry: { times: 0 }";
    let rig = Rig::start(&config(route, PINGS, &[backend.address])).await;
    let answer = rig.get("/").await;
    assert_eq!(answer.status, 502);
    assert!(
        answer.head.contains("connection_terminated"),
        "{}",
        answer.head
    );
    rig.counts("cluster_upstream_cx_active", "", 0.0).await;
}
