//! Keys by the command line, through every node, and what becomes of them when nodes die.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use store_api::etcdserverpb as pb;
use store_client::{Client, ClientError, ClientOptions};

use crate::harness::skein::command;
use crate::harness::{Lines, Mesh, Node, Ran, skein, until};

/// The names of an object's fields, in order.
fn fields(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

/// The kind of an error that was given as JSON, and its message.
#[track_caller]
fn error(ran: &Ran) -> (String, String) {
    let error: Value = serde_json::from_str(&ran.stderr).expect("one line of JSON");
    let error = &error["error"];
    assert_eq!(
        fields(error),
        ["kind", "exit_code", "message", "faults"],
        "{error}"
    );
    assert_eq!(error["exit_code"], ran.code);
    let text = |field: &str| error[field].as_str().expect("text").to_owned();
    (text("kind"), text("message"))
}

/// `skein watch` on these endpoints.
fn watch(endpoints: &str, arguments: &[&str]) -> Lines {
    let mut command = command();
    command.arg("watch").args(arguments);
    Lines::spawn(command.args(["--endpoints", endpoints]))
}

fn client(endpoints: &[String]) -> Client {
    let options = ClientOptions {
        deadline: Duration::from_secs(20),
        ..ClientOptions::default()
    };
    Client::new(endpoints, options).expect("good endpoints")
}

fn put(key: impl Into<String>, value: impl Into<String>) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into().into(),
        value: value.into().into(),
        ..Default::default()
    }
}

fn range_prefix(prefix: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: prefix.to_owned().into(),
        range_end: store_client::prefix_end(prefix.as_bytes()),
        ..Default::default()
    }
}

fn compact(node: &Node, revision: i64) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let compacted = runtime.block_on(async {
        let request = pb::CompactionRequest {
            revision,
            physical: true,
        };
        client(&[node.client()]).compact(request).await
    });
    compacted.expect("compacted");
}

#[test]
fn leader_and_followers_alike_serve_every_command() {
    let mesh = Mesh::start(3);
    for writer in &mesh.nodes {
        let value = format!("by {}", writer.name);
        let put = writer.skein(&["put", "key", &value]).ok();
        assert!(put.stdout.starts_with("revision "), "{}", put.stdout);
        for reader in &mesh.nodes {
            let read = reader.skein(&["get", "key"]).ok();
            assert_eq!(read.stdout, format!("{value}\n"), "at {}", reader.name);
        }
        let deleted = writer.skein(&["del", "key"]).ok();
        let text = &deleted.stdout;
        assert!(text.starts_with("1 key deleted, revision "), "{text}");
        for reader in &mesh.nodes {
            let missing = reader.skein(&["get", "key"]).exits(4);
            assert_eq!(missing.stdout, "");
            assert_eq!(missing.stderr, "skein: no key `key`\n");
        }
        writer.skein(&["del", "key"]).exits(4);
        let watch = watch(&writer.client(), &["key", "--rev", "2", "--limit", "2"]);
        assert_eq!(watch.take(2), ["put\tkey\tby n1", "delete\tkey"]);
    }
}

#[test]
fn a_read_on_any_node_sees_what_was_acknowledged_on_another() {
    let mesh = Mesh::start(3);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let nodes: Vec<Client> = mesh
            .nodes
            .iter()
            .map(|node| client(&[node.client()]))
            .collect();
        for round in 0..60_usize {
            let (writer, reader) = (&nodes[round % 3], &nodes[(round / 3 + round + 1) % 3]);
            let written = put("counter", round.to_string());
            writer.put(written).await.expect("written");
            let key = pb::RangeRequest {
                key: "counter".into(),
                ..Default::default()
            };
            let read = reader.range(key).await.expect("read");
            assert_eq!(read.kvs[0].value, round.to_string());
        }
    });
}

