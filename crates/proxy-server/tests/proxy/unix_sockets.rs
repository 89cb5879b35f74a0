//! Upstreams at Unix sockets of the node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_health::{EndpointKey, Verdict};
use proxy_server::probe::Prober;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::certificates::Authority;
use crate::rig::{Backend, PATIENCE, Rig, compiled, eventually, ok, read_request};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A server at a socket, until it is dropped.
struct Server {
    path: PathBuf,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    fn start<F, W>(path: &Path, serve: F) -> Self
    where
        F: Fn(UnixStream) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let listener = UnixListener::bind(path).unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let count = connections.clone();
        let task = tokio::spawn(async move {
            let mut all = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                all.spawn(serve(stream));
            }
        });
        Self {
            path: path.to_owned(),
            connections,
            task,
        }
    }

    /// One that answers every request with this.
    fn saying(path: &Path, text: &'static str) -> Self {
        Self::start(path, move |mut stream| async move {
            let mut buffer = Vec::new();
            while read_request(&mut stream, &mut buffer, 0).await.is_some() {
                stream.write_all(&ok(text)).await.unwrap();
            }
        })
    }
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    (folder, path)
}

fn config(path: &Path, settings: &str) -> String {
    format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: http\n\
         ---\nkind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes:\n  - to: web\n\
         ---\nkind: Cluster\nname: web\nendpoints: [\"unix:{}\"]\n{settings}\n\
         ---\nkind: Defaults\nname: default\naccess_log: json\n",
        path.display()
    )
}

#[tokio::test]
async fn requests_are_sent_to_a_socket_and_its_connection_is_used_again() {
    let (_folder, path) = folder();
    let server = Server::saying(&path, "hi");
    let rig = Rig::start(&config(&path, "connections: { tcp_keepalive: {} }")).await;
    let mut client = rig.connect().await;
    for _ in 0..3 {
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "hi");
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    eventually("three lines", || rig.log.lines().len() == 3).await;
    let shown = format!("unix:{}", path.display());
    assert_eq!(rig.log.lines()[0]["upstream"], *shown);
}

#[tokio::test]
async fn a_socket_without_a_server_is_a_failure_to_connect_until_there_is_one() {
    let (folder, path) = folder();
    let rig = Rig::start(&config(&path, "")).await;
    let fails = async || {
        let response = rig.get("/").await;
        assert_eq!(response.status, 503);
        let status = response.header("proxy-status")[0].to_owned();
        assert!(status.contains("error=connection_refused"), "{status}");
        // The path is nobody's business outside.
        assert!(
            !format!("{response:?}").contains("app.sock"),
            "{response:?}"
        );
    };
    // There is nothing; a file that is no socket; a socket that was left behind.
    fails().await;
    std::fs::write(&path, "").unwrap();
    fails().await;
    std::fs::remove_file(&path).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    fails().await;
    rig.counts("http_downstream_rq_flags_total", "\"UF\"", 3.0)
        .await;
    std::fs::remove_file(&path).unwrap();
    let _server = Server::saying(&path, "hi");
    assert_eq!(rig.get("/").await.text(), "hi");
    drop(folder);
}

#[tokio::test]
async fn other_endpoints_stand_in_for_a_socket() {
    let (_folder, path) = folder();
    let backend = Backend::saying("other").await;
    let text = config(&path, "balance: round_robin");
    let both = text.replace(
        "endpoints: [",
        &format!("endpoints: [\"{}\", ", backend.address),
    );
    let rig = Rig::start(&both).await;
    for _ in 0..4 {
        assert_eq!(rig.get("/").await.text(), "other");
    }
    assert!(rig.metric("cluster_upstream_cx_connect_fail_total", "") >= 1.0);
}

#[tokio::test]
async fn bytes_and_ends_pass_to_a_socket() {
    let (_folder, path) = folder();
    let _server = Server::start(&path, |mut stream| async move {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes.reverse();
        stream.write_all(&bytes).await.unwrap();
    });
    let rig = Rig::start(&format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: tcp\nto: db\n\
         ---\nkind: Cluster\nname: db\nendpoints: [\"unix:{}\"]\n",
        path.display()
    ))
    .await;
    let sent: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut stream = TcpStream::connect(rig.address("edge")).await.unwrap();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut received)).await;
    read.expect("an answer in time").unwrap();
    received.reverse();
    assert!(received == sent, "{} bytes", received.len());
}

#[tokio::test]
async fn tls_and_http2_are_spoken_over_a_socket_too() {
    let (_folder, path) = folder();
    let ca = Authority::new();
    let own = ca.issue("own", &["app.example"]);
    let acceptor = ca.server_of(&own, &["h2"]);
    let _server = Server::start(&path, move |stream| {
        let accept = acceptor.accept(stream);
        async move {
            let mut connection = h2::server::handshake(accept.await.unwrap()).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let answer = http::Response::builder().status(204).body(()).unwrap();
                respond.send_response(answer, true).unwrap();
            }
        }
    });
    let settings = format!(
        "http: h2\ntls: {{ trusted_ca: {}, sni: app.example }}",
        ca.ca().display()
    );
    let rig = Rig::start(&config(&path, &settings)).await;
    for _ in 0..3 {
        assert_eq!(rig.get("/").await.status, 204);
    }
}

#[tokio::test]
async fn probes_ask_the_socket() {
    let (_folder, path) = folder();
    let server = Server::saying(&path, "ok");
    let config = compiled(&config(
        &path,
        "probe: { http: /, every: 50ms, unhealthy_after: 1, healthy_after: 1 }",
    ));
    let cluster = config.clusters.values().next().unwrap();
    let endpoint = &cluster.endpoints[0];
    let key = EndpointKey {
        cluster: cluster.key.clone(),
        address: endpoint.address,
    };
    let mut probe = cluster.probe.clone().unwrap();
    probe.socket = endpoint.socket.clone();
    let mut prober = Prober::new();
    prober.assign([(key, probe)].into());
    let reports = prober.reports();
    let says = |verdict| {
        let reports = reports.borrow();
        let report = reports.get(&cluster.key);
        report.is_some_and(|report| report.verdicts.get(&endpoint.address) == Some(&verdict))
    };
    eventually("it is healthy", || says(Verdict::Healthy)).await;
    let path = server.path.clone();
    drop(server);
    std::fs::remove_file(&path).unwrap();
    eventually("it is unhealthy", || says(Verdict::Unhealthy)).await;
}
