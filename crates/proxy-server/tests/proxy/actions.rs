//! What routes do with a request beyond passing it on: redirects, answers from the config, rewrites.

use crate::rig::{Backend, Rig, eventually};

fn routes(yaml: &str, backend: &Backend) -> String {
    format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: http\n\
         ---\nkind: Defaults\naccess_log: json\n\
         ---\nkind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes:\n{yaml}\n\
         ---\nkind: Cluster\nname: web\nendpoints: [\"{}\"]\n",
        backend.address
    )
}

#[tokio::test]
async fn redirects_lead_elsewhere_and_reach_no_upstream() {
    let backend = Backend::saying("ok").await;
    let yaml = "
- { match: { path_prefix: /old }, redirect: { path_prefix: /new/, code: 308 } }
- { match: { path: /one }, redirect: { host: other.test, port: 81, path: /two, strip_query: true } }
- { match: { path_prefix: /tls }, redirect: { scheme: https } }
- { to: web }
";
    let rig = Rig::start(&routes(yaml, &backend)).await;
    let mut client = rig.connect().await;
    for (path, host, status, location) in [
        (
            "/old/a//b?c=%0d%0aset-cookie:x",
            "h:8080",
            308,
            "http://h:8080/new/a/b?c=%0d%0aset-cookie:x",
        ),
        ("/old", "h", 308, "http://h/new/"),
        ("/one?x", "h", 301, "http://other.test:81/two"),
        ("/tls/a%20b?", "h:80", 301, "https://h/tls/a%20b"),
    ] {
        client
            .send(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .await;
        let response = client.response().await;
        assert_eq!(
            (response.status, response.header("location")),
            (status, vec![location])
        );
        assert_eq!(response.header("content-length"), ["0"]);
        assert!(response.header("set-cookie").is_empty());
    }
    assert_eq!(rig.get("/olds").await.text(), "ok");
    assert_eq!(backend.seen().len(), 1);
    rig.counts("http_rq_redirect_total", "edge", 4.0).await;
    rig.counts("http_rq_direct_response_total", "edge", 0.0)
        .await;
    rig.counts("http_downstream_rq_xx_total", "class=\"3\"", 4.0)
        .await;
    eventually("the log", || rig.log.lines().len() == 5).await;
    // Each worker writes the lines of its own connections, so they come in no certain order.
    let lines = rig.log.lines();
    let of = |path: &str| lines.iter().find(|line| line["path"] == path).unwrap();
    let (redirected, proxied) = (of("/old"), of("/olds"));
    assert_eq!(
        (&redirected["action"], &redirected["status"]),
        (&"redirect".into(), &308.into())
    );
    assert_eq!(
        (&redirected["flags"], &redirected["route"]),
        (&"-".into(), &0.into())
    );
    assert!(redirected.get("cluster").is_none() && proxied.get("action").is_none());
}

#[tokio::test]
async fn a_redirect_believes_a_trusted_proxy_about_the_scheme() {
    let backend = Backend::saying("ok").await;
    let yaml = "\n- { redirect: { path: /x } }\n";
    let request = "GET / HTTP/1.1\r\nhost: h:443\r\nx-forwarded-proto: https\r\n\r\n";
    for (defaults, location) in [
        ("", "http://h:443/x"),
        ("trusted_hops: 1\n", "https://h:443/x"),
    ] {
        let yaml = routes(yaml, &backend).replace("json\n", &format!("json\n{defaults}"));
        let rig = Rig::start(&yaml).await;
        let mut client = rig.connect().await;
        client.send(request).await;
        assert_eq!(client.response().await.header("location"), [location]);
    }
}

#[tokio::test]
async fn answers_from_the_config_are_whole_and_keep_the_connection() {
    let backend = Backend::saying("ok").await;
    let yaml = "
- { match: { path: /health }, respond: { status: 200, body: fine } }
- { match: { path: /json }, respond: { status: 418, body: '{}', headers: { Content-Type: application/json, x-a: b c } } }
- { match: { path: /none }, respond: { status: 204 } }
";
    let rig = Rig::start(&routes(yaml, &backend)).await;
    let mut client = rig.connect().await;
    client
        .send(
            "POST /health HTTP/1.1\r\nhost: h\r\nx-request-id: me\r\ncontent-length: 3\r\n\r\nabc",
        )
        .await;
    let response = client.response().await;
    let date = response.header("date")[0];
    assert_eq!(
        response.head,
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 4\r\n\
             x-request-id: me\r\ndate: {date}"
        )
    );
    assert_eq!(response.text(), "fine");
    client.send("GET /json HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (418, "{}"));
    assert_eq!(response.header("content-type"), ["application/json"]);
    assert_eq!(response.header("x-a"), ["b c"]);
    client.send("GET /none HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status, response.body.len()), (204, 0));
    assert!(response.header("content-length").is_empty());
    // A body that does not come with the head is not waited for: the connection ends.
    client
        .send(
            "HEAD /health HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n",
        )
        .await;
    let head = client.head().await.unwrap();
    assert!(head.contains("\r\ncontent-length: 4\r\n") && head.ends_with("connection: close"));
    assert!(client.ends().await);
    assert!(backend.seen().is_empty());
    rig.counts("http_rq_direct_response_total", "edge", 4.0)
        .await;
    eventually("the log", || rig.log.lines().len() == 4).await;
    assert_eq!(rig.log.lines()[1]["action"], "respond");
}

#[tokio::test]
async fn a_rewritten_request_tells_its_old_path_and_keeps_its_query() {
    let backend = Backend::saying("ok").await;
    let yaml = "
- { match: { path_prefix: /api }, to: web, rewrite: { path_prefix: / } }
- { match: { path: /one }, to: web, rewrite: { path_prefix: /two/, host: 'in.test:81' } }
- { match: { path_regex: '/r.*' }, to: web, rewrite: { path: /whole } }
- { to: web, rewrite: { host: other } }
";
    let rig = Rig::start(&routes(yaml, &backend)).await;
    let mut client = rig.connect().await;
    for (path, sent, host, original) in [
        (
            "/api/x/../y?q=%0d%0aa:b",
            "/y?q=%0d%0aa:b",
            "h:1",
            Some("/api/y?q=%0d%0aa:b"),
        ),
        ("/api", "/", "h:1", Some("/api")),
        ("/one", "/two/", "in.test:81", Some("/one")),
        ("/r/%20?x", "/whole?x", "h:1", Some("/r/%20?x")),
        ("/else?", "/else?", "other", None),
    ] {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: h:1\r\nx-envoy-original-path: /forged\r\n\r\n");
        client.send(&request).await;
        assert_eq!(client.response().await.status, 200);
        let seen = backend.seen().pop().unwrap();
        assert!(
            seen.head
                .starts_with(&format!("GET {sent} HTTP/1.1\r\nhost: {host}\r\n"))
        );
        assert_eq!(seen.header("host"), [host]);
        let told = seen.header("x-envoy-original-path");
        // Where nothing is rewritten, it is a header as any other.
        assert_eq!(told, [original.unwrap_or("/forged")]);
        assert!(seen.header("a").is_empty());
    }
}

#[tokio::test]
async fn paths_and_hosts_are_made_of_what_the_request_says() {
    let backend = Backend::saying("ok").await;
    let yaml = r"
- { match: { path_prefix: /s }, to: web, rewrite: { path_regex: { pattern: '^/s/([^/]+)(.*)$', substitution: '\2/i/\1' } } }
- { match: { path_template: '/u/{id}/{*rest}' }, to: web, rewrite: { path_template: '/{rest}/of/{id}' } }
- { match: { path_prefix: /bad }, to: web, rewrite: { path_regex: { pattern: '^/bad', substitution: '' } } }
- { match: { path_prefix: /old }, redirect: { path_regex: { pattern: /old, substitution: /new } } }
- { to: web, rewrite: { host_from_header: x-host } }
";
    let rig = Rig::start(&routes(yaml, &backend)).await;
    let mut client = rig.connect().await;
    for (path, fields, sent, host) in [
        ("/s/x/a/..//y?q", "", "/y/i/x?q", "h"),
        ("/s", "", "/s", "h"),
        ("/u/7/a/b?q", "", "/a/b/of/7?q", "h"),
        ("/x", "x-host: in.test:81\r\n", "/x", "in.test:81"),
        ("/x", "x-host: a\r\nx-host: b\r\n", "/x", "h"),
        ("/x", "x-host: a/b\r\n", "/x", "h"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\n{fields}\r\n");
        client.send(&request).await;
        assert_eq!(client.response().await.status, 200);
        let seen = backend.seen().pop().unwrap();
        let start = format!("GET {sent} HTTP/1.1\r\nhost: {host}\r\n");
        assert!(seen.head.starts_with(&start), "{}", seen.head);
    }
    let count = backend.seen().len();
    client.send("GET /bad HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!(response.status, 500);
    let why = "skein; error=proxy_configuration_error; \
               details=\"the route makes no valid path of this one\"";
    assert_eq!(response.header("proxy-status"), [why]);
    client.send("GET /old/a HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(
        client.response().await.header("location"),
        ["http://h/new/a"]
    );
    assert_eq!(backend.seen().len(), count);
}
