//! Traffic through a real node: where it goes, what it survives, and what is told of it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::harness::{Connection, Mesh, Traffic, Upstream, get, request, send_raw, until};

const WEB: &str = "kind: Listener\nname: web\nbind: \":8080\"\nprotocol: http\n---\n";

fn cluster(name: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|one| format!("\"{one}\"")).collect();
    let endpoints = endpoints.join(", ");
    format!("---\nkind: Cluster\nname: {name}\nendpoints: [{endpoints}]\n")
}

/// All requests go to these targets.
fn host(to: &str) -> String {
    format!("kind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes: [{{ {to} }}]\n")
}

fn upstreams<const N: usize>(mesh: &Mesh, names: [&str; N]) -> [Upstream; N] {
    let mut last = 100;
    names.map(|name| {
        last += 1;
        Upstream::start(name, (mesh.subnet.ip(last), 8000))
    })
}

#[test]
fn requests_go_by_host_and_path() {
    let mesh = Mesh::start(1);
    let [api, web, wild] = upstreams(&mesh, ["api", "web", "wild"]);
    mesh.apply(&format!(
        "{WEB}kind: VirtualHost\nname: shop\ndomains: [shop.test]\nroutes:\n\
         - {{ match: {{ path_prefix: /api }}, to: api }}\n\
         - {{ match: {{ path: /only, methods: [POST] }}, to: api }}\n- {{ to: web }}\n---\n\
         kind: VirtualHost\nname: wild\ndomains: [\"*.shop.test\"]\nroutes: [{{ match: {{ path_prefix: /in }}, to: wild }}]\n{}{}{}",
        cluster("api", &[api.address]),
        cluster("web", &[web.address]),
        cluster("wild", &[wild.address])
    ));
    let node = mesh.nodes[0].at(8080);
    for (host, path, by) in [
        ("shop.test", "/api", "api"),
        ("SHOP.test:8080", "/api/x?y=1", "api"),
        ("shop.test", "/apis", "web"),
        ("shop.test", "/only", "web"),
        ("a.shop.test", "/in", "wild"),
        ("a.b.shop.test", "/in/x", "wild"),
    ] {
        let answer = get(node, host, path).unwrap();
        assert_eq!(answer.status, 200, "{host}{path}: {answer:?}");
        assert!(
            answer.body.starts_with(&format!("{by} {path} ")),
            "{host}{path} went to {}",
            answer.body
        );
    }
    let post = "POST /only HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    assert_eq!(request(node, post).unwrap().body, "api /only 5\n");
    for (host, path) in [("other.test", "/"), ("a.shop.test", "/")] {
        assert_eq!(get(node, host, path).unwrap().status, 404, "{host}{path}");
    }
}

#[test]
fn a_split_follows_its_weights() {
    let mesh = Mesh::start(1);
    let [blue, green] = upstreams(&mesh, ["blue", "green"]);
    let clusters = cluster("blue", &[blue.address]) + &cluster("green", &[green.address]);
    mesh.apply(&format!(
        "{WEB}{}{clusters}",
        host("to: { blue: 75, green: 25 }")
    ));
    let mut connection = Connection::open(mesh.nodes[0].at(8080)).unwrap();
    for _ in 0..800 {
        assert_eq!(connection.get("any", "/").unwrap().status, 200);
    }
    // 25 % of 800 is 200; six standard deviations are 73: one false alarm in a thousand million.
    let green = green.requests();
    assert!((127..=273).contains(&green), "{green} of 800 went to green");
    assert_eq!(blue.requests() + green, 800);
}

#[test]
fn connections_are_kept_on_both_sides() {
    let mesh = Mesh::start(1);
    let [one] = upstreams(&mesh, ["one"]);
    mesh.apply(&format!(
        "{WEB}{}{}",
        host("to: one"),
        cluster("one", &[one.address])
    ));
    let node = mesh.nodes[0].at(8080);
    let mut connection = Connection::open(node).unwrap();
    for at in 0..50 {
        let path = format!("/{at}");
        let answer = connection.get("any", &path).unwrap();
        assert_eq!(answer.body, format!("one {path} 0\n"));
    }
    // Three at once without waiting for answers: they come in order.
    let three = (0..3).map(|at| format!("GET /p{at} HTTP/1.1\r\nhost: any\r\n\r\n"));
    connection
        .send(three.collect::<String>().as_bytes())
        .unwrap();
    for at in 0..3 {
        assert_eq!(connection.answer().unwrap().body, format!("one /p{at} 0\n"));
    }
    assert!(
        one.connections() <= 2,
        "{} connections to the upstream for requests one after the other",
        one.connections()
    );
    let last = request(
        node,
        "GET /last HTTP/1.1\r\nhost: any\r\nconnection: close\r\n\r\n",
    );
    assert!(!last.unwrap().is_kept());
}