#[test]
fn ranges_are_by_prefix_revision_and_limit() {
    let mesh = Mesh::start(1);
    let run = |arguments: &[&str]| mesh.skein(arguments).ok().stdout;
    for (key, value) in [("a/1", "one"), ("a/2", "two"), ("a/3", "three"), ("b", "x")] {
        run(&["put", key, value]);
    }
    let before = mesh.skein(&["get", "b", "-o", "json"]).json()["revision"].to_string();
    run(&["put", "a/2", "zwei"]);
    run(&["del", "a/3"]);

    assert_eq!(run(&["get", "a/", "--prefix"]), "a/1\tone\na/2\tzwei\n");
    let past = run(&["get", "a/", "--prefix", "--rev", &before]);
    assert_eq!(past, "a/1\tone\na/2\ttwo\na/3\tthree\n");
    assert_eq!(run(&["get", "", "--prefix", "--limit", "1"]), "a/1\tone\n");
    assert_eq!(run(&["get", "a/", "--prefix", "--keys-only"]), "a/1\na/2\n");
    let values = run(&["get", "a/", "--prefix", "--print-value-only"]);
    assert_eq!(values, "one\nzwei\n");
    assert_eq!(run(&["get", "none/", "--prefix"]), "");
    let deleted = run(&["del", "a/", "--prefix"]);
    assert!(deleted.starts_with("2 keys deleted"), "{deleted}");
    assert_eq!(run(&["get", "", "--prefix"]), "b\tx\n");

    let ahead = mesh.skein(&["get", "b", "--rev", "999", "-o", "json"]);
    let (kind, message) = error(&ahead.exits(1));
    assert_eq!(kind, "failed");
    assert_eq!(
        message,
        "etcdserver: mvcc: required revision is a future revision"
    );
}

#[test]
fn json_has_the_documented_fields() {
    let mesh = Mesh::start(1);
    let run = |arguments: &[&str]| mesh.skein(&[arguments, &["-o", "json"]].concat());
    assert_eq!(
        run(&["put", "a/1", "grün\n"]).ok().json(),
        json!({"revision": 2})
    );
    let stored = mesh.skein_with_input(&["put", "a/2", "-"], b"\xff\x00");
    stored.ok();

    let got = run(&["get", "a/", "--prefix", "--limit", "1"]).ok().json();
    assert_eq!(fields(&got), ["revision", "count", "more", "rows"]);
    let row = json!({
        "key": "a/1", "key_base64": "YS8x", "value": "grün\n", "value_base64": "Z3LDvG4K",
        "create_revision": 2, "mod_revision": 2, "version": 1, "lease": null,
    });
    assert_eq!(
        got,
        json!({"revision": 3, "count": 2, "more": true, "rows": [row]})
    );
    let bytes = &run(&["get", "a/2"]).ok().json()["rows"][0];
    assert_eq!(
        (&bytes["value"], &bytes["value_base64"]),
        (&Value::Null, &json!("/wA="))
    );
    let keys = &run(&["get", "a/2", "--keys-only"]).ok().json()["rows"][0];
    assert_eq!(
        fields(keys),
        [
            "key",
            "key_base64",
            "create_revision",
            "mod_revision",
            "version",
            "lease"
        ]
    );
    let deleted = run(&["del", "a/", "--prefix"]).ok().json();
    assert_eq!(deleted, json!({"revision": 4, "deleted": 2}));

    let events = run(&["watch", "a/1", "--rev", "2", "--limit", "2"]).ok();
    let events: Vec<Value> = events
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(events[0]["type"], "put");
    assert_eq!(events[0]["value"], "grün\n");
    assert_eq!(
        events[1],
        json!({
            "type": "delete", "key": "a/1", "key_base64": "YS8x",
            "create_revision": 0, "mod_revision": 4, "version": 0, "lease": null,
        })
    );
    let members = run(&["members"]).ok().json();
    assert_eq!(fields(&members), ["term", "members"]);
    let member = &members["members"][0];
    assert_eq!(
        fields(member),
        ["name", "id", "role", "peer_urls", "client_urls"]
    );
    assert_eq!(
        (&member["name"], &member["role"]),
        (&json!("n1"), &json!("leader"))
    );
}

