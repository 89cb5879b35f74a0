//! TLS that is passed on: the name that is asked for leads to an upstream, and every byte with it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConnection;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::certificates::{Authority, connect, try_connect};
use crate::rig::{Backend, Client, PATIENCE, Rig, eventually};

/// A listener with these routes (names, cluster), and these settings.
fn config(routes: &[(&str, &str)], settings: &str, clusters: &[(&str, SocketAddr)]) -> String {
    let mut config =
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: tls_passthrough\n".to_owned();
    config += settings;
    config += "\nroutes:\n";
    for (matches, to) in routes {
        config += &format!("  - {{ match: {{ {matches} }}, to: {to} }}\n");
    }
    for (name, address) in clusters {
        config += &format!("---\nkind: Cluster\nname: {name}\nendpoints: [\"{address}\"]\n");
    }
    config + "---\nkind: Defaults\nname: default\naccess_log: json\nhead_timeout: 10s\n"
}

/// A server with a certificate for this name, which says it and then what it hears.
async fn server(ca: &Authority, name: &'static str) -> Backend {
    let own = ca.issue(name, &[name, "other.example", "127.0.0.1"]);
    let acceptor = ca.server_of(&own, &["h2", "http/1.1"]);
    Backend::raw(move |stream, _| {
        let accept = acceptor.accept(stream);
        async move {
            let Ok(mut stream) = accept.await else { return };
            stream.write_all(name.as_bytes()).await.unwrap();
            let mut bytes = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                stream.write_all(&bytes[..count]).await.unwrap();
            }
        }
    })
    .await
}

/// An upstream that keeps all that it is sent.
async fn keeping() -> (Backend, Arc<Mutex<Vec<u8>>>) {
    let kept: Arc<Mutex<Vec<u8>>> = Arc::default();
    let room = kept.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let room = room.clone();
        async move {
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                room.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        }
    })
    .await;
    (backend, kept)
}