#[test]
fn a_request_that_meets_a_dead_endpoint_is_tried_at_a_living_one() {
    let mesh = Mesh::start(1);
    let [one] = upstreams(&mesh, ["one"]);
    let dead = (mesh.subnet.ip(200), 8000).into();
    let retry = "to: one, retry: { when: [connect-failure], times: 2 }";
    mesh.apply(&format!(
        "{WEB}{}{}",
        host(retry),
        cluster("one", &[dead, one.address])
    ));
    let node = &mesh.nodes[0];
    for _ in 0..20 {
        let answer = get(node.at(8080), "any", "/").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert!(node.metric("cluster_upstream_rq_retry_total") > 0.0);
    // With nobody alive there is an answer that says why, in the client's hands and in the log.
    mesh.apply(&cluster("one", &[dead]).replace("---\n", ""));
    let answer = get(node.at(8080), "any", "/").unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    let status = answer.header("proxy-status").unwrap_or_default();
    assert!(status.contains("connection_refused"), "{answer:?}");
}

#[test]
fn changes_under_traffic_fail_no_request() {
    let mesh = Mesh::start(3);
    let [blue, green] = upstreams(&mesh, ["blue", "green"]);
    let clusters = cluster("blue", &[blue.address]) + &cluster("green", &[green.address]);
    mesh.apply(&format!("{WEB}{}{clusters}", host("to: blue")));
    let traffic = Traffic::start(&mesh.at(8080), "any");
    traffic.wait_for(50);
    for to in ["{ blue: 1, green: 1 }", "green", "blue", "green"] {
        mesh.apply(&host(&format!("to: {to}")));
        traffic.wait_for(50);
    }
    // Everything about the listener but its address may change, too.
    mesh.apply("kind: Defaults\nroute_timeout: 9s\nidle_timeout: 5m\n");
    traffic.wait_for(50);
    // The cluster's endpoints change as a whole.
    mesh.apply(&cluster("green", &[blue.address]));
    traffic.wait_for(50);
    let tally = traffic.stop_unharmed();
    assert_eq!(tally.by.len(), 2, "{tally:?}");
    let before = green.requests();
    for address in mesh.at(8080) {
        assert!(get(address, "any", "/").unwrap().body.starts_with("blue"));
    }
    assert_eq!(
        green.requests(),
        before,
        "nothing goes to the old endpoint any more"
    );
}

#[test]
fn a_listener_that_moves_finishes_what_it_began() {
    let mesh = Mesh::start(1);
    let node = &mesh.nodes[0];
    let slow = TcpListener::bind((mesh.subnet.ip(101), 8000)).unwrap();
    let slow_address = slow.local_addr().unwrap();
    mesh.apply(&format!(
        "{WEB}{}{}",
        host("to: slow"),
        cluster("slow", &[slow_address])
    ));
    // A request is under way when the listener moves...
    let mut under_way = Connection::open(node.at(8080)).unwrap();
    under_way
        .send(b"GET /slow HTTP/1.1\r\nhost: any\r\n\r\n")
        .unwrap();
    let (mut upstream, _) = slow.accept().unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        upstream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    mesh.apply(&WEB.replace("8080", "8081").replace("---\n", ""));
    until("the old port is closed", || {
        TcpStream::connect(node.at(8080)).is_err()
    });
    // ...and is answered, with the notice that the connection ends.
    upstream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")
        .unwrap();
    let answer = under_way.answer().unwrap();
    assert_eq!((answer.status, &*answer.body), (200, "late"));
    assert!(!answer.is_kept(), "{answer:?}");
    // The new port serves.
    let answering = std::thread::spawn(move || {
        // The node may use the connection again that it has.
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew";
        let mut rest = [0; 1024];
        let read = upstream.read(&mut rest).unwrap_or(0);
        if read > 0 {
            upstream.write_all(answer).unwrap();
        } else {
            let (mut stream, _) = slow.accept().unwrap();
            let _ = stream.read(&mut rest).unwrap();
            stream.write_all(answer).unwrap();
        }
    });
    assert_eq!(get(node.at(8081), "any", "/new").unwrap().body, "new");
    answering.join().unwrap();
    let listeners = node.status_of("n1").unwrap()["listeners"].clone();
    assert_eq!(listeners.as_array().unwrap().len(), 1, "{listeners}");
}

#[test]
fn an_idle_connection_of_a_listener_that_closes_is_let_go() {
    let mesh = Mesh::start(1);
    let [one] = upstreams(&mesh, ["one"]);
    mesh.apply(&format!(
        "{WEB}{}{}",
        host("to: one"),
        cluster("one", &[one.address])
    ));
    let node = mesh.nodes[0].at(8080);
    let mut idle = TcpStream::connect(node).unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: any\r\n\r\n")
        .unwrap();
    let mut some = [0; 4096];
    assert!(idle.read(&mut some).unwrap() > 0);
    mesh.apply(&WEB.replace("8080", "8081").replace("---\n", ""));
    idle.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(idle.read(&mut some).unwrap(), 0, "the connection ends");
}

#[test]
fn tcp_passes_bytes_and_the_end_of_each_direction() {
    let mesh = Mesh::start(1);
    let echo = TcpListener::bind((mesh.subnet.ip(101), 7000)).unwrap();
    let address = echo.local_addr().unwrap();
    mesh.apply(&format!(
        "kind: Listener\nname: raw\nbind: \":9000\"\nprotocol: tcp\nto: echo\n{}",
        cluster("echo", &[address])
    ));
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = echo.accept().unwrap();
        stream.write_all(b"hello\n").unwrap();
        let mut all = Vec::new();
        // Only the end of the client's direction ends this; the answer goes out after it.
        stream.read_to_end(&mut all).unwrap();
        stream
            .write_all(format!("got {}\n", all.len()).as_bytes())
            .unwrap();
        all
    });
    let mut client = TcpStream::connect(mesh.nodes[0].at(9000)).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut hello = [0; 6];
    client.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello\n", "the server may speak first");
    let sent: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    client.write_all(&sent).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "got 3000000\n");
    assert!(
        serving.join().unwrap() == sent,
        "the bytes arrive as they were sent"
    );
    // Nobody there: a reset or an end, and the listener goes on.
    let mut refused = TcpStream::connect(mesh.nodes[0].at(9000)).unwrap();
    refused
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let read = refused.read(&mut [0; 16]);
    assert!(
        matches!(&read, Ok(0))
            || read
                .as_ref()
                .is_err_and(|fault| fault.kind() == std::io::ErrorKind::ConnectionReset),
        "{read:?}"
    );
}