#[test]
fn every_failure_has_its_exit_code_and_kind() {
    let mesh = Mesh::start(1);
    let run = |arguments: &[&str]| mesh.skein(&[arguments, &["-o", "json"]].concat());
    let kind = |ran: Ran| error(&ran).0;
    assert_eq!(kind(run(&["get", "none"]).exits(4)), "not_found");
    assert_eq!(kind(run(&["del", "none"]).exits(4)), "not_found");
    let config = run(&["config", "get", "Cluster", "none"]).exits(4);
    assert_eq!(kind(config), "not_found");
    assert_eq!(kind(run(&["put", "", "x"]).exits(1)), "failed");
    assert_eq!(kind(run(&["put", "one"]).exits(2)), "usage");
    assert_eq!(kind(run(&["get", "a", "--rev", "x"]).exits(2)), "usage");
    assert_eq!(kind(run(&["frobnicate"]).exits(2)), "usage");
    let reserved = run(&["put", "/skein/mine", "x"]).exits(3);
    assert_eq!(kind(reserved), "refused");
    let garbage = run(&["put", "/skein/config/default/Cluster/x", "garbage"]);
    assert_eq!(kind(garbage.exits(3)), "refused");
    let nobody = format!("{}:2379", mesh.subnet.ip(99));
    let unreachable = skein(&["get", "a", "-o", "json", "--endpoints", &nobody]).exits(1);
    let (kind, message) = error(&unreachable);
    assert_eq!(kind, "unreachable");
    assert!(
        message.contains(&nobody) && message.contains("refused"),
        "{message}"
    );
    let unreadable = skein(&["get", "a", "-o", "json", "--endpoints", "a b"]).exits(2);
    assert_eq!(error(&unreadable).0, "usage");
}

#[test]
fn compacted_history_is_an_error_that_says_so() {
    let mesh = Mesh::start(1);
    for value in ["1", "2", "3"] {
        mesh.skein(&["put", "a", value]).ok();
    }
    compact(&mesh.nodes[0], 3);
    let read = |revision: &str| mesh.skein(&["get", "a", "--rev", revision, "-o", "json"]);
    let (kind, message) = error(&read("2").exits(1));
    assert_eq!(kind, "failed");
    assert_eq!(
        message,
        "etcdserver: mvcc: required revision has been compacted"
    );
    assert_eq!(read("3").ok().json()["rows"][0]["value"], "2");
    assert_eq!(mesh.skein(&["get", "a"]).ok().stdout, "3\n");

    let watch = mesh.skein(&["watch", "a", "--rev", "2", "--limit", "1"]);
    let said = watch.exits(1).stderr;
    assert!(said.contains("history begins at revision 3"), "{said}");
    assert!(said.contains("read the keys again"), "{said}");
}

#[test]
fn a_value_that_is_too_large_is_refused_in_clear_words() {
    let mesh = Mesh::start(3);
    let write = |bytes: usize, node: &Node| {
        let value = vec![b'x'; bytes];
        let endpoints = ["--endpoints", &node.client(), "-o", "json"];
        crate::harness::skein_with_input(&[&["put", "big", "-"], &endpoints[..]].concat(), &value)
    };
    let fits = 1_500_000;
    for node in &mesh.nodes {
        write(fits, node).ok();
        for bytes in [3 << 19, 8 << 20] {
            let (kind, message) = error(&write(bytes, node).exits(1));
            assert_eq!(kind, "failed", "{message}");
            assert!(message.contains("too large"), "{message}");
        }
        let read = node.skein(&["get", "big", "--print-value-only"]).ok();
        assert_eq!(read.stdout.len(), fits + 1);
    }
}

#[test]
fn a_watch_loses_and_repeats_nothing_when_its_node_is_killed() {
    let mut mesh = Mesh::start(3);
    let leader = mesh.leader();
    // The watch begins at a follower, so that writing goes on without a pause.
    let (first, second) = ((leader + 1) % 3, (leader + 2) % 3);
    let endpoints: Vec<String> = [first, second, leader]
        .map(|at| mesh.nodes[at].client())
        .into();
    let write = |mesh: &Mesh, at: usize| {
        mesh.nodes[leader]
            .skein(&["put", &format!("seq/{at}"), &at.to_string(), "-o", "json"])
            .ok()
            .json()["revision"]
            .as_i64()
            .expect("a revision")
    };
    let begin = write(&mesh, 0);
    for at in 1..5 {
        write(&mesh, at);
    }
    let rev = begin.to_string();
    let watch = watch(
        &endpoints.join(","),
        &["seq/", "--prefix", "--rev", &rev, "-o", "json"],
    );
    let mut events = watch.take(5);
    for at in 5..10 {
        write(&mesh, at);
    }
    mesh.nodes[first].kill();
    for at in 10..20 {
        write(&mesh, at);
    }
    events.extend(watch.take(15));
    for (at, event) in events.iter().enumerate() {
        let event: Value = serde_json::from_str(event).expect("JSON");
        assert_eq!(event["key"], format!("seq/{at}"));
        assert_eq!(event["value"], at.to_string());
        let revision = begin + i64::try_from(at).expect("few");
        assert_eq!(event["mod_revision"], revision, "{event}");
    }
}

