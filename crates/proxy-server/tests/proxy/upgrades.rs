//! Clients that go over to another protocol, and CONNECT, from both versions to both versions.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream, server};
use http::{Method, Request, Response, StatusCode, Version};
use sha1::{Digest as _, Sha1};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::rig::{Backend, Client, PATIENCE, Rig, config, eventually, ok, read_head, status};
use crate::streams::{self, Call, fields, read_all, send_all, upstream};

/// What a browser asks with, and what it expects (RFC 6455, 1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const PROOF: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const ASK: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\n\
                   upgrade: WebSocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   sec-websocket-protocol: chat\r\n\r\n";
const WEBSOCKET: &str = "upgrades: [websocket]";

fn proof(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(hash.finalize())
}

/// Reads a request for WebSocket, and agrees.
async fn agree(stream: &mut TcpStream) {
    let mut buffer = Vec::new();
    let head = read_head(stream, &mut buffer).await.unwrap();
    assert!(
        head.starts_with("GET /") && head.contains("/chat HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("connection: upgrade\r\nupgrade: websocket"));
    // Nothing comes before both agreed.
    assert!(buffer.is_empty(), "{buffer:?}");
    let key = head.split("sec-websocket-key: ").nth(1).unwrap();
    let proof = proof(key.lines().next().unwrap());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {proof}\r\nsec-websocket-protocol: chat\r\n\r\nhello"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// Goes over, says hello, and sends back what comes until its end; then it says bye.
async fn old_echo() -> Backend {
    Backend::raw(|mut stream, _| async move {
        agree(&mut stream).await;
        let (mut read, mut write) = stream.into_split();
        if tokio::io::copy(&mut read, &mut write).await.is_ok() {
            let _ = write.write_all(b"bye").await;
        }
    })
    .await
}

fn extended() -> server::Builder {
    let mut builder = server::Builder::new();
    builder.enable_connect_protocol();
    builder
}

/// The same over HTTP/2.
async fn new_echo() -> Backend {
    upstream(extended(), |(request, mut respond): Call, _| async move {
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri(), "http://a/chat");
        let protocol = request.extensions().get::<Protocol>().unwrap();
        assert_eq!(protocol.as_str(), "websocket");
        let headers = request.headers();
        assert!(!headers.contains_key("sec-websocket-key"));
        assert_eq!(headers["sec-websocket-protocol"], "chat");
        let mut answer = Response::new(());
        *answer.headers_mut() = fields(&[("sec-websocket-protocol", "chat")]);
        let mut to = respond.send_response(answer, false).unwrap();
        to.send_data(Bytes::from_static(b"hello"), false).unwrap();
        let mut from = request.into_body();
        while let Some(Ok(data)) = from.data().await {
            let _ = from.flow_control().release_capacity(data.len());
            to.send_data(data, false).unwrap();
        }
        let _ = to.send_data(Bytes::from_static(b"bye"), true);
    })
    .await
}

/// A proxy before this upstream, with more settings of the route and the cluster.
async fn rig(backend: &Backend, route: &str, cluster: &str) -> Rig {
    Rig::start(&yaml(backend, route, cluster)).await
}

fn yaml(backend: &Backend, route: &str, cluster: &str) -> String {
    let config = config(route, cluster, &[backend.address]);
    format!("{config}---\nkind: Defaults\nname: default\naccess_log: json\n")
}

/// The only line of the access log.
async fn line(rig: &Rig) -> serde_json::Value {
    eventually("a line", || rig.log.lines().len() == 1).await;
    rig.log.lines().remove(0)
}

async fn reads(client: &mut Client, expected: &[u8]) {
    let read = async {
        while client.buffer.len() < expected.len() {
            assert_ne!(client.stream.read_buf(&mut client.buffer).await.unwrap(), 0);
        }
    };
    timeout(PATIENCE, read).await.expect("bytes in time");
    assert!(client.buffer == expected, "{:?}", client.buffer);
    client.buffer.clear();
}

/// A client of HTTP/2 that asked for something.
struct Asked {
    answer: Response<()>,
    to: SendStream<Bytes>,
    from: RecvStream,
    _client: streams::Client,
}

impl Asked {
    /// Asks for this protocol, or by CONNECT alone, and sends `early` before an answer.
    async fn new(rig: &Rig, protocol: Option<&'static str>, early: &'static str) -> Self {
        let client = streams::Client::connect(rig.address("edge")).await;
        let uri = protocol.map_or("a:443", |_| "http://a/chat");
        let mut request = Request::builder()
            .method("CONNECT")
            .uri(uri)
            .body(())
            .unwrap();
        if let Some(protocol) = protocol {
            request
                .extensions_mut()
                .insert(Protocol::from_static(protocol));
            let fields = fields(&[
                ("sec-websocket-protocol", "chat"),
                ("sec-websocket-key", "x"),
            ]);
            request.headers_mut().extend(fields);
        }
        let mut send = client.send.clone().ready().await.unwrap();
        let (response, mut to) = send.send_request(request, false).unwrap();
        to.send_data(Bytes::from_static(early.as_bytes()), false)
            .unwrap();
        let answer = timeout(PATIENCE, response)
            .await
            .expect("an answer in time");
        let (parts, from) = answer.unwrap().into_parts();
        Self {
            answer: Response::from_parts(parts, ()),
            to,
            from,
            _client: client,
        }
    }

    async fn reads(&mut self, expected: &[u8]) {
        let mut read = Vec::new();
        while read.len() < expected.len() {
            let data = timeout(PATIENCE, self.from.data()).await;
            let data = data.expect("bytes in time").unwrap().unwrap();
            read.extend_from_slice(&data);
            let _ = self.from.flow_control().release_capacity(data.len());
        }
        assert!(read == expected);
    }

    /// What the stream was reset with.
    async fn breaks(mut self) -> Reason {
        let read = timeout(PATIENCE, read_all(&mut self.from)).await;
        let error = read.expect("an end in time").unwrap_err();
        error.reason().unwrap()
    }
}

fn pattern(len: u32) -> Bytes {
    (0..len)
        .map(|at| (at % 251) as u8)
        .collect::<Vec<_>>()
        .into()
}

/// All of what a client of HTTP/1.1 gets back for this, up to the end.
async fn exchange(client: Client, sent: Bytes) -> Vec<u8> {
    let (mut read, mut write) = client.stream.into_split();
    let sending = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
        // A connection whose writing half is dropped would be reset by what comes.
        write
    });
    let mut got = Vec::new();
    let all = timeout(PATIENCE, read.read_to_end(&mut got)).await;
    all.expect("an end in time").unwrap();
    drop(sending.await.unwrap());
    got
}

