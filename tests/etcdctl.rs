//! A real etcdctl against real nodes.
//!
//! Needs etcdctl 3.4 or newer in PATH. Without it these tests fail where `CI=true` and otherwise
//! say that they prove nothing.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{Lines, Mesh, Node, Ran, Upstream, get, until, until_some};

const LISTENER: &str =
    r#"{"schema":1,"kind":"Listener","name":"edge","bind":":8080","protocol":"http"}"#;
const HOST: &str =
    r#"{"schema":1,"kind":"VirtualHost","name":"all","domains":["*"],"routes":[{"to":"web"}]}"#;

/// Whether there is an etcdctl; a machine that proves things for everybody must have one.
pub(crate) fn is_missing() -> bool {
    let found = Command::new("etcdctl").arg("version").output();
    if found.is_ok_and(|output| output.status.success()) {
        return false;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "there is no etcdctl in PATH; install it (Debian: etcd-client)"
    );
    println!("skipped: there is no etcdctl in PATH");
    true
}

fn command(mesh: &Mesh, arguments: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCDCTL_")) {
        command.env_remove(name);
    }
    command.env("ETCDCTL_API", "3").args(arguments);
    command.args(["--endpoints", &mesh.endpoints(), "--command-timeout", "20s"]);
    command
}

pub(crate) fn etcdctl(mesh: &Mesh, arguments: &[&str]) -> Ran {
    let mut command = command(mesh, arguments);
    command.stdin(Stdio::null());
    command.output().expect("etcdctl runs").into()
}

/// `etcdctl txn`: compares, then what to do if they hold, then what if not.
fn txn(mesh: &Mesh, parts: [&str; 3], arguments: &[&str]) -> Ran {
    let mut command = command(mesh, &[&["txn"], arguments].concat());
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("etcdctl runs");
    let mut stdin = child.stdin.take().expect("piped");
    for part in parts {
        // An empty line ends each part.
        let lines = part.lines().chain([""]);
        lines.for_each(|line| writeln!(stdin, "{line}").expect("written"));
    }
    drop(stdin);
    child.wait_with_output().expect("it ends").into()
}

/// Its standard output, line by line.
fn lines(ran: &Ran) -> Vec<&str> {
    ran.stdout.lines().collect()
}

fn text(value: &Value) -> String {
    let bytes = STANDARD.decode(value.as_str().expect("base64"));
    String::from_utf8(bytes.expect("base64")).expect("UTF-8")
}

#[test]
fn puts_gets_and_deletes() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(3);
    let run = |arguments: &[&str]| etcdctl(&mesh, arguments).ok();
    assert_eq!(run(&["put", "a/1", "one"]).stdout, "OK\n");
    run(&["put", "a/2", "two"]);
    run(&["put", "b", "x"]);
    assert_eq!(lines(&run(&["get", "a/1"])), ["a/1", "one"]);
    let prefix = run(&["get", "a/", "--prefix", "--order", "DESCEND"]);
    assert_eq!(lines(&prefix), ["a/2", "two", "a/1", "one"]);
    assert_eq!(lines(&run(&["get", "a/1", "b", "--keys-only"]))[0], "a/1");
    let replaced = run(&["put", "a/1", "eins", "--prev-kv"]);
    assert_eq!(lines(&replaced), ["OK", "a/1", "one"]);
    let past = run(&["get", "a/1", "--rev", "4"]);
    assert_eq!(lines(&past), ["a/1", "one"]);

    let got = run(&["get", "a/", "--prefix", "--limit", "1", "-w", "json"]).json();
    assert_eq!((&got["count"], &got["more"]), (&json!(2), &json!(true)));
    let row = &got["kvs"][0];
    assert_eq!(
        (text(&row["key"]), text(&row["value"])),
        ("a/1".into(), "eins".into())
    );
    let numbers = ["create_revision", "mod_revision", "version"].map(|field| row[field].as_i64());
    assert_eq!(numbers, [Some(2), Some(5), Some(2)]);
    assert_eq!(got["header"]["revision"], 5);

    let deleted = run(&["del", "a/", "--prefix", "--prev-kv"]);
    assert_eq!(lines(&deleted), ["2", "a/1", "eins", "a/2", "two"]);
    let none = run(&["del", "a/1", "-w", "json"]).json();
    assert_eq!(none["header"]["revision"], 6, "nothing was there: {none}");
    assert_eq!(run(&["get", "a/", "--prefix"]).stdout, "");
    let empty = etcdctl(&mesh, &["put", "", "x"]).exits(1);
    assert!(
        empty.stderr.contains("etcdserver: key is not provided"),
        "{}",
        empty.stderr
    );
}

