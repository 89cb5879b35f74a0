//! The JSON gateway and the HTTP pages, over real sockets, spoken by hand.

use std::time::Duration;

use serde_json::{Value, json};
use store_server::Limits;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tonic::codegen::Service;

use crate::harness::{Mesh, Node, get, put};

/// What came back: the head and the body, as they were sent.
pub(crate) struct Told {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|fault| panic!("{fault}: {}", self.body))
    }
}

async fn send(node: &Node, request: &str) -> Told {
    let mut stream = TcpStream::connect(node.client).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    let (head, body) = all.split_once("\r\n\r\n").expect("a whole head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Told {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

fn posting(path: &str, headers: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n")
}

pub(crate) async fn post(node: &Node, path: &str, body: &Value) -> Told {
    let body = body.to_string();
    let head = posting(path, "connection: close\r\n", body.len());
    send(node, &(head + &body)).await
}

async fn get_page(node: &Node, path: &str) -> Told {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    send(node, &request).await
}

/// A stream of lines, of which the request's body may go on.
struct Lines(BufReader<TcpStream>);

impl Lines {
    async fn open(node: &Node, head: &str, body: &str) -> Self {
        let mut stream = TcpStream::connect(node.client).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        Self(BufReader::new(stream))
    }

    /// Opens a stream whose body goes on by chunks.
    async fn chunked(node: &Node, path: &str) -> Self {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        Self::open(node, &head, "").await
    }

    async fn chunk(&mut self, body: &str) {
        let chunk = format!("{:x}\r\n{body}\r\n", body.len());
        self.0.write_all(chunk.as_bytes()).await.unwrap();
    }

    /// The next line of JSON; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        let next = async {
            loop {
                let mut line = String::new();
                if self.0.read_line(&mut line).await.unwrap() == 0 || line == "0\r\n" {
                    return None;
                }
                if line.starts_with('{') {
                    return Some(serde_json::from_str(&line).unwrap());
                }
            }
        };
        let next = tokio::time::timeout(Duration::from_secs(30), next).await;
        next.expect("a line, or the end, in time")
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_written_and_read_on_any_node() {
    let mesh = Mesh::form(3).await;
    let (leader, follower) = (mesh.leader().await, mesh.follower().await);
    let (leader, follower) = (mesh.node(leader), mesh.node(follower));
    let put_foo = |value: &str| json!({ "key": "Zm9v", "value": value, "prev_kv": true });

    let told = post(follower, "/v3/kv/put", &put_foo("YmFy")).await;
    assert_eq!(told.status, 200);
    assert!(
        told.head.contains("content-type: application/json"),
        "{}",
        told.head
    );
    let header = told.json()["header"].clone();
    assert_eq!(header["cluster_id"], crate::harness::MESH.0.to_string());
    assert_eq!(header["member_id"], follower.store.id().0.to_string());
    assert_eq!(header["revision"], "2");

    let again = post(follower, "/v3beta/kv/put", &put_foo("eA=="))
        .await
        .json();
    assert_eq!(again["prev_kv"]["value"], "YmFy");
    for node in [leader, follower] {
        let found = post(node, "/v3/kv/range", &json!({ "key": "Zm9v" }))
            .await
            .json();
        let row = json!({
            "key": "Zm9v", "create_revision": "2", "mod_revision": "3", "version": "2",
            "value": "eA==",
        });
        assert_eq!(
            (&found["kvs"], &found["count"]),
            (&json!([row]), &json!("1"))
        );
        let grpc = node.kv().range(get("foo")).await.unwrap().into_inner();
        assert_eq!(grpc.kvs[0].value, "x");
    }
    let txn = json!({
        "compare": [{ "key": "Zm9v", "target": "VERSION", "result": "GREATER", "version": 1 }],
        "success": [{ "requestPut": { "key": "YQ==", "value": "MQ==" } },
                    { "request_range": { "key": "YQ==" } }],
    });
    let done = post(follower, "/v3/kv/txn", &txn).await.json();
    assert_eq!(done["succeeded"], true);
    assert_eq!(
        done["responses"][1]["response_range"]["kvs"][0]["value"],
        "MQ=="
    );
    let all = json!({ "key": "AA==", "range_end": "AA==", "prev_kv": true });
    let gone = post(follower, "/v3/kv/deleterange", &all).await.json();
    assert_eq!(
        (&gone["deleted"], &gone["header"]["revision"]),
        (&json!("2"), &json!("5"))
    );

    let compacted = post(follower, "/v3/kv/compaction", &json!({ "revision": 4 })).await;
    assert_eq!(
        (compacted.status, &compacted.json()["header"]["revision"]),
        (200, &json!("5"))
    );
    let members = post(follower, "/v3/cluster/member/list", &json!({}))
        .await
        .json();
    assert_eq!(members["members"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_etcds() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    node.kv().put(put("a", "1")).await.unwrap();
    node.kv().put(put("a", "2")).await.unwrap();
    post(node, "/v3/kv/compaction", &json!({ "revision": "3" })).await;
    let large = json!({ "key": "YQ==", "value": "QUFB".repeat(600_000) });
    let cases = [
        (
            "/v3/kv/range",
            json!({}),
            400,
            3,
            "etcdserver: key is not provided",
        ),
        (
            "/v3/kv/range",
            json!({ "key": "YQ==", "revision": 2 }),
            400,
            11,
            "etcdserver: mvcc: required revision has been compacted",
        ),
        (
            "/v3/kv/range",
            json!({ "key": "YQ==", "revision": 9 }),
            400,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            "/v3/kv/put",
            json!({ "key": "YQ==", "lease": "77" }),
            404,
            5,
            "etcdserver: requested lease not found",
        ),
        (
            "/v3/kv/put",
            large,
            400,
            3,
            "etcdserver: request is too large",
        ),
        (
            "/v3/maintenance/hashkv",
            json!({ "revision": 9 }),
            400,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
    ];
    for (path, body, status, code, message) in cases {
        let told = post(node, path, &body).await;
        assert_eq!(told.status, status, "{path}: {}", told.body);
        let expected = json!({ "error": message, "code": code, "message": message });
        assert_eq!(told.json(), expected, "{path}");
    }
    // More than is read at all: said before it is sent, and the connection ends.
    let told = send(node, &posting("/v3/kv/put", "", 1 << 30)).await;
    assert_eq!(
        (told.status, text(&told.json()["error"])),
        (400, "etcdserver: request is too large")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_is_turned_away_with_the_reason() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    for path in [
        "/",
        "/v3",
        "/v3/",
        "/v3/kv/rang",
        "/v3/kv/range/",
        "/v2/keys",
        "/v3beta",
    ] {
        for told in [
            post(node, path, &json!({})).await,
            get_page(node, path).await,
        ] {
            assert_eq!(
                (told.status, &told.json()["code"]),
                (404, &json!(5)),
                "{path}"
            );
            assert!(text(&told.json()["message"]).contains("/v3/kv/range"));
        }
    }
    let told = get_page(node, "/v3/kv/range").await;
    assert_eq!((told.status, &told.json()["code"]), (405, &json!(12)));
    assert!(told.head.contains("allow: post"), "{}", told.head);
    let request = posting(
        "/v3/kv/put",
        "origin: http://evil.example\r\nconnection: close\r\n",
        2,
    );
    let told = send(node, &(request + "{}")).await;
    assert_eq!((told.status, &told.json()["code"]), (403, &json!(7)));
    let request = posting(
        "/v3/kv/put",
        "content-type: application/grpc\r\nconnection: close\r\n",
        0,
    );
    let told = send(node, &request).await;
    assert!(told.head.contains("grpc-status: 12"), "{}", told.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_while_the_body_does_and_after_it_ended() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let create = r#"{"create_request":{"key":"YQ==","start_revision":"1"}}"#;
    // As `curl -d` does it.
    let head = posting("/v3/watch", "", create.len());
    let mut ended = Lines::open(node, &head, create).await;
    let mut open = Lines::chunked(node, "/v3/watch").await;
    open.chunk(&create[..20]).await;
    open.chunk(&create[20..]).await;
    for lines in [&mut ended, &mut open] {
        assert_eq!(lines.next().await.unwrap()["result"]["created"], true);
    }
    node.kv().put(put("a", "1")).await.unwrap();
    for lines in [&mut ended, &mut open] {
        let line = lines.next().await.unwrap();
        let row = json!({
            "key": "YQ==", "create_revision": "2", "mod_revision": "2", "version": "1",
            "value": "MQ==",
        });
        assert_eq!(line["result"]["events"], json!([{ "kv": row }]));
    }
    open.chunk(r#" {"progress_request":{}} {"create_request":{"key":"Yg==","watch_id":7}}"#)
        .await;
    let mut seen = [open.next().await.unwrap(), open.next().await.unwrap()];
    seen.sort_by_key(|line| line["result"]["created"] == true);
    assert_eq!(seen[0]["result"]["watch_id"], "-1");
    assert_eq!(seen[1]["result"]["watch_id"], "7");
    open.chunk("\n{\"cancelRequest\":{\"watchId\":\"7\"}}")
        .await;
    let line = open.next().await.unwrap();
    assert_eq!(
        (&line["result"]["watch_id"], &line["result"]["canceled"]),
        (&json!("7"), &json!(true))
    );

    open.chunk("{} nonsense").await;
    let error = &open.next().await.unwrap()["error"];
    assert_eq!(
        (&error["code"], &error["http_code"]),
        (&json!(3), &json!(400))
    );
    assert!(text(&error["message"]).contains("not with `n`"), "{error}");
    assert_eq!(open.next().await, None);

    node.kv().put(put("a", "2")).await.unwrap();
    assert!(ended.next().await.unwrap()["result"]["events"].is_array());
    assert!(
        node.stop().await,
        "a watch over JSON does not hold the node up"
    );
    let error = &ended.next().await.unwrap()["error"];
    assert_eq!(error["message"], "etcdserver: server stopped");
    assert_eq!(ended.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_spoken_over_http_2_too() {
    let mesh = Mesh::form(1).await;
    let mut channel = mesh.node(0).channel();
    std::future::poll_fn(|context| channel.poll_ready(context))
        .await
        .unwrap();
    let body = http_body_util::Full::new(bytes::Bytes::from(r#"{"key":"YQ==","value":"MQ=="}"#));
    let request = http::Request::post("/v3/kv/put")
        .body(tonic::body::Body::new(body))
        .unwrap();
    let answer = channel.call(request).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.version()),
        (200, http::Version::HTTP_2)
    );
    let read = mesh
        .node(0)
        .kv()
        .range(get("a"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(read.kvs[0].value, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_are_etcds() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let pages = [
        ("/health", "{\"health\":\"true\",\"reason\":\"\"}\n"),
        (
            "/health?serializable=true&exclude=NOSPACE",
            "{\"health\":\"true\",\"reason\":\"\"}\n",
        ),
        ("/livez", "ok\n"),
        ("/livez?verbose", "[+]serializable_read ok\nok\n"),
        ("/livez/serializable_read", "ok\n"),
        ("/readyz", "ok\n"),
        (
            "/readyz?verbose&exclude=linearizable_read",
            "[+]data_corruption ok\n[+]serializable_read ok\n[+]non_learner ok\nok\n",
        ),
        (
            "/readyz/linearizable_read?verbose=1",
            "[+]linearizable_read ok\nok\n",
        ),
        ("/readyz/non_learner", "ok\n"),
        ("/readyz/data_corruption", "ok\n"),
        ("/readyz/serializable_read", "ok\n"),
        ("/metrics", "skein_up 1\n# EOF\n"),
    ];
    for (path, body) in pages {
        let told = get_page(node, path).await;
        assert_eq!((told.status, told.body.as_str()), (200, body), "{path}");
        let told = post(node, path, &json!({})).await;
        assert_eq!(told.status, 405, "{path}");
        assert!(told.head.contains("allow: get, head"), "{}", told.head);
    }
    let version = get_page(node, "/version").await.json();
    let names: Vec<_> = version.as_object().unwrap().keys().collect();
    assert_eq!(names, ["etcdserver", "etcdcluster", "storage"]);
    let status = post(node, "/v3/maintenance/status", &json!({}))
        .await
        .json();
    assert_eq!(version["etcdserver"], status["version"]);
    assert!(
        get_page(node, "/metrics")
            .await
            .head
            .contains("application/openmetrics-text")
    );
    let told = send(
        node,
        "HEAD /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert_eq!((told.status, told.body.as_str()), (200, ""));
    assert_eq!(get_page(node, "/livez/linearizable_read").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_a_node_lives_but_is_not_ready() {
    let limits = Limits {
        leader_wait: Duration::from_millis(200),
        ..Limits::default()
    };
    let mut mesh = Mesh::form_with(3, limits).await;
    let alone = mesh.follower().await;
    for other in (0..3).filter(|&other| other != alone) {
        mesh.kill(other);
    }
    let node = mesh.node(alone);
    let mut status = node.store.status_watch();
    status
        .wait_for(|status| status.leader.is_none())
        .await
        .unwrap();
    let told = get_page(node, "/health").await;
    assert_eq!(told.status, 503);
    assert_eq!(
        told.json(),
        json!({ "health": "false", "reason": "RAFT NO LEADER" })
    );
    assert_eq!(
        get_page(node, "/health?serializable=true").await.status,
        200
    );
    assert_eq!(get_page(node, "/livez").await.status, 200);
    let told = get_page(node, "/readyz").await;
    assert_eq!(told.status, 503);
    assert_eq!(
        told.body,
        "[+]data_corruption ok\n[+]serializable_read ok\n\
        [-]linearizable_read failed: etcdserver: no leader\n[+]non_learner ok\n"
    );

    let told = post(node, "/v3/kv/put", &json!({ "key": "YQ==" })).await;
    assert_eq!(
        (told.status, text(&told.json()["message"])),
        (503, "etcdserver: no leader")
    );
    assert!(
        told.head.contains("grpc-metadata-skein-proposed: no"),
        "{}",
        told.head
    );
    let body = r#"{"key":"YQ=="}"#;
    let head = posting(
        "/v3/kv/range",
        "grpc-timeout: 50m\r\nconnection: close\r\n",
        body.len(),
    );
    let told = send(node, &(head + body)).await;
    assert!([503, 504].contains(&told.status), "{}", told.body);
    assert!(told.json()["message"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_connection_and_nothing_else() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let garbage: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no tls here",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"POST /v3/kv/put HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
        &[b'A'; 1 << 20],
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(node.client).await.unwrap();
        // The server may end the connection before it has read all.
        let _ = stream.write_all(bytes).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        node.kv().put(put("a", "1")).await.unwrap();
    }
    // A body that breaks off is no request.
    let mut stream = TcpStream::connect(node.client).await.unwrap();
    let head = posting("/v3/kv/put", "", 100);
    stream
        .write_all((head + r#"{"key":"Yg=="}"#).as_bytes())
        .await
        .unwrap();
    drop(stream);
    assert_eq!(get_page(node, "/health").await.status, 200);
    assert_eq!(node.value("b"), None);
}
