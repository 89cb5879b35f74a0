//! Upstreams that are told who their client is, by the PROXY protocol.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use mesh_health::EndpointKey;
use proxy_server::probe::Prober;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::certificates::Authority;
use crate::rig::{Backend, Client, PATIENCE, Rig, compiled, config, eventually, ok};
use crate::streams;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// The headers of all connections so far, as text of version 1.
#[derive(Clone, Default)]
struct Headers(Arc<Mutex<Vec<String>>>);

impl Headers {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Reads one, and nothing behind it.
    async fn read(&self, stream: &mut TcpStream) -> Option<()> {
        let mut bytes = vec![stream.read_u8().await.ok()?];
        let text = if bytes == b"P" {
            while !bytes.ends_with(b"\r\n") {
                bytes.push(stream.read_u8().await.ok()?);
            }
            String::from_utf8(bytes).unwrap().trim_end().to_owned()
        } else {
            let mut rest = [0; 15];
            stream.read_exact(&mut rest).await.ok()?;
            assert_eq!(&rest[..11], b"\n\r\n\0\r\nQUIT\n");
            let mut addresses = vec![0; usize::from(rest[14])];
            stream.read_exact(&mut addresses).await.ok()?;
            match (rest[11], rest[12], &addresses[..]) {
                (0x20, 0, []) => "LOCAL".to_owned(),
                (0x21, 0x11, [a, b, c, d, e, f, g, h, p, q, r, s]) => {
                    let ports = [[*p, *q], [*r, *s]].map(u16::from_be_bytes);
                    let [from, to] = ports;
                    format!("PROXY TCP4 {a}.{b}.{c}.{d} {e}.{f}.{g}.{h} {from} {to}")
                }
                other => panic!("{other:?}"),
            }
        };
        self.0.lock().unwrap().push(text);
        Some(())
    }

    /// A server that reads one before each connection's requests, if it is there, and says hi.
    async fn serving(&self) -> Backend {
        let headers = self.clone();
        let open = move |mut stream: TcpStream| {
            let headers = headers.clone();
            async move {
                let mut first = [0];
                stream.peek(&mut first).await.ok()?;
                if &first != b"G" {
                    headers.read(&mut stream).await?;
                }
                Some(stream)
            }
        };
        Backend::http_over(open, |_| ok("hi")).await
    }
}

/// The line that tells of this connection.
fn line(client: &TcpStream, local: SocketAddr) -> String {
    let own = client.local_addr().unwrap();
    let (from, to) = (own.port(), local.port());
    format!("PROXY TCP4 {} {} {from} {to}", own.ip(), local.ip())
}

#[tokio::test]
async fn a_connection_is_introduced_as_its_client_and_serves_no_other() {
    for version in ["v1", "v2"] {
        let headers = Headers::default();
        let backend = headers.serving().await;
        let cluster = format!("proxy_protocol: {version}");
        let rig = Rig::start(&config("", &cluster, &[backend.address])).await;
        let edge = rig.address("edge");
        let mut clients = [rig.connect().await, rig.connect().await];
        for _ in 0..3 {
            for client in &mut clients {
                client.send(GET).await;
                assert_eq!(client.response().await.text(), "hi");
            }
        }
        let expected: Vec<_> = clients.iter().map(|one| line(&one.stream, edge)).collect();
        assert_eq!(headers.all(), expected);
        let used: Vec<_> = backend.seen().iter().map(|seen| seen.connection).collect();
        assert_eq!(used, [0, 1, 0, 1, 0, 1]);
        // A client of HTTP/2 has one of its own as well.
        let stream = TcpStream::connect(edge).await.unwrap();
        let told = line(&stream, edge);
        let client = streams::Client::on(stream).await;
        assert_eq!(client.get("/").await.text(), "hi");
        assert_eq!(client.get("/").await.text(), "hi");
        assert_eq!(headers.all()[2..], [told]);
    }
}