/// The first message of a client that asks for this name.
fn hello(ca: &Authority, name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(ca.client(None)), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

async fn hears(client: &mut Client<crate::certificates::Tls>, expected: &str) {
    let mut bytes = vec![0; expected.len()];
    let read = timeout(PATIENCE, client.stream.read_exact(&mut bytes)).await;
    read.expect("bytes in time").unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
}

#[tokio::test]
async fn the_name_that_is_asked_for_leads_to_its_upstream() {
    let ca = Authority::new();
    let shop = server(&ca, "shop.example").await;
    let wild = server(&ca, "*.shop.example").await;
    let rest = server(&ca, "rest.example").await;
    let acme = server(&ca, "acme.example").await;
    let routes = [
        ("server_names: [\"*.shop.example\"]", "wild"),
        ("server_names: [shop.example]", "shop"),
        ("alpn: [acme-tls/1]", "acme"),
    ];
    let clusters = [
        ("wild", wild.address),
        ("shop", shop.address),
        ("rest", rest.address),
        ("acme", acme.address),
    ];
    let rig = Rig::start(&config(&routes, "to: rest", &clusters)).await;
    let edge = rig.address("edge");
    for (name, said) in [
        ("shop.example", "shop.example"),
        ("SHOP.example", "shop.example"),
        ("a.shop.example", "*.shop.example"),
        ("other.example", "rest.example"),
        // An address is no name to ask for.
        ("127.0.0.1", "rest.example"),
    ] {
        let mut config = ca.client(None);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut client = connect(config, edge, name).await;
        assert_eq!(client.stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        hears(&mut client, said).await;
        client.send("and more").await;
        hears(&mut client, "and more").await;
    }
    let mut challenge = ca.client(None);
    challenge.alpn_protocols = vec![b"acme-tls/1".to_vec(), b"h2".to_vec()];
    hears(
        &mut connect(challenge, edge, "other.example").await,
        "acme.example",
    )
    .await;

    eventually("six lines", || rig.log.lines().len() == 6).await;
    let names: Vec<_> = rig.log.lines();
    let asked = |cluster: &str| {
        let line = names
            .iter()
            .find(|line| line["cluster"] == cluster)
            .unwrap();
        (
            line["protocol"].clone(),
            line["requested_server_name"].clone(),
        )
    };
    assert_eq!(asked("wild"), ("TLS".into(), "a.shop.example".into()));
    rig.counts("listener_tls_inspector_total", "\"sni_found\"", 5.0)
        .await;
    rig.counts("listener_tls_inspector_total", "\"sni_not_found\"", 1.0)
        .await;
}

#[tokio::test]
async fn a_first_message_in_pieces_is_passed_on_as_it_came() {
    let ca = Authority::new();
    let (backend, kept) = keeping().await;
    let clusters = [("web", backend.address)];
    let settings = "proxy_protocol: required";
    let routes = [("server_names: [a.example]", "web")];
    let rig = Rig::start(&config(&routes, settings, &clusters)).await;
    let whole = hello(&ca, "a.example");
    // In records of a few bytes, which is allowed, with something behind that is none of ours.
    let record = |piece: &[u8]| [&[0x16, 3, 1, 0, piece.len() as u8][..], piece].concat();
    let mut sent: Vec<u8> = whole[5..].chunks(7).flat_map(record).collect();
    sent.extend_from_slice(b"\x17\x03\x03\x00\x05early");
    let mut stream = TcpStream::connect(rig.address("edge")).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .write_all(b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n")
        .await
        .unwrap();
    for piece in sent.chunks(11) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream.shutdown().await.unwrap();
    eventually("all of it", || kept.lock().unwrap().len() >= sent.len()).await;
    assert!(*kept.lock().unwrap() == sent);
    eventually("a line", || rig.log.lines().len() == 1).await;
    let line = &rig.log.lines()[0];
    assert_eq!(line["peer"], "192.0.2.7:4711");
    assert_eq!(line["bytes_received"].as_u64(), Some(sent.len() as u64));
}

#[tokio::test]
async fn what_cannot_be_routed_goes_nowhere_and_is_counted_by_why() {
    let ca = Authority::new();
    let (backend, kept) = keeping().await;
    let clusters = [("web", backend.address)];
    let routes = [("server_names: [a.example]", "web")];
    let text = config(&routes, "", &clusters);
    let mut rig = Rig::start(&text).await;
    let edge = rig.address("edge");

    let refused = try_connect(ca.client(None), edge, "b.example").await;
    let text_of = refused.unwrap_err().to_string();
    assert!(text_of.contains("UnrecognisedName"), "{text_of}");
    let refused = try_connect(ca.client(None), edge, "127.0.0.1").await;
    assert!(refused.is_err());
    rig.counts("http_downstream_rq_flags_total", "\"NR\"", 2.0)
        .await;

    let whole = hello(&ca, "a.example");
    let mut endless = whole.clone();
    endless[6] = 0xff;
    let twice = [&whole[..], &whole].concat();
    let mut broken = whole.clone();
    broken[5 + 4 + 2 + 32] = 33;
    for (bytes, result) in [
        (
            b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n".to_vec(),
            "tls_not_found",
        ),
        (b"\x80\x2e\x01\x03\x01".to_vec(), "tls_not_found"),
        (b"\x15\x03\x01\x00\x02\x01\x00".to_vec(), "tls_not_found"),
        (endless, "client_hello_too_large"),
        (broken, "client_hello_malformed"),
        (b"\x16\x03\x01\x00\x00".to_vec(), "client_hello_malformed"),
    ] {
        let labels = format!("\"{result}\"");
        let before = rig.metric("listener_tls_inspector_total", &labels);
        let mut client = Client::connect(edge).await;
        client.stream.write_all(&bytes).await.unwrap();
        assert!(client.ends().await, "{result}");
        rig.counts("listener_tls_inspector_total", &labels, before + 1.0)
            .await;
    }
    rig.counts("http_downstream_rq_flags_total", "\"DPE\"", 6.0)
        .await;
    // Half of it, and no more: whoever leaves, and whoever stays.
    let mut client = Client::connect(edge).await;
    client.stream.write_all(&whole[..50]).await.unwrap();
    client.stream.shutdown().await.unwrap();
    assert!(client.ends().await);
    rig.counts("listener_tls_inspector_total", "\"closed\"", 1.0)
        .await;
    rig.apply(&text.replace("head_timeout: 10s", "head_timeout: 50ms"))
        .await;
    let mut client = Client::connect(edge).await;
    client.stream.write_all(&whole[..50]).await.unwrap();
    assert!(client.ends().await);
    rig.counts("listener_tls_inspector_total", "\"timeout\"", 1.0)
        .await;
    rig.counts("http_downstream_rq_flags_total", "\"RT\"", 1.0)
        .await;
    // Whoever only looks whether somebody is here is no failure.
    let before = rig.metric("listener_tls_inspector_total", "");
    drop(TcpStream::connect(edge).await.unwrap());
    rig.counts("http_downstream_cx_active", "", 0.0).await;
    assert_eq!(rig.metric("listener_tls_inspector_total", ""), before);
    assert!(kept.lock().unwrap().is_empty());

    // Two first messages are one, and something that the upstream will judge.
    let mut client = Client::connect(edge).await;
    client.stream.write_all(&twice).await.unwrap();
    eventually("both", || kept.lock().unwrap().len() == twice.len()).await;
}

#[tokio::test]
async fn connections_outlive_their_route_and_drain_with_their_listener() {
    let ca = Authority::new();
    let first = server(&ca, "a.example").await;
    let second = server(&ca, "b.example").await;
    let clusters = [("first", first.address), ("second", second.address)];
    let to = |cluster| config(&[("server_names: [other.example]", cluster)], "", &clusters);
    let mut rig = Rig::start(&to("first")).await;
    let edge = rig.address("edge");
    let mut old = connect(ca.client(None), edge, "other.example").await;
    hears(&mut old, "a.example").await;
    rig.apply(&to("second")).await;
    let mut new = connect(ca.client(None), edge, "other.example").await;
    hears(&mut new, "b.example").await;
    old.send("still here").await;
    hears(&mut old, "still here").await;

    // One that has not said whole what it wants does not hold the drain up for ever.
    let mut half = Client::connect(edge).await;
    half.stream.write_all(&[0x16, 3, 1]).await.unwrap();
    rig.counts("http_downstream_cx_active", "", 3.0).await;
    rig.apply("kind: Defaults\nname: default\ndrain_timeout: 100ms\n")
        .await;
    assert!(TcpStream::connect(edge).await.is_err());
    old.send("and still").await;
    hears(&mut old, "and still").await;
    assert!(half.ends().await && new.ends().await && old.ends().await);
}
