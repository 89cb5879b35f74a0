//! Endpoints that register themselves: used on every node while their lease lives, and known after a
//! restart.

use crate::harness::skein::command;
use crate::harness::{Lines, Mesh, Upstream, get, until};

const CONFIG: &str = "kind: Listener\nname: web\nbind: \":8080\"\nprotocol: http\n---\n\
     kind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes: [{ to: shop, retry: { times: 0 } }]\n---\n\
     kind: Cluster\nname: shop\nservice: shop\n";

fn all_answer(mesh: &Mesh, expected: &str) {
    until(&format!("every node answers {expected}"), || {
        let answers = mesh.running().map(|node| get(node.at(8080), "any", "/"));
        answers.into_iter().all(|answer| {
            answer.is_ok_and(|answer| match expected {
                "503" => answer.status == 503,
                name => answer.body.starts_with(name),
            })
        })
    });
}

#[test]
fn an_endpoint_serves_on_every_node_while_its_registration_lives() {
    let mut mesh = Mesh::start(3);
    let [blue, green] = [("blue", 101), ("green", 102)]
        .map(|(name, last)| Upstream::start(name, (mesh.subnet.ip(last), 8000)));
    mesh.apply(CONFIG);
    all_answer(&mesh, "503");
    let revision = mesh.nodes[0].status().unwrap()["config_revision"].clone();

    let mut register = command();
    let address = blue.address.to_string();
    register.args(["register", "shop", &address, "--id", "one", "--ttl", "60s"]);
    register.args(["--endpoints", &mesh.endpoints()]);
    let mut registering = Lines::spawn(&mut register);
    assert_eq!(
        registering.next(),
        "registered as /skein/endpoints/default/shop/one"
    );
    all_answer(&mesh, "blue ");
    let explained = mesh.nodes[1]
        .skein(&["explain", "http://any:8080/"])
        .ok()
        .stdout;
    let line = format!("{address} weight 1, registered as one: unknown");
    assert!(explained.contains(&line), "{explained}");

    // A value that nobody can use changes nothing, and is told to who wrote it.
    let key = "/skein/endpoints/default/shop/two";
    let refused = mesh.skein(&["put", key, "nowhere"]).exits(3);
    assert!(
        refused
            .stderr
            .contains("endpoint shop/two: \"nowhere\" is not an address"),
        "{}",
        refused.stderr
    );
    mesh.skein(&[
        "put",
        key,
        &format!(r#"{{"address": "{}", "draining": true}}"#, green.address),
    ])
    .ok();
    all_answer(&mesh, "blue ");

    // A node that starts again knows them before its store says so.
    until("the endpoints are on the disk", || {
        let kept = mesh.nodes[0].data.join("last-known-endpoints.json");
        std::fs::read_to_string(kept).is_ok_and(|kept| kept.contains("shop/one"))
    });
    for node in &mut mesh.nodes {
        node.kill();
    }
    mesh.nodes[0].start();
    until("it serves, alone and without a quorum", || {
        get(mesh.nodes[0].at(8080), "any", "/").is_ok_and(|answer| answer.body.starts_with("blue "))
    });
    for node in &mut mesh.nodes[1..] {
        node.start();
    }
    mesh.wait_synced();
    all_answer(&mesh, "blue ");

    // Told to stop, it takes the registration back; the other one no longer drains.
    mesh.skein(&["put", key, &green.address.to_string()]).ok();
    registering.terminate();
    assert!(registering.ended().success());
    all_answer(&mesh, "green ");
    mesh.skein(&["del", key]).ok();
    all_answer(&mesh, "503");
    assert_eq!(
        mesh.nodes[0].status().unwrap()["config_revision"],
        revision,
        "no config changed"
    );
}
