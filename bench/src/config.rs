//! The time from a change to its being in force on every node, as traffic sees it, and what it costs.
//!
//! Each run makes all traffic go from one upstream to the other, written through another node each
//! time, while one connection per node asks all the time who answers. Owns the two upstreams.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use rand::RngExt;
use serde_json::{Value, json};
use store_api::etcdserverpb::PutRequest;
use store_api::etcdserverpb::kv_client::KvClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::figures::{Durations, cpu_seconds};
use crate::store::connect;

/// How long a connection rests between two questions: the resolution of the figures.
const REST: Duration = Duration::from_millis(1);
/// The time between two changes whose cost is counted.
const PACE: Duration = Duration::from_millis(50);
/// A change that some node does not follow within this time fails the measurement.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the upstreams answer, one letter each: small, and told apart at a glance.
const LETTERS: [char; 2] = ['a', 'b'];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Client addresses of all nodes, HOST:PORT
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// The proxy addresses of all nodes, which differ in the IP alone
    #[arg(long, value_delimiter = ',', required = true)]
    proxies: Vec<SocketAddr>,
    #[arg(long, default_value_t = 200)]
    runs: usize,
    /// What a change changes
    #[arg(long, value_enum, default_value_t = What::Route)]
    what: What,
    /// Processes whose time is counted over as many changes again, while nobody asks
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
}

/// What a change changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The cluster that a route names
    Route,
    /// The endpoint of a cluster
    Endpoint,
    /// The endpoint that registered itself
    Registration,
}

/// Who answered last at one node, and when this was first so.
type Seen = watch::Receiver<(char, Instant)>;

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let mut stores = Vec::new();
    for endpoint in &arguments.endpoints {
        stores.push(connect(endpoint).await?);
    }
    let port = arguments.proxies.first().context("no proxy")?.port();
    let mut upstreams = Vec::new();
    for letter in LETTERS {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        upstreams.push(listener.local_addr()?);
        tokio::spawn(answer_all(listener, letter));
    }
    let scene = Scene {
        what: arguments.what,
        upstreams,
    };
    for resource in scene.fixed(port) {
        write(&stores[0], resource_row(&resource)).await?;
    }
    write(&stores[0], scene.change(0)).await?;
    let mut nodes = Vec::new();
    let mut asking = JoinSet::new();
    for &proxy in &arguments.proxies {
        nodes.push(Node::reach(proxy).await?.watch(&mut asking));
    }
    all_see(&mut nodes, LETTERS[0]).await?;

    let (mut from_write, mut from_commit) = (Durations::default(), Durations::default());
    for run in 1..=arguments.runs {
        // Out of step with every tick that the nodes or the questions may have.
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(20..70))).await;
        let began = Instant::now();
        write(&stores[run % stores.len()], scene.change(run)).await?;
        let committed = Instant::now();
        let last = all_see(&mut nodes, LETTERS[run % LETTERS.len()]).await?;
        from_write.add(last.duration_since(began));
        from_commit.add(last.saturating_duration_since(committed));
    }
    asking.shutdown().await;
    let cost = match arguments.pids.is_empty() {
        true => Value::Null,
        false => cost(&arguments, &stores, &scene).await?.into(),
    };
    Ok(json!({
        "runs": arguments.runs,
        "from_write": from_write.percentiles(),
        "from_commit": from_commit.percentiles(),
        "cpu_ms_per_change": cost,
    }))
}

/// The time of each process for a change, beyond what it takes at rest, in ms.
async fn cost(
    arguments: &Arguments,
    stores: &[Channel],
    scene: &Scene,
) -> anyhow::Result<Vec<f64>> {
    let count = u32::try_from(arguments.runs)?;
    let resting = cpu_seconds(&arguments.pids)?;
    tokio::time::sleep(PACE * count).await;
    let before = cpu_seconds(&arguments.pids)?;
    let mut ticks = tokio::time::interval(PACE);
    for run in 1..=arguments.runs {
        ticks.tick().await;
        write(&stores[run % stores.len()], scene.change(run)).await?;
    }
    ticks.tick().await;
    let after = cpu_seconds(&arguments.pids)?;
    let each = resting.iter().zip(&before).zip(&after);
    let extra = each.map(|((resting, before), after)| (after - before) - (before - resting));
    Ok(extra
        .map(|seconds| seconds * 1e3 / f64::from(count))
        .collect())
}

/// When the last of the nodes began to answer with `letter`.
async fn all_see(nodes: &mut [Seen], letter: char) -> anyhow::Result<Instant> {
    let mut last = None;
    for node in nodes {
        let seen = tokio::time::timeout(PATIENCE, node.wait_for(|&(now, _)| now == letter)).await;
        let (_, at) = *seen
            .context("a node does not follow the change")?
            .context("a node's proxy went away")?;
        last = last.max(Some(at));
    }
    last.context("no node is watched")
}

/// What is asked for, and what changes.
struct Scene {
    what: What,
    upstreams: Vec<SocketAddr>,
}

