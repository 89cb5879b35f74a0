//! Upstreams that speak HTTP/2, to clients of both versions.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::{Reason, server};
use http::Response;
use tokio::io::AsyncReadExt;
use tokio::sync::{Barrier, Semaphore, mpsc};

use crate::rig::{Backend, Rig, config, eventually};
use crate::streams::{
    Call, Client, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, RST_STREAM, Raw, answer,
    ask, block, echo, fields, read_all, say, upstream,
};

/// More than all windows and buffers on the way hold.
const LARGE: usize = 3 * 1024 * 1024;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// A proxy before this upstream, with more settings of the route and the cluster.
async fn rig(backend: &Backend, route: &str, cluster: &str) -> Rig {
    let cluster = format!("http: h2\n{cluster}");
    let config = config(route, &cluster, &[backend.address]);
    let defaults = "---\nkind: Defaults\nname: default\naccess_log: json\n";
    Rig::start(&format!("{config}{defaults}")).await
}

#[tokio::test]
async fn bodies_of_all_sizes_come_through_from_both_versions() {
    let backend = upstream(server::Builder::new(), echo).await;
    let rig = rig(&backend, "", "").await;
    let client = Client::connect(rig.address("edge")).await;
    let mut old = rig.connect().await;
    for size in [0, 1, 16_384, 65_536, LARGE] {
        let body = pattern(size);
        let answer = client.post(ask("POST", "/"), &body, None).await.unwrap();
        assert!(answer.body == body, "{size}");
        let text = "y".repeat(size);
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n");
        old.send(&(head + &text)).await;
        let answer = old.response().await;
        assert!(answer.body == text.as_bytes(), "{size}");
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = if size > 0 {
            format!("{size:x}\r\n{text}\r\n")
        } else {
            String::new()
        };
        old.send(&format!("{head}{chunk}0\r\n\r\n")).await;
        let answer = old.response().await;
        assert!(answer.body == text.as_bytes(), "{size}");
    }
    rig.counts("cluster_upstream_rq_active", "", 0.0).await;
}

