//! Traffic while everything changes under it: the config, many times a second, certificates, ports,
//! and the nodes themselves.
//!
//! A few seconds of it by default; `SKEIN_CHANGE_SECONDS=300` makes it as long as one likes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rcgen::SanType;
use serde_json::{Value, json};
use store_api::etcdserverpb::{DeleteRangeRequest, PutRequest};
use store_client::{Client, ClientOptions};

use crate::harness::{Authority, Connection, Mesh, Pair, Traffic, Upstream, get, until};

/// So many changes a second are made, if the mesh takes so many.
const CHANGES_PER_SECOND: u32 = 100;
/// As long as nothing else is asked for.
const SECONDS: u64 = 6;
/// How long a request takes that a listener's move shall not cut.
const SLOW: Duration = Duration::from_millis(300);
/// The ports between which a listener moves.
const MOVES: [u16; 2] = [8081, 8082];

#[test]
fn nothing_is_lost_while_everything_changes() {
    let seconds = std::env::var("SKEIN_CHANGE_SECONDS").map_or(SECONDS, |text| {
        text.parse().expect("SKEIN_CHANGE_SECONDS is a number")
    });
    let lasting = Duration::from_secs(seconds);
    let mut mesh = Mesh::start(3);
    let upstreams = ["one", "two"].map(|name| {
        let at = if name == "one" { 101 } else { 102 };
        Upstream::start(name, (mesh.subnet.ip(at), 8000))
    });
    let far = Far::start((mesh.subnet.ip(103), 8000).into());
    let ca = Authority::new(mesh.dir.path(), "ca");
    let pair = issue(&ca, "serving");
    let world = World {
        upstreams: upstreams.each_ref().map(|one| one.address),
        far: far.address,
        secure: mesh.at(8443),
        pair: pair.clone(),
        ca: ca.ca().to_owned(),
    };
    mesh.apply(&world.yaml());

    let stays: Vec<SocketAddr> = mesh.nodes[..2].iter().map(|node| node.at(8080)).collect();
    let plain = Traffic::start(&stays, "plain.test");
    let over_tls = Traffic::start(&stays, "secure.test");
    let mut sessions: Vec<Session> = stays.iter().map(|&at| Session::websocket(at)).collect();
    sessions.extend(
        mesh.nodes[..2]
            .iter()
            .map(|node| Session::tcp(node.at(9000))),
    );
    let long = stays.iter().map(|&at| long_answer(at)).collect::<Vec<_>>();

    let changes = Changes::start(&mesh, world);
    let mover = Mover::start(&mesh, Arc::clone(&changes.stop));
    let until_when = Instant::now() + lasting;
    let mut rounds = 0;
    while Instant::now() < until_when || rounds == 0 {
        // A new certificate and a new key, for the listener that all of `secure.test` goes through.
        issue(&ca, &format!("next-{rounds}")).replace(&pair);
        // The third node leaves in good order and returns: its traffic is others', and theirs stays.
        assert!(mesh.nodes[2].stop().success(), "it stops in order");
        plain.wait_for(50);
        mesh.nodes[2].start();
        let back = mesh.nodes[2].at(8080);
        until("it serves again", || {
            get(back, "plain.test", "/").is_ok_and(|answer| answer.status == 200)
        });
        over_tls.wait_for(50);
        sessions.iter_mut().for_each(Session::talk);
        rounds += 1;
    }
    let moves = mover.stop();
    let made = changes.stop();
    far.finish.store(true, Ordering::Relaxed);
    let (plain, over_tls) = (plain.stop_unharmed(), over_tls.stop_unharmed());
    sessions.iter_mut().for_each(Session::talk);
    for one in long {
        one.join().expect("the long answer came whole");
    }
    println!(
        "{seconds} s: {made} changes, {moves} moves of a listener, {rounds} times a node left and \
         returned; {:?} and over TLS {:?} answered",
        plain.by, over_tls.by
    );
    assert!(made > 10 && moves > 1, "{made} changes, {moves} moves");
    mesh.wait_synced();
    ends_when_its_listener_does(&mesh, sessions);
}

/// What removes a session ends it, after the time for draining.
fn ends_when_its_listener_does(mesh: &Mesh, sessions: Vec<Session>) {
    mesh.apply("kind: Defaults\ndrain_timeout: 100ms\n");
    for (kind, name) in [
        ("VirtualHost", "outer"),
        ("VirtualHost", "through"),
        ("Listener", "raw"),
        ("Listener", "web"),
    ] {
        mesh.skein(&["config", "delete", kind, name]).ok();
    }
    for session in sessions {
        session.ends();
    }
}

fn issue(ca: &Authority, name: &str) -> Pair {
    ca.issue_with(name, &[], |parameters| {
        let name = "secure.test".try_into().expect("a name");
        parameters.subject_alt_names = vec![SanType::DnsName(name)];
    })
}

fn client(endpoints: &str) -> Client {
    let options = ClientOptions {
        deadline: Duration::from_secs(20),
        ..ClientOptions::default()
    };
    let endpoints: Vec<String> = endpoints.split(',').map(str::to_owned).collect();
    Client::new(&endpoints, options).expect("good endpoints")
}