#[test]
fn transactions_compare_and_choose() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(1);
    let both = ["put a new\nget a", "put b else\nget b"];
    let first = txn(&mesh, [r#"version("a") = "0""#, both[0], both[1]], &[]).ok();
    assert_eq!(lines(&first), ["SUCCESS", "", "OK", "", "a", "new"]);
    let second = txn(&mesh, [r#"value("a") = "old""#, both[0], both[1]], &[]).ok();
    assert_eq!(lines(&second), ["FAILURE", "", "OK", "", "b", "else"]);
    let json = txn(&mesh, [r#"mod("a") > "1""#, "del a", ""], &["-w", "json"]).ok();
    let json = json.json();
    assert_eq!(json["succeeded"], true);
    assert_eq!(json["header"]["revision"], 4);
    let twice = txn(&mesh, ["", "put c 1\nput c 2", ""], &[]).exits(1);
    assert!(
        twice
            .stderr
            .contains("etcdserver: duplicate key given in txn request"),
        "{}",
        twice.stderr
    );
    let nothing = etcdctl(&mesh, &["get", "c", "-w", "json"]).ok().json();
    assert_eq!(nothing["header"]["revision"], 4, "{nothing}");
}

#[test]
fn compaction_forgets_and_says_so() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(1);
    for value in ["1", "2", "3"] {
        etcdctl(&mesh, &["put", "a", value]).ok();
    }
    let compacted = etcdctl(&mesh, &["compaction", "3"]).ok();
    assert_eq!(compacted.stdout, "compacted revision 3\n");
    let past = etcdctl(&mesh, &["get", "a", "--rev", "2"]).exits(1);
    let fault = "etcdserver: mvcc: required revision has been compacted";
    assert!(past.stderr.contains(fault), "{}", past.stderr);
    let again = etcdctl(&mesh, &["compaction", "2"]).exits(1);
    assert!(again.stderr.contains(fault), "{}", again.stderr);
    let ahead = etcdctl(&mesh, &["compaction", "99"]).exits(1);
    let fault = "etcdserver: mvcc: required revision is a future revision";
    assert!(ahead.stderr.contains(fault), "{}", ahead.stderr);
    let watch = etcdctl(&mesh, &["watch", "a", "--rev", "1"]);
    let said = format!("{}{}", watch.stdout, watch.stderr);
    assert!(said.contains("compacted"), "exit {}: {said}", watch.code);
    assert_eq!(lines(&etcdctl(&mesh, &["get", "a"]).ok()), ["a", "3"]);
}

#[test]
fn watches_from_the_past_on_and_over_the_death_of_a_node() {
    if is_missing() {
        return;
    }
    let mut mesh = Mesh::start(3);
    let put = |mesh: &Mesh, key: &str, value: &str| etcdctl(mesh, &["put", key, value]).ok();
    put(&mesh, "a/1", "one");
    put(&mesh, "a/1", "eins");
    put(&mesh, "b", "x");
    etcdctl(&mesh, &["del", "a/1"]).ok();
    let watch = |arguments: &[&str]| {
        let arguments = [&["watch", "a/", "--prefix"], arguments].concat();
        Lines::spawn(command(&mesh, &arguments).stdin(Stdio::null()))
    };
    let past = watch(&["--rev", "2", "--prev-kv"]);
    assert_eq!(past.take(3), ["PUT", "a/1", "one"]);
    assert_eq!(past.take(5), ["PUT", "a/1", "one", "a/1", "eins"]);
    assert_eq!(past.take(5), ["DELETE", "a/1", "eins", "a/1", ""]);
    let json = watch(&["--rev", "3", "-w", "json"]);
    let first: Value = serde_json::from_str(&json.next()).expect("JSON");
    let kv = &first["Events"][0]["kv"];
    assert_eq!(
        (text(&kv["key"]), text(&kv["value"])),
        ("a/1".into(), "eins".into())
    );
    assert_eq!(kv["mod_revision"], 3);

    let follower = (mesh.leader() + 1) % 3;
    put(&mesh, "a/2", "before");
    assert_eq!(past.take(3), ["PUT", "a/2", "before"]);
    mesh.nodes[follower].kill();
    put(&mesh, "a/2", "after");
    assert_eq!(past.take(5), ["PUT", "a/2", "before", "a/2", "after"]);
}

#[test]
fn members_and_endpoints_are_told() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(3);
    let leader = mesh.leader();
    let members = etcdctl(&mesh, &["member", "list", "-w", "json"])
        .ok()
        .json();
    let members = members["members"].as_array().expect("members");
    let mut names: Vec<_> = members.iter().map(|one| one["name"].as_str()).collect();
    names.sort();
    assert_eq!(names, [Some("n1"), Some("n2"), Some("n3")]);
    let urls = |at: usize| format!("http://{}", mesh.nodes[at].client());
    assert!(
        members
            .iter()
            .any(|one| one["clientURLs"] == json!([urls(0)])),
        "{members:?}"
    );
    let table = etcdctl(&mesh, &["member", "list", "-w", "table"]).ok();
    assert!(table.stdout.contains("started"), "{}", table.stdout);

    etcdctl(&mesh, &["put", "a", "1"]).ok();
    // With `--cluster`, etcdctl takes the addresses from the members, as URLs.
    for more in [&[][..], &["--cluster"][..]] {
        let arguments = [&["endpoint", "status", "-w", "json"], more].concat();
        let status = etcdctl(&mesh, &arguments).ok().json();
        let endpoints = status.as_array().expect("endpoints");
        assert_eq!(endpoints.len(), 3, "{status}");
        let leads = |one: &&Value| one["Status"]["leader"] == one["Status"]["header"]["member_id"];
        let leaders: Vec<&Value> = endpoints.iter().filter(leads).collect();
        assert_eq!(leaders.len(), 1, "{status}");
        let address = leaders[0]["Endpoint"].as_str().expect("an address");
        assert!(address.ends_with(&mesh.nodes[leader].client()), "{status}");
        let health = etcdctl(&mesh, &[&["endpoint", "health"], more].concat()).ok();
        let said = format!("{}{}", health.stdout, health.stderr);
        assert_eq!(said.matches("is healthy").count(), 3, "{said}");
    }
}

/// The member's id as etcdctl writes it, and its role, as the node at `asked` knows it.
fn member(mesh: &Mesh, asked: usize, name: &str) -> Option<(String, String)> {
    let members = mesh.nodes[asked].skein(&["member", "list", "-o", "json"]);
    let members = members.ok().json();
    let members = members["members"].as_array().expect("members").clone();
    let member = members.into_iter().find(|one| one["name"] == name)?;
    let id = member["id"].as_str()?.trim_start_matches('0').to_owned();
    Some((id, member["role"].as_str()?.to_owned()))
}

#[track_caller]
fn fails(ran: Ran, fault: &str) {
    let ran = ran.exits(1);
    assert!(ran.stderr.contains(fault), "{}", ran.stderr);
}

#[test]
fn members_come_and_move_as_etcdctl_asks() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(3);
    // A node that looks for a mesh where none is: it waits to be taken in.
    let nowhere = format!("{}:7946", mesh.subnet.ip(200));
    let key = mesh.dir.path().join("gossip.key");
    let node = Node::new("n4", mesh.subnet.ip(4).into(), mesh.dir.path());
    let arguments = ["--gossip-key-file", key.to_str().expect("UTF-8")];
    let mut joining = node.with(&arguments).with(&["--join", &nowhere]);
    let urls = format!("--peer-urls=http://{}:2380", joining.ip);
    let add = |mesh: &Mesh| etcdctl(mesh, &["member", "add", "n4", &urls, "--learner"]);
    fails(add(&mesh), "skein node --join");
    joining.start();
    until("the node listens", || {
        joining.log().contains("node started")
    });
    let added = add(&mesh).ok().stdout;
    assert!(added.contains("added to cluster"), "{added}");
    fails(add(&mesh), "etcdserver: Peer URLs already exists");
    let (n4, _) = until_some("it is listed", || member(&mesh, 0, "n4"));
    // Gossip has not heard of it, so it has no vote until somebody gives it one.
    let promote = || etcdctl(&mesh, &["member", "promote", &n4]);
    until("it is in sync and gets its vote", || promote().code == 0);
    fails(promote(), "etcdserver: can only promote a learner member");
    let moved = format!("--peer-urls=http://{}:2399", joining.ip);
    etcdctl(&mesh, &["member", "update", &n4, &moved]).ok();
    until("it is listed there", || {
        let listed = etcdctl(&mesh, &["member", "list"]).ok().stdout;
        listed.contains(":2399")
    });
}

#[test]
fn a_leader_is_chosen_and_removed_as_etcdctl_asks() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(3);
    let leader = mesh.leader();
    let (next, asked) = (&mesh.nodes[(leader + 1) % 3], (leader + 2) % 3);
    let (id, _) = member(&mesh, asked, &next.name).expect("a member");
    let moved = etcdctl(&mesh, &["move-leader", &id]).ok().stdout;
    assert!(moved.contains("Leadership transferred"), "{moved}");
    until("the chosen one leads", || {
        member(&mesh, asked, &next.name).is_some_and(|(_, role)| role == "leader")
    });
    let removed = etcdctl(&mesh, &["member", "remove", &id]).ok().stdout;
    assert!(removed.contains("removed from cluster"), "{removed}");
    // The removed one is among those that are asked, and knows no leader any more.
    until("a member that is gone is not found", || {
        let again = etcdctl(&mesh, &["member", "remove", &id]);
        assert_ne!(again.code, 0);
        again.stderr.contains("etcdserver: member not found")
    });
    until("the node knows that it was removed", || {
        let own = next.status_of(&next.name);
        own.is_some_and(|own| {
            let fault = own["store_fault"].as_str().unwrap_or_default();
            fault.contains("no longer a member")
        })
    });
    mesh.nodes[asked].skein(&["put", "still", "here"]).ok();
    let back = member(&mesh, asked, &next.name);
    assert_eq!(back, None, "it did not come back");
}

#[test]
fn invalid_config_is_refused_in_a_put_and_in_either_branch_of_a_txn() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(3);
    let key = "/skein/config/default/VirtualHost/all";
    etcdctl(&mesh, &["put", "a", "1"]).ok();
    let refused = |ran: Ran, fault: &str| {
        let ran = ran.exits(1);
        let said = &ran.stderr;
        assert!(said.contains("InvalidArgument"), "{said}");
        assert!(said.contains("skein: config refused: "), "{said}");
        assert!(said.contains(fault), "{said}");
    };
    let unknown_field = HOST.replace("routes", "rutes");
    refused(etcdctl(&mesh, &["put", key, &unknown_field]), "rutes");
    // There is no cluster `web`.
    refused(etcdctl(&mesh, &["put", key, HOST]), "web");
    refused(etcdctl(&mesh, &["put", key, "garbage"]), "VirtualHost/all");
    let elsewhere = "/skein/config/default/VirtualHost/other";
    refused(etcdctl(&mesh, &["put", elsewhere, HOST]), "other");
    refused(etcdctl(&mesh, &["put", "/skein/mine", "x"]), "/skein/mine");
    let bad = format!("put a 2\nput {key} {HOST:?}");
    refused(txn(&mesh, ["", &bad, ""], &[]), "web");
    // The branch that is not taken now might be taken when it is applied.
    refused(
        txn(&mesh, [r#"value("a") = "1""#, "put a 2", &bad], &[]),
        "web",
    );

    let unchanged = etcdctl(&mesh, &["get", "a", "-w", "json"]).ok().json();
    assert_eq!(text(&unchanged["kvs"][0]["value"]), "1");
    assert_eq!(unchanged["header"]["revision"], 2, "nothing was written");
    let status = mesh.nodes[0].status().expect("it answers");
    assert_eq!(status["config_revision"], 0);
    let listed = etcdctl(&mesh, &["get", "/skein/", "--prefix"]).ok();
    assert_eq!(listed.stdout, "");
}

#[test]
fn valid_config_comes_into_force_and_what_is_in_use_cannot_be_deleted() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(3);
    let upstream = Upstream::start("one", (mesh.subnet.ip(200), 0));
    let cluster = json!({
        "schema": 1, "kind": "Cluster", "name": "web", "endpoints": [upstream.address.to_string()],
    });
    let all = format!(
        "put /skein/config/default/Cluster/web {:?}\n\
         put /skein/config/default/VirtualHost/all {HOST:?}",
        cluster.to_string()
    );
    txn(&mesh, ["", &all, ""], &[]).ok();
    let listener = "/skein/config/default/Listener/edge";
    etcdctl(&mesh, &["put", listener, LISTENER]).ok();
    for node in &mesh.nodes {
        until("every node proxies", || {
            get(node.at(8080), "any", "/x").is_ok_and(|answer| answer.body == "one /x 0\n")
        });
        let revision = &node.status().expect("it answers")["config_revision"];
        assert_eq!(revision, 2, "one for each accepted change");
    }
    let in_use = etcdctl(&mesh, &["del", "/skein/config/default/Cluster/web"]).exits(1);
    assert!(
        in_use.stderr.contains("skein: config refused: "),
        "{}",
        in_use.stderr
    );
    let all = etcdctl(&mesh, &["del", "", "--prefix"]).ok();
    assert_eq!(all.stdout, "3\n");
    for node in &mesh.nodes {
        until("the listener is gone", || {
            get(node.at(8080), "any", "/").is_err()
        });
    }
}

/// The hexadecimal id in `lease ID granted with TTL(60s)`.
fn lease_of(granted: &Ran) -> String {
    let words: Vec<&str> = granted.stdout.split(' ').collect();
    assert_eq!(
        (words[0], words[2]),
        ("lease", "granted"),
        "{}",
        granted.stdout
    );
    words[1].to_owned()
}

#[test]
fn leases_are_granted_kept_told_and_revoked() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(3);
    let run = |arguments: &[&str]| etcdctl(&mesh, arguments).ok();
    let granted = run(&["lease", "grant", "60"]);
    assert!(
        granted.stdout.ends_with("granted with TTL(60s)\n"),
        "{}",
        granted.stdout
    );
    let lease = &lease_of(&granted);
    run(&["put", "a", "1", "--lease", lease]);
    run(&["put", "b", "2", "--lease", lease]);
    assert_eq!(lines(&run(&["lease", "list"])), ["found 1 leases", lease]);
    let kept = run(&["lease", "keep-alive", "--once", lease]);
    assert_eq!(
        kept.stdout,
        format!("lease {lease} keepalived with TTL(60)\n")
    );
    let told = run(&["lease", "timetolive", lease, "--keys"]);
    assert!(
        told.stdout.contains("granted with TTL(60s), remaining("),
        "{}",
        told.stdout
    );
    assert!(
        told.stdout.ends_with("attached keys([a b])\n"),
        "{}",
        told.stdout
    );
    let got = run(&["get", "a", "-w", "json"]).json();
    let id = u64::from_str_radix(lease, 16).expect("hexadecimal");
    assert_eq!(got["kvs"][0]["lease"].as_u64(), Some(id));

    assert_eq!(
        run(&["lease", "revoke", lease]).stdout,
        format!("lease {lease} revoked\n")
    );
    assert_eq!(run(&["get", "", "--prefix"]).stdout, "");
    let gone = run(&["lease", "timetolive", lease]);
    assert_eq!(gone.stdout, format!("lease {lease} already expired\n"));
    let again = etcdctl(&mesh, &["lease", "revoke", lease]).exits(1);
    let fault = "etcdserver: requested lease not found";
    assert!(again.stderr.contains(fault), "{}", again.stderr);
    let put = etcdctl(&mesh, &["put", "a", "1", "--lease", lease]).exits(1);
    assert!(put.stderr.contains(fault), "{}", put.stderr);
}

