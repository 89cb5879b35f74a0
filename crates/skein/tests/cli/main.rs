//! The binary as its users meet it: arguments in, standard output, standard error and an exit code
//! out, with fake nodes at the other end.

#![allow(clippy::unwrap_used, reason = "a step that fails here fails its test")]

mod fake_node;
mod snapshot;

use std::ffi::OsStr;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use bytes::Bytes;
use control_api::v1;
use fake_node::{FakeNode, Script};
use serde_json::{Value, json};
use tonic::Status;

const CLUSTER: &str = "kind: Cluster\nname: api\nendpoints: [\"10.0.0.1:80\"]\n";

/// What a run of the binary left.
struct Ran {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Ran {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap()
    }

    fn error(&self) -> Value {
        serde_json::from_str::<Value>(&self.err).unwrap()["error"].clone()
    }
}

fn skein<A: AsRef<OsStr>>(arguments: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
    command
        .args(arguments)
        .env_remove("SKEIN_ENDPOINTS")
        .stdin(Stdio::null());
    command
}

fn finish(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().expect("it ended by itself"),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `line`, split at spaces, against `node`.
fn ask(node: &FakeNode, line: &str) -> Ran {
    let arguments: Vec<_> = line.split(' ').collect();
    finish(skein(&arguments).env("SKEIN_ENDPOINTS", node.address.to_string()))
}

/// An address where nobody listens.
fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn with_file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

fn node(name: &str, state: v1::ConfigState, config_revision: u64) -> v1::NodeStatus {
    v1::NodeStatus {
        name: name.into(),
        state: state.into(),
        config_revision,
        ..Default::default()
    }
}

fn status(nodes: Vec<v1::NodeStatus>) -> v1::StatusResponse {
    v1::StatusResponse {
        mesh_id: 1,
        has_quorum: true,
        nodes,
        ..Default::default()
    }
}

fn created(config_revision: u64) -> v1::ApplyResponse {
    let resource = v1::ResourceRef {
        kind: "Cluster".into(),
        namespace: "default".into(),
        name: "api".into(),
    };
    let after = Bytes::from_static(br#"{"schema":1,"kind":"Cluster","name":"api"}"#);
    let change = v1::Change {
        resource: Some(resource),
        action: v1::Action::Created.into(),
        before: Bytes::new(),
        after,
    };
    v1::ApplyResponse {
        config_revision,
        revision: 70,
        changes: vec![change],
    }
}

#[test]
fn unreachable_endpoints_are_each_named() {
    let endpoints = [dead_address(), dead_address()];
    let list = endpoints.join(",");
    for line in ["get a", "put a b", "status", "members", "config list"] {
        let arguments = line.split(' ').chain(["--endpoints", &list]);
        let ran = finish(&mut skein(&arguments.collect::<Vec<_>>()));
        assert_eq!(ran.code, 1, "{line}: {}", ran.err);
        assert!(
            endpoints.iter().all(|endpoint| ran.err.contains(endpoint)),
            "{line}: {}",
            ran.err
        );
        assert!(ran.out.is_empty());
    }
    let ran = finish(&mut skein(&[
        "get",
        "a",
        "-o",
        "json",
        "--endpoints",
        &list,
    ]));
    assert_eq!(ran.error()["kind"], "unreachable");
    assert_eq!(ran.error()["exit_code"], 1);
}

#[test]
fn a_dead_endpoint_is_passed_over() {
    let node = FakeNode::start(Script::default());
    let endpoints = format!("{},{}", dead_address(), node.address);
    let ran = finish(&mut skein(&["put", "a", "1", "--endpoints", &endpoints]));
    assert_eq!((ran.code, ran.text()), (0, "revision 7\n"), "{}", ran.err);
    let ran = finish(&mut skein(&["get", "a", "--endpoints", &endpoints]));
    assert_eq!((ran.code, ran.text()), (0, "1\n"), "{}", ran.err);
}

#[test]
fn keys_and_values_are_any_bytes() {
    let node = FakeNode::start(Script::default());
    let endpoint = node.address.to_string();
    let key = OsStr::from_bytes(b"k\xff");
    let run = |arguments: &[&OsStr], input: &[u8]| {
        let mut command = skein(arguments);
        command.env("SKEIN_ENDPOINTS", &endpoint);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
    };
    run(&["put".as_ref(), key, "-".as_ref()], b"\x00\xfe\n");
    assert_eq!(
        node.script(|script| script.keys[&b"k\xff"[..]].clone()),
        &b"\x00\xfe\n"[..]
    );
    assert_eq!(run(&["get".as_ref(), key], b""), b"\\x00\\xfe\\n\n");
    let raw = run(&["get".as_ref(), key, "--print-value-only".as_ref()], b"");
    assert_eq!(raw, b"\x00\xfe\n\n");
    let json = run(&["get".as_ref(), key, "-o".as_ref(), "json".as_ref()], b"");
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["rows"][0]["key"], json!(null));
    assert_eq!(json["rows"][0]["value_base64"], "AP4K");
}

#[test]
fn what_does_not_exist_is_code_4() {
    let node = FakeNode::start(Script::default());
    for line in ["get a", "del a", "config get Cluster api"] {
        let ran = ask(&node, line);
        assert_eq!((ran.code, ran.out.len()), (4, 0), "{line}: {}", ran.err);
        assert!(ran.err.starts_with("skein: no "), "{line}: {}", ran.err);
    }
    let nothing = v1::ApplyResponse {
        changes: Vec::new(),
        ..created(5)
    };
    node.script(|script| script.apply = Some(Ok(nothing)));
    let ran = ask(&node, "config delete Cluster api --namespace team");
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("Cluster/team/api"), "{}", ran.err);
    let ran = ask(&node, "get a --prefix");
    assert_eq!((ran.code, ran.out.len()), (0, 0), "{}", ran.err);
}

