//! Config from the command line to the proxies: accepted as a whole, refused as a whole.

use serde_json::Value;

use crate::harness::{Mesh, Traffic, Upstream, get, skein, until};

/// A listener, a host and a cluster with this endpoint.
fn shop(upstream: &Upstream) -> String {
    format!(
        "kind: Listener\nname: web\nbind: \":8080\"\nprotocol: http\n---\n{SHOP}---\n{}",
        cluster("one", upstream)
    )
}

/// The host on its own.
const SHOP: &str = "kind: VirtualHost\nname: shop\ndomains: [\"*\"]\nroutes: [{ to: one }]\n";

fn cluster(name: &str, upstream: &Upstream) -> String {
    format!(
        "kind: Cluster\nname: {name}\nendpoints: [\"{}\"]\n",
        upstream.address
    )
}

/// Everything that the store holds of the config, and its revision.
fn stored(mesh: &Mesh) -> (u64, Value) {
    let status = mesh.skein(&["status", "-o", "json"]).ok().json();
    let rows = mesh.skein(&["get", "/skein/config/", "--prefix", "-o", "json"]);
    let revision = status["config_revision"].as_u64().expect("a number");
    (revision, rows.ok().json()["rows"].clone())
}

fn actions(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let changes = report["changes"].as_array().expect("changes");
    changes
        .iter()
        .map(|change| (text(&change["name"]), text(&change["action"])))
        .collect()
}

#[test]
fn what_is_applied_from_a_file_a_folder_and_stdin_is_read_back() {
    let mesh = Mesh::start(1);
    let upstream = Upstream::start("one", (mesh.subnet.ip(100), 8000));
    mesh.apply(&shop(&upstream));

    let folder = mesh.dir.path().join("config");
    std::fs::create_dir_all(folder.join("below")).unwrap();
    std::fs::write(folder.join("a.yaml"), cluster("from-yaml", &upstream)).unwrap();
    let json = format!(
        r#"{{"kind":"Cluster","name":"from-json","endpoints":["{}"]}}"#,
        upstream.address
    );
    std::fs::write(folder.join("below/b.json"), json).unwrap();
    std::fs::write(folder.join(".hidden.yaml"), "not: config").unwrap();
    std::fs::write(folder.join("notes.txt"), "not config").unwrap();
    let folder = folder.to_str().unwrap();
    let applied = mesh
        .skein(&["apply", "-f", folder, "--wait", "-o", "json"])
        .ok();
    let created = |name: &str| (name.to_owned(), "created".to_owned());
    assert_eq!(
        actions(&applied.json()),
        [created("from-json"), created("from-yaml")]
    );

    let piped = cluster("from-stdin", &upstream);
    let applied = mesh.skein_with_input(&["apply", "-f", "-", "-o", "json"], piped.as_bytes());
    assert_eq!(actions(&applied.ok().json()), [created("from-stdin")]);

    let listed = mesh
        .skein(&["config", "list", "cluster", "-o", "json"])
        .ok()
        .json();
    let names = listed["resources"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["from-json", "from-stdin", "from-yaml", "one"]);

    let one = mesh
        .skein(&["config", "get", "Cluster", "from-json", "-o", "json"])
        .ok()
        .json();
    assert_eq!(one["resource"]["kind"], "Cluster");
    assert_eq!(
        one["resource"]["endpoints"][0],
        upstream.address.to_string()
    );
    assert_eq!(one["key"], "/skein/config/default/Cluster/from-json");
    mesh.skein(&["config", "get", "Cluster", "none"]).exits(4);
}

#[test]
fn what_is_exported_applies_again_and_changes_nothing() {
    let mesh = Mesh::start(1);
    let upstream = Upstream::start("one", (mesh.subnet.ip(100), 8000));
    mesh.apply(&shop(&upstream));
    let before = stored(&mesh);
    let exported = mesh.skein(&["config", "export"]).ok().stdout;
    let again = mesh.skein_with_input(&["apply", "-f", "-", "-o", "json"], exported.as_bytes());
    let again = again.ok().json();
    assert_eq!(again["summary"]["unchanged"], 3, "{again}");
    assert_eq!(
        stored(&mesh),
        before,
        "nothing changed, so nothing was written"
    );
    let diff = mesh.skein_with_input(
        &["config", "diff", "-f", "-", "-o", "json"],
        exported.as_bytes(),
    );
    assert_eq!(diff.ok().json()["summary"]["changed"], 0);
    let file = mesh.dir.path().join("exported.yaml");
    std::fs::write(&file, exported).unwrap();
    skein(&["config", "validate", "-f", file.to_str().unwrap()]).ok();
}