#[tokio::test]
async fn a_request_is_sent_as_http2_has_it() {
    let backend = upstream(
        server::Builder::new(),
        |(request, mut respond): Call, _| async move {
            let (parts, _) = request.into_parts();
            let mut seen = format!("{} {}\n", parts.method, parts.uri);
            for (name, value) in &parts.headers {
                seen += &format!("{name}: {}\n", value.to_str().unwrap());
            }
            let mut response = Response::new(());
            *response.headers_mut() =
                fields(&[("x-a", "1"), ("content-length", &seen.len().to_string())]);
            let mut stream = respond.send_response(response, false).unwrap();
            stream.send_data(seen.into(), true).unwrap();
        },
    )
    .await;
    let rig = rig(&backend, "", "").await;
    let mut old = rig.connect().await;
    old.send(
        "GET /p?q HTTP/1.1\r\nhost: shop:8\r\nconnection: x-hop, te\r\nx-hop: 1\r\nte: trailers\r\n\
         keep-alive: 5\r\nupgrade: h2c\r\nx-b: 2\r\n\r\n",
    )
    .await;
    let answer = old.response().await;
    assert!(
        answer.head.starts_with("HTTP/1.1 200 OK\r\n"),
        "{}",
        answer.head
    );
    assert_eq!(answer.header("x-a"), ["1"]);
    assert_eq!(
        answer.header("content-length"),
        [answer.body.len().to_string()]
    );
    let seen: Vec<_> = answer
        .text()
        .lines()
        .filter(|line| !line.starts_with("x-request-id"))
        .collect();
    let expected = [
        "GET http://shop:8/p?q",
        "x-b: 2",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "te: trailers",
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn trailers_come_through_both_ways_in_every_pairing() {
    let backend = upstream(server::Builder::new(), echo).await;
    let rig = rig(&backend, "", "").await;
    let client = Client::connect(rig.address("edge")).await;
    let trailers = fields(&[("x-sum", "7")]);
    let with_host = fields(&[("x-sum", "7"), ("host", "evil")]);
    let answer = client.post(ask("POST", "/"), b"abc", Some(with_host)).await;
    let answer = answer.unwrap();
    assert_eq!(answer.text(), "abc");
    assert_eq!(answer.trailers, Some(trailers));

    let mut old = rig.connect().await;
    old.send(
        "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .await;
    let head = old.head().await.unwrap();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let mut rest = std::mem::take(&mut old.buffer);
    while !rest.ends_with(b"\r\n\r\n") {
        old.stream.read_buf(&mut rest).await.unwrap();
    }
    assert_eq!(rest, b"3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n");
}

#[tokio::test]
async fn a_connection_is_shared_up_to_what_both_sides_take() {
    for (theirs, requests, connections) in [(250, 150, 2), (3, 8, 3)] {
        let all = Arc::new(Barrier::new(requests));
        let opened = Arc::new(AtomicUsize::new(0));
        let mut builder = server::Builder::new();
        builder.max_concurrent_streams(theirs);
        let highest = opened.clone();
        let backend = upstream(builder, move |(_request, respond): Call, number| {
            let (all, highest) = (all.clone(), highest.clone());
            async move {
                highest.fetch_max(number + 1, Ordering::Relaxed);
                all.wait().await;
                say(respond, "x");
            }
        })
        .await;
        let rig = rig(&backend, "", "").await;
        // All on one connection, so that one worker has them; and the upstream's limit is known
        // before they come.
        let mut first = Client::connect(rig.address("edge")).await;
        let mut second = Client::connect(rig.address("edge")).await;
        let mut responses = Vec::new();
        for n in 0..requests {
            let client = if n < 100 { &mut first } else { &mut second };
            responses.push(client.begin(ask("GET", "/"), true).await.0);
            if n == 0 {
                eventually("the first one", || opened.load(Ordering::Relaxed) == 1).await;
            }
        }
        for response in responses {
            assert_eq!(answer(response).await.unwrap().text(), "x");
        }
        // Two workers may have had the two clients.
        let seen = opened.load(Ordering::Relaxed);
        assert!(
            (connections..=connections + 1).contains(&seen),
            "{theirs}: {seen}"
        );
    }
}

#[tokio::test]
async fn at_the_limit_of_connections_requests_wait_for_a_stream() {
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(1);
    let gate = Arc::new(Semaphore::new(1));
    let open = gate.clone();
    let backend = upstream(builder, move |(_request, respond): Call, _| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            say(respond, "x");
        }
    })
    .await;
    let rig = rig(&backend, "", "limits: { connections: 1 }").await;
    let client = Client::connect(rig.address("edge")).await;
    assert_eq!(client.get("/").await.text(), "x");
    let mut responses = Vec::new();
    for _ in 0..5 {
        responses.push(client.begin(ask("GET", "/"), true).await.0);
    }
    open.add_permits(5);
    for response in responses {
        assert_eq!(answer(response).await.unwrap().text(), "x");
    }
    rig.counts("cluster_upstream_cx_total", "", 1.0).await;
}

/// An upstream that does `first` with the first request of the first connection, and says `x` to
/// all others.
async fn once(first: Vec<Frame>) -> Backend {
    let first = Arc::new(first);
    let fresh = Arc::new(AtomicUsize::new(0));
    Backend::raw(move |stream, _| {
        let (first, fresh) = (first.clone(), fresh.clone());
        async move {
            let mut raw = Raw::accept(stream).await;
            while let Some(request) = raw.until(HEADERS).await {
                if fresh.fetch_add(1, Ordering::Relaxed) == 0 {
                    raw.send(&first).await;
                    continue;
                }
                let status = block(&[(":status", "200")]);
                raw.send(&[
                    Frame::new(HEADERS, END_HEADERS, request.stream, &status),
                    Frame::new(DATA, END_STREAM, request.stream, b"x"),
                ])
                .await;
            }
        }
    })
    .await
}

fn reset(code: u8) -> Frame {
    Frame::new(RST_STREAM, 0, 1, &[0, 0, 0, code])
}

#[tokio::test]
async fn what_was_surely_not_looked_at_is_sent_again() {
    let goaway = |code| Frame::new(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, code]);
    for first in [reset(7), goaway(0), goaway(11)] {
        let backend = once(vec![first.clone()]).await;
        let rig = rig(&backend, "", "").await;
        let client = Client::connect(rig.address("edge")).await;
        let answer = client.post(ask("POST", "/"), b"body", None).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, "x"),
            "{first:?}"
        );
        rig.counts("cluster_upstream_rq_retry_success_total", "", 1.0)
            .await;
        // The connection serves on, or another one does.
        assert_eq!(client.get("/").await.text(), "x");
    }
}

