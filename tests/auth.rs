//! Users and roles as people and programs use them: our own commands, etcdctl, JSON.

use serde_json::{Value, json};

use crate::etcdctl::{etcdctl, is_missing};
use crate::harness::{self, Answer, Lines, Mesh, Node, Ran, until};

const CLUSTER: &str = "kind: Cluster\nname: api\nendpoints: [\"127.0.0.1:9\"]\n";

/// Adds `root` and turns auth on.
fn enable(mesh: &Mesh) {
    mesh.skein(&["user", "add", "root", "--new-password", "r00t"])
        .ok();
    mesh.skein(&["user", "grant-role", "root", "root"]).ok();
    mesh.skein(&["auth", "enable"]).ok();
}

fn by(mesh: &Mesh, user: &str, arguments: &[&str]) -> Ran {
    mesh.skein(&[arguments, &["--user", user]].concat())
}

fn post(node: &Node, path: &str, token: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {token}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    harness::request(node.at(2379), &request).expect("an answer")
}

fn told(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body)
        .unwrap_or_else(|fault| panic!("{fault} in {:?}", answer.body))
}

#[test]
fn our_own_commands_sign_in_and_are_bound_by_roles() {
    let mesh = Mesh::start(3);
    let root = |mesh: &Mesh, arguments: &[&str]| by(mesh, "root:r00t", arguments);
    enable(&mesh);
    let nobody = mesh.skein(&["get", "a"]).exits(1);
    assert!(
        nobody.stderr.contains("user name is empty") && nobody.stderr.contains("--user"),
        "{}",
        nobody.stderr
    );
    let wrong = by(&mesh, "root:wrong", &["put", "a", "1"]).exits(1);
    assert!(
        wrong.stderr.contains("authentication failed"),
        "{}",
        wrong.stderr
    );
    mesh.skein(&["status"]).exits(1);
    root(&mesh, &["status"]).ok();

    let file = add_ann(&mesh);
    let users = root(&mesh, &["user", "list", "-o", "json"]).ok().json();
    assert_eq!(users, json!({"users": ["ann", "root"]}));
    let role = root(&mesh, &["role", "get", "shop", "-o", "json"])
        .ok()
        .json();
    assert_eq!(role["permissions"][0]["range_end"], "shop0");
    let status = root(&mesh, &["auth", "status", "-o", "json"]).ok().json();
    assert_eq!(status["enabled"], true);

    let ann = |mesh: &Mesh, arguments: &[&str]| {
        let user = ["--user", "ann", "--password-file", &file];
        mesh.skein(&[arguments, &user].concat())
    };
    ann(&mesh, &["put", "shop/1", "v"]).ok();
    assert_eq!(ann(&mesh, &["get", "shop/1"]).ok().stdout, "v\n");
    let denied = ann(&mesh, &["get", "x"]).exits(1);
    assert!(
        denied.stderr.contains("permission denied"),
        "{}",
        denied.stderr
    );
    ann(&mesh, &["watch", "x", "--limit", "1"]).exits(1);
    let own = ann(&mesh, &["user", "get", "ann", "-o", "json"])
        .ok()
        .json();
    assert_eq!(own["roles"], json!(["shop"]));
    ann(&mesh, &["user", "list"]).exits(1);
    ann(&mesh, &["member", "remove", "n3"]).exits(1);
}

/// `ann`, with the role `shop` that may read and write `shop/`; the file with her password.
fn add_ann(mesh: &Mesh) -> String {
    let file = mesh.dir.path().join("ann.password");
    std::fs::write(&file, "geheim\n").expect("written");
    let file = file.to_str().expect("UTF-8").to_owned();
    let prefix = ["readwrite", "shop/", "--prefix"];
    for arguments in [
        &["user", "add", "ann", "--new-password-file", &file][..],
        &["role", "add", "shop"],
        &[&["role", "grant-permission", "shop"], &prefix[..]].concat(),
        &["user", "grant-role", "ann", "shop"],
    ] {
        by(mesh, "root:r00t", arguments).ok();
    }
    file
}

