//! Steady traffic through every node, counting what is answered and by whom.
//!
//! Owns the client connections and the counts. A request that fails while its node is expected to
//! live is a fault of the story; nothing is retried here, so that nothing is hidden.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Connections per node.
const CONNECTIONS: usize = 2;
/// The pause after each request: enough traffic to notice a gap of some milliseconds.
const PAUSE: Duration = Duration::from_millis(4);
/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What happened at one node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Answers 200.
    pub(crate) answered: u64,
    /// Requests that failed while the node was expected to live.
    pub(crate) failed: u64,
    /// The first failure, in words.
    pub(crate) first_failure: Option<String>,
    /// Answers by the upstream that named itself, since the last [`Traffic::forget_upstreams`].
    pub(crate) by_upstream: BTreeMap<String, u64>,
    /// Whether failures count.
    expected: bool,
    /// Raised with each change of `expected`, so that a request that was under way does not count.
    epoch: u64,
}

impl Tally {
    fn answered_by(&mut self, upstream: String) {
        self.answered += 1;
        *self.by_upstream.entry(upstream).or_default() += 1;
    }

    /// A request failed that began in `epoch`. It counts if the node was expected to live all along.
    fn failed_in(&mut self, epoch: u64, expected: bool, words: String) {
        if expected && self.expected && self.epoch == epoch {
            self.failed += 1;
            self.first_failure.get_or_insert(words);
        }
    }
}

/// Traffic through all nodes; ends when dropped.
pub(crate) struct Traffic {
    tallies: Vec<Arc<Mutex<Tally>>>,
    _tasks: JoinSet<()>,
}

impl Traffic {
    /// Begins to send to each address.
    pub(crate) fn start(addresses: &[SocketAddr]) -> Self {
        let mut tasks = JoinSet::new();
        let tallies: Vec<_> = addresses
            .iter()
            .map(|&address| {
                let tally = Arc::new(Mutex::new(Tally {
                    expected: true,
                    ..Tally::default()
                }));
                for _ in 0..CONNECTIONS {
                    tasks.spawn(send_forever(address, Arc::clone(&tally)));
                }
                tally
            })
            .collect();
        Self {
            tallies,
            _tasks: tasks,
        }
    }

    /// What happened at `node` so far.
    pub(crate) fn tally(&self, node: usize) -> Tally {
        lock(&self.tallies[node]).clone()
    }

    /// From now on failures at `node` count, or do not.
    pub(crate) fn expect(&self, node: usize, expected: bool) {
        let mut tally = lock(&self.tallies[node]);
        tally.expected = expected;
        tally.epoch += 1;
    }

    /// Begins anew to count who answers.
    pub(crate) fn forget_upstreams(&self) {
        for tally in &self.tallies {
            lock(tally).by_upstream.clear();
        }
    }

    /// Requests answered by all nodes.
    pub(crate) fn answered(&self) -> u64 {
        self.tallies.iter().map(|tally| lock(tally).answered).sum()
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn send_forever(address: SocketAddr, tally: Arc<Mutex<Tally>>) {
    let mut connection = None;
    loop {
        let (expected, epoch) = {
            let tally = lock(&tally);
            (tally.expected, tally.epoch)
        };
        let begun = Instant::now();
        let result = tokio::time::timeout(TIMEOUT, request(address, &mut connection)).await;
        let result = result.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")));
        match result {
            Ok(upstream) => lock(&tally).answered_by(upstream),
            Err(fault) => {
                connection = None;
                let words = format!("{address}: {fault} after {:?}", begun.elapsed());
                lock(&tally).failed_in(epoch, expected, words);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

type Sender = SendRequest<Empty<Bytes>>;

/// One GET; the answer is the name of the upstream that gave it.
async fn request(address: SocketAddr, kept: &mut Option<Sender>) -> Result<String, String> {
    let mut sender = match kept.take().filter(|sender| !sender.is_closed()) {
        Some(sender) => sender,
        None => connect(address).await?,
    };
    let request = Request::get("/")
        .header("host", "demo.local")
        .body(Empty::new())
        .map_err(|fault| fault.to_string())?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|fault| format!("{fault:?}"))?;
    let status = response.status();
    let closes = response
        .headers()
        .get("connection")
        .is_some_and(|value| value == "close");
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|fault| format!("{fault:?}"))?;
    let text = String::from_utf8_lossy(&body.to_bytes()).trim().to_owned();
    if status != 200 {
        return Err(format!("{status} {text}"));
    }
    if !closes {
        *kept = Some(sender);
    }
    Ok(text.rsplit(' ').next().unwrap_or_default().to_owned())
}

async fn connect(address: SocketAddr) -> Result<Sender, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|fault| fault.to_string())?;
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|fault| fault.to_string())?;
    // Its errors reach whoever sends on it.
    tokio::spawn(connection);
    Ok(sender)
}
