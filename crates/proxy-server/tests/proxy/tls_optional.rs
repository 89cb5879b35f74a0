//! Listeners that tell TLS from plain, and HTTP/1 from HTTP/2, by how a connection begins.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::certificates::{Authority, connect, try_connect};
use crate::rig::{Backend, Client, Rig, config, ok};
use crate::streams;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const V1: &str = "PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\n";

/// An http listener whose clients may speak TLS.
fn listener(ca: &Authority, settings: &str, backend: &Backend) -> String {
    let own = ca.issue("own", &["a.example"]);
    let with = format!(
        "protocol: http\ntls: {{ mode: optional, handshake_timeout: 50ms, certificates: [{}] }}\n{settings}",
        own.yaml()
    );
    config("", "", &[backend.address]).replace("protocol: http", &with)
}

#[tokio::test]
async fn one_port_serves_every_combination() {
    let ca = Authority::new();
    let backend = Backend::saying("hi").await;
    let rig = Rig::start(&listener(&ca, "", &backend)).await;
    let edge = rig.address("edge");
    let scheme = || backend.seen().pop().unwrap().header("x-forwarded-proto")[0].to_owned();

    let mut client = Client::connect(edge).await;
    for _ in 0..2 {
        // The first byte alone tells, and so it comes alone.
        client.send("G").await;
        tokio::task::yield_now().await;
        client.send(&GET[1..]).await;
        assert_eq!(client.response().await.text(), "hi");
        assert_eq!(scheme(), "http");
    }
    let client = streams::Client::connect(edge).await;
    assert_eq!(client.get("/").await.text(), "hi");
    assert_eq!(scheme(), "http");

    let mut client = connect(ca.client(None), edge, "a.example").await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "hi");
    assert_eq!(scheme(), "https");
    let mut config = ca.client(None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = try_connect(config, edge, "a.example").await.unwrap();
    let client = streams::Client::on(stream).await;
    assert_eq!(client.get("/").await.text(), "hi");
    assert_eq!(scheme(), "https");
    assert_eq!(rig.metric("listener_ssl_handshake_total", ""), 2.0);
    assert_eq!(rig.metric("listener_ssl_connection_error_total", ""), 0.0);
}

#[tokio::test]
async fn what_begins_like_tls_has_to_be_tls() {
    let ca = Authority::new();
    let backend = Backend::saying("hi").await;
    let rig = Rig::start(&listener(&ca, "", &backend)).await;
    let edge = rig.address("edge");
    // Neither: it is HTTP then, and no good one.
    let mut client = Client::connect(edge).await;
    client.send("\u{15}\u{3}\u{1}\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
    for (bytes, reason) in [
        (&b"\x16GET / HTTP"[..], "not_tls"),
        (b"\x16\x03\x01", "timeout"),
    ] {
        let mut client = Client::connect(edge).await;
        client.stream.write_all(bytes).await.unwrap();
        while !client.ends().await {
            client.buffer.clear();
        }
        let reason = format!("\"{reason}\"");
        rig.counts("listener_ssl_connection_error_total", &reason, 1.0)
            .await;
    }
    // Who says nothing does not stay for ever; who leaves without a word is no failure.
    let mut silent = Client::connect(edge).await;
    assert!(silent.ends().await);
    rig.counts("listener_ssl_connection_error_total", "\"timeout\"", 2.0)
        .await;
    drop(TcpStream::connect(edge).await.unwrap());
    let mut client = Client::connect(edge).await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "hi");
    assert_eq!(rig.metric("listener_ssl_connection_error_total", ""), 3.0);
}

#[tokio::test]
async fn either_may_begin_behind_the_proxy_protocol() {
    let ca = Authority::new();
    let backend = Backend::saying("hi").await;
    let rig = Rig::start(&listener(&ca, "proxy_protocol: required", &backend)).await;
    let edge = rig.address("edge");
    let seen = || backend.seen().pop().unwrap();
    let mut client = Client::connect(edge).await;
    client.send(&format!("{V1}{GET}")).await;
    assert_eq!(client.response().await.text(), "hi");
    assert_eq!(seen().header("x-forwarded-for"), ["192.0.2.7"]);
    let mut stream = TcpStream::connect(edge).await.unwrap();
    stream.write_all(V1.as_bytes()).await.unwrap();
    let connector = TlsConnector::from(std::sync::Arc::new(ca.client(None)));
    let name = ServerName::try_from("a.example").unwrap();
    let mut client = Client::on(connector.connect(name, stream).await.unwrap());
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "hi");
    assert_eq!(seen().header("x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(seen().header("x-forwarded-proto"), ["https"]);
}

#[tokio::test]
async fn a_tcp_listener_may_take_both() {
    let ca = Authority::new();
    let own = ca.issue("own", &["a.example"]);
    let backend = Backend::http(|seen| ok(&seen.head)).await;
    let rig = Rig::start(&format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: tcp\nto: web\n\
         tls: {{ mode: optional, certificates: [{}] }}\n\
         ---\nkind: Cluster\nname: web\nendpoints: [\"{}\"]\n",
        own.yaml(),
        backend.address
    ))
    .await;
    let mut plain = Client::connect(rig.address("edge")).await;
    plain.send(GET).await;
    assert_eq!(plain.response().await.text(), GET.trim_end());
    let mut secured = connect(ca.client(None), rig.address("edge"), "a.example").await;
    secured.send(GET).await;
    assert_eq!(secured.response().await.text(), GET.trim_end());
}