/// Heads with which others were led astray, each of them to be refused.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let post = |headers: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nhost: any\r\n{headers}\r\n{body}").into_bytes()
    };
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: any\r\n\r\n";
    vec![
        (
            "both framings",
            post(
                "content-length: 6\r\ntransfer-encoding: chunked\r\n",
                smuggled,
            ),
        ),
        (
            "two lengths",
            post("content-length: 6\r\ncontent-length: 5\r\n", smuggled),
        ),
        (
            "a list of lengths",
            post("content-length: 6, 5\r\n", smuggled),
        ),
        ("a signed length", post("content-length: +6\r\n", smuggled)),
        (
            "chunked not last",
            post("transfer-encoding: chunked, identity\r\n", smuggled),
        ),
        (
            "an unknown coding",
            post("transfer-encoding: xchunked\r\n", smuggled),
        ),
        (
            "a space before the colon",
            post("transfer-encoding : chunked\r\n", smuggled),
        ),
        (
            "a folded line",
            post("x-a: b\r\n transfer-encoding: chunked\r\n", smuggled),
        ),
        ("a NUL in a value", post("x-a: b\0c\r\n", "")),
        (
            "two hosts",
            b"GET / HTTP/1.1\r\nhost: any\r\nhost: other\r\n\r\n".to_vec(),
        ),
        ("no host", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        (
            "a bare CR",
            b"GET / HTTP/1.1\r\nhost: any\r\nx: a\rb\r\n\r\n".to_vec(),
        ),
        (
            "chunked in HTTP/1.0",
            b"POST / HTTP/1.0\r\nhost: any\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        (
            "an unknown version",
            b"GET / HTTP/9.1\r\nhost: any\r\n\r\n".to_vec(),
        ),
        (
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        ),
        ("half HTTP/2", b"PRI * HTTP/2.0\r\n\r\nX\r\n\r\n".to_vec()),
        (
            "a huge head",
            post(&format!("x-a: {}\r\n", "a".repeat(200_000)), ""),
        ),
        (
            "noise",
            (0..4096_u32).map(|at| (at * 7919 % 251) as u8).collect(),
        ),
    ]
}

