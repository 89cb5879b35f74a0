//! Many watchers, and puts at a steady pace: how late each event comes.
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
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::figures::Durations;
use crate::store::connect;

/// Watchers spread over so many keys, and puts go to them in turn.
const KEYS: usize = 10;
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
    /// Events that all watchers together receive per second
    #[arg(long, default_value_t = 20_000)]
    events_per_second: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

#[derive(Default)]
struct Received {
    durations: Durations,
    /// Watchers that the store has confirmed.
    created: usize,
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
        let (requests, responses) = open(&channel, watchers).await?;
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

    let per_put = arguments.watchers / KEYS;
    let puts_per_second = arguments.events_per_second as f64 / per_put as f64;
    let puts = (arguments.seconds * puts_per_second).ceil() as usize;
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / puts_per_second));
    let mut sent = Vec::new();
    for put in 0..puts {
        ticks.tick().await;
        let mut kv = KvClient::new(channels[put % channels.len()].clone());
        sent.push(tokio::task::spawn_local(async move {
            let request = PutRequest {
                key: key(put),
                value: (began.elapsed().as_nanos() as u64)
                    .to_be_bytes()
                    .to_vec()
                    .into(),
                ..PutRequest::default()
            };
            kv.put(request).await
        }));
    }
    for put in sent {
        put.await.context("a put of the load panicked")??;
    }
    let expected = puts * per_put;
    until(|| received.borrow().durations.len() >= expected)
        .await
        .with_context(|| {
            let came = received.borrow().durations.len();
            format!("{came} of {expected} events came")
        })?;
    for stream in streams {
        stream.abort();
    }
    let durations = std::mem::take(&mut received.borrow_mut().durations);
    let events = durations.len();
    let mut figures = durations.percentiles();
    figures["events"] = json!(events);
    Ok(figures)
}

async fn open(
    channel: &Channel,
    watchers: impl Iterator<Item = usize>,
) -> anyhow::Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)> {
    let watchers: Vec<_> = watchers.collect();
    let (requests, outgoing) = mpsc::channel(watchers.len().max(1));
    for watcher in watchers {
        let create = WatchCreateRequest {
            key: key(watcher),
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
    format!("watched/{:02}", number % KEYS).into()
}
