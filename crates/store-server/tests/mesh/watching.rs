//! Watches over real connections.

use std::time::Duration;

use store_api::etcdserverpb::watch_client::WatchClient;
use store_api::etcdserverpb::watch_request::RequestUnion;
use store_api::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;
use tonic::{Code, Streaming};

use crate::harness::{Mesh, Node, put, until};

fn all(start_revision: i64) -> WatchCreateRequest {
    let zero = bytes::Bytes::from_static(b"\0");
    WatchCreateRequest {
        key: zero.clone(),
        range_end: zero,
        start_revision,
        ..Default::default()
    }
}

/// A watch on a connection of its own, whose client reads only when the test does.
pub(crate) async fn watch(node: &Node, create: WatchCreateRequest) -> Streaming<WatchResponse> {
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    // Half closed after the one request: that is no reason to end the watch.
    let requests = tokio_stream::once(create);
    let endpoint = Endpoint::from_shared(format!("http://{}", node.client)).unwrap();
    let mut client = WatchClient::new(endpoint.connect().await.unwrap());
    let mut answers = client.watch(requests).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().created);
    answers
}

pub(crate) async fn next(answers: &mut Streaming<WatchResponse>) -> WatchResponse {
    let message = tokio::time::timeout(Duration::from_secs(20), answers.message());
    message.await.unwrap().unwrap().unwrap()
}

fn revisions(answer: &WatchResponse) -> Vec<i64> {
    answer
        .events
        .iter()
        .map(|event| event.kv.as_ref().unwrap().mod_revision)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_on_any_node_sees_writes_by_any_node() {
    let mesh = Mesh::form(3).await;
    let mut watches = Vec::new();
    for node in mesh.running() {
        watches.push(watch(node, all(2)).await);
    }
    for (n, node) in mesh.running().enumerate() {
        node.kv().put(put("a", &n.to_string())).await.unwrap();
    }
    for answers in &mut watches {
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.extend(revisions(&next(answers).await));
        }
        assert_eq!(seen, [2, 3, 4]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_nobody_up_and_misses_nothing() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let mut idle = watch(node, all(2)).await;
    let mut lively = watch(node, all(2)).await;
    // Far more than the sockets, the windows and the mailbox take together.
    let value = "x".repeat(200_000);
    let mut kv = node.kv();
    for n in 0..100 {
        kv.put(put("a", &value)).await.unwrap();
        assert_eq!(revisions(&next(&mut lively).await), [n + 2]);
    }
    let mut seen = Vec::new();
    while seen.len() < 100 {
        seen.extend(revisions(&next(&mut idle).await));
    }
    assert_eq!(seen, (2..=101).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resuming_watcher_misses_nothing_when_its_node_dies() {
    let mut mesh = Mesh::form(3).await;
    let watched = mesh.follower().await;
    let mut watcher = mesh.client(watched).watch(all(2));
    let mut seen = Vec::new();
    for n in 0..60 {
        mesh.node(mesh.leader().await)
            .kv()
            .put(put("a", &n.to_string()))
            .await
            .unwrap();
        if n == 20 {
            mesh.kill(watched);
        }
        if n % 3 == 0 {
            let batch = watcher.next().await.unwrap();
            seen.extend(
                batch
                    .events
                    .into_iter()
                    .map(|event| event.kv.unwrap().mod_revision),
            );
        }
    }
    while seen.len() < 60 {
        let batch = tokio::time::timeout(Duration::from_secs(20), watcher.next()).await;
        let events = batch.unwrap().unwrap().events;
        seen.extend(
            events
                .into_iter()
                .map(|event| event.kv.unwrap().mod_revision),
        );
    }
    assert_eq!(seen, (2..=61).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_a_watch_ends_that_stream_only() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let mut good = watch(node, all(0)).await;
    // A request of no kind is ignored; one that is no message at all ends its stream.
    let requests = tokio_stream::iter([WatchRequest {
        request_union: None,
    }]);
    let requests = requests.chain(tokio_stream::pending());
    let mut quiet = WatchClient::new(node.channel())
        .watch(requests)
        .await
        .unwrap()
        .into_inner();
    let short = tokio::time::timeout(Duration::from_millis(100), quiet.message());
    assert!(short.await.is_err(), "no answer, and no end");

    let mut raw = tonic::client::Grpc::new(node.channel());
    raw.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<
        store_api::etcdserverpb::MemberListRequest,
        WatchResponse,
    >::default();
    let garbage = store_api::etcdserverpb::MemberListRequest { linearizable: true };
    let request = tonic::Request::new(tokio_stream::once(garbage));
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    let mut ended = raw
        .streaming(request, path, codec)
        .await
        .unwrap()
        .into_inner();
    let error = ended.message().await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error}");

    node.kv().put(put("a", "v")).await.unwrap();
    assert_eq!(next(&mut good).await.events.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_does_not_wait_for_its_watchers() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let mut open = watch(node, all(0)).await;
    assert!(node.stop().await, "the client port is free again");
    let error = open.message().await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_cost_nothing_later() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    for _ in 0..20 {
        drop(watch(node, all(2)).await);
    }
    node.kv().put(put("a", "v")).await.unwrap();
    until("the write to be there", async || node.value("a")).await;
    assert_eq!(next(&mut watch(node, all(2)).await).await.events.len(), 1);
}