/// What the config speaks of.
struct World {
    upstreams: [SocketAddr; 2],
    far: SocketAddr,
    secure: Vec<SocketAddr>,
    pair: Pair,
    ca: String,
}

impl World {
    fn yaml(&self) -> String {
        let all = [
            json!({"kind": "Listener", "name": "web", "bind": ":8080", "protocol": "http"}),
            self.moving(0),
            json!({"kind": "Listener", "name": "raw", "bind": ":9000", "protocol": "tcp", "to": "far"}),
            json!({
                "kind": "Listener", "name": "secure", "bind": ":8443", "protocol": "http",
                "tls": {"certificates": [
                    {"certificate_chain": self.pair.cert, "private_key": self.pair.key}
                ]}
            }),
            self.host(0),
            json!({
                "kind": "VirtualHost", "name": "through", "domains": ["secure.test"],
                "listeners": ["web"], "routes": [{"to": "secure"}]
            }),
            json!({
                "kind": "VirtualHost", "name": "inner", "domains": ["*"], "listeners": ["secure"],
                "routes": [{"to": "all"}]
            }),
            self.all(0),
            json!({"kind": "Cluster", "name": "far", "endpoints": [self.far.to_string()]}),
            json!({
                "kind": "Cluster", "name": "secure",
                "endpoints": self.secure.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "tls": {"trusted_ca": self.ca, "sni": "secure.test"}
            }),
        ];
        let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
        texts.join("\n---\n")
    }

    fn moving(&self, at: usize) -> Value {
        let bind = format!(":{}", MOVES[at % 2]);
        json!({"kind": "Listener", "name": "moves", "bind": bind, "protocol": "http"})
    }

    fn host(&self, at: u32) -> Value {
        let timeout = format!("{}s", 30 + at % 7);
        json!({
            "kind": "VirtualHost", "name": "outer", "domains": ["*"], "listeners": ["web", "moves"],
            "routes": [
                {"match": {"path": "/socket"}, "to": "far", "upgrades": ["websocket"]},
                {"match": {"path_prefix": "/far"}, "to": "far", "timeout": "0s"},
                {"to": "all", "timeout": timeout}
            ]
        })
    }

    fn all(&self, at: u32) -> Value {
        let weights = [1 + at % 3, 1 + at % 2];
        let endpoints = self.upstreams.iter().zip(weights);
        let endpoints: Vec<Value> = endpoints
            .map(|(one, weight)| json!({"address": one.to_string(), "weight": weight}))
            .collect();
        json!({"kind": "Cluster", "name": "all", "endpoints": endpoints})
    }

    /// The change of this number.
    fn change(&self, at: u32) -> (String, Option<Value>) {
        let written = |value: Value| {
            let text = |field: &str| value[field].as_str().expect("text").to_owned();
            (key(&text("kind"), &text("name")), Some(value))
        };
        match at % 6 {
            0 => written(self.host(at)),
            1 => written(self.all(at)),
            2 => {
                let endpoint = format!("10.0.0.1:{}", 1000 + at % 1000);
                let name = format!("extra{}", at % 36);
                written(json!({"kind": "Cluster", "name": name, "endpoints": [endpoint]}))
            }
            3 => (
                key("Cluster", &format!("extra{}", at.wrapping_sub(1) % 36)),
                None,
            ),
            4 => written(json!({
                "kind": "Listener", "name": "web", "bind": ":8080", "protocol": "http",
                "headers": {"response": {"set": {"x-change": at.to_string()}}}
            })),
            _ => written(json!({
                "kind": "Cluster", "name": "far", "endpoints": [self.far.to_string()],
                "limits": {"connections": 1000 + at % 5}
            })),
        }
    }
}

fn key(kind: &str, name: &str) -> String {
    format!("/skein/config/default/{kind}/{name}")
}

fn put(value: &Value) -> PutRequest {
    let mut value = value.clone();
    value["schema"] = 1.into();
    value["namespace"] = "default".into();
    let text = |field: &str| value[field].as_str().expect("text");
    PutRequest {
        key: key(text("kind"), text("name")).into(),
        value: value.to_string().into(),
        ..Default::default()
    }
}

/// Who changes the config all the time.
struct Changes {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Changes {
    fn start(mesh: &Mesh, world: World) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let endpoints = mesh.endpoints();
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || change(&endpoints, &world, &stop)
        });
        Self { stop, thread }
    }

    /// How many there were.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no change fails")
    }
}

#[tokio::main(flavor = "current_thread")]
async fn change(endpoints: &str, world: &World, stop: &AtomicBool) -> usize {
    let client = client(endpoints);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CHANGES_PER_SECOND);
    let mut made = 0;
    for at in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        ticks.tick().await;
        let (key, value) = world.change(at);
        match value {
            Some(value) => drop(client.put(put(&value)).await.expect("it is written")),
            None => {
                let request = DeleteRangeRequest {
                    key: key.into(),
                    ..Default::default()
                };
                drop(client.delete_range(request).await.expect("it is deleted"));
            }
        }
        made += 1;
    }
    made
}

