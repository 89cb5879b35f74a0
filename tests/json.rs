//! The client port by plain HTTP, as curl and the many clients without gRPC use it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{self, Answer, Mesh, Node, until};

fn post(node: &Node, path: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    harness::request(node.at(2379), &request).expect("an answer")
}

fn told(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body)
        .unwrap_or_else(|fault| panic!("{fault} in {:?}", answer.body))
}

/// Some node that does not lead.
fn follower(mesh: &Mesh) -> &Node {
    let status = mesh.nodes[0].status().expect("a status");
    let nodes = status["nodes"].as_array().expect("nodes");
    let follows = |node: &&Node| {
        let mut nodes = nodes.iter();
        nodes.any(|one| one["name"] == node.name.as_str() && one["role"] == "follower")
    };
    mesh.nodes.iter().find(follows).expect("a follower")
}

#[test]
fn a_follower_serves_keys_and_watches_in_json() {
    let mesh = Mesh::start(3);
    let node = follower(&mesh);
    let mut watching = TcpStream::connect(node.at(2379)).expect("connected");
    watching
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("set");
    let create = r#"{"create_request":{"key":"Zm9v","progress_notify":true}}"#;
    // Byte by byte: the port tells HTTP from gRPC by what comes first.
    let head = format!(
        "POST /v3/watch HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        create.len()
    );
    for byte in head.as_bytes() {
        watching.write_all(&[*byte]).expect("sent");
    }
    watching.write_all(create.as_bytes()).expect("sent");
    let mut lines = BufReader::new(watching).lines();
    let mut line = || {
        let mut json = lines.by_ref().map(|line| line.expect("a line"));
        let line = json
            .find(|line| line.starts_with('{'))
            .expect("a line of JSON");
        serde_json::from_str::<Value>(&line).expect("JSON")
    };
    assert_eq!(line()["result"]["created"], true);

    let put = post(
        node,
        "/v3/kv/put",
        &json!({ "key": "Zm9v", "value": "YmFy" }),
    );
    assert_eq!(put.status, 200, "{}", put.body);
    let event = &line()["result"]["events"][0];
    assert_eq!(
        (&event["kv"]["value"], &event["kv"]["mod_revision"]),
        (&json!("YmFy"), &told(&put)["header"]["revision"])
    );
    for node in &mesh.nodes {
        let found = told(&post(node, "/v3/kv/range", &json!({ "key": "Zm9v" })));
        assert_eq!(found["kvs"][0]["value"], "YmFy", "at {}", node.name);
    }
    let key = json!({ "key": "Zm9v" });
    let txn = json!({
        "compare": [{ "key": "Zm9v", "target": "VALUE", "result": "EQUAL", "value": "YmFy" }],
        "success": [{ "request_delete_range": key }],
    });
    let done = told(&post(node, "/v3/kv/txn", &txn));
    assert_eq!(
        done["responses"][0]["response_delete_range"]["deleted"],
        "1"
    );
    assert_eq!(line()["result"]["events"][0]["type"], "DELETE");
    let revision = done["header"]["revision"].clone();
    let compacted = post(node, "/v3/kv/compaction", &json!({ "revision": revision }));
    assert_eq!(compacted.status, 200, "{}", compacted.body);
    let past = post(
        node,
        "/v3/kv/range",
        &json!({ "key": "Zm9v", "revision": "1" }),
    );
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(past.status, 400);
    assert_eq!(
        told(&past),
        json!({ "error": text, "code": 11, "message": text })
    );

    let refused = json!({ "key": "L3NrZWluL2NvbmZpZy94", "value": "eA==" });
    let refused = post(node, "/v3/kv/put", &refused);
    assert_eq!(refused.status, 400);
    let text = told(&refused)["message"].to_string();
    assert!(text.contains("skein: config refused"), "{text}");
}

#[test]
fn the_pages_tell_the_nodes_health_and_metrics_and_garbage_hurts_nobody() {
    let mut mesh = Mesh::start(3);
    for node in &mesh.nodes {
        let metrics = harness::get(node.at(2379), "x", "/metrics").expect("metrics");
        assert!(
            metrics.body.contains("skein_raft_has_quorum 1"),
            "{}",
            metrics.body
        );
        // What etcdctl's `check datascale` and dashboards read.
        assert!(metrics.body.contains("\nprocess_resident_memory_bytes "));
        assert!(metrics.body.ends_with("# EOF\n"));
        let kind = metrics.header("content-type").expect("a content type");
        assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
        let ready = harness::get(node.at(2379), "x", "/readyz").expect("readiness");
        assert_eq!((ready.status, ready.body.as_str()), (200, "ok\n"));
    }
    for garbage in [
        &b"\x16\x03\x01\x00\xff no tls here"[..],
        b"\r\n\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nno",
    ] {
        let _ = harness::send_raw(mesh.nodes[0].at(2379), garbage);
    }
    mesh.nodes[0].skein(&["put", "a", "1"]).ok();
    let [_, second, third] = &mut mesh.nodes[..] else {
        panic!("three nodes");
    };
    second.kill();
    third.kill();
    until("the last node says that there is no leader", || {
        let health = harness::get(mesh.nodes[0].at(2379), "x", "/health");
        health.is_ok_and(|health| health.status == 503 && told(&health)["health"] == "false")
    });
    let alive = harness::get(mesh.nodes[0].at(2379), "x", "/livez").expect("liveness");
    assert_eq!(alive.status, 200);
}
