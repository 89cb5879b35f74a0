//! A proxy under test, upstreams that behave as told, and a client that sees every byte.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{ConfigRevision, NodeName};
use proxy_config::compiled::{CompiledConfig, Target};
use proxy_config::{Compiled, ConfigSet, compile, parse_documents};
use proxy_server::{ListenerOutcome, ProxyOptions, ProxyServer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything that works takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy with a config.
pub(crate) struct Rig {
    pub(crate) proxy: ProxyServer,
    pub(crate) log: Log,
    edge: SocketAddr,
    previous: Option<Compiled>,
    outcomes: Vec<ListenerOutcome>,
    revision: u64,
}

impl Rig {
    /// A proxy of two workers with this config, all of it in force.
    pub(crate) async fn start(yaml: &str) -> Self {
        let log = Log::default();
        let proxy = ProxyServer::start(ProxyOptions {
            workers: 2,
            access_log: Box::new(log.clone()),
            look_every: Duration::from_millis(10),
        });
        let mut rig = Self {
            proxy: proxy.unwrap(),
            log,
            edge: fresh_address(),
            previous: None,
            outcomes: Vec::new(),
            revision: 0,
        };
        let outcomes = rig.apply(yaml).await;
        for outcome in outcomes {
            outcome.result.unwrap();
        }
        rig
    }

    /// Replaces the config, in which `EDGE` is an address of this proxy's own.
    pub(crate) async fn apply(&mut self, yaml: &str) -> Vec<ListenerOutcome> {
        let yaml = &yaml.replace("EDGE", &self.edge.to_string());
        let mut set = ConfigSet::default();
        for resource in parse_documents("test", yaml).unwrap() {
            set.insert(resource);
        }
        let target = target();
        self.revision += 1;
        let revision = ConfigRevision(self.revision);
        let compiled = compile(&set, &target, self.previous.as_ref(), revision);
        assert!(compiled.refused.is_empty(), "{:?}", compiled.refused);
        self.outcomes = self.proxy.apply(compiled.config.clone()).await;
        self.previous = Some(compiled);
        self.outcomes.clone()
    }

    /// Where a listener can be reached.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        let mut outcomes = self.outcomes.iter();
        let outcome = outcomes.find(|outcome| *outcome.name.name == *listener);
        outcome.unwrap().result.clone().unwrap()
    }

    /// A new connection to the listener `edge`.
    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.address("edge")).await
    }

    /// The response to one request on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> Response {
        let mut client = self.connect().await;
        client
            .send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"))
            .await;
        client.response().await
    }

    /// The value of a metric, added up over its label sets that contain `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> f64 {
        let mut registry = prometheus_client::registry::Registry::default();
        self.proxy.metrics().register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        let lines = text.lines().filter(of_name);
        let values = lines.filter(|line| line.contains(labels)).map(|line| {
            let value = line.rsplit(' ').next().unwrap();
            value.parse::<f64>().unwrap()
        });
        values.sum()
    }
}

impl Rig {
    /// Waits until a metric has this value: what is over is counted after the client knows.
    pub(crate) async fn counts(&self, name: &str, labels: &str, value: f64) {
        let what = format!("{name} {labels} {value}");
        eventually(&what, || self.metric(name, labels) == value).await;
    }
}

/// A config as a node would run it.
pub(crate) fn compiled(yaml: &str) -> Arc<CompiledConfig> {
    let yaml = yaml.replace("EDGE", "127.0.0.1:80");
    let set = parse_documents("test", &yaml)
        .unwrap()
        .into_iter()
        .collect();
    compile(&set, &target(), None, ConfigRevision(1)).config
}

fn target() -> Target {
    Target {
        node: "node-1".parse::<NodeName>().unwrap(),
        labels: BTreeMap::new(),
        proxy_ip: [127, 0, 0, 1].into(),
    }
}

/// A listener `edge` for everything, with these clusters (name, endpoints) and settings of the one
/// route and of each cluster.
pub(crate) fn config(route: &str, cluster: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: http\n\
         ---\nkind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes:\n  - to: web\n    {route}\n\
         ---\nkind: Cluster\nname: web\nendpoints: [{}]\n{cluster}\n",
        endpoints.join(", ")
    )
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// An address that nobody else uses: one of the loopback network that belongs to this process, so
/// that tests do not meet.
pub(crate) fn fresh_address() -> SocketAddr {
    static PORT: AtomicU16 = AtomicU16::new(20_000);
    let [_, a, b, c] = (std::process::id() % (1 << 22) + (1 << 16)).to_be_bytes();
    SocketAddr::from(([127, a, b, c], PORT.fetch_add(1, Ordering::Relaxed)))
}

/// What was written to the access log.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The lines so far.
    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        let bytes = self.0.lock().unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A request as an upstream saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The number of the connection that it came on.
    pub(crate) connection: usize,
}

impl Seen {
    /// The values of a header, in order.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        header(&self.head, name)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let fields = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "));
    let named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value).collect()
}