#[tokio::test]
async fn who_was_introduced_here_is_introduced_there() {
    let headers = Headers::default();
    let backend = headers.serving().await;
    // Where a listener has all addresses, the one that was asked is told.
    let port = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let everywhere = port.local_addr().unwrap();
    drop(port);
    let text = config("", "proxy_protocol: v1", &[backend.address])
        .replace("protocol: http", "protocol: http\nproxy_protocol: optional")
        .replace("EDGE", &everywhere.to_string());
    let rig = Rig::start(&text).await;
    assert_eq!(rig.address("edge"), everywhere);
    let local = SocketAddr::from(([127, 0, 0, 1], everywhere.port()));
    let mut client = Client::connect(local).await;
    client
        .send(&format!("PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\n{GET}"))
        .await;
    assert_eq!(client.response().await.text(), "hi");
    let mut client = Client::connect(local).await;
    client
        .send("PROXY TCP6 2001:db8::7 2001:db8::8 4711 80\r\n")
        .await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "hi");
    let port = local.port();
    assert_eq!(
        headers.all(),
        [
            format!("PROXY TCP4 192.0.2.7 127.0.0.1 4711 {port}"),
            format!("PROXY TCP6 2001:db8::7 ::ffff:127.0.0.1 4711 {port}"),
        ]
    );
}

#[tokio::test]
async fn an_upstream_that_speaks_first_has_its_header_at_once_and_tls_begins_behind_it() {
    let ca = Authority::new();
    let own = ca.issue("own", &["db.example"]);
    let acceptor = ca.server_of(&own, &[]);
    let headers = Headers::default();
    let heard = headers.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let (heard, acceptor) = (heard.clone(), acceptor.clone());
        async move {
            if heard.read(&mut stream).await.is_some() {
                let mut stream = acceptor.accept(stream).await.unwrap();
                stream.write_all(b"welcome").await.unwrap();
                let _ = stream.read(&mut [0]).await;
            }
        }
    })
    .await;
    let rig = Rig::start(&format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: tcp\nto: db\n\
         ---\nkind: Cluster\nname: db\nendpoints: [\"{}\"]\nproxy_protocol: v2\n\
         tls: {{ trusted_ca: {}, sni: db.example }}\n",
        backend.address,
        ca.ca().display()
    ))
    .await;
    let mut stream = TcpStream::connect(rig.address("edge")).await.unwrap();
    let mut greeting = [0; 7];
    let read = timeout(PATIENCE, stream.read_exact(&mut greeting)).await;
    read.expect("a greeting in time").unwrap();
    assert_eq!(&greeting, b"welcome");
    assert_eq!(headers.all(), [line(&stream, rig.address("edge"))]);
}

#[tokio::test]
async fn a_cluster_that_is_told_no_more_begins_anew() {
    let headers = Headers::default();
    let backend = headers.serving().await;
    let told = config("", "proxy_protocol: v1", &[backend.address]);
    let mut rig = Rig::start(&told).await;
    let mut client = rig.connect().await;
    for text in [&told, &told, &config("", "", &[backend.address]), &told] {
        rig.apply(text).await;
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "hi");
    }
    // What is idle there was begun in another way.
    let used: Vec<_> = backend.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(used, [0, 0, 1, 2]);
    assert_eq!(headers.all().len(), 2);
}

#[tokio::test]
async fn probes_speak_for_themselves() {
    for (version, expected) in [("v1", "PROXY UNKNOWN"), ("v2", "LOCAL")] {
        let headers = Headers::default();
        let backend = headers.serving().await;
        let cluster = format!("proxy_protocol: {version}\nprobe: {{ http: /, every: 50ms }}");
        let config = compiled(&config("", &cluster, &[backend.address]));
        let cluster = config.clusters.values().next().unwrap();
        let key = EndpointKey {
            cluster: cluster.key.clone(),
            address: backend.address,
        };
        let mut prober = Prober::new();
        prober.assign([(key, cluster.probe.clone().unwrap())].into());
        eventually("a probe", || !backend.seen().is_empty()).await;
        assert_eq!(headers.all()[0], expected);
    }
}