#[tokio::test]
async fn what_was_perhaps_done_is_sent_again_only_if_it_is_idempotent() {
    for (method, status) in [("GET", 200), ("POST", 502)] {
        let backend = once(vec![reset(2)]).await;
        let rig = rig(&backend, "", "").await;
        let client = Client::connect(rig.address("edge")).await;
        let (response, _) = client.begin(ask(method, "/"), true).await;
        let answer = answer(response).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{method}");
    }
}

#[tokio::test]
async fn a_refusal_without_retries_says_that_nothing_was_done() {
    let backend = once(vec![reset(7)]).await;
    let rig = rig(&backend, "retry: { times: 0 }", "").await;
    let answer = rig.get("/").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.text(), "the upstream refused the request\n");
}

#[tokio::test]
async fn an_upstream_that_breaks_off_breaks_the_clients_answer_off() {
    let half = vec![
        Frame::new(HEADERS, END_HEADERS, 1, &block(&[(":status", "200")])),
        Frame::new(DATA, 0, 1, b"half"),
        reset(2),
    ];
    let backend = once(half.clone()).await;
    let rig2 = rig(&backend, "", "").await;
    let client = Client::connect(rig2.address("edge")).await;
    let (response, _) = client.begin(ask("GET", "/"), true).await;
    let cut = answer(response).await.unwrap_err();
    assert_eq!(cut.reason(), Some(Reason::INTERNAL_ERROR));
    assert_eq!(client.get("/").await.text(), "x");

    let backend = once(half).await;
    let rig1 = rig(&backend, "", "").await;
    let mut old = rig1.connect().await;
    old.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(old.try_response().await.is_none());
    eventually("a line", || rig1.log.lines().len() == 1).await;
    assert_eq!(rig1.log.lines()[0]["flags"], "UC");
}

#[tokio::test]
async fn a_body_where_none_can_be_reaches_nobody() {
    let evil = vec![
        Frame::new(HEADERS, END_HEADERS, 1, &block(&[(":status", "204")])),
        Frame::new(DATA, END_STREAM, 1, b"HTTP/1.1 200 OK\r\n\r\n"),
    ];
    let backend = once(evil).await;
    let rig = rig(&backend, "", "").await;
    let mut old = rig.connect().await;
    for (status, body) in [(204, ""), (200, "x")] {
        old.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let answer = old.response().await;
        assert_eq!((answer.status, answer.text()), (status, body));
    }
}

