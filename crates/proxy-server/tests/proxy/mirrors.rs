//! Copies of requests: what they are, and that nobody else notices them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::AsyncReadExt;

use crate::rig::{Backend, Rig, eventually, ok, read_request};
use crate::streams;

/// A listener whose one route goes to the first of these, with copies to the second.
fn config(route: &str, cluster: &str, web: &Backend, copies: &Backend) -> String {
    format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: http\n\
         ---\nkind: Defaults\naccess_log: json\n\
         ---\nkind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes:\n- to: web\n  {route}\n\
         ---\nkind: Cluster\nname: web\nendpoints: [\"{}\"]\n\
         ---\nkind: Cluster\nname: copies\nendpoints: [\"{}\"]\n{cluster}\n",
        web.address, copies.address
    )
}

async fn seen(backend: &Backend, count: usize) {
    eventually("the copies", || backend.seen().len() == count).await;
}

#[tokio::test]
async fn a_copy_is_as_the_request_but_for_its_host() {
    let (web, copies) = (Backend::saying("ok").await, Backend::saying("no").await);
    let route = "mirror: [{ to: copies }]\n  rewrite: { path_prefix: /in }\n  \
                 headers: { request: { set: { x-a: '%UPSTREAM_CLUSTER%' } } }";
    let rig = Rig::start(&config(route, "", &web, &copies)).await;
    let mut client = rig.connect().await;
    client
        .send("GET /a?b HTTP/1.1\r\nhost: Shop.test:81\r\nx-request-id: me\r\n\r\n")
        .await;
    assert_eq!(client.response().await.text(), "ok");
    client
        .send(
            "POST /p HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        )
        .await;
    assert_eq!(client.response().await.text(), "ok");
    seen(&copies, 2).await;
    let copied = copies.seen();
    assert!(
        copied[0]
            .head
            .starts_with("GET /in/a?b HTTP/1.1\r\nhost: Shop.test-shadow:81\r\n"),
        "{}",
        copied[0].head
    );
    assert_eq!(copied[0].header("x-request-id"), ["me"]);
    assert_eq!(copied[0].header("x-a"), ["copies"]);
    assert_eq!(web.seen()[0].header("x-a"), ["web"]);
    assert_eq!(copied[1].header("host"), ["h-shadow"]);
    assert_eq!(copied[1].body, b"abcde");
    // Its connection is used again, so its answer was read to the end.
    assert_eq!((copied[0].connection, copied[1].connection), (0, 0));
    rig.counts("cluster_upstream_rq_mirror_total", "copies", 2.0)
        .await;
    rig.counts("http_downstream_rq_total", "edge", 2.0).await;
    eventually("the log", || rig.log.lines().len() == 2).await;
    assert!(rig.log.lines().iter().all(|line| line["cluster"] == "web"));
}

#[tokio::test]
async fn a_copy_never_slows_or_fails_the_request() {
    let web = Backend::saying("ok").await;
    // The first copy gets no answer, as long as the test wants.
    let (open, heard) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicBool::new(false)),
    );
    let (still_open, was_heard) = (open.clone(), heard.clone());
    let copies = Backend::raw(move |mut stream, connection| {
        let (open, heard) = (still_open.clone(), was_heard.clone());
        async move {
            let _ = read_request(&mut stream, &mut Vec::new(), connection).await;
            heard.store(true, Ordering::Relaxed);
            let mut rest = [0; 1];
            while open.load(Ordering::Relaxed) && !matches!(stream.read(&mut rest).await, Ok(0)) {}
        }
    })
    .await;
    let route = "mirror: [{ to: copies, keep_host: true }]\n  timeout: 0s";
    let limits = "limits: { connections: 1, pending: 0 }";
    let rig = Rig::start(&config(route, limits, &web, &copies)).await;
    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "ok");
    }
    eventually("the copy", || heard.load(Ordering::Relaxed)).await;
    // The second one met the cluster's limit.
    rig.counts("cluster_upstream_rq_pending_overflow_total", "copies", 1.0)
        .await;
    open.store(false, Ordering::Relaxed);
}

#[tokio::test]
async fn what_is_too_large_is_not_copied_and_a_share_of_nothing_is_nothing() {
    let (web, copies) = (
        Backend::http(|_| ok("ok")).await,
        Backend::saying("no").await,
    );
    let route = "mirror: [{ to: copies }]";
    let mut rig = Rig::start(&config(route, "", &web, &copies)).await;
    let mut client = rig.connect().await;
    let body = "a".repeat(64 * 1024 + 1);
    let request = format!(
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(&request).await;
    assert_eq!(client.response().await.text(), "ok");
    rig.counts("cluster_upstream_rq_mirror_overflow_total", "copies", 1.0)
        .await;
    let none = route.replace("copies", "copies, percent: 0");
    rig.apply(&config(&none, "", &web, &copies)).await;
    assert_eq!(rig.get("/").await.text(), "ok");
    rig.apply(&config(route, "", &web, &copies)).await;
    assert_eq!(rig.get("/last").await.text(), "ok");
    seen(&copies, 1).await;
    assert!(copies.seen()[0].head.starts_with("GET /last "));
    rig.counts("cluster_upstream_rq_mirror_total", "copies", 1.0)
        .await;
}

#[tokio::test]
async fn requests_of_http2_are_copied_to_both_versions() {
    let web = Backend::saying("ok").await;
    let (told, mut heard) = tokio::sync::mpsc::channel(4);
    let new = streams::upstream(h2::server::Builder::new(), move |(request, respond), _| {
        let told = told.clone();
        async move {
            let (parts, mut body) = request.into_parts();
            let (body, trailers) = streams::read_all(&mut body).await.unwrap();
            streams::say(respond, "no");
            told.send((parts, body, trailers)).await.unwrap();
        }
    })
    .await;
    let old = Backend::saying("no").await;
    let trailers = streams::fields(&[("x-sum", "7")]);
    for (copies, cluster) in [(&new, "http: h2"), (&old, "")] {
        let rig = Rig::start(&config("mirror: [{ to: copies }]", cluster, &web, copies)).await;
        let client = streams::Client::connect(rig.address("edge")).await;
        let request = streams::ask("POST", "/p?q");
        let answer = client.post(request, b"abc", Some(trailers.clone())).await;
        assert_eq!(answer.unwrap().text(), "ok");
        rig.counts("cluster_upstream_rq_mirror_total", "copies", 1.0)
            .await;
        rig.counts("cluster_upstream_rq_active", "copies", 0.0)
            .await;
    }
    let (parts, body, sent) = heard.recv().await.unwrap();
    assert_eq!(parts.uri, "http://a-shadow/p?q");
    assert_eq!((body, sent), (b"abc".to_vec(), Some(trailers)));
    seen(&old, 1).await;
    assert_eq!(old.seen()[0].body, b"abc");
    assert_eq!(old.seen()[0].header("host"), ["a-shadow"]);
}
