//! Puts and linearizable gets in a closed loop: as many clients as asked for, each with one request
//! in flight, over connections that are spread over the endpoints.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::{PutRequest, RangeRequest};
use tokio::task::LocalSet;
use tonic::transport::{Channel, Endpoint};

use crate::figures::Durations;

/// A request that takes longer counts as failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Client addresses, HOST:PORT
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    #[arg(long, value_enum)]
    op: Op,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Measured time, after a tenth of it to warm up
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 10_000)]
    keys: u32,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Op {
    Put,
    Get,
}

/// A connection to one endpoint.
pub(crate) async fn connect(endpoint: &str) -> anyhow::Result<Channel> {
    let channel = Endpoint::from_shared(format!("http://{endpoint}"))?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(5))
        .timeout(REQUEST_TIMEOUT)
        .connect()
        .await;
    channel.with_context(|| format!("cannot reach {endpoint}"))
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let mut channels = Vec::new();
    for connection in 0..arguments.connections {
        let endpoint = &arguments.endpoints[connection % arguments.endpoints.len()];
        channels.push(connect(endpoint).await?);
    }
    let warm = Duration::from_secs_f64(arguments.seconds / 10.0);
    let measured_from = Instant::now() + warm;
    let until = measured_from + Duration::from_secs_f64(arguments.seconds);
    let arguments = Rc::new(arguments);
    let local = LocalSet::new();
    let clients: Vec<_> = (0..arguments.clients)
        .map(|client| {
            let channel = channels[client % channels.len()].clone();
            let client = Client {
                kv: KvClient::new(channel),
                rng: SmallRng::seed_from_u64(client as u64),
                arguments: arguments.clone(),
            };
            local.spawn_local(client.run(measured_from, until))
        })
        .collect();
    let mut all = Durations::default();
    let mut failed = 0;
    let mut first_fault = None;
    local
        .run_until(async {
            for client in clients {
                let done = client.await.context("a client of the load panicked")?;
                all.absorb(done.durations);
                failed += done.failed;
                first_fault = first_fault.take().or(done.first_fault);
            }
            anyhow::Ok(())
        })
        .await?;
    let ops = all.len();
    let mut figures = all.percentiles();
    figures["ops"] = json!(ops);
    figures["per_second"] = json!(ops as f64 / arguments.seconds);
    figures["failed"] = json!(failed);
    figures["first_fault"] = json!(first_fault);
    Ok(figures)
}

struct Client {
    kv: KvClient<Channel>,
    rng: SmallRng,
    arguments: Rc<Arguments>,
}

#[derive(Default)]
struct Done {
    durations: Durations,
    failed: u64,
    first_fault: Option<String>,
}

impl Client {
    async fn run(mut self, measured_from: Instant, until: Instant) -> Done {
        let mut done = Done::default();
        let mut value = vec![0; self.arguments.value_bytes];
        self.rng.fill_bytes(&mut value);
        let value = Bytes::from(value);
        loop {
            let began = Instant::now();
            if began >= until {
                return done;
            }
            let outcome = self.once(value.clone()).await;
            if began < measured_from {
                continue;
            }
            match outcome {
                Ok(()) => done.durations.add(began.elapsed()),
                Err(fault) => {
                    done.failed += 1;
                    done.first_fault.get_or_insert_with(|| fault.to_string());
                }
            }
        }
    }

    async fn once(&mut self, value: Bytes) -> Result<(), tonic::Status> {
        let key = self.rng.random_range(0..self.arguments.keys);
        let key = Bytes::from(format!("bench/{key:08}"));
        match self.arguments.op {
            Op::Put => {
                let request = PutRequest {
                    key,
                    value,
                    ..PutRequest::default()
                };
                self.kv.put(request).await.map(drop)
            }
            Op::Get => {
                let request = RangeRequest {
                    key,
                    ..RangeRequest::default()
                };
                self.kv.range(request).await.map(drop)
            }
        }
    }
}
