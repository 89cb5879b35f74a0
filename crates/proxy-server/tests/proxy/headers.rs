//! What the config changes of headers, on every level, as both neighbours see it.

use crate::rig::{Backend, Rig, ok};
use crate::streams;

/// A config with changes of all levels: (listener, virtual host, route, cluster).
fn config((edge, host, route, cluster): (&str, &str, &str, &str), backend: &Backend) -> String {
    format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: http\nheaders: {{ {edge} }}\n\
         ---\nkind: VirtualHost\nname: all\ndomains: [\"*\"]\nheaders: {{ {host} }}\nroutes:\n\
         - {{ match: {{ path: /plain }}, to: bare }}\n\
         - {{ to: web, headers: {{ {route} }} }}\n\
         ---\nkind: Cluster\nname: web\nendpoints: [\"{0}\"]\nheaders: {{ {cluster} }}\n\
         ---\nkind: Cluster\nname: bare\nendpoints: [\"{0}\"]\n",
        backend.address
    )
}

#[tokio::test]
async fn the_most_specific_change_of_a_request_has_the_last_word() {
    let backend = Backend::saying("ok").await;
    let levels = (
        "request: { set: { x-who: edge, x-path: '%REQ(:path)%', x-edge: a } }",
        "request: { set: { x-who: host }, add: { x-list: host }, remove: [x-edge, x-gone] }",
        "request: { set: { x-who: route }, add: { x-list: route }, add_if_absent: { x-own: none, x-new: n } }",
        "request: { set: { x-who: '%UPSTREAM_CLUSTER% 100%%' }, add: { x-list: '%REQ(x-none)%' } }",
    );
    let rig = Rig::start(&config(levels, &backend)).await;
    let mut client = rig.connect().await;
    let fields = "x-who: me\r\nx-list: me\r\nx-own: mine\r\nx-gone: 1\r\nX-Edge: 2\r\n";
    for path in ["/a/../b?c=d", "/plain"] {
        client
            .send(&format!("GET {path} HTTP/1.1\r\nhost: h\r\n{fields}\r\n"))
            .await;
        assert_eq!(client.response().await.status, 200);
    }
    let seen = backend.seen();
    let [changed, plain] = &*seen else {
        panic!("{seen:?}")
    };
    for (name, values) in [
        ("x-who", vec!["web 100%"]),
        ("x-list", vec!["me", "host", "route"]),
        ("x-own", vec!["mine"]),
        ("x-new", vec!["n"]),
        ("x-path", vec!["/b?c=d"]),
        ("x-edge", vec![]),
        ("x-gone", vec![]),
        ("x-forwarded-for", vec!["127.0.0.1"]),
    ] {
        assert_eq!(changed.header(name), values, "{name}: {}", changed.head);
    }
    assert_eq!(plain.header("x-who"), ["host"]);
    assert_eq!(plain.header("x-list"), ["me", "host"]);
}

#[tokio::test]
async fn variables_tell_of_the_request_and_of_its_answer() {
    let backend = Backend::http(|_| {
        b"HTTP/1.1 201 Said\r\nserver: s\r\nx-powered-by: p\r\ncontent-length: 2\r\n\r\nok".into()
    })
    .await;
    let levels = (
        "response: { remove: [server, x-powered-by], set: { x-id: '%REQ(X-Request-Id)%' } }",
        "response: { set: { x-frame-options: DENY } }",
        "request: { set: { x-seen: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% %PROTOCOL% %REQ(:METHOD)% %REQ(:authority)% %VIRTUAL_HOST_NAME%', x-at: '%START_TIME%' } }",
        "response: { set: { x-from: '%UPSTREAM_HOST% %RESPONSE_CODE%' } }",
    );
    let yaml = config(levels, &backend) + "---\nkind: Defaults\ntrusted_hops: 1\n";
    let rig = Rig::start(&yaml).await;
    let mut client = rig.connect().await;
    client
        .send(
            "GET / HTTP/1.1\r\nhost: H:1\r\nx-forwarded-for: 9.9.9.9, 8.8.8.8\r\n\
             x-request-id: me\r\n\r\n",
        )
        .await;
    let response = client.response().await;
    let endpoint = format!("{} 201", backend.address);
    for (name, values) in [
        ("server", vec![]),
        ("x-powered-by", vec![]),
        ("x-id", vec!["me"]),
        ("x-frame-options", vec!["DENY"]),
        ("x-from", vec![endpoint.as_str()]),
    ] {
        assert_eq!(response.header(name), values, "{name}: {}", response.head);
    }
    let seen = backend.seen().pop().unwrap();
    assert_eq!(
        seen.header("x-seen"),
        ["8.8.8.8 127.0.0.1 HTTP/1.1 GET H:1 all"]
    );
    let [at] = *seen.header("x-at") else {
        panic!("{}", seen.head)
    };
    assert!(at.ends_with('Z') && at.contains('T'), "{at}");
}

