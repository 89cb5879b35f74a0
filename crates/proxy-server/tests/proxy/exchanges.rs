//! Ordinary requests: what arrives upstream and what comes back.

use std::collections::BTreeMap;

use crate::rig::{Backend, Client, Rig, config, eventually, ok};

#[tokio::test]
async fn hosts_and_paths_lead_to_their_clusters() {
    let (api, web) = (Backend::saying("api").await, Backend::saying("web").await);
    let rig = Rig::start(&format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: http\n\
         ---\nkind: VirtualHost\nname: shop\ndomains: [shop.example, \"*.shop.example\"]\nroutes:\n\
         - match: {{ path_prefix: /api, methods: [GET] }}\n  to: api\n\
         - match: {{ path: /exact }}\n  \
         to: api\n- match: {{ path_prefix: /w }}\n  to: web\n\
         ---\nkind: Cluster\nname: api\nendpoints: [\"{}\"]\n\
         ---\nkind: Cluster\nname: web\nendpoints: [\"{}\"]\n",
        api.address, web.address
    ))
    .await;
    let mut client = rig.connect().await;
    for (method, host, path, expected) in [
        ("GET", "shop.example", "/api/x?y=1", Some("api")),
        ("GET", "SHOP.example:80", "/api", Some("api")),
        ("GET", "a.b.shop.example", "/w/../api//x", Some("api")),
        ("GET", "shop.example", "/exact", Some("api")),
        ("GET", "shop.example", "/w", Some("web")),
        ("POST", "shop.example", "/api", None),
        ("GET", "shop.example", "/apis", None),
        ("GET", "shop.example", "/exact/", None),
        ("GET", "other.example", "/api", None),
    ] {
        client
            .send(&format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .await;
        let response = client.response().await;
        match expected {
            Some(text) => assert_eq!(response.text(), text, "{method} {host} {path}"),
            None => {
                assert_eq!(response.status, 404, "{method} {host} {path}");
                let proxy_status = response.header("proxy-status")[0];
                assert!(proxy_status.starts_with("skein; error=destination_not_found"));
            }
        }
    }
    // What was matched is what is forwarded.
    let first =
        |backend: &Backend, n: usize| backend.seen()[n].head.lines().next().map(str::to_owned);
    assert_eq!(first(&api, 0).unwrap(), "GET /api/x?y=1 HTTP/1.1");
    assert_eq!(first(&api, 2).unwrap(), "GET /api/x HTTP/1.1");
    assert_eq!(api.seen()[1].header("host"), ["SHOP.example:80"]);
}

#[tokio::test]
async fn traffic_is_split_by_weight() {
    let (old, new) = (Backend::saying("old").await, Backend::saying("new").await);
    let rig = Rig::start(&format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: http\n\
         ---\nkind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes:\n\
         - to: {{ old: 75, new: 25 }}\n\
         ---\nkind: Cluster\nname: old\nendpoints: [\"{}\"]\n\
         ---\nkind: Cluster\nname: new\nendpoints: [\"{}\"]\n",
        old.address, new.address
    ))
    .await;
    let mut client = rig.connect().await;
    for _ in 0..1000 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
    }
    let share = new.seen().len();
    assert!((190..310).contains(&share), "{share} of 1000");
    assert_eq!(old.seen().len() + share, 1000);
}

#[tokio::test]
async fn connections_to_an_upstream_are_used_again() {
    let backend = Backend::saying("hi").await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut client = rig.connect().await;
    for _ in 0..20 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, "hi"));
        assert!(response.header("connection").is_empty());
        assert_eq!(response.header("date").len(), 1);
    }
    let seen = backend.seen();
    assert!(seen.iter().all(|request| request.connection == 0));
    rig.counts("cluster_upstream_cx_total", "", 1.0).await;
    rig.counts("cluster_upstream_rq_total", "", 20.0).await;
    rig.counts("http_downstream_rq_total", "edge", 20.0).await;
    rig.counts("http_downstream_rq_xx_total", "class=\"2\"", 20.0)
        .await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::http(|seen| ok(seen.head.split(' ').nth(1).unwrap())).await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut client = rig.connect().await;
    client
        .send(
            "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n\
             POST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc\
             POST /3 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n\
             GET /4 HTTP/1.1\r\nhost: a\r\n\r\n",
        )
        .await;
    for path in ["/1", "/2", "/3", "/4"] {
        assert_eq!(client.response().await.text(), path);
    }
    let bodies: Vec<_> = backend.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [&b""[..], b"abc", b"xyz", b""]);
}