#[test]
fn garbage_and_framing_attacks_close_their_connection_only() {
    let mesh = Mesh::start(1);
    let [one] = upstreams(&mesh, ["one"]);
    mesh.apply(&format!(
        "{WEB}{}{}",
        host("to: one"),
        cluster("one", &[one.address])
    ));
    let node = mesh.nodes[0].at(8080);
    let mut bystander = Connection::open(node).unwrap();
    for (at, (what, bytes)) in attacks().into_iter().enumerate() {
        // It ends with the bytes read or with a reset, and never with an answer of the upstream.
        let answer = send_raw(node, &bytes).unwrap_or_default();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let refused = answer.is_empty()
            || answer.starts_with("HTTP/1.1 4")
            || answer.starts_with("HTTP/1.1 505");
        assert!(refused, "{what}: {answer}");
        assert!(
            answer.matches("HTTP/1.1 ").count() <= 1,
            "{what}: one head, two answers: {answer}"
        );
        assert_eq!(one.requests(), at, "{what} reached the upstream");
        let answer = bystander.get("any", "/").unwrap();
        assert_eq!(answer.status, 200, "{what}: the others are served");
    }
    // A chunk that lies breaks off in the middle of a body: nothing of it is another request.
    let before = one.requests();
    let lie = "POST / HTTP/1.1\r\nhost: any\r\ntransfer-encoding: chunked\r\n\r\n\
               5\r\nhelloGET /smuggled HTTP/1.1\r\nhost: any\r\n\r\n";
    let answer = send_raw(node, lie.as_bytes()).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&answer).contains("smuggled"));
    assert!(one.requests() <= before + 1);
    assert_eq!(bystander.get("any", "/").unwrap().status, 200);
}

#[test]
fn requests_are_logged_and_counted_and_the_config_can_be_seen() {
    let mesh = Mesh::start(1);
    let node = &mesh.nodes[0];
    let ready = node.admin("/ready").unwrap();
    assert_eq!(ready.status, 200, "{}", ready.body);
    let [one] = upstreams(&mesh, ["one"]);
    mesh.apply(&format!(
        "kind: Defaults\naccess_log: json\n---\n{WEB}kind: VirtualHost\nname: all\n\
         domains: [known.test]\nroutes: [{{ to: one }}]\n{}",
        cluster("one", &[one.address])
    ));
    let nasty = "GET /a\"b HTTP/1.1\r\nhost: known.test\r\nuser-agent: te\"st\\\r\nconnection: close\r\n\r\n";
    let nasty = request(node.at(8080), nasty).unwrap().status;
    assert_eq!(
        get(node.at(8080), "known.test", "/a/b?c").unwrap().status,
        200
    );
    let missing = get(node.at(8080), "unknown.test", "/").unwrap();
    assert_eq!(missing.status, 404);
    until("three lines are logged", || {
        node.access_log().lines().count() >= 3
    });
    let lines: Vec<serde_json::Value> = (node.access_log().lines())
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(lines[0]["status"], nasty, "{}", lines[0]);
    let good = &lines[1];
    for (field, value) in [
        ("method", "GET"),
        ("host", "known.test"),
        ("path", "/a/b?c"),
        ("flags", "-"),
        ("upstream", &*one.address.to_string()),
    ] {
        assert_eq!(good[field], value, "{field} in {good}");
    }
    assert_eq!(good["status"], 200);
    assert!(good["duration_ms"].as_f64().unwrap() > 0.0, "{good}");
    assert_eq!(
        (&lines[2]["status"], &lines[2]["flags"]),
        (&404.into(), &"NR".into())
    );
    let id = missing.header("x-request-id").unwrap_or_default();
    assert_eq!(lines[2]["request_id"], id, "{missing:?}");

    let page = node.admin("/metrics").unwrap();
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(page.body.ends_with("# EOF\n"));
    assert!(
        node.metric("http_downstream_rq_total") >= 3.0,
        "{}",
        page.body
    );
    assert!(node.metric("cluster_upstream_rq_total") >= 1.0);
    assert!(node.metric("skein_config_revision ") >= 1.0);

    let dump = node.admin("/config_dump").unwrap();
    let dump: serde_json::Value = serde_json::from_str(&dump.body).unwrap();
    assert_eq!(dump["resources"].as_array().unwrap().len(), 4, "{dump}");
    assert!(dump["listeners"][0]["fault"].is_null(), "{dump}");
}

