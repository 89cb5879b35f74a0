//! UDP listeners: sessions, their bounds and their end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::rig::{Backend, PATIENCE, Rig, eventually, fresh_address, ok};

/// A server that answers each datagram with its name and what it was sent.
struct Server {
    address: SocketAddr,
    clients: Arc<Mutex<BTreeSet<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(address: &str, name: &'static str) -> Self {
        let socket = UdpSocket::bind(address).await.unwrap();
        let address = socket.local_addr().unwrap();
        let clients: Arc<Mutex<BTreeSet<SocketAddr>>> = Arc::default();
        let known = clients.clone();
        let task = tokio::spawn(async move {
            let mut room = vec![0; 1 << 16];
            loop {
                let Ok((count, client)) = socket.recv_from(&mut room).await else {
                    continue;
                };
                known.lock().unwrap().insert(client);
                let answer = [name.as_bytes(), &room[..count]].concat();
                let _ = socket.send_to(&answer, client).await;
            }
        });
        Self {
            address,
            clients,
            task,
        }
    }

    async fn named(name: &'static str) -> Self {
        Self::start("127.0.0.1:0", name).await
    }

    /// How many sockets spoke to it.
    fn clients(&self) -> usize {
        self.clients.lock().unwrap().len()
    }
}

fn config(listener: &str, cluster: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: udp\nto: dns\n{listener}\n\
         ---\nkind: Cluster\nname: dns\nendpoints: [{}]\n{cluster}\n\
         ---\nkind: Defaults\nname: default\naccess_log: json\n",
        endpoints.join(", ")
    )
}