#[test]
fn a_dry_run_and_a_diff_tell_the_change_and_make_none() {
    let mesh = Mesh::start(1);
    let upstream = Upstream::start("one", (mesh.subnet.ip(100), 8000));
    mesh.apply(&shop(&upstream));
    let before = stored(&mesh);
    let change = format!("{}balance: random\n", cluster("one", &upstream));
    let file = mesh.dir.path().join("change.yaml");
    std::fs::write(&file, &change).unwrap();
    let file = file.to_str().unwrap();
    for command in [
        &["apply", "--dry-run", "-f", file][..],
        &["config", "diff", "-f", file],
    ] {
        let told = mesh.skein(command).ok();
        assert!(
            told.stdout.contains("balance") && told.stdout.contains("random"),
            "{}",
            told.stdout
        );
        let json = mesh.skein(&[command, &["-o", "json"]].concat()).ok().json();
        assert_eq!(json["summary"]["changed"], 1, "{json}");
        assert_eq!(stored(&mesh), before, "{command:?}");
    }
    // A dry run is judged as the change itself would be.
    let dangling = SHOP.replace("to: one", "to: nowhere");
    let refused = mesh.try_apply(&dangling, &["--dry-run"]).exits(3);
    assert!(refused.stderr.contains("nowhere"), "{}", refused.stderr);
    assert_eq!(stored(&mesh), before);
}

#[test]
fn what_others_refer_to_cannot_be_deleted_and_what_is_deleted_is_gone() {
    let mesh = Mesh::start(1);
    let upstream = Upstream::start("one", (mesh.subnet.ip(100), 8000));
    mesh.apply(&shop(&upstream));
    let before = stored(&mesh);
    let refused = mesh
        .skein(&["config", "delete", "Cluster", "one"])
        .exits(3)
        .stderr;
    for part in ["VirtualHost/shop", "routes[0].to", "Cluster `one`"] {
        assert!(refused.contains(part), "{part} is not in {refused}");
    }
    assert_eq!(stored(&mesh), before);

    mesh.skein(&["config", "delete", "VirtualHost", "shop"])
        .ok();
    mesh.skein(&["config", "delete", "Cluster", "one"]).ok();
    mesh.skein(&["config", "delete", "Cluster", "one"]).exits(4);
    until("the route is gone from the proxy", || {
        get(mesh.nodes[0].at(8080), "any", "/").is_ok_and(|answer| answer.status == 404)
    });
    mesh.skein(&["config", "delete", "Listener", "web"]).ok();
    until("the listener is closed", || {
        get(mesh.nodes[0].at(8080), "any", "/").is_err()
    });
}

/// A document that must be refused, and what the refusal must say.
struct Bad {
    what: &'static str,
    text: String,
    says: &'static [&'static str],
}