#[tokio::test]
async fn bytes_go_both_ways_from_http1_and_each_end_is_passed_on() {
    for (backend, cluster) in [(old_echo().await, ""), (new_echo().await, "http: h2")] {
        let rig = rig(&backend, WEBSOCKET, cluster).await;
        let mut client = rig.connect().await;
        // Some of them come with the head.
        client.send(&format!("{ASK}early")).await;
        let head = client.head().await.unwrap();
        assert!(
            head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
            "{head}"
        );
        assert_eq!(head.matches("sec-websocket-accept").count(), 1, "{head}");
        assert!(
            head.contains(&format!("sec-websocket-accept: {PROOF}")),
            "{head}"
        );
        assert!(head.contains("\r\nsec-websocket-protocol: chat"), "{head}");
        assert!(
            head.ends_with("connection: upgrade\r\nupgrade: websocket"),
            "{head}"
        );
        reads(&mut client, b"helloearly").await;
        let large = pattern(1_000_000);
        let got = exchange(client, large.clone()).await;
        assert!(got.strip_suffix(b"bye") == Some(&large[..]));
        let line = line(&rig).await;
        let told = (&line["status"], &line["flags"], &line["bytes_received"]);
        assert_eq!(told, (&101.into(), &"-".into(), &1_000_005.into()));
        assert!(line["bytes_sent"].as_u64().unwrap() > 1_000_000);
        rig.counts("cluster_upstream_rq_active", "", 0.0).await;
        rig.counts("http_downstream_rq_active", "", 0.0).await;
    }
}