/// A client that hears the proxy alone.
async fn client(to: SocketAddr) -> UdpSocket {
    let own = if to.is_ipv4() {
        "127.0.0.1:0"
    } else {
        "[::1]:0"
    };
    let socket = UdpSocket::bind(own).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

async fn hear(client: &UdpSocket) -> Vec<u8> {
    let mut room = vec![0; 1 << 16];
    let heard = timeout(PATIENCE, client.recv(&mut room)).await;
    let count = heard.expect("an answer in time").unwrap();
    room.truncate(count);
    room
}

async fn ask(client: &UdpSocket, text: &str) -> String {
    client.send(text.as_bytes()).await.unwrap();
    String::from_utf8(hear(client).await).unwrap()
}

#[tokio::test]
async fn a_clients_datagrams_are_a_session_with_one_endpoint() {
    let server = Server::named("a:").await;
    let rig = Rig::start(&config("", "", &[server.address])).await;
    let edge = rig.address("edge");
    let (one, other) = (client(edge).await, client(edge).await);
    for _ in 0..3 {
        assert_eq!(ask(&one, "x").await, "a:x");
        assert_eq!(ask(&other, "yy").await, "a:yy");
    }
    assert_eq!(ask(&one, "").await, "a:");
    // Each client has a socket of its own towards the upstream.
    assert_eq!(server.clients(), 2);
    // The largest that the loopback takes, and one that the server's answer makes too large.
    let large = vec![7; 60_000];
    one.send(&large).await.unwrap();
    assert_eq!(hear(&one).await.len(), large.len() + 2);

    rig.counts("http_downstream_cx_active", "", 2.0).await;
    assert_eq!(rig.metric("cluster_upstream_cx_active", ""), 2.0);
    rig.counts("udp_downstream_sess_rx_datagrams_total", "\"edge\"", 8.0)
        .await;
    assert_eq!(
        rig.metric("udp_downstream_sess_tx_datagrams_total", ""),
        8.0
    );
    assert_eq!(
        rig.metric("udp_downstream_sess_dropped_datagrams_total", ""),
        0.0
    );
}

#[tokio::test]
async fn silence_ends_a_session_and_the_next_datagram_begins_another() {
    let server = Server::named("").await;
    let rig = Rig::start(&config("idle_timeout: 100ms", "", &[server.address])).await;
    let one = client(rig.address("edge")).await;
    assert_eq!(ask(&one, "first").await, "first");
    assert_eq!(ask(&one, "second").await, "second");
    rig.counts("udp_downstream_sess_idle_timeout_total", "", 1.0)
        .await;
    rig.counts("cluster_upstream_cx_active", "", 0.0).await;
    assert_eq!(ask(&one, "third").await, "third");
    assert_eq!(server.clients(), 2);
    eventually("a line", || !rig.log.lines().is_empty()).await;
    let line = &rig.log.lines()[0];
    assert_eq!(
        (&line["protocol"], &line["flags"], &line["cluster"]),
        (&"UDP".into(), &"-".into(), &"dns".into())
    );
    assert_eq!(line["datagrams_received"], 2);
    assert_eq!(line["bytes_sent"], 11);
    assert_eq!(line["upstream"], server.address.to_string());
    assert_eq!(line["peer"], one.local_addr().unwrap().to_string());
}

#[tokio::test]
async fn more_sessions_than_the_limit_are_not_begun() {
    let server = Server::named("").await;
    let limits = "limits: { connections: 1 }";
    let rig = Rig::start(&config("", limits, &[server.address])).await;
    let edge = rig.address("edge");
    let (one, other) = (client(edge).await, client(edge).await);
    assert_eq!(ask(&one, "x").await, "x");
    other.send(b"y").await.unwrap();
    rig.counts("http_downstream_rq_flags_total", "\"UO\"", 1.0)
        .await;
    rig.counts("udp_downstream_sess_dropped_datagrams_total", "", 1.0)
        .await;
    assert_eq!(rig.metric("cluster_upstream_cx_overflow_total", ""), 1.0);
    // Who has one keeps it.
    assert_eq!(ask(&one, "z").await, "z");
    assert_eq!(server.clients(), 1);
}

#[tokio::test]
async fn an_endpoint_that_refuses_loses_the_session() {
    let server = Server::named("").await;
    let endpoints = [fresh_address(), server.address];
    let rig = Rig::start(&config("", "balance: round_robin", &endpoints)).await;
    let one = client(rig.address("edge")).await;
    // Whichever comes first: what was sent to nobody is lost, and the next one may go elsewhere.
    let answer = async {
        loop {
            one.send(b"x").await.unwrap();
            let mut room = [0; 16];
            let wait = std::time::Duration::from_millis(50);
            if let Ok(Ok(count)) = timeout(wait, one.recv(&mut room)).await {
                return room[..count].to_vec();
            }
        }
    };
    assert_eq!(timeout(PATIENCE, answer).await.unwrap(), b"x");
    // With nobody else, every session ends so.
    let rig = Rig::start(&config("", "", &endpoints[..1])).await;
    let one = client(rig.address("edge")).await;
    one.send(b"x").await.unwrap();
    rig.counts("http_downstream_rq_flags_total", "\"UF\"", 1.0)
        .await;
    rig.counts("http_downstream_cx_active", "", 0.0).await;
    assert_eq!(
        rig.metric("cluster_upstream_cx_connect_fail_total", ""),
        1.0
    );
    eventually("a line", || rig.log.lines().len() == 1).await;
    assert_eq!(rig.log.lines()[0]["flags"], "UF");
}

#[tokio::test]
async fn other_endpoints_are_for_new_sessions() {
    let (old, new) = (Server::named("old").await, Server::named("new").await);
    let mut rig = Rig::start(&config("", "", &[old.address])).await;
    let edge = rig.address("edge");
    let one = client(edge).await;
    assert_eq!(ask(&one, "").await, "old");
    rig.apply(&config("", "", &[new.address])).await;
    assert_eq!(ask(&one, "").await, "old");
    let other = client(edge).await;
    assert_eq!(ask(&other, "").await, "new");
}

#[tokio::test]
async fn clients_alike_go_to_the_same_endpoint() {
    let (a, b) = (Server::named("a").await, Server::named("b").await);
    let rig = Rig::start(&config("", "balance: ip_hash", &[a.address, b.address])).await;
    let edge = rig.address("edge");
    let first = ask(&client(edge).await, "").await;
    for _ in 0..10 {
        assert_eq!(ask(&client(edge).await, "").await, first);
    }
}

#[tokio::test]
async fn a_listener_that_goes_answers_who_has_a_session_and_nobody_else() {
    let server = Server::named("").await;
    let text = config("", "", &[server.address]);
    let mut rig = Rig::start(&text).await;
    let edge = rig.address("edge");
    let one = client(edge).await;
    assert_eq!(ask(&one, "x").await, "x");
    rig.apply("kind: Defaults\nname: default\n").await;
    assert_eq!(ask(&one, "still").await, "still");
    client(edge).await.send(b"new").await.unwrap();
    // The address comes back at once, with whoever it serves now.
    let outcomes = rig.apply(&text).await;
    assert_eq!(outcomes[0].result, Ok(edge));
    assert_eq!(ask(&one, "again").await, "again");
    assert_eq!(server.clients(), 2);

    // A deadline ends what goes on.
    rig.apply("kind: Defaults\nname: default\ndrain_timeout: 50ms\n")
        .await;
    let closed = async {
        // Once nobody is there, the system says so.
        while one.send(b"x").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, closed).await.expect("it closes");
}

#[tokio::test]
async fn one_port_has_room_for_both_transports() {
    let server = Server::named("udp:").await;
    let backend = Backend::http(|_| ok("tcp")).await;
    let both = format!(
        "{}---\nkind: Listener\nname: web\nbind: \"EDGE\"\nprotocol: tcp\nto: web\n\
         ---\nkind: Cluster\nname: web\nendpoints: [\"{}\"]\n",
        config("", "", &[server.address]),
        backend.address
    );
    let mut rig = Rig::start(&both).await;
    let edge = rig.address("edge");
    assert_eq!(rig.address("web"), edge);
    assert_eq!(ask(&client(edge).await, "x").await, "udp:x");
    assert_eq!(rig.get("/").await.text(), "tcp");
    // One may become the other.
    let swapped = both
        .replace("protocol: udp", "protocol: none")
        .replace("protocol: tcp", "protocol: udp")
        .replace("protocol: none", "protocol: tcp")
        .replace("to: web", "to: other")
        .replace("to: dns", "to: web")
        .replace("to: other", "to: dns");
    let outcomes = rig.apply(&swapped).await;
    assert!(
        outcomes.iter().all(|one| one.result == Ok(edge)),
        "{outcomes:?}"
    );
    assert_eq!(ask(&client(edge).await, "x").await, "udp:x");
    assert_eq!(rig.get("/").await.text(), "tcp");
}

#[tokio::test]
async fn ipv6_on_both_sides() {
    let server = Server::start("[::1]:0", "six:").await;
    let free = UdpSocket::bind("[::1]:0").await.unwrap();
    let edge = free.local_addr().unwrap();
    drop(free);
    let text = config("", "", &[server.address]).replace("EDGE", &edge.to_string());
    let rig = Rig::start(&text).await;
    assert_eq!(ask(&client(rig.address("edge")).await, "x").await, "six:x");
}