#[test]
fn config_is_keys_like_others_and_a_killed_leader_changes_nothing() {
    let mut mesh = Mesh::start(3);
    enable(&mesh);
    let root = |mesh: &Mesh, arguments: &[&str]| by(mesh, "root:r00t", arguments);
    let file = add_ann(&mesh);
    let ann = |mesh: &Mesh, arguments: &[&str]| {
        let user = ["--user", "ann", "--password-file", &file];
        mesh.skein(&[arguments, &user].concat())
    };
    let config = mesh.dir.path().join("api.yaml");
    std::fs::write(&config, CLUSTER).expect("written");
    let config = config.to_str().expect("UTF-8").to_owned();
    ann(&mesh, &["apply", "-f", &config, "--dry-run"]).exits(1);
    ann(&mesh, &["apply", "-f", &config]).exits(1);
    ann(&mesh, &["graph"]).exits(1);
    ann(&mesh, &["explain", "/"]).exits(1);
    ann(&mesh, &["status"]).ok();
    let everything = ["readwrite", "/skein/config/", "--prefix"];
    let grant = [&["role", "grant-permission", "shop"], &everything[..]].concat();
    root(&mesh, &grant).ok();
    ann(&mesh, &["apply", "-f", &config, "--wait"]).ok();
    ann(&mesh, &["graph"]).ok();
    ann(&mesh, &["explain", "/"]).ok();
    ann(&mesh, &["config", "list"]).ok();

    // The others know users and tokens.
    let leader = {
        let status = root(&mesh, &["status", "-o", "json"]).ok().json();
        let name = status["leader"].as_str().expect("a leader").to_owned();
        let place = mesh.nodes.iter().position(|node| node.name == name);
        place.expect("one of them")
    };
    mesh.nodes[leader].kill();
    until("writes go on", || {
        ann(&mesh, &["put", "shop/1", "w"]).code == 0
    });
    ann(&mesh, &["get", "x"]).exits(1);
    mesh.nodes[leader].start();
    until("the node is back", || {
        let client = mesh.nodes[leader].client();
        let user = ["--user", "root:r00t", "--endpoints", &client];
        harness::skein(&[&["get", "shop/1", "--local"], &user[..]].concat()).stdout == "w\n"
    });
    root(&mesh, &["auth", "disable"]).ok();
    mesh.skein(&["get", "shop/1"]).ok();
}

#[test]
fn users_outlive_that_all_are_killed() {
    let mut mesh = Mesh::start(1);
    enable(&mesh);
    by(&mesh, "root:r00t", &["put", "a", "1"]).ok();
    for _ in 0..2 {
        mesh.nodes[0].kill();
        mesh.nodes[0].start();
        until("it serves again", || {
            by(&mesh, "root:r00t", &["get", "a"]).code == 0
        });
        mesh.skein(&["get", "a"]).exits(1);
    }
}

#[test]
fn a_watch_that_lasts_ends_when_its_right_is_taken() {
    let mesh = Mesh::start(1);
    enable(&mesh);
    let file = add_ann(&mesh);
    let root = |arguments: &[&str]| by(&mesh, "root:r00t", arguments).ok();
    let mut watch = harness::skein::command();
    watch.args(["watch", "shop/", "--prefix", "-o", "json"]);
    watch.args(["--user", "ann", "--password-file", &file]);
    watch.args(["--endpoints", &mesh.nodes[0].client()]);
    let mut watch = Lines::spawn(&mut watch);
    // Once it tells one, it is there.
    until("it has an event", || {
        root(&["put", "shop/1", "mine"]);
        watch.has_line()
    });
    root(&["user", "revoke-role", "ann", "shop"]);
    root(&["put", "shop/1", "secret"]);
    let told = watch.rest();
    assert!(told.iter().all(|line| !line.contains("secret")), "{told:?}");
    assert_eq!(watch.ended().code(), Some(1));
}

#[test]
fn a_mesh_restored_at_a_later_revision_asks_the_same_users() {
    let mesh = Mesh::start(1);
    enable(&mesh);
    add_ann(&mesh);
    by(&mesh, "root:r00t", &["put", "shop/1", "v"]).ok();
    let file = mesh.dir.path().join("a.skein");
    let file = file.to_str().expect("UTF-8");
    by(&mesh, "root:r00t", &["snapshot", "save", file]).ok();
    let mut later = Mesh::prepare(1);
    let data = later.nodes[0].data.to_str().expect("UTF-8").to_owned();
    let bump = ["--bump-revision", "1000", "--data-dir", &data];
    harness::skein(&[&["snapshot", "restore", file], &bump[..]].concat()).ok();
    later.nodes[0].start();
    until("it serves", || {
        by(&later, "root:r00t", &["get", "shop/1"]).code == 0
    });
    let got = by(&later, "ann:geheim", &["get", "shop/1", "-o", "json"]);
    let revision = got.ok().json()["revision"].as_i64();
    assert!(revision > Some(1000), "{revision:?}");
    by(&later, "ann:geheim", &["get", "x"]).exits(1);
    by(&later, "ann:wrong", &["get", "shop/1"]).exits(1);
    later.skein(&["get", "shop/1"]).exits(1);
}