#[test]
fn broken_documents_are_refused_before_anything_is_sent() {
    let node = FakeNode::start(Script::default());
    let (_dir, file) =
        with_file("kind: Cluster\nname: api\nendpoints: [\"10.0.0.1:80\"]\ncolour: red\n");
    for command in ["apply", "apply --dry-run", "config diff"] {
        let ran = ask(&node, &format!("{command} -f {file}"));
        assert_eq!((ran.code, ran.out.len()), (3, 0), "{}", ran.err);
        assert!(ran.err.contains(&format!("{file}:4:1")), "{}", ran.err);
        assert!(ran.err.contains("colour"), "{}", ran.err);
    }
    let ran = ask(&node, &format!("apply -f {file} -o json"));
    assert_eq!(ran.code, 3);
    let fault = &ran.error()["faults"][0];
    assert_eq!(
        (&fault["resource"], &fault["path"]),
        (&json!("Cluster/api"), &json!("colour"))
    );
    assert_eq!((&fault["line"], &fault["column"]), (&json!(4), &json!(1)));
    assert!(node.script(|script| script.applied.is_empty()));
}

#[test]
fn all_documents_are_one_request() {
    let script = Script {
        apply: Some(Ok(created(5))),
        ..Default::default()
    };
    let node = FakeNode::start(script);
    let (_dir, file) = with_file(&format!("{CLUSTER}---\n{}", CLUSTER.replace("api", "web")));
    let (_other_dir, other) = with_file(&CLUSTER.replace("api", "old"));
    let ran = ask(
        &node,
        &format!("apply -f {file} -f {other} --namespace team"),
    );
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        ran.text(),
        "created    Cluster/api\nconfig revision 5: 1 created\n"
    );
    let applied = node.script(|script| script.applied.clone());
    assert_eq!((applied.len(), applied[0].documents.len()), (1, 3));
    let sent: Value = serde_json::from_slice(&applied[0].documents[1].json).unwrap();
    assert_eq!(
        (&sent["name"], &sent["namespace"]),
        (&json!("web"), &json!("team"))
    );
    assert_eq!(applied[0].documents[1].source, format!("{file}:5:1"));
}

#[test]
fn a_refusal_of_the_mesh_is_code_3_with_each_fault() {
    let message = "skein: config refused: Cluster/api: a: b; c\nListener/edge: d: e; f";
    let refused = Some(Err(Status::invalid_argument(message)));
    let node = FakeNode::start(Script {
        apply: refused,
        ..Default::default()
    });
    let (_dir, file) = with_file(CLUSTER);
    let ran = ask(&node, &format!("apply -f {file}"));
    assert_eq!(ran.code, 3);
    let faults = format!("  Cluster/api: a: b; c ({file}:1:1)\n  Listener/edge: d: e; f\n");
    assert!(ran.err.ends_with(&faults), "{}", ran.err);
    let ran = ask(&node, "config delete cluster api -o json");
    assert_eq!(
        (ran.code, ran.error()["faults"].as_array().map(Vec::len)),
        (3, Some(2))
    );
    let deletes = node.script(|script| script.applied[1].deletes.clone());
    assert_eq!(
        (&*deletes[0].kind, &*deletes[0].namespace, &*deletes[0].name),
        ("Cluster", "default", "api")
    );
}

#[test]
fn a_dry_run_says_what_would_change() {
    let script = Script {
        apply: Some(Ok(created(5))),
        ..Default::default()
    };
    let node = FakeNode::start(script);
    let (_dir, file) = with_file(CLUSTER);
    let ran = ask(&node, &format!("apply -f {file} --dry-run"));
    assert!(
        ran.text()
            .contains("    + kind: Cluster\n    + name: api\n"),
        "{}",
        ran.text()
    );
    assert!(node.script(|script| script.applied[0].dry_run));
}