#[test]
fn a_lease_lives_as_long_as_it_is_kept_alive() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(1);
    let lease = lease_of(&etcdctl(&mesh, &["lease", "grant", "2"]).ok());
    etcdctl(&mesh, &["put", "a", "1", "--lease", &lease]).ok();
    let keeping =
        Lines::spawn(command(&mesh, &["lease", "keep-alive", &lease]).stdin(Stdio::null()));
    // About one in 700 ms, so longer than the lease alone would live.
    for line in keeping.take(6) {
        assert_eq!(line, format!("lease {lease} keepalived with TTL(2)"));
    }
    assert_eq!(lines(&etcdctl(&mesh, &["get", "a"]).ok()), ["a", "1"]);
    drop(keeping);
    until("the lease to end", || {
        etcdctl(&mesh, &["get", "a"]).ok().stdout.is_empty()
    });
}

#[test]
fn a_lock_is_held_by_one_and_passed_on_when_its_holder_dies() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(3);
    let lock = || {
        let arguments = ["lock", "door", "--ttl", "3"];
        Lines::spawn(command(&mesh, &arguments).stdin(Stdio::null()))
    };
    let first = lock();
    assert!(first.next().starts_with("door/"));
    let second = lock();
    until("the second to wait in line", || {
        let count = etcdctl(&mesh, &["get", "door/", "--prefix", "--keys-only"]).ok();
        lines(&count).iter().filter(|line| !line.is_empty()).count() == 2
    });
    // Killed, so that only its lease ends its hold.
    drop(first);
    assert!(second.next().starts_with("door/"));
}

