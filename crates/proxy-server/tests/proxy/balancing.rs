//! Requests that are alike go to the same upstream, whoever takes them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::rig::{Backend, Client, PATIENCE, Rig, config, ok};

/// So many connections are made for the same key. The kernel spreads them over both workers: that
/// one of the workers gets none of 16 happens once in 2^15.
const CONNECTIONS: usize = 16;

/// Upstreams that say their own names.
async fn backends() -> Vec<Backend> {
    let mut backends = Vec::new();
    for name in ["a", "b", "c", "d"] {
        backends.push(Backend::saying(name).await);
    }
    backends
}

fn addresses(backends: &[Backend]) -> Vec<SocketAddr> {
    backends.iter().map(|backend| backend.address).collect()
}

/// The text of the upstream that a request with this field, if any, goes to, on a connection of its
/// own.
async fn home(rig: &Rig, path: &str, field: &str) -> String {
    let mut client = rig.connect().await;
    let field = if field.is_empty() {
        String::new()
    } else {
        format!("{field}\r\n")
    };
    client
        .send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n{field}\r\n"))
        .await;
    client.response().await.text().to_owned()
}

/// The only home that all these requests have, on both workers.
async fn only_home(rig: &Rig, path: &str, field: &str) -> String {
    let home_of_first = home(rig, path, field).await;
    for _ in 1..CONNECTIONS {
        assert_eq!(
            home(rig, path, field).await,
            home_of_first,
            "{path} {field}"
        );
    }
    home_of_first
}

#[tokio::test]
async fn the_same_header_leads_to_the_same_upstream_on_every_worker_and_node() {
    let backends = backends().await;
    for balance in ["ring_hash", "maglev"] {
        let yaml = config(
            "hash: [{ header: x-user }]",
            &format!("balance: {balance}"),
            &addresses(&backends),
        );
        let (node, other_node) = (Rig::start(&yaml).await, Rig::start(&yaml).await);
        let mut homes = BTreeSet::new();
        for user in 0..24 {
            let field = format!("x-user: {user}");
            let home = only_home(&node, "/", &field).await;
            assert_eq!(self::home(&other_node, "/", &field).await, home);
            homes.insert(home);
        }
        assert!(homes.len() >= 3, "{balance}: users spread: {homes:?}");
        let mut anonymous = BTreeSet::new();
        for _ in 0..64 {
            anonymous.insert(home(&node, "/", "").await);
        }
        assert!(anonymous.len() >= 3, "{balance}: {anonymous:?}");
    }
}

#[tokio::test]
async fn a_cookie_that_was_made_leads_back() {
    let backends = backends().await;
    let rig = Rig::start(&config(
        "hash: [{ cookie: { name: sid, ttl: 1h, path: / } }]",
        "balance: maglev",
        &addresses(&backends),
    ))
    .await;
    let mut homes = BTreeSet::new();
    for _ in 0..16 {
        let first = rig.get("/").await;
        let [cookie] = *first.header("set-cookie") else {
            panic!("one cookie is made: {}", first.head);
        };
        let (pair, rest) = cookie.split_once("; ").unwrap();
        assert!(pair.starts_with("sid="), "{cookie}");
        assert_eq!(rest, "Max-Age=3600; Path=/; HttpOnly");
        let field = format!("cookie: theme=dark; {pair}");
        assert_eq!(only_home(&rig, "/", &field).await, first.text());
        homes.insert(first.text().to_owned());
    }
    assert!(homes.len() >= 2, "clients spread: {homes:?}");
    // Who has one gets none.
    let mut client = rig.connect().await;
    client
        .send("GET / HTTP/1.1\r\nhost: a\r\ncookie: sid=1\r\n\r\n")
        .await;
    assert!(client.response().await.header("set-cookie").is_empty());
}

#[tokio::test]
async fn a_query_parameter_counts_unless_a_terminal_header_comes_before() {
    let backends = backends().await;
    let rig = Rig::start(&config(
        "hash: [{ header: x-user, terminal: true }, { query_parameter: user }]",
        "balance: ring_hash",
        &addresses(&backends),
    ))
    .await;
    let (mut by_query, mut by_header) = (BTreeSet::new(), BTreeSet::new());
    for user in 0..16 {
        let path = format!("/?user={user}");
        by_query.insert(only_home(&rig, &path, "").await);
        by_header.insert(home(&rig, &path, "x-user: ann").await);
    }
    assert!(by_query.len() >= 3, "{by_query:?}");
    assert_eq!(by_header.len(), 1, "{by_header:?}");
}