#[tokio::test]
async fn a_neighbour_cannot_name_away_what_is_set() {
    let answer = "HTTP/1.1 200 Said\r\nconnection: x-set, x-secret\r\nx-secret: 1\r\n\
                  x-set: theirs\r\ncontent-length: 2\r\n\r\nok";
    let backend = Backend::http(move |_| answer.into()).await;
    let levels = (
        "",
        "",
        "request: { set: { x-set: ours } }, response: { set: { x-set: ours } }",
        "",
    );
    let rig = Rig::start(&config(levels, &backend)).await;
    let mut client = rig.connect().await;
    let request = "POST / HTTP/1.1\r\nhost: h\r\nconnection: x-set, x-secret, close\r\n\
                   x-secret: 1\r\nx-set: forged\r\ncontent-length: 3\r\n\r\nabc";
    client.send(request).await;
    let response = client.response().await;
    assert_eq!(response.header("x-set"), ["ours"]);
    assert!(response.header("x-secret").is_empty());
    // What the client asked for its connection is done all the same.
    assert!(client.ends().await);
    let seen = backend.seen().pop().unwrap();
    assert_eq!(
        (seen.header("x-set"), &*seen.body),
        (vec!["ours"], &b"abc"[..])
    );
    assert!(seen.header("x-secret").is_empty());
}

#[tokio::test]
async fn each_try_of_a_request_has_its_changes_once() {
    let backend = Backend::http(|seen| match seen.connection {
        0 => b"HTTP/1.1 503 Said\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".into(),
        _ => ok("ok"),
    })
    .await;
    let route = "request: { add: { x-a: '1' } } }, retry: { when: [5xx]";
    let rig = Rig::start(&config(("", "", route, ""), &backend)).await;
    assert_eq!(rig.get("/").await.text(), "ok");
    let seen = backend.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.header("x-a") == ["1"]));
}

#[tokio::test]
async fn answers_of_our_own_are_changed_once_a_route_took_the_request() {
    let backend = Backend::saying("ok").await;
    let levels = (
        "response: { set: { x-edge: '1' } }",
        "response: { set: { x-host: '%RESPONSE_CODE% %UPSTREAM_CLUSTER%%UPSTREAM_HOST%' } }",
        "",
        "response: { add: { x-cluster: '%UPSTREAM_CLUSTER%' } }",
    );
    let yaml = config(levels, &backend).replace(
        "- { match: { path: /plain }, to: bare }",
        "- { match: { path: /own }, respond: { status: 404, body: gone, headers: { x-edge: '0' } }, \
           headers: { response: { set: { content-type: text/html } } } }\n\
         - { match: { path: /moved }, redirect: { path: /own } }\n\
         - { match: { path: /none }, to: none }",
    ) + "---\nkind: Cluster\nname: none\nendpoints: [\"127.0.0.1:1\"]\n\
         headers: { response: { set: { x-cluster: none, proxy-status: hidden } } }\n";
    let rig = Rig::start(&yaml).await;
    let mut client = rig.connect().await;
    for (path, status, host, cluster) in [
        ("/own", 404, "404", vec![]),
        ("/moved", 301, "301", vec![]),
        ("/none", 503, "503 none", vec!["none"]),
    ] {
        client
            .send(&format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n"))
            .await;
        let response = client.response().await;
        assert_eq!(response.status, status, "{}", response.head);
        assert_eq!(response.header("x-edge"), ["1"]);
        assert_eq!(response.header("x-host"), [host]);
        assert_eq!(response.header("x-cluster"), cluster);
        match path {
            "/own" => {
                assert_eq!(response.text(), "gone");
                assert_eq!(response.header("content-type"), ["text/html"]);
            }
            "/moved" => assert_eq!(response.header("location"), ["http://h/own"]),
            _ => assert_eq!(response.header("proxy-status"), ["hidden"]),
        }
    }
}

#[tokio::test]
async fn a_client_of_http2_sees_and_sends_the_same_changes() {
    let backend = Backend::http(|_| {
        b"HTTP/1.1 200 OK\r\nserver: s\r\nconnection: x-hop\r\nx-hop: 1\r\ncontent-length: 2\r\n\r\nok"
            .into()
    })
    .await;
    let levels = (
        "request: { set: { x-who: edge, x-by: '%PROTOCOL%' } }",
        "request: { add: { x-list: host } }, response: { set: { x-back: '%RESPONSE_CODE%' } }",
        "request: { remove: [x-gone] }, response: { remove: [server] }",
        "request: { set: { x-who: '%UPSTREAM_CLUSTER%' } }",
    );
    let rig = Rig::start(&config(levels, &backend)).await;
    let client = streams::Client::connect(rig.address("edge")).await;
    let request = streams::ask("POST", "/")
        .header("x-list", "me")
        .header("x-gone", "1");
    let answer = client.post(request, b"body", None).await.unwrap();
    assert_eq!((answer.text(), answer.header("x-back")), ("ok", "200"));
    assert_eq!((answer.header("server"), answer.header("x-hop")), ("", ""));
    let seen = &backend.seen()[0];
    for (name, values) in [
        ("x-who", vec!["web"]),
        ("x-by", vec!["HTTP/2"]),
        ("x-list", vec!["me", "host"]),
        ("x-gone", vec![]),
    ] {
        assert_eq!(seen.header(name), values, "{name}: {}", seen.head);
    }
    assert_eq!(seen.body, b"body");
}
