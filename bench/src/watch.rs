//! Many watchers, and puts at a steady pace or one after the other: how late each event comes.
//!
//! Every put's value is its time of sending, so that whoever receives it knows the delay. Watchers
//! share streams, as a client's watchers do.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use serde_json::{Value, json};
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::watch_client::WatchClient;
use store_api::etcdserverpb::{
    PutRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_request,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::figures::Durations;
use crate::store::connect;

/// How long events may take to arrive after the last put.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Client addresses, HOST:PORT
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    #[arg(long, default_value_t = 1000)]
    watchers: usize,
    /// Streams, each with a connection of its own
    #[arg(long, default_value_t = 12)]
    streams: usize,
    /// Watchers are spread over so many keys, and puts go to them in turn
    #[arg(long, default_value_t = 10)]
    keys: usize,
    /// Events that all watchers together receive per second; without it, a put follows when all
    /// watchers have seen the one before
    #[arg(long)]
    events_per_second: Option<usize>,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

#[derive(Default)]
struct Received {
    durations: Durations,
    /// Watchers that the store has confirmed.
    created: usize,
    /// Told after each response.
    more: Rc<Notify>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let local = LocalSet::new();
    local.run_until(watched(arguments)).await
}

async fn watched(arguments: Arguments) -> anyhow::Result<Value> {
    let began = Instant::now();
    let received = Rc::new(RefCell::new(Received::default()));
    let mut channels = Vec::new();
    let mut streams = Vec::new();
    for at in 0..arguments.streams {
        let endpoint = &arguments.endpoints[at % arguments.endpoints.len()];
        // A stream outlives any deadline of a request.
        let channel = connect(endpoint).await?;
        let watchers = (at..arguments.watchers).step_by(arguments.streams);
        let keys = watchers.map(|watcher| key(watcher % arguments.keys));
        let (requests, responses) = open(&channel, keys.collect()).await?;
        let received = received.clone();
        streams.push(tokio::task::spawn_local(async move {
            let _open = requests;
            receive(responses, began, &received).await
        }));
        channels.push(channel);
    }
    until(|| received.borrow().created >= arguments.watchers)
        .await
        .context("not all watchers were confirmed")?;

    let puts = Puts {
        channels,
        keys: arguments.keys,
        began,
    };
    let per_put = arguments.watchers / arguments.keys;
    let putting = Instant::now();
    match arguments.events_per_second {
        Some(events) => {
            let pace = events as f64 / per_put as f64;
            let sent = puts.at_pace(pace, arguments.seconds).await?;
            seen(&received, sent * per_put).await?;
        }
        None => {
            let mut sent = 0;
            while putting.elapsed().as_secs_f64() < arguments.seconds {
                puts.put(sent).await?;
                sent += 1;
                seen(&received, sent * per_put).await?;
            }
        }
    }
    let seconds = putting.elapsed().as_secs_f64();
    for stream in streams {
        stream.abort();
    }
    let durations = std::mem::take(&mut received.borrow_mut().durations);
    let events = durations.len();
    let mut figures = durations.percentiles();
    figures["events"] = json!(events);
    figures["events_per_second"] = json!(events as f64 / seconds);
    Ok(figures)
}

/// Waits until the watchers have seen so many events.
async fn seen(received: &RefCell<Received>, expected: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let more = received.borrow().more.clone();
    while received.borrow().durations.len() < expected {
        let came = received.borrow().durations.len();
        let waiting = tokio::time::timeout_at(deadline.into(), more.notified());
        waiting
            .await
            .with_context(|| format!("{came} of {expected} events came"))?;
    }
    Ok(())
}

/// Who puts.
struct Puts {
    channels: Vec<Channel>,
    keys: usize,
    began: Instant,
}

impl Puts {
    /// One put, through the members in turn, whose value tells when it was sent.
    fn put(&self, number: usize) -> impl Future<Output = Result<(), tonic::Status>> + 'static {
        let mut kv = KvClient::new(self.channels[number % self.channels.len()].clone());
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let request = PutRequest {
            key: key(number % self.keys),
            value: now.to_be_bytes().to_vec().into(),
            ..PutRequest::default()
        };
        async move { kv.put(request).await.map(drop) }
    }

    /// Puts at a steady pace, however long each takes; how many they were.
    async fn at_pace(&self, per_second: f64, seconds: f64) -> anyhow::Result<usize> {
        let puts = (seconds * per_second).ceil() as usize;
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
        let mut sent = Vec::new();
        for put in 0..puts {
            ticks.tick().await;
            sent.push(tokio::task::spawn_local(self.put(put)));
        }
        for put in sent {
            put.await.context("a put of the load panicked")??;
        }
        Ok(puts)
    }
}

async fn open(
    channel: &Channel,
    keys: Vec<Bytes>,
) -> anyhow::Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)> {
    let (requests, outgoing) = mpsc::channel(keys.len().max(1));
    for key in keys {
        let create = WatchCreateRequest {
            key,
            ..WatchCreateRequest::default()
        };
        requests.try_send(WatchRequest {
            request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
        })?;
    }
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let responses = WatchClient::new(channel.clone()).watch(outgoing).await?;
    Ok((requests, responses.into_inner()))
}

async fn receive(
    mut responses: Streaming<WatchResponse>,
    began: Instant,
    received: &RefCell<Received>,
) -> anyhow::Result<()> {
    while let Some(response) = responses.message().await? {
        let now = began.elapsed();
        let mut received = received.borrow_mut();
        received.created += usize::from(response.created);
        for event in response.events {
            let value = event.kv.unwrap_or_default().value;
            let sent = <[u8; 8]>::try_from(&*value).context("an event with a foreign value")?;
            let sent = Duration::from_nanos(u64::from_be_bytes(sent));
            received.durations.add(now.saturating_sub(sent));
        }
        received.more.notify_one();
    }
    anyhow::bail!("a stream ended")
}

async fn until(condition: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        anyhow::ensure!(Instant::now() < deadline, "waited {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn key(number: usize) -> Bytes {
    format!("watched/{number:02}").into()
}
