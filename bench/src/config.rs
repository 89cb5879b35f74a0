//! The time from a config change to its being in force on every node, as traffic sees it.
//!
//! Each run writes a route anew, through another node each time, so that all traffic goes from one
//! upstream to the other, while one connection per node asks all the time who answers. Owns the two
//! upstreams.

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
use tonic::transport::Channel;

use crate::figures::Durations;
use crate::store::connect;

/// How long a connection rests between two questions: the resolution of the figures.
const REST: Duration = Duration::from_millis(1);
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
}

/// Who answered last at one node, and when this was first so.
type Seen = watch::Receiver<(char, Instant)>;

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let mut stores = Vec::new();
    for endpoint in &arguments.endpoints {
        stores.push(connect(endpoint).await?);
    }
    let port = arguments.proxies.first().context("no proxy")?.port();
    for resource in fixed_resources(port).await? {
        write(&stores[0], &resource).await?;
    }
    write(&stores[0], &route_to(LETTERS[0])).await?;
    let mut nodes = Vec::new();
    for &proxy in &arguments.proxies {
        nodes.push(Node::reach(proxy).await?.watch());
    }
    all_see(&mut nodes, LETTERS[0]).await?;

    let (mut from_write, mut from_commit) = (Durations::default(), Durations::default());
    for run in 1..=arguments.runs {
        // Out of step with every tick that the nodes or the questions may have.
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(20..70))).await;
        let letter = LETTERS[run % LETTERS.len()];
        let began = Instant::now();
        write(&stores[run % stores.len()], &route_to(letter)).await?;
        let committed = Instant::now();
        let last = all_see(&mut nodes, letter).await?;
        from_write.add(last.duration_since(began));
        from_commit.add(last.saturating_duration_since(committed));
    }
    Ok(json!({
        "runs": arguments.runs,
        "from_write": from_write.percentiles(),
        "from_commit": from_commit.percentiles(),
    }))
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

/// The listener and the clusters, each of which has an upstream of ours.
async fn fixed_resources(port: u16) -> anyhow::Result<Vec<Value>> {
    let mut resources = vec![
        json!({ "schema": 1, "kind": "Listener", "name": "bench", "bind": format!(":{port}"), "protocol": "http" }),
    ];
    for letter in LETTERS {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(answer_all(listener, letter));
        resources.push(json!({
            "schema": 1, "kind": "Cluster", "name": letter, "endpoints": [address],
        }));
    }
    Ok(resources)
}

fn route_to(letter: char) -> Value {
    json!({
        "schema": 1, "kind": "VirtualHost", "name": "bench", "listeners": ["bench"],
        "domains": ["*"], "routes": [{ "to": letter }],
    })
}

async fn write(store: &Channel, resource: &Value) -> anyhow::Result<()> {
    let text = |field: &str| resource[field].as_str().unwrap_or_default().to_owned();
    let request = PutRequest {
        key: Bytes::from(format!(
            "/skein/config/default/{}/{}",
            text("kind"),
            text("name")
        )),
        value: Bytes::from(resource.to_string()),
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

    fn watch(mut self) -> Seen {
        let (tell, seen) = watch::channel((' ', Instant::now()));
        tokio::spawn(async move {
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
            .write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")
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