#[test]
fn apply_waits_until_every_live_node_runs_it() {
    use v1::ConfigState::{Down, Stale, Synced};
    let statuses = [
        status(vec![
            node("a", Synced, 4),
            node("b", Synced, 4),
            node("c", Down, 4),
        ]),
        status(vec![
            node("a", Synced, 5),
            node("b", Stale, 4),
            node("c", Down, 4),
        ]),
        status(vec![
            node("a", Synced, 5),
            node("b", Synced, 5),
            node("c", Down, 4),
        ]),
    ];
    let script = Script {
        apply: Some(Ok(created(5))),
        statuses: statuses.into(),
        ..Default::default()
    };
    let fake = FakeNode::start(script);
    let (_dir, file) = with_file(CLUSTER);
    let ran = ask(&fake, &format!("apply -f {file} --wait -o json"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.json()["in_force"]["nodes"], json!(["a", "b"]));

    fake.script(|script| script.statuses = [status(vec![node("b", Stale, 4)])].into());
    let ran = ask(&fake, &format!("apply -f {file} --wait=300ms -o json"));
    assert_eq!(
        (ran.code, &ran.error()["kind"]),
        (1, &json!("not_in_force"))
    );
    assert!(
        ran.error()["message"]
            .as_str()
            .unwrap()
            .contains("b is STALE at 4"),
        "{}",
        ran.err
    );
}

#[test]
fn a_reader_that_has_gone_ends_the_command_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = finish(skein(&["completions", "bash"]).stdout(writer));
    assert_eq!((ran.code, &*ran.err), (0, ""));
}

#[test]
fn a_wrong_command_line_is_code_2() {
    for line in [
        "frobnicate",
        "get",
        "get a --rev 0",
        "apply",
        "get a -o yaml",
        "status --timeout 5",
    ] {
        let ran = finish(&mut skein(&line.split(' ').collect::<Vec<_>>()));
        assert_eq!(ran.code, 2, "{line}: {}", ran.err);
        assert!(ran.err.starts_with("error: "), "{line}: {}", ran.err);
    }
    let ran = finish(&mut skein(&[
        "status",
        "--endpoints",
        "nowhere",
        "-o",
        "json",
    ]));
    assert_eq!((ran.code, &ran.error()["kind"]), (2, &json!("usage")));
    let ran = finish(&mut skein(&["get", "-o", "json"]));
    assert_eq!((ran.code, &ran.error()["kind"]), (2, &json!("usage")));
}

#[test]
fn help_is_an_answer() {
    let ran = finish(&mut skein(&["apply", "--help"]));
    assert_eq!(ran.code, 0);
    assert!(
        ran.text().contains("skein apply -f shop.yaml"),
        "{}",
        ran.text()
    );
}

const EXPLANATION: &str = r#"{"config_revision":5,"method":"GET","host":"a.test","path":"/x",
    "listener":null,"virtual_host":null,"tried":[],"untold":0,"chosen":null,"outcome":"404: none"}"#;

#[test]
fn explain_asks_the_node_that_is_named() {
    let second = FakeNode::start(Script {
        explain: EXPLANATION.into(),
        ..Default::default()
    });
    let client = second.address.to_string();
    let addresses = Some(v1::Addresses {
        client,
        ..Default::default()
    });
    let n2 = v1::NodeStatus {
        addresses,
        ..node("n2", v1::ConfigState::Synced, 5)
    };
    let unknown = node("n3", v1::ConfigState::Down, 5);
    let statuses = [status(vec![n2, unknown])].into();
    let first = FakeNode::start(Script {
        statuses,
        ..Default::default()
    });

    let url = "http://a.test:8080/x";
    let line = format!("explain {url} --node n2 --host b.test -H x-a:1 -H x-b:2 --method POST");
    let ran = ask(&first, &line);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.text().contains("404: none"), "{}", ran.text());
    let asked = second.script(|script| script.explained.clone());
    assert_eq!(
        (&*asked[0].url, &*asked[0].host, &*asked[0].method),
        (url, "b.test", "POST")
    );
    assert_eq!(
        (&*asked[0].headers[1].name, &*asked[0].headers[1].value),
        ("x-b", "2")
    );

    let ran = ask(&first, "explain /x --node nobody");
    assert_eq!(ran.code, 4);
    assert!(ran.err.contains("n2, n3"), "{}", ran.err);
    assert_eq!(ask(&first, "explain /x --node n3").code, 1);
    assert_eq!(ask(&first, "explain ftp://x").code, 2);
    assert!(first.script(|script| script.explained.is_empty()));
}

#[test]
fn validation_needs_no_mesh() {
    let (_dir, good) = with_file(CLUSTER);
    let validate = |file: &str| {
        finish(&mut skein(&[
            "config", "validate", "-f", file, "-o", "json",
        ]))
    };
    let ran = validate(&good);
    assert_eq!(
        (ran.code, ran.json()),
        (0, json!({"valid": true, "resources": 1})),
        "{}",
        ran.err
    );

    let host = "kind: VirtualHost\nname: shop\ndomains: [a.test]\nroutes: [{ to: nowhere }]\n";
    let (_dir, bad) = with_file(host);
    let ran = validate(&bad);
    assert_eq!(
        (ran.code, &ran.error()["kind"]),
        (3, &json!("refused")),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("nowhere"), "{}", ran.err);
}