impl Scene {
    /// What stays.
    fn fixed(&self, port: u16) -> Vec<Value> {
        let mut all = vec![
            json!({ "schema": 1, "kind": "Listener", "name": "bench", "bind": format!(":{port}"), "protocol": "http" }),
        ];
        let cluster = |name: &str, field: &str, value: Value| json!({ "schema": 1, "kind": "Cluster", "name": name, field: value });
        match self.what {
            What::Route => {
                let pairs = LETTERS.iter().zip(&self.upstreams);
                all.extend(pairs.map(|(letter, address)| {
                    cluster(&letter.to_string(), "endpoints", json!([address]))
                }));
            }
            What::Endpoint => {
                all.push(cluster("up", "endpoints", json!([self.upstreams[0]])));
                all.push(route_to("up"));
            }
            What::Registration => {
                all.push(cluster("up", "service", json!("up")));
                all.push(route_to("up"));
            }
        }
        all
    }

    /// The key and value of the change of this number.
    fn change(&self, number: usize) -> (String, String) {
        let (letter, address) = (
            LETTERS[number % LETTERS.len()],
            self.upstreams[number % LETTERS.len()],
        );
        match self.what {
            What::Route => resource_row(&route_to(&letter.to_string())),
            What::Endpoint => resource_row(
                &json!({ "schema": 1, "kind": "Cluster", "name": "up", "endpoints": [address] }),
            ),
            What::Registration => (
                "/skein/endpoints/default/up/one".to_owned(),
                address.to_string(),
            ),
        }
    }
}

fn route_to(cluster: &str) -> Value {
    json!({
        "schema": 1, "kind": "VirtualHost", "name": "asked", "listeners": ["bench"],
        "domains": ["asked"], "routes": [{ "to": cluster }],
    })
}

fn resource_row(resource: &Value) -> (String, String) {
    let text = |field: &str| resource[field].as_str().unwrap_or_default();
    let key = format!("/skein/config/default/{}/{}", text("kind"), text("name"));
    (key, resource.to_string())
}

async fn write(store: &Channel, (key, value): (String, String)) -> anyhow::Result<()> {
    let request = PutRequest {
        key: Bytes::from(key),
        value: Bytes::from(value),
        ..PutRequest::default()
    };
    KvClient::new(store.clone()).put(request).await?;
    Ok(())
}

async fn answer_all(listener: TcpListener, letter: char) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{letter}");
            let mut heads = Heads::default();
            while heads.next(&mut stream).await.is_ok()
                && stream.write_all(answer.as_bytes()).await.is_ok()
            {}
        });
    }
}

/// A kept connection to one node's proxy.
struct Node {
    stream: TcpStream,
    heads: Heads,
}

impl Node {
    /// Connects as soon as the node listens.
    async fn reach(proxy: SocketAddr) -> anyhow::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect(proxy).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let heads = Heads::default();
                    return Ok(Self { stream, heads });
                }
                Err(fault) if Instant::now() > deadline => {
                    return Err(fault).context(format!("no listener at {proxy}"));
                }
                Err(_) => tokio::time::sleep(REST).await,
            }
        }
    }

    fn watch(mut self, asking: &mut JoinSet<()>) -> Seen {
        let (tell, seen) = watch::channel((' ', Instant::now()));
        asking.spawn(async move {
            while let Ok(letter) = self.ask().await {
                let now = Instant::now();
                tell.send_if_modified(|last| {
                    let changed = last.0 != letter;
                    if changed {
                        *last = (letter, now);
                    }
                    changed
                });
                tokio::time::sleep(REST).await;
            }
        });
        seen
    }

    /// The letter that answers now; a space while the node has no route yet.
    async fn ask(&mut self) -> anyhow::Result<char> {
        self.stream
            .write_all(b"GET / HTTP/1.1\r\nhost: asked\r\n\r\n")
            .await?;
        let head = self.heads.next(&mut self.stream).await?;
        let headers: BTreeMap<String, &str> = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
            .collect();
        let length = headers.get("content-length").context("no length")?;
        let body = self.heads.take(&mut self.stream, length.parse()?).await?;
        match (head.starts_with("HTTP/1.1 200"), body.first()) {
            (true, Some(&letter)) => Ok(char::from(letter)),
            _ => Ok(' '),
        }
    }
}

/// Reads heads and bodies off a connection; what was read too much is kept.
#[derive(Default)]
struct Heads {
    buffer: Vec<u8>,
}

impl Heads {
    async fn next(&mut self, stream: &mut TcpStream) -> anyhow::Result<String> {
        loop {
            let end = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.buffer.drain(..end + 4).collect();
                return Ok(String::from_utf8(head)?);
            }
            self.more(stream).await?;
        }
    }

    async fn take(&mut self, stream: &mut TcpStream, length: usize) -> anyhow::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.more(stream).await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn more(&mut self, stream: &mut TcpStream) -> anyhow::Result<()> {
        let read = stream.read_buf(&mut self.buffer).await?;
        anyhow::ensure!(read > 0, "the connection was closed");
        Ok(())
    }
}
