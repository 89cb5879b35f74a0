//! TCP listeners: bytes pass, ends pass, failures go elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rig::{Backend, PATIENCE, Rig, eventually, fresh_address};

fn config(listener: &str, cluster: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: tcp\nto: db\n{listener}\n\
         ---\nkind: Cluster\nname: db\nendpoints: [{}]\n{cluster}\n\
         ---\nkind: Defaults\nname: default\naccess_log: json\n",
        endpoints.join(", ")
    )
}

/// Reads to the end, then answers with what it read, backwards.
async fn reversing() -> Backend {
    Backend::raw(|mut stream, _| async move {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes.reverse();
        stream.write_all(&bytes).await.unwrap();
    })
    .await
}

#[tokio::test]
async fn an_end_in_one_direction_leaves_the_other_open() {
    let backend = reversing().await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut stream = TcpStream::connect(rig.address("edge")).await.unwrap();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut received)).await;
    read.expect("an answer in time").unwrap();
    received.reverse();
    assert!(received == sent, "{} bytes", received.len());
    eventually("a line", || rig.log.lines().len() == 1).await;
    let line = &rig.log.lines()[0];
    assert_eq!(
        (&line["protocol"], &line["flags"]),
        (&"TCP".into(), &"-".into())
    );
    assert_eq!(line["bytes_received"].as_u64(), Some(sent.len() as u64));
    assert_eq!(line["bytes_sent"].as_u64(), Some(sent.len() as u64));
}

#[tokio::test]
async fn the_upstream_may_end_first() {
    let backend = Backend::raw(|mut stream, _| async move {
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"goodbye");
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut stream = TcpStream::connect(rig.address("edge")).await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"hello");
    stream.write_all(b"goodbye").await.unwrap();
    stream.shutdown().await.unwrap();
    eventually("the connection ends", || {
        rig.metric("http_downstream_cx_active", "") == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let backend = reversing().await;
    let endpoints = [fresh_address(), backend.address, fresh_address()];
    let rig = Rig::start(&config("", "balance: round_robin", &endpoints)).await;
    for _ in 0..6 {
        let mut stream = TcpStream::connect(rig.address("edge")).await.unwrap();
        stream.write_all(b"abc").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut received = String::new();
        stream.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "cba");
    }
    assert!(rig.metric("cluster_upstream_cx_connect_fail_total", "") >= 2.0);
}

#[tokio::test]
async fn without_an_upstream_the_client_is_reset() {
    let rig = Rig::start(&config("", "", &[fresh_address()])).await;
    // The reset may come before the client noticed that it is connected.
    if let Ok(mut stream) = TcpStream::connect(rig.address("edge")).await {
        let read = timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap();
        assert!(read.is_err(), "{read:?}");
    }
    eventually("the flag", || {
        rig.metric("http_downstream_rq_flags_total", "\"UF\"") == 1.0
    })
    .await;
}

#[tokio::test]
async fn silence_in_both_directions_ends_a_connection() {
    let backend = reversing().await;
    let rig = Rig::start(&config("idle_timeout: 1s", "", &[backend.address])).await;
    let mut stream = TcpStream::connect(rig.address("edge")).await.unwrap();
    // Longer in all than the idle time, and each pause far shorter: activity keeps it open.
    for _ in 0..12 {
        stream.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let read = timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
    eventually("the flag", || {
        rig.metric("http_downstream_rq_flags_total", "\"SI\"") == 1.0
    })
    .await;
}