#[test]
fn a_write_goes_on_with_the_next_endpoint_only_if_it_surely_was_not_proposed() {
    let mesh = Mesh::start(3);
    let leader = mesh.leader();
    let follower = &mesh.nodes[(leader + 1) % 3];
    let nobody = format!("{}:2379", mesh.subnet.ip(99));

    // Nobody listens there: surely nothing was proposed.
    let both = format!("{nobody},{}", follower.client());
    skein(&["put", "a", "1", "--endpoints", &both]).ok();
    assert_eq!(
        skein(&["get", "a", "--endpoints", &both]).ok().stdout,
        "1\n"
    );

    // A node that took the write and says nothing may have done it.
    mesh.nodes[leader].signal(Signal::STOP);
    let both = format!("{},{}", mesh.nodes[leader].client(), follower.client());
    let arguments = ["--endpoints", &both, "--timeout", "2s", "-o", "json"];
    let unknown = skein(&[&["put", "a", "2"], &arguments[..]].concat()).exits(1);
    let (kind, message) = error(&unknown);
    assert_eq!(kind, "outcome_unknown", "{message}");
    assert!(message.contains("read before trying again"), "{message}");
    // Reads, and writes elsewhere, go on as soon as there is another leader.
    until("the others elect a leader and write", || {
        follower.skein(&["put", "a", "3", "--timeout", "2s"]).code == 0
    });
    let read = skein(&["get", "a", "--endpoints", &both, "--timeout", "8s"]).ok();
    assert_eq!(read.stdout, "3\n");
    mesh.nodes[leader].signal(Signal::CONT);
    // What it had in hand it may only answer as what it is: late.
    until("the old leader follows", || {
        mesh.nodes[leader].skein(&["get", "a"]).stdout == "3\n"
    });
}

#[test]
fn a_node_that_knows_no_leader_says_that_it_surely_did_not_write() {
    let mut mesh = Mesh::start(3);
    mesh.skein(&["put", "a", "1"]).ok();
    // The next write tells everybody that the one before is committed.
    mesh.skein(&["put", "next", "1"]).ok();
    until("all have heard of it", || {
        let local = |node: &Node| node.skein(&["get", "next", "--local"]).code == 0;
        mesh.nodes.iter().all(local)
    });
    for node in &mut mesh.nodes {
        node.kill();
    }
    mesh.nodes[0].start();
    let alone = &mesh.nodes[0];
    until("it answers", || alone.status().is_some());
    // Longer than the node itself waits for a leader, however busy the machine is.
    let put = ["put", "a", "2", "-o", "json", "--timeout", "30s"];
    let (kind, message) = error(&alone.skein(&put).exits(1));
    assert_eq!(kind, "unreachable", "{message}");
    assert!(message.contains("etcdserver: no leader"), "{message}");
    let get = ["get", "a", "-o", "json", "--timeout", "30s"];
    let (kind, message) = error(&alone.skein(&get).exits(1));
    assert_eq!(kind, "unreachable", "{message}");
    assert!(message.contains("etcdserver: no leader"), "{message}");
    assert_eq!(alone.skein(&["get", "a", "--local"]).ok().stdout, "1\n");
    assert_eq!(alone.status().expect("it answers")["has_quorum"], false);
    assert!(alone.skein(&["status"]).ok().stdout.contains("NO QUORUM"));

    // Since nothing was proposed, a write goes on to a node that knows a leader.
    let other = Mesh::start(1);
    let both = format!("{},{}", alone.client(), other.nodes[0].client());
    skein(&["put", "b", "1", "--endpoints", &both]).ok();
}