#[tokio::test]
async fn bytes_go_both_ways_from_http2_and_each_end_is_passed_on() {
    for (backend, cluster) in [(old_echo().await, ""), (new_echo().await, "http: h2")] {
        let rig = rig(&backend, WEBSOCKET, cluster).await;
        let mut asked = Asked::new(&rig, Some("websocket"), "early").await;
        assert_eq!(asked.answer.status(), StatusCode::OK);
        let headers = asked.answer.headers();
        assert_eq!(headers["sec-websocket-protocol"], "chat");
        for none in ["sec-websocket-accept", "upgrade", "connection"] {
            assert!(!headers.contains_key(none), "{headers:?}");
        }
        asked.reads(b"helloearly").await;
        let large = pattern(1_000_000);
        let sending = send_all(asked.to, large.clone(), None);
        let (got, ()) = tokio::join!(timeout(PATIENCE, read_all(&mut asked.from)), sending);
        let (got, _) = got.expect("an end in time").unwrap();
        assert!(got.strip_suffix(b"bye") == Some(&large[..]));
        let line = line(&rig).await;
        let told = (&line["status"], &line["flags"], &line["bytes_received"]);
        assert_eq!(told, (&200.into(), &"-".into(), &1_000_005.into()));
        assert_eq!(line["bytes_sent"], 1_000_013);
        assert_eq!(
            (&line["method"], &line["path"]),
            (&"GET".into(), &"/chat".into())
        );
        rig.counts("cluster_upstream_rq_active", "", 0.0).await;
    }
}

#[tokio::test]
async fn a_route_without_the_word_refuses() {
    let backend = Backend::saying("x").await;
    let plain = rig(&backend, "", "").await;
    let other = rig(&backend, "upgrades: [other]", "").await;
    for rig in [&plain, &other] {
        let mut client = rig.connect().await;
        client.send(ASK).await;
        let refused = client.response().await;
        assert_eq!(refused.status, 403);
        assert_eq!(refused.text(), "this route does not take such upgrades\n");
        assert!(refused.head.contains("error=http_upgrade_failed"));
        assert_eq!(line(rig).await["flags"], "DPE");
    }
    // Over HTTP/2 an ordinary answer would say yes.
    for protocol in ["websocket", "foreign"] {
        let asked = Asked::new(&plain, Some(protocol), "").await;
        assert_eq!(asked.answer.status(), StatusCode::FORBIDDEN);
    }
    assert!(backend.seen().is_empty());
    // What asks for something else by HTTP/1.1, or does not ask in full, is answered without it.
    for (from, to) in [("WebSocket", "h2c"), ("Upgrade\r\n", "x\r\n")] {
        let mut client = plain.connect().await;
        client.send(&ASK.replace(from, to)).await;
        assert_eq!(client.response().await.text(), "x");
    }
    for seen in backend.seen() {
        assert!(seen.header("upgrade").is_empty() && seen.header("connection").is_empty());
    }
}