fn bad(what: &'static str, text: &str, says: &'static [&'static str]) -> Bad {
    let text = text.to_owned();
    Bad { what, text, says }
}

fn bad_documents(upstream: &Upstream) -> Vec<Bad> {
    let one = cluster("one", upstream);
    vec![
        bad(
            "an unknown field",
            &format!("{one}probes: {{ tcp: true }}\n"),
            &["Cluster/one", "probes", "did you mean `probe`?"],
        ),
        bad(
            "a dangling cluster",
            &SHOP.replace("to: one", "to: nowhere"),
            &[
                "VirtualHost/shop",
                "routes[0].to",
                "`nowhere`",
                "add a Cluster of this name",
            ],
        ),
        bad(
            "a port conflict",
            "kind: Listener\nname: two\nbind: \":8080\"\nprotocol: http\n",
            &[
                "Listener/two",
                "bind",
                "is taken by Listener/web",
                "use another port",
            ],
        ),
        bad(
            "a failing expectation",
            &format!("{SHOP}expect: [{{ get: /, status: 404 }}]\n"),
            &["VirtualHost/shop", "expect[0]", "correct"],
        ),
        bad(
            "ten megabytes",
            &format!("{one}annotations: {{ note: {} }}\n", "x".repeat(10 << 20)),
            &[".yaml", "limit of 8 MiB", "split it"],
        ),
        bad(
            "deep nesting",
            &format!(
                "kind: Cluster\nname: one\nendpoints: {}{}\n",
                "[".repeat(5000),
                "]".repeat(5000)
            ),
            &[".yaml", "not valid YAML", ":3:"],
        ),
        bad(
            "a wrong type",
            "kind: Cluster\nname: one\nendpoints: 7\n",
            &["Cluster/one", "endpoints", "give a list", ".yaml:3:"],
        ),
        bad(
            "two documents for one name",
            &format!("{one}---\n{one}"),
            &["Cluster/one", "twice", "keep one of them"],
        ),
        bad(
            "good beside bad",
            &format!(
                "{}---\n{}",
                cluster("good", upstream),
                SHOP.replace("to: one", "to: bad")
            ),
            &["VirtualHost/shop", "routes[0].to", "`bad`"],
        ),
    ]
}

#[test]
fn bad_config_is_refused_with_a_remedy_and_harms_nothing() {
    let mesh = Mesh::start(1);
    let upstream = Upstream::start("one", (mesh.subnet.ip(100), 8000));
    mesh.apply(&shop(&upstream));
    let before = stored(&mesh);
    let traffic = Traffic::start(&mesh.at(8080), "shop.test");
    for bad in bad_documents(&upstream) {
        for more in [&[][..], &["--dry-run"]] {
            let refused = mesh.try_apply(&bad.text, more).exits(3).stderr;
            for part in bad.says {
                assert!(
                    refused.contains(part),
                    "{}: {part} is not in {refused}",
                    bad.what
                );
            }
            assert_eq!(stored(&mesh), before, "{}", bad.what);
        }
    }
    traffic.wait_for(20);
    traffic.stop_unharmed();
}

const ONE_KEY: &str = "/skein/config/default/Cluster/one";

/// The cluster as its key holds it.
fn one_value(upstream: &Upstream) -> String {
    let address = upstream.address;
    format!(
        r#"{{"schema":1,"kind":"Cluster","namespace":"default","name":"one","endpoints":["{address}"]}}"#
    )
}

/// Keys and values that must be refused, as [`Bad`] documents, by key.
fn bad_values(upstream: &Upstream) -> Vec<(&'static str, Bad)> {
    let good = one_value(upstream);
    let endpoints = format!("[\"{}\"]", upstream.address);
    let nested = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let of_one = [
        bad(
            "an unknown field",
            &good.replace("\"endpoints\"", "\"endpoint\":1,\"endpoints\""),
            &["Cluster/one", "endpoint", "did you mean"],
        ),
        bad(
            "a wrong type",
            &good.replace(&endpoints, "7"),
            &["Cluster/one", "endpoints", "give a list"],
        ),
        bad(
            "deep nesting",
            &good.replace(&endpoints, &nested),
            &["Cluster/one"],
        ),
        bad("not JSON at all", "\u{1}\u{2}{{{", &["Cluster/one"]),
        bad("nothing at all", "", &["Cluster/one"]),
        bad(
            "another name than the key's",
            &good.replace("\"one\"", "\"two\""),
            &["one", "two"],
        ),
    ];
    let elsewhere = [
        (
            "/skein/config/nonsense",
            bad(
                "a key that is no resource",
                &good,
                &["/skein/config/nonsense"],
            ),
        ),
        (
            "/skein/config/default/Gateway/one",
            bad("no kind", &good.replace("Cluster", "Gateway"), &["Gateway"]),
        ),
        (
            "/skein/mesh",
            bad("a key of Skein's own", &good, &["/skein/"]),
        ),
    ];
    let of_one = of_one.into_iter().map(|bad| (ONE_KEY, bad));
    of_one.chain(elsewhere).collect()
}

/// The same as above for those who write without `skein apply`: the leader judges, not the command.
#[test]
fn bad_config_that_is_put_as_a_key_is_refused_by_the_leader() {
    let mesh = Mesh::start(1);
    let upstream = Upstream::start("one", (mesh.subnet.ip(100), 8000));
    mesh.apply(&shop(&upstream));
    let before = stored(&mesh);
    let traffic = Traffic::start(&mesh.at(8080), "shop.test");
    let put = |key, value: &str| mesh.skein_with_input(&["put", key, "-"], value.as_bytes());
    for (key, bad) in bad_values(&upstream) {
        let refused = put(key, &bad.text).exits(3).stderr;
        for part in bad.says {
            let what = bad.what;
            assert!(refused.contains(part), "{what}: {part} is not in {refused}");
        }
        assert_eq!(stored(&mesh), before, "{}", bad.what);
    }
    // A value beyond the size of a request is an error as in etcd, and no end of the connection.
    let refused = put(ONE_KEY, &"x".repeat(10 << 20)).exits(1).stderr;
    assert!(refused.contains("too large"), "{refused}");
    assert_eq!(stored(&mesh), before);
    // Deleting what is needed, by range.
    let refused = mesh.skein(&["del", "/skein/config/default/Cluster/", "--prefix"]);
    let refused = refused.exits(3).stderr;
    assert!(refused.contains("VirtualHost/shop"), "{refused}");
    assert_eq!(stored(&mesh), before);
    traffic.wait_for(20);
    traffic.stop_unharmed();
    // The judge is in order: what is good goes through.
    let good = one_value(&upstream);
    let better = good.replace("\"endpoints\"", "\"balance\":\"random\",\"endpoints\"");
    put(ONE_KEY, &better).ok();
    assert_eq!(stored(&mesh).0, before.0 + 1);
}

#[test]
fn a_resource_with_nodes_is_in_force_on_those_alone_and_all_are_synced() {
    let mesh = Mesh::start(3);
    let upstream = Upstream::start("one", (mesh.subnet.ip(100), 8000));
    let everywhere = shop(&upstream);
    let on_n2 =
        "kind: Listener\nname: extra\nnodes: [n2]\nbind: \":8081\"\nprotocol: http\n".to_owned();
    mesh.apply(&format!("{everywhere}---\n{on_n2}"));
    for (at, node) in mesh.nodes.iter().enumerate() {
        assert_eq!(get(node.at(8080), "shop", "/").unwrap().status, 200);
        let extra = get(node.at(8081), "shop", "/");
        assert_eq!(extra.is_ok(), at == 1, "{}: {extra:?}", node.name);
    }
    mesh.wait_synced();
    let status = mesh.nodes[2].status().unwrap();
    let listeners = |name: &str| {
        let node = status["nodes"].as_array().unwrap().iter();
        let mut node = node.filter(|node| node["name"] == name);
        node.next().unwrap()["listeners"].as_array().unwrap().len()
    };
    assert_eq!(
        (listeners("n1"), listeners("n2"), listeners("n3")),
        (1, 2, 1)
    );
    // The same port elsewhere is no conflict; on the same node it is.
    let on_n3 = on_n2.replace("extra", "more").replace("n2", "n3");
    mesh.apply(&on_n3);
    let clash = on_n3.replace("more", "clash").replace("[n3]", "[n2, n3]");
    let refused = mesh.try_apply(&clash, &[]).exits(3);
    assert!(
        refused.stderr.contains("Listener/clash"),
        "{}",
        refused.stderr
    );
}

#[test]
fn changes_at_one_time_through_all_nodes_all_come_into_force() {
    let mesh = Mesh::start(3);
    let upstream = Upstream::start("one", (mesh.subnet.ip(100), 8000));
    mesh.apply(&shop(&upstream));
    let before = stored(&mesh).0;
    std::thread::scope(|scope| {
        for (at, node) in mesh.nodes.iter().enumerate() {
            let (mesh, upstream) = (&mesh, &upstream);
            scope.spawn(move || {
                for change in 0..5 {
                    let name = format!("c{at}-{change}");
                    let file = mesh.dir.path().join(&name).with_extension("yaml");
                    std::fs::write(&file, cluster(&name, upstream)).unwrap();
                    node.skein(&["apply", "-f", file.to_str().unwrap()]).ok();
                }
            });
        }
    });
    mesh.wait_synced();
    assert_eq!(
        stored(&mesh).0,
        before + 15,
        "each change has a config revision of its own"
    );
}

/// Three at a time change one cluster. Each is told what it changed, so what they are told makes one
/// chain: nobody's change is lost unseen, and no two start from the same.
#[test]
fn changes_of_one_resource_at_one_time_come_one_after_the_other() {
    const WRITERS: u16 = 3;
    const CHANGES: u16 = 6;
    let mesh = Mesh::start(1);
    let document =
        |port: u16| format!("kind: Cluster\nname: a\nendpoints: [\"10.0.0.1:{port}\"]\n");
    mesh.apply(&document(1));
    let change = |writer: u16, number: u16| {
        let file = mesh.dir.path().join(format!("{writer}-{number}.yaml"));
        std::fs::write(&file, document(1000 * (writer + 1) + number)).unwrap();
        let file = file.to_str().unwrap();
        loop {
            let apply = ["apply", "-f", file, "-o", "json", "--timeout", "60s"];
            let ran = mesh.skein(&apply);
            if ran.code == 0 {
                return ran.json();
            }
            // Who was overtaken time and again is told so, and that nothing was changed.
            assert!(
                ran.stderr.contains("others keep changing"),
                "{}",
                ran.stderr
            );
        }
    };
    let mut told: Vec<Value> = std::thread::scope(|scope| {
        let change = &change;
        let write = move |writer| (0..CHANGES).map(|number| change(writer, number)).collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || -> Vec<Value> { write(writer) }))
            .collect();
        let told = writers.into_iter().map(|writer| writer.join().unwrap());
        told.flatten().collect()
    });
    told.sort_by_key(|report| report["config_revision"].as_u64().unwrap());
    assert_eq!(told.len(), usize::from(WRITERS * CHANGES));
    for pair in told.windows(2) {
        let (earlier, later) = (&pair[0]["changes"][0], &pair[1]["changes"][0]);
        assert_eq!(earlier["after"], later["before"], "{pair:#?}");
    }
    let last = &told[told.len() - 1]["changes"][0]["after"];
    let stored = mesh.skein(&["config", "get", "Cluster", "a", "-o", "json"]);
    let stored = stored.ok().json().to_string();
    assert!(
        stored.contains(last["endpoints"][0].as_str().unwrap()),
        "{stored} is not {last}"
    );
}