/// A connection from this address.
async fn connect_from(source: &str, address: SocketAddr) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    socket.bind(source).unwrap();
    Client {
        stream: socket.connect(address).await.unwrap(),
        buffer: Vec::new(),
    }
}

#[tokio::test]
async fn a_client_address_leads_to_the_same_upstream() {
    let backends = backends().await;
    let rig = Rig::start(&config(
        "hash: [{ header: x-user }]",
        "balance: ip_hash",
        &addresses(&backends),
    ))
    .await;
    let mut homes = BTreeSet::new();
    for last in 1..17 {
        let mut of_client = BTreeSet::new();
        for user in 0..4 {
            let mut client = connect_from(&format!("127.0.1.{last}"), rig.address("edge")).await;
            client
                .send(&format!(
                    "GET / HTTP/1.1\r\nhost: a\r\nx-user: {user}\r\n\r\n"
                ))
                .await;
            of_client.insert(client.response().await.text().to_owned());
        }
        assert_eq!(of_client.len(), 1, "{of_client:?}");
        homes.append(&mut of_client);
    }
    assert!(homes.len() >= 3, "clients spread: {homes:?}");
}

#[tokio::test]
async fn a_tcp_client_leads_to_the_same_upstream() {
    let mut backends = Vec::new();
    for name in *b"abcd" {
        backends.push(
            Backend::raw(move |mut stream, _| async move {
                use tokio::io::AsyncWriteExt as _;
                let _ = stream.write_all(&[name]).await;
            })
            .await,
        );
    }
    let endpoints: Vec<String> = addresses(&backends)
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    let rig = Rig::start(&format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: tcp\nto: web\n\
         ---\nkind: Cluster\nname: web\nbalance: ip_hash\nendpoints: [{}]\n",
        endpoints.join(", ")
    ))
    .await;
    let mut homes = BTreeSet::new();
    for last in 1..17 {
        let mut of_client = BTreeSet::new();
        for _ in 0..4 {
            let source = format!("127.0.1.{last}");
            let mut client = connect_from(&source, rig.address("edge")).await;
            let byte = timeout(PATIENCE, client.stream.read_u8()).await.unwrap();
            of_client.insert(byte.unwrap());
        }
        assert_eq!(of_client.len(), 1, "{of_client:?}");
        homes.append(&mut of_client);
    }
    assert!(homes.len() >= 3, "clients spread: {homes:?}");
}

#[tokio::test]
async fn the_keys_of_an_endpoint_that_is_gone_go_on_elsewhere() {
    let mut backends = backends().await;
    let rig = Rig::start(&config(
        "hash: [{ header: x-user }]",
        "balance: maglev",
        &addresses(&backends),
    ))
    .await;
    let mut before = Vec::new();
    for user in 0..24 {
        before.push(home(&rig, "/", &format!("x-user: {user}")).await);
    }
    // Its port is free, and its connections are closed.
    let gone = backends.remove(0);
    drop(gone);
    for (user, before) in before.iter().enumerate() {
        let field = format!("x-user: {user}");
        let after = only_home(&rig, "/", &field).await;
        assert!(
            after == *before || before == "a",
            "{user}: {before} {after}"
        );
        assert_ne!(after, "a");
    }
}

#[tokio::test]
async fn peak_ewma_learns_who_answers_late() {
    let quick = Backend::saying("quick").await;
    let late = Backend::raw(|mut stream, connection| async move {
        use tokio::io::AsyncWriteExt as _;
        let mut buffer = Vec::new();
        while crate::rig::read_request(&mut stream, &mut buffer, connection)
            .await
            .is_some()
        {
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
            if stream.write_all(&ok("late")).await.is_err() {
                return;
            }
        }
    })
    .await;
    let endpoints = [quick.address, late.address];
    let rig = Rig::start(&config("", "balance: peak_ewma", &endpoints)).await;
    let mut lates = 0;
    for _ in 0..60 {
        if home(&rig, "/", "").await == "late" {
            lates += 1;
        }
    }
    // Each worker has to learn it once, maybe twice while one request is in flight.
    assert!(lates <= 6, "{lates}");
}
