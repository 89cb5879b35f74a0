//! Which route takes a request, by all that a `match` can ask for.

use crate::rig::{Backend, Rig};

/// A listener for every host, whose routes are these.
fn routes(yaml: &str, backend: &Backend) -> String {
    format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: http\n\
         ---\nkind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes:\n{yaml}\n\
         ---\nkind: Cluster\nname: web\nendpoints: [\"{}\"]\n",
        backend.address
    )
}

#[tokio::test]
async fn every_matcher_decides_on_the_bytes_that_came() {
    let backend = Backend::saying("ok").await;
    let yaml = "
- { to: web, match: { path_template: '/users/{id}/files/{*rest}' } }
- { to: web, match: { path_regex: '/v[0-9]+/.*', query: [{ name: beta, exact: 'a b' }] } }
- { to: web, match: { grpc: shop.Cart/Add } }
- { to: web, match: { path: /h, headers: [{ name: x, prefix: bl, invert: true }] } }
- { to: web, match: { path: /h, headers: [{ name: x, suffix: ue }, { name: y, contains: mid }] } }
- { to: web, match: { path: /h, headers: [{ name: z, regex: '[a-c]{2}' }] } }
- { to: web, match: { path: /h, headers: [{ name: z, present: true, invert: true }], methods: [PUT] } }
";
    let rig = Rig::start(&routes(yaml, &backend)).await;
    let mut client = rig.connect().await;
    for (request, fields, taken) in [
        ("GET /users/7/files/a/b?x", "", true),
        ("GET /users/7/x/../files/a", "", true),
        ("GET /users/7/files", "", false),
        ("GET /v12/x?a=1&beta=a%20b", "", true),
        ("GET /v12/x?beta=ab&beta=a+b", "", false),
        ("GET /v/x?beta=a+b", "", false),
        (
            "POST /shop.Cart/Add",
            "content-type: application/grpc+proto\r\n",
            true,
        ),
        (
            "POST /shop.Cart/Add",
            "content-type: application/json\r\n",
            false,
        ),
        ("GET /h", "x: red\r\nz: q\r\n", true),
        ("GET /h", "x: blue\r\nz: q\r\n", false),
        ("GET /h", "x: blue\r\ny: a mid b\r\nz: q\r\n", true),
        ("GET /h", "z: ab\r\n", true),
        ("GET /h", "z: a\r\nz: b\r\n", false),
        ("PUT /h", "content-length: 0\r\n", true),
        ("GET /h", "", false),
    ] {
        let text = format!("{request} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        client.send(&text).await;
        let status = client.response().await.status;
        assert_eq!(status, if taken { 200 } else { 404 }, "{text}");
    }
}

#[tokio::test]
async fn a_long_query_costs_one_pass_and_arrives_as_it_was_sent() {
    let backend = Backend::saying("ok").await;
    let yaml = "
- { to: web, match: { query: [{ name: last, regex: '(a|aa)*b' }] } }
";
    let rig = Rig::start(&routes(yaml, &backend)).await;
    let filler = "x=%20&".repeat(800) + &"a".repeat(5_000);
    let hostile = rig
        .get(&format!("/?{filler}&last={}", "a".repeat(5_000)))
        .await;
    assert_eq!(hostile.status, 404);
    let query = format!("/?{filler}&last=aab");
    assert_eq!(rig.get(&query).await.status, 200);
    let seen = backend.seen();
    assert_eq!(seen.len(), 1);
    assert!(
        seen[0]
            .head
            .starts_with(&format!("GET {query} HTTP/1.1\r\n"))
    );
}

#[tokio::test]
async fn a_domain_with_a_port_takes_requests_for_that_port_alone() {
    let backend = Backend::saying("ok").await;
    let mut yaml = "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: http\n".to_owned();
    let hosts = [
        "shop.test:8443",
        "shop.test",
        "*.test:81",
        "*.x.test",
        "*:82",
        "*",
    ];
    for (index, domain) in hosts.iter().enumerate() {
        yaml += &format!(
            "---\nkind: VirtualHost\nname: h{index}\ndomains: [\"{domain}\"]\n\
             routes: [{{ respond: {{ status: 200, body: \"{domain}\" }} }}]\n"
        );
    }
    yaml += &format!(
        "---\nkind: Cluster\nname: web\nendpoints: [\"{}\"]\n",
        backend.address
    );
    let rig = Rig::start(&yaml).await;
    let mut client = rig.connect().await;
    for (host, taken) in [
        ("Shop.test:8443", "shop.test:8443"),
        ("shop.test.:8443", "shop.test:8443"),
        ("shop.test:80", "shop.test"),
        ("shop.test", "shop.test"),
        ("shop.test:", "shop.test"),
        ("shop.test:81", "shop.test"),
        ("a.test:81", "*.test:81"),
        ("a.x.test:81", "*.x.test"),
        ("a.test:82", "*:82"),
        ("a.test", "*"),
    ] {
        client
            .send(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .await;
        assert_eq!(client.response().await.text(), taken, "{host}");
    }
}