#[test]
fn an_election_is_won_and_observed() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(3);
    let elect = |arguments: &[&str]| {
        let arguments = [&["elect", "chair"], arguments].concat();
        Lines::spawn(command(&mesh, &arguments).stdin(Stdio::null()))
    };
    let first = elect(&["anna"]);
    assert!(first.next().starts_with("chair/"));
    assert_eq!(first.next(), "anna");
    let listener = elect(&["--listen"]);
    assert!(listener.next().starts_with("chair/"));
    assert_eq!(listener.next(), "anna");
}

#[test]
fn a_snapshot_is_saved_and_skein_reads_it() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(1);
    etcdctl(&mesh, &["put", "a", "1"]).ok();
    let file = mesh.dir.path().join("etcdctl.skein");
    let file = file.to_str().expect("UTF-8");
    etcdctl(&mesh, &["snapshot", "save", file]).ok();
    let status = crate::harness::skein(&["snapshot", "status", file, "-o", "json"]);
    let status = status.ok().json();
    assert_eq!(
        (&status["keys"], &status["revision"]),
        (&1.into(), &2.into())
    );
    let hashes = etcdctl(&mesh, &["endpoint", "hashkv", "-w", "json"])
        .ok()
        .json();
    assert_eq!(hashes[0]["HashKV"]["hash"], status["hash"]);
}
