//! Requests and responses that two readers could understand differently, as raw bytes.

use tokio::io::AsyncWriteExt;

use crate::rig::{Backend, Client, Rig, config, ok};

/// The status that answers these bytes; the connection must end after it.
async fn refused(rig: &Rig, bytes: &[u8]) -> u16 {
    let mut client = rig.connect().await;
    client.stream.write_all(bytes).await.unwrap();
    let response = client.response().await;
    assert_eq!(response.header("connection"), ["close"]);
    assert!(response.header("proxy-status")[0].starts_with("skein; error=http_request_error"));
    assert_eq!(response.header("x-request-id")[0].len(), 36);
    assert!(client.ends().await, "more than one answer");
    response.status
}

#[tokio::test]
async fn doubtful_requests_are_refused_and_nothing_of_them_is_sent() {
    let backend = Backend::saying("hi").await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for (why, head) in [
        (
            "cl and te",
            "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        ),
        (
            "te and cl",
            "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        ),
        ("two lengths", "content-length: 4\r\ncontent-length: 5\r\n"),
        ("a list of lengths", "content-length: 4, 4\r\n"),
        ("a signed length", "content-length: +4\r\n"),
        ("a hidden te", "transfer-encoding: xchunked\r\n"),
        (
            "te twice",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        ),
        ("te not last", "transfer-encoding: chunked, identity\r\n"),
        (
            "a space before the colon",
            "transfer-encoding : chunked\r\n",
        ),
        ("a folded line", "x: y\r\n transfer-encoding: chunked\r\n"),
        ("a bare line feed", "x: y\ntransfer-encoding: chunked\r\n"),
        ("a null byte", "x: \0\r\n"),
        ("a second host", "host: b\r\n"),
        ("no colon", "transfer-encoding\r\n"),
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nhost: a\r\n{head}\r\n0\r\n\r\n{smuggled}");
        assert_eq!(refused(&rig, bytes.as_bytes()).await, 400, "{why}");
    }
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
    rig.counts("http_downstream_rq_flags_total", "DPE", 14.0)
        .await;
    let refused = "http_downstream_rq_refused_total";
    rig.counts(refused, "reason=\"malformed_head\"", 14.0).await;
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let backend = Backend::saying("hi").await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    for (why, bytes, status) in [
        ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
        ("no host in 1.0", "GET / HTTP/1.0\r\n\r\n", 400),
        (
            "te in 1.0",
            "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
        ),
        (
            "a foreign coding",
            "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            501,
        ),
        (
            "out of the root",
            "GET /../etc HTTP/1.1\r\nhost: a\r\n\r\n",
            400,
        ),
        (
            "an escaped slash",
            "GET /a%2fb HTTP/1.1\r\nhost: a\r\n\r\n",
            400,
        ),
        (
            "https in clear",
            "GET https://a/ HTTP/1.1\r\nhost: a\r\n\r\n",
            400,
        ),
        (
            "user information",
            "GET http://u@a/ HTTP/1.1\r\nhost: a\r\n\r\n",
            400,
        ),
        ("connect", "CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n", 405),
        ("http/2", "GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505),
        ("no http", "hello there\r\n\r\n", 400),
        ("tls", "\u{16}\u{3}\u{1}\r\n\r\n", 400),
    ] {
        assert_eq!(refused(&rig, bytes.as_bytes()).await, status, "{why}");
    }
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
}

#[tokio::test]
async fn huge_heads_and_targets_are_refused() {
    let backend = Backend::saying("hi").await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let huge = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(70_000)
    );
    assert_eq!(refused(&rig, huge.as_bytes()).await, 431);
    let endless = vec![b'a'; 70_000];
    assert_eq!(refused(&rig, &endless).await, 431);
    let many = format!(
        "GET / HTTP/1.1\r\nhost: a\r\n{}\r\n",
        "x: y\r\n".repeat(101)
    );
    assert_eq!(refused(&rig, many.as_bytes()).await, 431);
    let target = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(20_000));
    assert_eq!(refused(&rig, target.as_bytes()).await, 414);
}

#[tokio::test]
async fn bad_chunks_end_both_connections() {
    let backend = Backend::saying("hi").await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    for chunks in [
        "x\r\n",
        "-1\r\n",
        "2\r\nabc\r\n0\r\n\r\n",
        "2\nab\r\n0\r\n\r\n",
        "99999999999999999\r\n",
    ] {
        let bytes =
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(refused(&rig, bytes.as_bytes()).await, 400, "{chunks:?}");
    }
    assert!(backend.seen().is_empty(), "{:?}", backend.seen());
}

#[tokio::test]
async fn a_half_sent_head_is_answered_408_and_silence_with_an_end() {
    let backend = Backend::saying("hi").await;
    let yaml = config("", "", &[backend.address])
        + "---\nkind: Defaults\nname: default\nhead_timeout: 100ms\nidle_timeout: 150ms\n";
    let rig = Rig::start(&yaml).await;
    assert_eq!(refused(&rig, b"GET / HTTP/1.1\r\nhost:").await, 408);
    let mut silent = rig.connect().await;
    assert!(silent.ends().await);
    let mut idle = rig.connect().await;
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(idle.response().await.status, 200);
    assert!(idle.ends().await);
}

#[tokio::test]
async fn malformed_answers_become_502() {
    for answer in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
    ] {
        let backend = Backend::http(move |_| answer.into()).await;
        let rig = Rig::start(&config(
            "retry: { when: [connect-failure], times: 1 }",
            "",
            &[backend.address],
        ))
        .await;
        let response = rig.get("/").await;
        assert_eq!(response.status, 502, "{answer:?}");
        assert!(response.header("proxy-status")[0].contains("error=http_protocol_error"));
        assert!(!response.text().contains("127.0.0.1"), "internals");
    }
}

#[tokio::test]
async fn an_answer_with_both_framings_is_read_by_chunks_and_its_connection_dropped() {
    let backend = Backend::http(|_| {
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\ntransfer-encoding: chunked\r\n\r\n\
          2\r\nhi\r\n0\r\n\r\n"
            .to_vec()
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!(response.text(), "hi");
        assert!(response.header("content-length").is_empty());
    }
    let connections: Vec<_> = backend.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 1]);
}

#[tokio::test]
async fn bytes_behind_an_answer_are_never_given_to_the_next_client() {
    let backend = Backend::http(|_| {
        let mut bytes = ok("mine");
        bytes.extend(ok("somebody else's"));
        bytes
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut client = rig.connect().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "mine");
    }
    assert!(client.buffer.is_empty());
}

#[tokio::test]
async fn the_rest_of_an_unread_body_is_no_request() {
    // The upstream answers at once and reads no body; what the client still sends must not be taken
    // for its next request.
    let backend = Backend::raw(|mut stream, _| async move {
        let mut buffer = Vec::new();
        crate::rig::read_head(&mut stream, &mut buffer).await;
        stream.write_all(&ok("no")).await.unwrap();
        // Held open, so that the answer is not lost to a reset.
        tokio::time::sleep(crate::rig::PATIENCE).await;
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut client = Client::connect(rig.address("edge")).await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n")
        .await;
    let response = client.response().await;
    assert_eq!(
        (response.text(), response.header("connection")),
        ("no", vec!["close"])
    );
    let rest = client
        .stream
        .write_all(b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    drop(rest);
    assert!(client.ends().await);
}