#[tokio::test]
async fn the_upstream_learns_who_asks_and_hop_by_hop_fields_stay() {
    let backend = Backend::http(|_| {
        b"HTTP/1.1 200 OK\r\nconnection: x-inner, keep-alive\r\nx-inner: 1\r\nkeep-alive: 5\r\n\
          x-outer: 2\r\ncontent-length: 0\r\n\r\n"
            .to_vec()
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut client = rig.connect().await;
    client
        .send(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close, x-private, x-forwarded-for\r\n\
             x-private: 1\r\nx-public: 2\r\nupgrade: websocket\r\nx-forwarded-for: 9.9.9.9\r\n\
             x-forwarded-proto: https\r\n\r\n",
        )
        .await;
    let response = client.response().await;
    assert_eq!(response.header("x-outer"), ["2"]);
    assert_eq!(response.header("connection"), ["close"]);
    assert!(response.header("x-inner").is_empty() && response.header("keep-alive").is_empty());
    assert!(client.ends().await);
    let seen = &backend.seen()[0];
    assert_eq!(seen.header("x-public"), ["2"]);
    assert_eq!(seen.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.header("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.header("x-request-id")[0].len(), 36);
    for gone in ["x-private", "upgrade", "connection"] {
        assert!(seen.header(gone).is_empty(), "{gone}");
    }
}

#[tokio::test]
async fn old_clients_get_bodies_that_they_understand() {
    let backend = Backend::http(|seen| {
        if seen.head.starts_with("GET /chunked") {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_vec()
        } else {
            ok("hi")
        }
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut client = rig.connect().await;
    client
        .send("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n")
        .await;
    let response = client.response().await;
    assert_eq!(response.text(), "hi");
    assert_eq!(response.header("connection"), ["keep-alive"]);
    client
        .send("GET /chunked HTTP/1.0\r\nhost: a\r\n\r\n")
        .await;
    let response = client.response().await;
    assert_eq!(response.text(), "hi");
    assert!(response.header("transfer-encoding").is_empty());
    assert_eq!(response.header("connection"), ["close"]);
    assert_eq!(
        backend.seen()[0].head.lines().next(),
        Some("GET / HTTP/1.1")
    );
}

#[tokio::test]
async fn responses_without_a_body_end_where_they_should() {
    let backend = Backend::http(|seen| {
        let code = seen.head.split(['/', ' ']).nth(2).unwrap();
        format!("HTTP/1.1 {code} X\r\ncontent-length: 5\r\n\r\n").into_bytes()
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut client = rig.connect().await;
    for (method, code, length) in [
        ("HEAD", "200", &["5"][..]),
        ("GET", "304", &["5"]),
        ("GET", "204", &[]),
    ] {
        client
            .send(&format!("{method} /{code} HTTP/1.1\r\nhost: a\r\n\r\n"))
            .await;
        let head = client.head().await.unwrap();
        let lengths = head
            .lines()
            .filter_map(|line| line.strip_prefix("content-length: "));
        assert_eq!(lengths.collect::<Vec<_>>(), length, "{method} {code}");
    }
    assert!(client.buffer.is_empty());
    assert_eq!(backend.seen().len(), 3);
}

#[tokio::test]
async fn a_client_that_waits_is_told_to_go_on_and_hints_pass() {
    let backend = Backend::http(|seen| {
        assert!(seen.header("expect").is_empty());
        let mut bytes = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".to_vec();
        bytes.extend(ok(&String::from_utf8_lossy(&seen.body)));
        bytes
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut client = rig.connect().await;
    client
        .send("PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        .await;
    assert_eq!(client.head().await.unwrap(), "HTTP/1.1 100 Continue");
    client.send("body").await;
    let hints = client.head().await.unwrap();
    assert!(hints.starts_with("HTTP/1.1 103 ") && hints.contains("link: </x>"));
    assert_eq!(client.response().await.text(), "body");
}

#[tokio::test]
async fn requests_are_logged_as_json() {
    let backend = Backend::saying("hi").await;
    let yaml = config("", "", &[backend.address])
        + "---\nkind: Defaults\nname: default\naccess_log: json\ntrusted_hops: 1\n";
    let rig = Rig::start(&yaml).await;
    let mut client = rig.connect().await;
    client
        .send(
            "POST /p?q HTTP/1.1\r\nhost: a\r\nuser-agent: \"u\"\r\nx-forwarded-for: 7.7.7.7\r\n\
             x-request-id: me\r\ncontent-length: 3\r\n\r\nabc",
        )
        .await;
    client.response().await;
    client.send("nonsense\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
    eventually("two lines", || rig.log.lines().len() == 2).await;
    let lines = rig.log.lines();
    let fields: BTreeMap<&str, &str> = [
        ("listener", "edge"),
        ("method", "POST"),
        ("host", "a"),
        ("path", "/p?q"),
        ("flags", "-"),
        ("client", "7.7.7.7"),
        ("cluster", "web"),
        ("virtual_host", "all"),
        ("user_agent", "\"u\""),
        ("request_id", "me"),
    ]
    .into();
    for (field, value) in fields {
        assert_eq!(lines[0][field], value, "{field}");
    }
    assert_eq!(lines[0]["upstream"], backend.address.to_string());
    let numbers = ["status", "bytes_received", "tries"].map(|field| lines[0][field].as_u64());
    assert_eq!(numbers, [Some(200), Some(3), Some(1)]);
    assert_eq!(
        (&lines[1]["status"], &lines[1]["flags"]),
        (&400.into(), &"DPE".into())
    );
}

#[tokio::test]
async fn config_changes_reach_live_connections() {
    let (one, two) = (Backend::saying("one").await, Backend::saying("two").await);
    let mut rig = Rig::start(&config("", "", &[one.address])).await;
    let mut client = Client::connect(rig.address("edge")).await;
    let ask = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send(ask).await;
    assert_eq!(client.response().await.text(), "one");
    rig.apply(&config("", "", &[two.address])).await;
    client.send(ask).await;
    assert_eq!(client.response().await.text(), "two");
}

#[tokio::test]
async fn an_answer_of_our_own_leaves_the_connection_usable() {
    let backend = Backend::saying("hi").await;
    let yaml = config("", "", &[backend.address]).replace("\"*\"", "a");
    let rig = Rig::start(&yaml).await;
    let mut client = rig.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: b\r\ncontent-length: 3\r\n\r\nabc")
        .await;
    assert_eq!(client.response().await.status, 404);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "hi");
}

#[tokio::test]
async fn a_second_value_of_a_header_is_seen_by_routes() {
    let (users, admins) = (
        Backend::saying("user").await,
        Backend::saying("admin").await,
    );
    let rig = Rig::start(&format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: http\n\
         ---\nkind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes:\n\
         \x20 - {{ match: {{ headers: [{{ name: x-role, exact: user }}] }}, to: users }}\n\
         \x20 - {{ match: {{ headers: [{{ name: x-role, present: true }}] }}, to: admins }}\n\
         ---\nkind: Cluster\nname: users\nendpoints: [\"{}\"]\n\
         ---\nkind: Cluster\nname: admins\nendpoints: [\"{}\"]\n",
        users.address, admins.address
    ))
    .await;
    for (roles, by) in [
        ("x-role: user\r\n", "user"),
        // What the upstream would read as an administrator must not pass as a user.
        ("x-role: user\r\nx-role: admin\r\n", "admin"),
        ("x-role: \u{e9}\r\n", "admin"),
    ] {
        let mut client = rig.connect().await;
        client
            .send(&format!("GET / HTTP/1.1\r\nhost: a\r\n{roles}\r\n"))
            .await;
        assert_eq!(client.response().await.text(), by, "{roles}");
    }
}