#[tokio::test]
async fn what_is_answered_here_is_no_yes_to_http2() {
    let yes = "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: http\n\
               ---\nkind: VirtualHost\nname: all\ndomains: [\"*\"]\n\
               routes: [{ respond: { status: 200, body: x } }]\n";
    let rig = Rig::start(yes).await;
    let asked = Asked::new(&rig, Some("websocket"), "").await;
    assert_eq!(asked.answer.status(), StatusCode::FORBIDDEN);
    let asked = Asked::new(&rig, None, "").await;
    assert_eq!(asked.answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    let mut client = rig.connect().await;
    client.send(ASK).await;
    assert_eq!(client.response().await.text(), "x");
}

#[tokio::test]
async fn an_upstream_may_decline_and_nothing_is_lost() {
    let backend = Backend::http(|seen| match seen.head.contains("x-gone") {
        true => status(404, "gone"),
        false => ok("no"),
    })
    .await;
    let rig = rig(&backend, WEBSOCKET, "").await;
    let mut client = rig.connect().await;
    // The next request follows the refusal as if nothing had been asked.
    client
        .send(&format!(
            "{ASK}GET / HTTP/1.1\r\nhost: a\r\nx-gone: 1\r\n\r\n"
        ))
        .await;
    assert_eq!(client.response().await.text(), "no");
    assert_eq!(client.response().await.text(), "gone");
    assert_eq!(backend.seen()[0].connection, backend.seen()[1].connection);
    // To a client of HTTP/2 the same answer would say yes.
    let asked = Asked::new(&rig, Some("websocket"), "").await;
    assert_eq!(asked.answer.status(), StatusCode::BAD_GATEWAY);
    let about = asked.answer.headers()["proxy-status"].to_str().unwrap();
    assert!(about.contains("http_upgrade_failed"), "{about}");
}

#[tokio::test]
async fn an_upstream_of_http2_may_decline_or_not_know_how() {
    let declines = |(_request, mut respond): Call, _| async move {
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::IM_A_TEAPOT;
        let mut to = respond.send_response(answer, false).unwrap();
        to.send_data(Bytes::from_static(b"no"), true).unwrap();
    };
    for (builder, status) in [(extended(), 418), (server::Builder::new(), 502)] {
        let backend = upstream(builder, declines).await;
        let rig = rig(&backend, WEBSOCKET, "http: h2").await;
        let mut client = rig.connect().await;
        client.send(ASK).await;
        assert_eq!(client.response().await.status, status);
        let asked = Asked::new(&rig, Some("websocket"), "").await;
        assert_eq!(asked.answer.status().as_u16(), status);
    }
}

#[tokio::test]
async fn an_answer_that_agrees_to_something_else_is_none() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n";
    for (answer, old, new) in [
        (format!("{switch}upgrade: other\r\n\r\n"), 502, 502),
        (format!("{switch}\r\n"), 502, 502),
        (
            switch.replace("1.1", "1.0") + "upgrade: websocket\r\n\r\n",
            502,
            502,
        ),
        // A browser asks for the proof itself.
        (format!("{switch}upgrade: websocket\r\n\r\n"), 101, 502),
    ] {
        let backend = Backend::http(move |_| answer.clone().into_bytes()).await;
        let rig = rig(&backend, WEBSOCKET, "").await;
        let mut client = rig.connect().await;
        client.send(ASK).await;
        let head = client.head().await.unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {old} ")), "{head}");
        let asked = Asked::new(&rig, Some("websocket"), "").await;
        assert_eq!(asked.answer.status().as_u16(), new);
    }
}