#[test]
fn a_leader_whose_followers_were_slow_for_a_moment_writes_when_they_are_back() {
    let mesh = Mesh::start(3);
    let leader = mesh.leader();
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    let tell = |signal| {
        let nodes = followers.iter().map(|at| &mesh.nodes[*at]);
        nodes.for_each(|node| node.signal(signal));
    };
    tell(Signal::STOP);
    let leader = &mesh.nodes[leader];
    until("the leader hears no quorum", || {
        leader
            .status()
            .is_some_and(|status| status["has_quorum"] == false)
    });
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| leader.skein(&["put", "a", "1", "--timeout", "30s"]));
        // Time for the write to arrive: one that comes later would prove nothing.
        std::thread::sleep(Duration::from_millis(500));
        tell(Signal::CONT);
        writing.join().expect("it ends").ok();
    });
    assert_eq!(mesh.skein(&["get", "a"]).ok().stdout, "1\n");
}

/// Writers that go on until they are told to stop, and what was acknowledged to them.
struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeMap<String, i64>>>,
    runtime: tokio::runtime::Runtime,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    fn start(mesh: &Mesh, round: usize) -> Self {
        let (stop, acknowledged) = (Arc::default(), Arc::default());
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let tasks = (0..8).map(|writer| {
            let mut endpoints: Vec<String> = mesh.nodes.iter().map(Node::client).collect();
            endpoints.rotate_left(writer % 3);
            let _entered = runtime.enter();
            let client = client(&endpoints);
            let name = format!("w/{round}/{writer}");
            runtime.spawn(write(
                client,
                name,
                Arc::clone(&stop),
                Arc::clone(&acknowledged),
            ))
        });
        let tasks = tasks.collect();
        Self {
            stop,
            acknowledged,
            runtime,
            tasks,
        }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Stops them; the key and the revision of each acknowledged write.
    fn stop(self) -> BTreeMap<String, i64> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            self.runtime.block_on(task).expect("no writer panics");
        }
        std::mem::take(&mut *self.acknowledged.lock().unwrap())
    }
}

async fn write(
    client: Client,
    name: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeMap<String, i64>>>,
) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let key = format!("{name}/{number}");
        match client.put(put(key.clone(), key.clone())).await {
            Ok(done) => {
                let revision = done.header.expect("a header").revision;
                acknowledged.lock().unwrap().insert(key, revision);
            }
            Err(ClientError::OutcomeUnknown { .. } | ClientError::Unavailable { .. }) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_all_nodes_are_killed_at_once() {
    let mut mesh = Mesh::start(3);
    let mut acknowledged = BTreeMap::new();
    for round in 0..2 {
        let writers = Writers::start(&mesh, round);
        until("some writes were acknowledged", || writers.count() > 100);
        for node in &mesh.nodes {
            node.signal(Signal::KILL);
        }
        acknowledged.extend(writers.stop());
        for node in &mut mesh.nodes {
            node.kill();
            node.start();
        }
        mesh.wait_formed();
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for node in &mesh.nodes {
        let read = runtime.block_on(async {
            let all = client(&[node.client()]).range(range_prefix("w/")).await;
            all.expect("read")
        });
        let stored: BTreeMap<_, _> = read.kvs.iter().map(|row| (row.key.clone(), row)).collect();
        for (key, revision) in &acknowledged {
            let row = stored.get(key.as_bytes());
            let row = row.unwrap_or_else(|| panic!("{} lost {key}", node.name));
            assert_eq!(row.value, key.as_bytes());
            assert_eq!(row.mod_revision, *revision, "{key} was written again");
        }
    }
}

/// The thresholds are the product's own, so this writes for minutes; `store-raft` proves the same with
/// small ones in every run. `cargo test -p skein --test integration -- --ignored far_behind`
#[test]
#[ignore = "writes 10,500 log entries one by one"]
fn a_node_far_behind_catches_up_by_a_snapshot() {
    let mut mesh = Mesh::start(3);
    let leader = mesh.leader();
    let late = (leader + 1) % 3;
    mesh.nodes[late].kill();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let last = runtime.block_on(async {
        let client = client(&[mesh.nodes[leader].client()]);
        let mut revision = 0;
        for number in 0..10_500 {
            let done = client.put(put(format!("k/{}", number % 500), "v")).await;
            revision = done.expect("written").header.expect("a header").revision;
        }
        revision
    });
    mesh.nodes[late].start();
    until("it has caught up", || {
        let read = mesh.nodes[late].skein(&["get", "k/", "--prefix", "--local", "-o", "json"]);
        read.code == 0 && read.json()["revision"] == last
    });
    let log = mesh.nodes[late].log();
    assert!(log.contains("snapshot"), "it came by a snapshot: {log}");
}