#[test]
fn etcdctl_manages_users_and_signs_in() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(3);
    let run = |arguments: &[&str]| etcdctl(&mesh, arguments).ok().stdout;
    assert_eq!(run(&["user", "add", "root:r00t"]), "User root created\n");
    assert_eq!(run(&["role", "add", "shop"]), "Role shop created\n");
    run(&[
        "role",
        "grant-permission",
        "shop",
        "readwrite",
        "shop/",
        "--prefix=true",
    ]);
    run(&["role", "grant-permission", "shop", "read", "a"]);
    let role = run(&["role", "get", "shop"]);
    assert!(
        role.contains("shop/") && role.contains("KV Write"),
        "{role}"
    );
    run(&["user", "add", "ann:geheim"]);
    run(&["user", "grant-role", "ann", "shop"]);
    // etcdctl makes the role root, and gives it to root, if need be.
    assert_eq!(run(&["auth", "enable"]), "Authentication Enabled\n");

    let by =
        |user: &str, arguments: &[&str]| etcdctl(&mesh, &[arguments, &["--user", user]].concat());
    let refused = etcdctl(&mesh, &["get", "a"]).exits(1);
    assert!(
        refused.stderr.contains("etcdserver: user name is empty"),
        "{}",
        refused.stderr
    );
    let wrong = by("ann:wrong", &["get", "a"]);
    assert_ne!(wrong.code, 0, "etcdctl has codes of its own for this");
    let text = "etcdserver: authentication failed, invalid user ID or password";
    assert!(wrong.stderr.contains(text), "{}", wrong.stderr);
    by("ann:geheim", &["put", "shop/1", "v"]).ok();
    by("ann:geheim", &["get", "a"]).ok();
    let denied = by("ann:geheim", &["put", "a", "v"]).exits(1);
    assert!(
        denied.stderr.contains("etcdserver: permission denied"),
        "{}",
        denied.stderr
    );
    by("ann:geheim", &["get", "shop/", "--from-key"]).exits(1);
    by("ann:geheim", &["user", "list"]).exits(1);
    by("ann:geheim", &["member", "list"]).ok();
    by("ann:geheim", &["endpoint", "health"]).ok();
}

#[test]
fn etcdctl_looks_at_users_and_takes_all_back() {
    if is_missing() {
        return;
    }
    let mesh = Mesh::start(1);
    enable(&mesh);
    add_ann(&mesh);
    let by =
        |user: &str, arguments: &[&str]| etcdctl(&mesh, &[arguments, &["--user", user]].concat());
    by("ann:geheim", &["get", "shop/1"]).ok();
    let users = by("root:r00t", &["user", "list"]).ok().stdout;
    assert_eq!(users, "ann\nroot\n");
    let user = by("root:r00t", &["user", "get", "ann", "--detail"])
        .ok()
        .stdout;
    assert!(user.contains("Role shop"), "{user}");
    by("root:r00t", &["user", "delete", "root"]).exits(1);
    by("root:r00t", &["user", "revoke-role", "ann", "shop"]).ok();
    by("ann:geheim", &["get", "shop/1"]).exits(1);
    by("root:r00t", &["role", "delete", "shop"]).ok();
    by("root:r00t", &["user", "delete", "ann"]).ok();
    assert_ne!(by("ann:geheim", &["get", "a"]).code, 0);
    assert_eq!(
        by("root:r00t", &["auth", "disable"]).ok().stdout,
        "Authentication Disabled\n"
    );
    etcdctl(&mesh, &["get", "shop/1"]).ok();
}

#[test]
fn json_calls_bring_their_token() {
    let mesh = Mesh::start(1);
    enable(&mesh);
    let node = &mesh.nodes[0];
    let name = json!({"name": "root", "password": "r00t"});
    let signed_in = post(node, "/v3/auth/authenticate", "", &name);
    let token = told(&signed_in)["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let put = json!({"key": "Zm9v", "value": "YmFy"});
    for token in [token.clone(), format!("Bearer {token}")] {
        assert_eq!(post(node, "/v3/kv/put", &token, &put).status, 200);
    }
    let users = told(&post(node, "/v3/auth/user/list", &token, &json!({})));
    assert_eq!(users["users"], json!(["root"]));
    let status = told(&post(node, "/v3/auth/status", &token, &json!({})));
    assert_eq!(status["enabled"], true);
    let refused = post(node, "/v3/kv/put", "abc.7", &put);
    assert_eq!(refused.status, 401, "{}", refused.body);
    assert_eq!(told(&refused)["message"], "etcdserver: invalid auth token");
    let watch = json!({"create_request": {"key": "Zm9v"}});
    let refused = post(node, "/v3/watch", "abc.7", &watch);
    assert_eq!(refused.status, 401, "{}", refused.body);
}