#[tokio::test]
async fn other_protocols_may_begin_with_a_body() {
    let backend = Backend::raw(|mut stream, _| async move {
        let mut buffer = Vec::new();
        let request = crate::rig::read_request(&mut stream, &mut buffer, 0).await;
        let request = request.unwrap();
        assert_eq!(request.body, b"{}");
        assert_eq!(request.header("upgrade"), ["tcp"]);
        let switch = "HTTP/1.1 101 UPGRADED\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    })
    .await;
    let rig = rig(&backend, "upgrades: [tcp]", "").await;
    let mut client = rig.connect().await;
    client
        .send(
            "POST /exec HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: TCP\r\n\
             content-length: 2\r\n\r\n{}more",
        )
        .await;
    assert!(client.head().await.unwrap().ends_with("upgrade: tcp"));
    reads(&mut client, b"more").await;
}

/// An upstream that goes over, and is reset when it hears `die`.
async fn mortal() -> Backend {
    Backend::raw(|mut stream, _| async move {
        agree(&mut stream).await;
        let mut die = [0; 3];
        if stream.read_exact(&mut die).await.is_ok() {
            SockRef::from(&stream)
                .set_linger(Some(std::time::Duration::ZERO))
                .unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn an_upstream_that_breaks_off_breaks_its_client_off() {
    let backend = mortal().await;
    let old = rig(&backend, WEBSOCKET, "").await;
    let mut client = old.connect().await;
    client.send(ASK).await;
    client.head().await.unwrap();
    reads(&mut client, b"hello").await;
    client.send("die").await;
    assert!(!client.ends_whole().await);
    assert_eq!(line(&old).await["flags"], "UC");

    let new = rig(&backend, WEBSOCKET, "").await;
    let mut asked = Asked::new(&new, Some("websocket"), "").await;
    asked.reads(b"hello").await;
    asked
        .to
        .send_data(Bytes::from_static(b"die"), false)
        .unwrap();
    assert_eq!(asked.breaks().await, Reason::CANCEL);
    assert_eq!(line(&new).await["flags"], "UC");
}

#[tokio::test]
async fn a_client_that_breaks_off_breaks_its_upstream_off() {
    let (told, mut ends) = mpsc::channel(4);
    let backend = Backend::raw(move |mut stream, _| {
        let told = told.clone();
        async move {
            agree(&mut stream).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            told.send(rest).await.unwrap();
        }
    })
    .await;
    let old = rig(&backend, WEBSOCKET, "").await;
    let mut client = old.connect().await;
    client.send(ASK).await;
    client.head().await.unwrap();
    reads(&mut client, b"hello").await;
    client.send("x").await;
    SockRef::from(&client.stream)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(client);
    assert!(b"x".starts_with(&ends.recv().await.unwrap()));
    assert_eq!(line(&old).await["flags"], "DC");

    let new = rig(&backend, WEBSOCKET, "").await;
    let mut asked = Asked::new(&new, Some("websocket"), "y").await;
    asked.reads(b"hello").await;
    asked.to.send_reset(Reason::CANCEL);
    ends.recv().await.unwrap();
    assert_eq!(line(&new).await["flags"], "DC");
    new.counts("cluster_upstream_cx_active", "", 0.0).await;
}

#[tokio::test]
async fn one_that_is_silent_is_ended() {
    for limit in ["idle_timeout: 30ms", "max_stream_duration: 60ms"] {
        let backend = old_echo().await;
        // The route's time is for the handshake.
        let route = format!("{WEBSOCKET}\n    timeout: 10s\n    {limit}");
        let rig = rig(&backend, &route, "").await;
        let mut client = rig.connect().await;
        client.send(ASK).await;
        client.head().await.unwrap();
        reads(&mut client, b"hello").await;
        assert!(client.ends().await);
        let flag = if limit.starts_with("idle") {
            "SI"
        } else {
            "UT"
        };
        assert_eq!(line(&rig).await["flags"], flag);
        rig.counts("cluster_upstream_cx_active", "", 0.0).await;
    }
}

#[tokio::test]
async fn the_time_of_a_route_is_over_when_both_agreed() {
    let backend = old_echo().await;
    let route = format!("{WEBSOCKET}\n    timeout: 50ms");
    let rig = rig(&backend, &route, "").await;
    let mut client = rig.connect().await;
    client.send(ASK).await;
    client.head().await.unwrap();
    reads(&mut client, b"hello").await;
    tokio::time::sleep(std::time::Duration::from_millis(80)).await;
    client.send("still").await;
    reads(&mut client, b"still").await;
}

#[tokio::test]
async fn connections_that_went_over_count_at_the_limit() {
    let backend = old_echo().await;
    let cluster = "limits: { connections: 1 }\nconnect_timeout: 20ms";
    let rig = rig(&backend, WEBSOCKET, cluster).await;
    let mut first = rig.connect().await;
    first.send(ASK).await;
    first.head().await.unwrap();
    let mut second = rig.connect().await;
    second.send(ASK).await;
    let refused = second.response().await;
    assert_eq!(refused.status, 503);
    assert!(
        refused.head.contains("connection_limit_reached"),
        "{}",
        refused.head
    );
    drop(first);
    rig.counts("cluster_upstream_cx_active", "", 0.0).await;
    second.send(ASK).await;
    assert!(second.head().await.unwrap().starts_with("HTTP/1.1 101 "));
}

#[tokio::test]
async fn it_survives_changes_and_ends_with_its_route() {
    let backend = old_echo().await;
    let mut rig = rig(&backend, WEBSOCKET, "").await;
    let mut client = rig.connect().await;
    client.send(ASK).await;
    client.head().await.unwrap();
    reads(&mut client, b"hello").await;
    let mut asked = Asked::new(&rig, Some("websocket"), "").await;
    asked.reads(b"hello").await;
    // Another endpoint, another time: its route still leads to its cluster.
    let elsewhere = Backend::saying("x").await;
    let changed = yaml(&elsewhere, &format!("{WEBSOCKET}\n    timeout: 1s"), "");
    rig.apply(&format!("{changed}drain_timeout: 20ms\n")).await;
    client.send("still").await;
    reads(&mut client, b"still").await;
    // And now it does not.
    let changed = yaml(&elsewhere, "", "");
    rig.apply(&format!("{changed}drain_timeout: 20ms\n")).await;
    assert!(client.ends().await);
    assert_eq!(asked.breaks().await, Reason::CANCEL);
    eventually("two lines", || rig.log.lines().len() == 2).await;
    for line in rig.log.lines() {
        assert_eq!(line["flags"], "DT", "{line}");
        assert_eq!(line["details"], "no route leads there any more");
    }
    // The listener and its other clients stay.
    assert_eq!(rig.get("/").await.text(), "x");
}

#[tokio::test]
async fn it_ends_with_its_listener_at_the_drain_s_deadline() {
    let backend = old_echo().await;
    let mut rig = rig(&backend, WEBSOCKET, "").await;
    let mut client = rig.connect().await;
    client.send(ASK).await;
    client.head().await.unwrap();
    reads(&mut client, b"hello").await;
    let drain = "kind: Defaults\nname: default\naccess_log: json\ndrain_timeout: 200ms\n";
    rig.apply(drain).await;
    client.send("still").await;
    reads(&mut client, b"still").await;
    assert!(client.ends().await);
    let line = line(&rig).await;
    assert_eq!(
        (&line["flags"], &line["status"]),
        (&"DT".into(), &101.into())
    );
    assert_eq!(line["bytes_received"], 5);
}

/// Bytes that are sent back until their end; then it says bye.
async fn bytes() -> Backend {
    Backend::raw(|mut stream, _| async move {
        let (mut read, mut write) = stream.split();
        if tokio::io::copy(&mut read, &mut write).await.is_ok() {
            let _ = write.write_all(b"bye").await;
        }
    })
    .await
}

#[tokio::test]
async fn connect_leads_to_an_endpoint_whatever_it_names() {
    // Which HTTP the cluster is spoken to does not matter: none is.
    for cluster in ["", "http: h2"] {
        let backend = bytes().await;
        let rig = rig(&backend, "upgrades: [connect]", cluster).await;
        let mut client = rig.connect().await;
        client
            .send("CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\n\r\nearly")
            .await;
        assert_eq!(client.head().await.unwrap(), "HTTP/1.1 200 OK");
        reads(&mut client, b"early").await;
        let got = exchange(client, pattern(100_000)).await;
        assert!(got.strip_suffix(b"bye") == Some(&pattern(100_000)[..]));
        let line = line(&rig).await;
        assert_eq!(
            (&line["status"], &line["flags"]),
            (&200.into(), &"-".into())
        );
        assert_eq!(
            (&line["method"], &line["bytes_received"]),
            (&"CONNECT".into(), &100_005.into())
        );

        let mut asked = Asked::new(&rig, None, "early").await;
        assert_eq!(asked.answer.status(), StatusCode::OK);
        assert_eq!(asked.answer.version(), Version::HTTP_2);
        asked.reads(b"early").await;
        let sending = send_all(asked.to, pattern(100_000), None);
        let (got, ()) = tokio::join!(timeout(PATIENCE, read_all(&mut asked.from)), sending);
        assert!(got.unwrap().unwrap().0.strip_suffix(b"bye") == Some(&pattern(100_000)[..]));
        // Ordinary requests go their way.
        rig.counts("cluster_upstream_cx_active", "", 0.0).await;
    }
}

#[tokio::test]
async fn connect_goes_nowhere_unless_a_route_says_so() {
    let backend = bytes().await;
    let off = rig(&backend, WEBSOCKET, "").await;
    let on = rig(&backend, "upgrades: [connect]", "").await;
    for (rig, target, status) in [
        (&off, "b:443", 405),
        (&on, "b", 400),
        (&on, "b:0", 400),
        (&on, "b:65536", 400),
        (&on, ":443", 400),
        (&on, "/b:443", 400),
        (&on, "http://b:443/", 400),
        (&on, "u@b:443", 400),
    ] {
        let mut client = rig.connect().await;
        let next = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        client
            .send(&format!(
                "CONNECT {target} HTTP/1.1\r\nhost: b\r\n\r\n{next}"
            ))
            .await;
        let refused = client.response().await;
        assert_eq!(refused.status, status, "{target}");
        // What follows was perhaps meant for the other end.
        assert_eq!(refused.header("connection"), ["close"]);
        assert!(client.ends().await);
    }
    let asked = Asked::new(&off, None, "").await;
    assert_eq!(asked.answer.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn connect_tells_that_an_endpoint_cannot_be_reached() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let rig = Rig::start(&config("upgrades: [connect]", "", &[address])).await;
    let mut client = rig.connect().await;
    client
        .send("CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\n\r\nGET / HTTP/1.1\r\n")
        .await;
    let refused = client.response().await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("connection"), ["close"]);
    assert!(client.ends().await);
    let asked = Asked::new(&rig, None, "").await;
    assert_eq!(asked.answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    rig.counts("cluster_upstream_rq_retry_total", "", 4.0).await;
}

#[tokio::test]
async fn a_connection_that_breaks_behind_connect_is_told_so() {
    let backend = Backend::raw(|mut stream, _| async move {
        let mut die = [0; 3];
        stream.read_exact(&mut die).await.unwrap();
        SockRef::from(&stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
    })
    .await;
    let rig = rig(&backend, "upgrades: [connect]", "").await;
    let asked = Asked::new(&rig, None, "die").await;
    assert_eq!(asked.breaks().await, Reason::CONNECT_ERROR);
    assert_eq!(line(&rig).await["flags"], "UC");
}

#[tokio::test]
async fn headers_are_changed_on_the_way_to_another_protocol_too() {
    let backend = Backend::raw(|mut stream, _| async move {
        let head = read_head(&mut stream, &mut Vec::new()).await.unwrap();
        assert!(head.contains("\r\nx-in: 1"), "{head}");
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                      upgrade: websocket\r\nserver: secret\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.unwrap();
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let route = format!(
        "{WEBSOCKET}\n    headers: {{ request: {{ set: {{ x-in: \"1\" }} }}, \
         response: {{ set: {{ x-out: \"2\" }}, remove: [server] }} }}"
    );
    let rig = rig(&backend, &route, "").await;
    let mut client = rig.connect().await;
    client.send(ASK).await;
    let head = client.head().await.unwrap();
    assert!(
        head.contains("x-out: 2") && !head.contains("secret"),
        "{head}"
    );
    assert!(
        head.ends_with("connection: upgrade\r\nupgrade: websocket"),
        "{head}"
    );
}

#[test]
fn the_key_of_the_tests_is_that_of_the_rfc() {
    assert!(ASK.contains(KEY));
    assert_eq!(proof(KEY), PROOF);
}

#[tokio::test]
async fn the_example_does_what_it_says() {
    let path = "/../../config-examples/websocket.yaml";
    let path = [env!("CARGO_MANIFEST_DIR"), path].concat();
    let example = std::fs::read_to_string(path).unwrap();
    let (live, db) = (old_echo().await, bytes().await);
    let config = example
        .replace(":8080\"\nprotocol", "EDGE\"\nprotocol")
        .replace(
            "10.0.0.1:8000\", \"10.0.0.2:8000",
            &live.address.to_string(),
        )
        .replace("10.0.0.9:5432", &db.address.to_string());
    let rig = Rig::start(&config).await;
    let mut client = rig.connect().await;
    let ask = ASK.replace("/chat", "/live/chat");
    client
        .send(&ask.replace("host: a", "host: shop.example.com"))
        .await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101 "));
    reads(&mut client, b"hello").await;
    let mut client = rig.connect().await;
    let ask = "CONNECT db.example.com:5432 HTTP/1.1\r\nhost: db.example.com:5432\r\n\r\nquery";
    client.send(ask).await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    reads(&mut client, b"query").await;
    // Nobody else gets through there.
    let mut client = rig.connect().await;
    client
        .send("GET / HTTP/1.1\r\nhost: db.example.com:5432\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 404);
}