#[test]
fn a_taken_port_fails_its_listener_alone_until_it_is_free() {
    let mesh = Mesh::start(1);
    let node = &mesh.nodes[0];
    let [one] = upstreams(&mesh, ["one"]);
    // Whether the other shares its port or not: nobody's connections are taken away.
    let taken = TcpListener::bind(node.at(8081)).unwrap();
    let second = WEB.replace("web", "second").replace("8080", "8081");
    let text = format!(
        "{WEB}{second}{}{}",
        host("to: one"),
        cluster("one", &[one.address])
    );
    let waited = mesh.try_apply(&text, &["--wait"]).exits(1).stderr;
    assert!(
        waited.contains("second") && waited.contains(":8081") && waited.contains("n1"),
        "{waited}"
    );
    assert_eq!(get(node.at(8080), "any", "/").unwrap().status, 200);
    let told = mesh.skein(&["status"]).ok().stdout;
    assert!(
        told.contains("REFUSED") && told.contains("(failed)") && told.contains("in use"),
        "{told}"
    );
    let status = node.status_of("n1").unwrap();
    let failed = |status: &serde_json::Value, name: &str| {
        let listeners = status["listeners"].as_array().unwrap().iter();
        let mut listener = listeners.filter(|listener| listener["name"] == name);
        listener.next().unwrap()["state"] == "failed"
    };
    assert!(
        failed(&status, "second") && !failed(&status, "web"),
        "{status}"
    );
    // One listener that cannot open is no reason to keep traffic from the others.
    assert_eq!(node.admin("/ready").unwrap().status, 200);

    drop(taken);
    until("the listener opens by itself", || {
        get(node.at(8081), "any", "/").is_ok_and(|answer| answer.status == 200)
    });
    mesh.wait_synced();
    assert_eq!(node.admin("/ready").unwrap().status, 200);

    // A listener that is to move to a taken port serves at its old one until then.
    let taken = TcpListener::bind(node.at(8082)).unwrap();
    let moved = second.replace("8081", "8082").replace("---\n", "");
    mesh.try_apply(&moved, &["--wait"]).exits(1);
    assert_eq!(get(node.at(8081), "any", "/").unwrap().status, 200);
    drop(taken);
    until("it moves by itself", || {
        get(node.at(8082), "any", "/").is_ok_and(|answer| answer.status == 200)
    });
    until("the old port is closed", || {
        TcpStream::connect(node.at(8081)).is_err()
    });
}

#[test]
fn listeners_swap_their_ports_in_one_change() {
    let mesh = Mesh::start(1);
    let node = &mesh.nodes[0];
    let [one] = upstreams(&mesh, ["one"]);
    let swap = |http: u16, raw: u16| {
        format!(
            "kind: Listener\nname: web\nbind: \":{http}\"\nprotocol: http\n---\n\
             kind: Listener\nname: raw\nbind: \":{raw}\"\nprotocol: tcp\nto: one\n---\n"
        )
    };
    let rest = host("to: one") + &cluster("one", &[one.address]);
    mesh.apply(&format!("{}{rest}", swap(8080, 8081)));
    // Only http adds the header; tcp passes what the upstream says as it is.
    let is_http = |port| {
        let mut connection = Connection::open(node.at(port)).unwrap();
        let answer = connection.get("any", "/").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("date").is_some()
    };
    assert!(is_http(8080) && !is_http(8081));
    mesh.apply(swap(8081, 8080).trim_end_matches("---\n"));
    assert!(!is_http(8080) && is_http(8081));
}

#[test]
fn a_node_at_work_says_so_to_the_others() {
    let mesh = Mesh::start(3);
    let [one] = upstreams(&mesh, ["one"]);
    mesh.apply(&format!(
        "{WEB}{}{}",
        host("to: one"),
        cluster("one", &[one.address])
    ));
    let seen = |command: &str, list: &str| {
        let answer = mesh.nodes[1].skein(&[command, "-o", "json"]).ok().json();
        let nodes = answer[list].as_array().unwrap().iter();
        let mut n1 = nodes.filter(|node| node["name"] == "n1");
        n1.next().unwrap()["load_percent"].as_u64().unwrap()
    };
    let traffic = Traffic::start(&mesh.at(8080)[..1], "any");
    until("the others hear of it", || {
        (1..=100).contains(&seen("status", "nodes")) && (1..=100).contains(&seen("peers", "peers"))
    });
    assert!(mesh.nodes[0].metric("worker_busy_seconds_total") > 0.0);
    traffic.stop_unharmed();
    until("it is at rest again, and the others know", || {
        seen("status", "nodes") == 0 && mesh.nodes[0].metric("skein_load_percent") == 0.0
    });
}
