//! Listeners behind another proxy: whom they take a connection for.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::certificates::Authority;
use crate::rig::{Backend, Client, Rig, config};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const V1: &str = "PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\n";

fn listener(mode: &str, backend: &Backend) -> String {
    let with = format!("protocol: http\nproxy_protocol: {mode}");
    let config = config("", "", &[backend.address]).replace("protocol: http", &with);
    format!("{config}---\nkind: Defaults\nname: default\nhead_timeout: 50ms\n")
}

#[tokio::test]
async fn the_header_tells_who_the_client_is() {
    let backend = Backend::saying("hi").await;
    let mut rig = Rig::start(&listener("required", &backend)).await;
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([192, 0, 2, 9, 192, 0, 2, 8, 0x12, 0x67, 0, 80]);
    let unknown = b"PROXY UNKNOWN\r\n";
    for (header, client) in [
        (V1.as_bytes(), "192.0.2.7"),
        (&v2[..], "192.0.2.9"),
        (unknown, "127.0.0.1"),
    ] {
        // In two pieces, the second one with the request.
        let mut connection = rig.connect().await;
        let (first, rest) = header.split_at(header.len() / 2);
        connection.stream.write_all(first).await.unwrap();
        let rest = [rest, GET.as_bytes()].concat();
        connection.stream.write_all(&rest).await.unwrap();
        assert_eq!(connection.response().await.text(), "hi");
        let seen = backend.seen().pop().unwrap();
        assert_eq!(seen.header("x-forwarded-for"), [client]);
    }
    // Nobody else comes in: without a header, with half of one, with nearly one.
    for bytes in [GET, "PROXY TCP4 192.0.2.7", "PROXY TCP4 a b c d\r\n"] {
        let mut connection = rig.connect().await;
        connection.send(bytes).await;
        assert!(connection.ends().await, "{bytes:?}");
    }
    rig.counts("listener_proxy_protocol_refused_total", "", 3.0)
        .await;
    rig.apply(&listener("optional", &backend)).await;
    for (bytes, client) in [
        (GET.to_owned(), "127.0.0.1"),
        (format!("{V1}{GET}"), "192.0.2.7"),
    ] {
        let mut connection = rig.connect().await;
        connection.send(&bytes).await;
        assert_eq!(connection.response().await.text(), "hi");
        let seen = backend.seen().pop().unwrap();
        assert_eq!(seen.header("x-forwarded-for"), [client]);
    }
}

#[tokio::test]
async fn tls_begins_behind_the_header() {
    let ca = Authority::new();
    let own = ca.issue("own", &["a.example"]);
    let backend = Backend::saying("hi").await;
    let tls = format!("required\ntls: {{ certificates: [{}] }}", own.yaml());
    let rig = Rig::start(&listener(&tls, &backend)).await;
    let mut stream = TcpStream::connect(rig.address("edge")).await.unwrap();
    stream.write_all(V1.as_bytes()).await.unwrap();
    let connector = TlsConnector::from(std::sync::Arc::new(ca.client(None)));
    let name = ServerName::try_from("a.example").unwrap();
    let mut client = Client::on(connector.connect(name, stream).await.unwrap());
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "hi");
    assert_eq!(backend.seen()[0].header("x-forwarded-for"), ["192.0.2.7"]);
}

#[tokio::test]
async fn only_trusted_sources_speak_for_others() {
    let backend = Backend::saying("hi").await;
    let from = |mode: &str, sources: &str| {
        let mode = format!("{{ mode: {mode}, trusted_sources: [{sources}] }}");
        listener(&mode, &backend)
    };
    let mut rig = Rig::start(&from("required", "192.0.2.0/24, \"::/0\"")).await;
    for bytes in [GET.to_owned(), format!("{V1}{GET}")] {
        let mut client = rig.connect().await;
        let _ = client.stream.write_all(bytes.as_bytes()).await;
        assert!(client.ends().await, "{bytes:?}");
    }
    rig.counts("listener_proxy_protocol_refused_total", "", 2.0)
        .await;
    // Where it may be left out, others come for themselves, and what looks like a header is none.
    rig.apply(&from("optional", "192.0.2.0/24")).await;
    let mut client = rig.connect().await;
    client.send(&format!("{V1}{GET}")).await;
    assert_eq!(client.response().await.status, 505);
    let mut client = rig.connect().await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "hi");
    let seen = backend.seen().pop().unwrap();
    assert_eq!(seen.header("x-forwarded-for"), ["127.0.0.1"]);
    for mode in ["optional", "required"] {
        rig.apply(&from(mode, "192.0.2.7, 127.0.0.0/8")).await;
        let mut client = rig.connect().await;
        client.send(&format!("{V1}{GET}")).await;
        assert_eq!(client.response().await.text(), "hi");
        let seen = backend.seen().pop().unwrap();
        assert_eq!(seen.header("x-forwarded-for"), ["192.0.2.7"]);
    }
}