#[test]
fn explain_and_graph_tell_what_the_proxy_would_do() {
    let mesh = Mesh::start(1);
    let node = &mesh.nodes[0];
    let upstream = Upstream::start("one", (mesh.subnet.ip(100), 8000));
    let dead = (mesh.subnet.ip(101), 8000);
    mesh.apply(&format!(
        "kind: Listener\nname: web\nbind: \":8080\"\nprotocol: http\n---\n\
         kind: VirtualHost\nname: shop\ndomains: [shop.test]\nroutes:\n\
         - {{ match: {{ path_prefix: /api, headers: [{{ name: x-tenant, exact: blue }}] }}, to: two, timeout: 3s }}\n\
         - {{ match: {{ path_prefix: /api }}, to: {{ one: 3, two: 1 }} }}\n---\n{}---\n\
         kind: Cluster\nname: two\nendpoints: [\"{}\", \"{}:{}\"]\n\
         probe: {{ http: /healthz, every: 200ms, timeout: 200ms }}\n",
        cluster("one", &upstream),
        upstream.address,
        dead.0,
        dead.1
    ));
    until("the dead endpoint is known", || {
        node.verdict("http://shop.test:8080/api", dead.into())
            .as_deref()
            == Some("unhealthy")
    });
    let explained = mesh.skein(&["explain", "http://shop.test:8080/api/x", "-o", "json"]);
    let explained = explained.ok().json();
    assert_eq!(explained["listener"]["name"], "web", "{explained}");
    assert_eq!(explained["chosen"]["route"], 1, "{explained}");
    assert_eq!(explained["chosen"]["targets"][0]["weight"], 3);
    let why_not = explained["tried"][0]["mismatch"].as_str().unwrap();
    assert!(why_not.contains("x-tenant"), "{why_not}");
    let blue = [
        "explain",
        "http://shop.test:8080/api",
        "-H",
        "x-tenant: blue",
    ];
    let told = mesh.skein(&blue).ok().stdout;
    let dead_line = told
        .lines()
        .find(|line| line.contains(&dead.0.to_string()))
        .unwrap();
    assert!(
        dead_line.contains("unhealthy") && dead_line.contains("n1"),
        "{told}"
    );
    assert!(told.contains("3s"), "{told}");
    let none = mesh.skein(&["explain", "http://other.test:8080/"]).ok();
    assert!(none.stdout.contains("404"), "{}", none.stdout);

    let graph = mesh.skein(&["graph", "-o", "json"]).ok().json();
    let edges = graph["edges"].as_array().unwrap();
    let has = |from: &str, to: &str| {
        let ends = |edge: &&Value| edge["from"] == from && edge["to"] == to;
        edges.iter().any(|edge| ends(&edge))
    };
    let endpoint = format!("endpoint:default/one/{}", upstream.address);
    assert!(has("cluster:default/one", &endpoint), "{graph:#}");
    for (form, word) in [
        ("text", "web"),
        ("dot", "digraph"),
        ("mermaid", "flowchart"),
    ] {
        let drawn = mesh.skein(&["graph", "--format", form]).ok().stdout;
        assert!(drawn.contains(word), "{form}: {drawn}");
    }
}

#[test]
fn the_examples_are_valid_each_by_itself() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config-examples");
    let mut checked = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let answer = skein(&[
                "config",
                "validate",
                "-f",
                path.to_str().unwrap(),
                "-o",
                "json",
            ]);
            assert_eq!(answer.ok().json()["valid"], true, "{}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 5, "{checked} examples");
}