/// Who moves a listener to another port and back, over and over.
struct Mover {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Mover {
    fn start(mesh: &Mesh, stop: Arc<AtomicBool>) -> Self {
        let (endpoints, node) = (mesh.endpoints(), &mesh.nodes[0]);
        let addresses = MOVES.map(|port| node.at(port));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || moves(&endpoints, addresses, &stop)
        });
        Self { stop, thread }
    }

    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every move goes well")
    }
}

/// A request that is under way when its listener moves is answered; whoever comes then is served at
/// the new port.
#[tokio::main(flavor = "current_thread")]
async fn moves(endpoints: &str, addresses: [SocketAddr; 2], stop: &AtomicBool) -> usize {
    let client = client(endpoints);
    let mut made = 0;
    while !stop.load(Ordering::Relaxed) || made < 2 {
        let (from, to) = (addresses[made % 2], addresses[(made + 1) % 2]);
        let mut under_way = Connection::open(from).expect("it listens there");
        let slow = format!(
            "GET /far/{} HTTP/1.1\r\nhost: any\r\n\r\n",
            SLOW.as_millis()
        );
        under_way.send(slow.as_bytes()).expect("sent");
        let bind = format!(":{}", to.port());
        let moved = json!({"kind": "Listener", "name": "moves", "bind": bind, "protocol": "http"});
        client.put(put(&moved)).await.expect("it is written");
        let answer = under_way.answer().expect("it is answered on the old port");
        assert_eq!(answer.status, 200, "{answer:?}");
        until("the new port serves", || {
            get(to, "plain.test", "/").is_ok_and(|answer| answer.status == 200)
        });
        made += 1;
    }
    made
}

/// An upstream for what lasts: it echoes after an upgrade and on plain connections, answers slowly
/// when it is asked to, and gives one answer that does not end before it is told to.
struct Far {
    address: SocketAddr,
    finish: Arc<AtomicBool>,
}

impl Far {
    fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("the address is free");
        let finish = Arc::<AtomicBool>::default();
        std::thread::spawn({
            let finish = Arc::clone(&finish);
            move || {
                for stream in listener.incoming().flatten() {
                    let finish = Arc::clone(&finish);
                    // Whoever goes away ends it.
                    std::thread::spawn(move || drop(serve(stream, &finish)));
                }
            }
        });
        Self { address, finish }
    }
}

fn serve(mut stream: TcpStream, finish: &AtomicBool) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
            if !b"GET ".starts_with(&head[..head.len().min(4)]) {
                stream.write_all(&head)?;
                return echo(stream);
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path.strip_prefix("/far/").map(str::parse) {
            Some(Ok(millis)) => {
                std::thread::sleep(Duration::from_millis(millis));
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
            }
            Some(Err(_)) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                while !finish.load(Ordering::Relaxed) {
                    stream.write_all(b"4\r\nmore\r\n")?;
                    std::thread::sleep(Duration::from_millis(50));
                }
                stream.write_all(b"0\r\n\r\n")?;
            }
            None => {
                stream.write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                      upgrade: websocket\r\n\r\n",
                )?;
                return echo(stream);
            }
        }
    }
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; 1024];
    loop {
        let read = stream.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..read])?;
    }
}

/// A connection that lasts, to whoever echoes.
struct Session {
    stream: TcpStream,
    said: u32,
}

impl Session {
    fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("set");
        Self { stream, said: 0 }
    }

    fn websocket(address: SocketAddr) -> Self {
        let mut session = Self::tcp(address);
        let ask = "GET /socket HTTP/1.1\r\nhost: any\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        session.stream.write_all(ask.as_bytes()).expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            session.stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        session
    }

    /// It is still there, and nothing was lost on the way.
    fn talk(&mut self) {
        self.said += 1;
        let word = format!("word {:08}", self.said);
        self.stream.write_all(word.as_bytes()).expect("it stands");
        let mut back = vec![0; word.len()];
        self.stream.read_exact(&mut back).expect("it stands");
        assert_eq!(String::from_utf8_lossy(&back), word);
    }

    /// The other side ends it.
    fn ends(mut self) {
        match self.stream.read(&mut [0; 16]) {
            Ok(0) => {}
            Ok(read) => panic!("{read} bytes that nobody sent"),
            Err(fault) => assert_eq!(fault.kind(), std::io::ErrorKind::ConnectionReset, "{fault}"),
        }
    }
}

/// An answer that lasts as long as everything changes, read to its proper end.
fn long_answer(address: SocketAddr) -> JoinHandle<()> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream
        .write_all(b"GET /far/long HTTP/1.1\r\nhost: any\r\nconnection: close\r\n\r\n")
        .expect("sent");
    std::thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("it is not cut");
        assert!(
            all.starts_with(b"HTTP/1.1 200 "),
            "{}",
            String::from_utf8_lossy(&all)
        );
        assert!(all.ends_with(b"\r\n0\r\n\r\n"), "it was cut");
    })
}