/// An upstream.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backend {
    /// One that does with each connection what it is told.
    pub(crate) async fn raw<F, W>(serve: F) -> Self
    where
        F: Fn(TcpStream, usize) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, connection));
            }
        });
        Self {
            address,
            seen: Arc::default(),
            task,
        }
    }

    /// One that answers each request with the bytes that `answer` makes of it.
    pub(crate) async fn http<A>(answer: A) -> Self
    where
        A: Fn(&Seen) -> Vec<u8> + Send + Sync + 'static,
    {
        Self::http_over(|stream| std::future::ready(Some(stream)), answer).await
    }

    /// One that does this, on what `open` makes of each connection.
    pub(crate) async fn http_over<O, W, S, A>(open: O, answer: A) -> Self
    where
        O: Fn(TcpStream) -> W + Send + Sync + 'static,
        W: Future<Output = Option<S>> + Send,
        S: AsyncRead + AsyncWrite + Unpin + Send,
        A: Fn(&Seen) -> Vec<u8> + Send + Sync + 'static,
    {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (requests, told) = (seen.clone(), Arc::new((open, answer)));
        let mut backend = Self::raw(move |stream, connection| {
            let (requests, told) = (requests.clone(), told.clone());
            async move {
                let Some(mut stream) = told.0(stream).await else {
                    return;
                };
                let mut buffer = Vec::new();
                while let Some(request) = read_request(&mut stream, &mut buffer, connection).await {
                    requests.lock().unwrap().push(request.clone());
                    let bytes = told.1(&request);
                    let sent = stream.write_all(&bytes).await;
                    if sent.is_err() || stream.flush().await.is_err() {
                        break;
                    }
                }
            }
        })
        .await;
        backend.seen = seen;
        backend
    }

    /// One that answers everything with 200 and this text.
    pub(crate) async fn saying(text: &'static str) -> Self {
        Self::http(move |_| ok(text)).await
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// A 200 with this body.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    status(200, body)
}

/// A response with this status and body.
pub(crate) fn status(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// Reads one request with its body; `None` at the end of the connection.
pub(crate) async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    connection: usize,
) -> Option<Seen> {
    let head = read_head(stream, buffer).await?;
    let body = if header(&head, "transfer-encoding") == ["chunked"] {
        read_chunks(stream, buffer).await?
    } else {
        let length = header(&head, "content-length");
        let length = length.first().map_or(0, |length| length.parse().unwrap());
        read_exactly(stream, buffer, length).await?
    };
    Some(Seen {
        head,
        body,
        connection,
    })
}

/// Reads a head without its empty line.
pub(crate) async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = buffer.split_off(end + 4);
            let mut head = std::mem::replace(buffer, rest);
            head.truncate(end);
            return Some(String::from_utf8(head).unwrap());
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

async fn read_exactly(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    length: usize,
) -> Option<Vec<u8>> {
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let rest = buffer.split_off(length);
    Some(std::mem::replace(buffer, rest))
}

/// Data of a chunked body; trailers are left out.
async fn read_chunks(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let line = read_line(stream, buffer).await?;
        let size = usize::from_str_radix(&line, 16).unwrap();
        if size == 0 {
            while !read_line(stream, buffer).await?.is_empty() {}
            return Some(data);
        }
        data.extend(read_exactly(stream, buffer, size).await?);
        assert_eq!(read_line(stream, buffer).await?, "");
    }
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(2).position(|two| two == b"\r\n") {
            let rest = buffer.split_off(end + 2);
            let mut line = std::mem::replace(buffer, rest);
            line.truncate(end);
            return Some(String::from_utf8(line).unwrap());
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// A response as the client saw it.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The values of a header, in order.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        header(&self.head, name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A client's connection.
pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    pub(crate) buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            buffer: Vec::new(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// A client on a connection that was opened.
    pub(crate) fn on(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// The response to a request that is no HEAD.
    pub(crate) async fn response(&mut self) -> Response {
        self.try_response().await.expect("a whole response")
    }

    /// The response, unless the connection ends before its end.
    pub(crate) async fn try_response(&mut self) -> Option<Response> {
        timeout(PATIENCE, self.read_response())
            .await
            .expect("a response in time")
    }

    /// The next head, whatever follows it.
    pub(crate) async fn head(&mut self) -> Option<String> {
        let head = read_head(&mut self.stream, &mut self.buffer);
        timeout(PATIENCE, head).await.expect("a head in time")
    }

    async fn read_response(&mut self) -> Option<Response> {
        let (stream, buffer) = (&mut self.stream, &mut self.buffer);
        let head = read_head(stream, buffer).await?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = if header(&head, "transfer-encoding") == ["chunked"] {
            read_chunks(stream, buffer).await?
        } else if let [length] = *header(&head, "content-length") {
            read_exactly(stream, buffer, length.parse().unwrap()).await?
        } else if matches!(status, 100..=199 | 204 | 304) {
            Vec::new()
        } else {
            stream.read_to_end(buffer).await.ok()?;
            std::mem::take(buffer)
        };
        Some(Response { status, head, body })
    }

    /// Whether the connection ends, and with nothing more on it.
    pub(crate) async fn ends(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        matches!(read.expect("an end in time"), Ok(0) | Err(_)) && self.buffer.is_empty()
    }

    /// Whether the connection ends without anything more, and not as if something was cut off.
    pub(crate) async fn ends_whole(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        matches!(read.expect("an end in time"), Ok(0)) && self.buffer.is_empty()
    }
}