#[tokio::test]
async fn an_upstream_of_another_version_is_a_bad_gateway() {
    let backend = Backend::saying("x").await;
    let rig = rig(&backend, "retry: { times: 0 }", "").await;
    let answer = rig.get("/").await;
    assert_eq!(answer.status, 502);
    assert!(
        answer.head.contains("http_protocol_error"),
        "{}",
        answer.head
    );
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_upstreams_stream() {
    let (told, mut resets) = mpsc::channel(8);
    let backend = upstream(
        server::Builder::new(),
        move |(request, mut respond): Call, _| {
            let told = told.clone();
            async move {
                let _body = request.into_body();
                told.send(None).await.unwrap();
                let reset = poll_fn(|cx| respond.poll_reset(cx)).await;
                told.send(Some(reset.unwrap())).await.unwrap();
            }
        },
    )
    .await;
    let rig = rig(&backend, "", "").await;
    let client = Client::connect(rig.address("edge")).await;
    let (response, mut stream) = client.begin(ask("POST", "/"), false).await;
    assert_eq!(resets.recv().await, Some(None));
    stream.send_reset(Reason::CANCEL);
    assert_eq!(resets.recv().await, Some(Some(Reason::CANCEL)));
    drop(response);

    let mut old = rig.connect().await;
    old.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(resets.recv().await, Some(None));
    drop(old);
    assert_eq!(resets.recv().await, Some(Some(Reason::CANCEL)));
    // One connection carried both, unless they came to two workers.
    assert!(rig.metric("cluster_upstream_cx_total", "") <= 2.0);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_its_own_stream_only() {
    let backend = upstream(
        server::Builder::new(),
        |(request, mut respond): Call, _| async move {
            if request.uri().path() == "/large" {
                let stream = respond.send_response(Response::new(()), false).unwrap();
                crate::streams::send_all(stream, pattern(LARGE).into(), None).await;
            } else {
                say(respond, "x");
            }
        },
    )
    .await;
    let rig = rig(&backend, "", "").await;
    let client = Client::connect(rig.address("edge")).await;
    let mut stuck = Vec::new();
    for _ in 0..3 {
        let (response, _) = client.begin(ask("GET", "/large"), true).await;
        stuck.push(response.await.unwrap().into_body());
    }
    // Those hold the windows of their own connection; another client shares the upstream's.
    let other = Client::connect(rig.address("edge")).await;
    for _ in 0..5 {
        assert_eq!(other.get("/").await.text(), "x");
    }
    let mut slow = stuck.pop().unwrap();
    drop(stuck);
    let (body, _) = read_all(&mut slow).await.unwrap();
    assert!(body == pattern(LARGE));
}

#[tokio::test]
async fn messages_go_both_ways_at_the_same_time() {
    let backend = upstream(
        server::Builder::new(),
        |(request, mut respond): Call, _| async move {
            let mut body = request.into_body();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                stream.send_data(data, false).unwrap();
            }
            stream.send_trailers(fields(&[("x-end", "1")])).unwrap();
        },
    )
    .await;
    let rig = rig(&backend, "", "").await;
    let client = Client::connect(rig.address("edge")).await;
    let (response, mut stream) = client.begin(ask("POST", "/"), false).await;
    let mut body = response.await.unwrap().into_body();
    for n in 0..5 {
        let message = Bytes::from(format!("message {n}"));
        stream.send_data(message.clone(), false).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), message);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    let (rest, trailers) = read_all(&mut body).await.unwrap();
    assert_eq!((rest.len(), trailers), (0, Some(fields(&[("x-end", "1")]))));
}

#[tokio::test]
async fn interim_and_early_answers_come_through() {
    let backend = upstream(
        server::Builder::new(),
        |(request, mut respond): Call, _| async move {
            let mut hints = Response::new(());
            *hints.status_mut() = http::StatusCode::EARLY_HINTS;
            *hints.headers_mut() = fields(&[("link", "</a>")]);
            respond.send_informational(hints).unwrap();
            // The body is not read to its end.
            let _unread = request;
            say(respond, "early");
        },
    )
    .await;
    let rig = rig(&backend, "", "").await;
    let client = Client::connect(rig.address("edge")).await;
    let (mut response, mut stream) = client.begin(ask("POST", "/"), false).await;
    let interim = poll_fn(|cx| response.poll_informational(cx)).await;
    assert_eq!(interim.unwrap().unwrap().status().as_u16(), 103);
    assert_eq!(answer(response).await.unwrap().text(), "early");
    let reset = poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
    assert_eq!(reset, Reason::NO_ERROR);
    let mut old = rig.connect().await;
    old.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(
        old.head()
            .await
            .unwrap()
            .starts_with("HTTP/1.1 103 Early Hints")
    );
    assert_eq!(old.response().await.text(), "early");
}
