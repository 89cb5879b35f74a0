//! Operations of one kind in a closed loop: as many clients as asked for, each with one request
//! in flight, over connections that are spread over the endpoints.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::lease_client::LeaseClient;
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;
use store_api::etcdserverpb::{
    Compare, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, SnapshotRequest, TxnRequest,
    compare, request_op,
};
use tokio::task::LocalSet;
use tonic::transport::{Channel, Endpoint};

use crate::figures::Durations;

/// A request that takes longer counts as failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A load of a number of operations gives up after so long.
const LONGEST: Duration = Duration::from_secs(600);

/// No lease ends while the load runs.
const LEASE_SECONDS: i64 = 3600;

pub(crate) const PREFIX: &str = "bench/";

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
    /// Stop after so many operations instead, all of them measured
    #[arg(long)]
    ops: Option<u64>,
    #[arg(long, default_value_t = 10_000)]
    keys: u32,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Op {
    Put,
    /// Linearizable
    Get,
    SerializableGet,
    /// A compare that holds, and a put
    Txn,
    LeaseGrant,
    /// All keys at once, linearizable
    Range,
    /// The whole store as a stream
    Snapshot,
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
    let extent = Rc::new(Extent::of(&arguments));
    let arguments = Rc::new(arguments);
    let local = LocalSet::new();
    let clients: Vec<_> = (0..arguments.clients)
        .map(|client| {
            let channel = channels[client % channels.len()].clone();
            let client = Client {
                lease: LeaseClient::new(channel.clone()),
                maintenance: MaintenanceClient::new(channel.clone()),
                // A range of everything is larger than a client takes by default.
                kv: KvClient::new(channel).max_decoding_message_size(usize::MAX),
                rng: SmallRng::seed_from_u64(client as u64),
                arguments: arguments.clone(),
            };
            local.spawn_local(client.run(extent.clone()))
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
    figures["per_second"] = json!(ops as f64 / extent.measured().as_secs_f64());
    figures["failed"] = json!(failed);
    figures["first_fault"] = json!(first_fault);
    Ok(figures)
}

/// From when on operations count, and when clients stop.
struct Extent {
    measured_from: Instant,
    until: Instant,
    /// What is left to be started.
    ops: Cell<u64>,
}

impl Extent {
    fn of(arguments: &Arguments) -> Self {
        let (warm, time) = match arguments.ops {
            Some(_) => (Duration::ZERO, LONGEST),
            None => {
                let time = Duration::from_secs_f64(arguments.seconds);
                (time / 10, time)
            }
        };
        let measured_from = Instant::now() + warm;
        Self {
            measured_from,
            until: measured_from + time,
            ops: Cell::new(arguments.ops.unwrap_or(u64::MAX)),
        }
    }

    /// Whether an operation starts at `now`; counts it.
    fn starts(&self, now: Instant) -> bool {
        let left = self.ops.get();
        self.ops.set(left.saturating_sub(1));
        left > 0 && now < self.until
    }

    fn measured(&self) -> Duration {
        Instant::now().min(self.until) - self.measured_from
    }
}

struct Client {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
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
    async fn run(mut self, extent: Rc<Extent>) -> Done {
        let mut done = Done::default();
        let mut value = vec![0; self.arguments.value_bytes];
        self.rng.fill_bytes(&mut value);
        let value = Bytes::from(value);
        loop {
            let began = Instant::now();
            if !extent.starts(began) {
                return done;
            }
            let outcome = self.once(value.clone()).await;
            if began < extent.measured_from {
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
        let key = key(self.rng.random_range(0..self.arguments.keys));
        let get = |key| RangeRequest {
            key,
            ..RangeRequest::default()
        };
        match self.arguments.op {
            Op::Put => self.kv.put(put(key, value)).await.map(drop),
            Op::Get => self.kv.range(get(key)).await.map(drop),
            Op::SerializableGet => {
                let request = RangeRequest {
                    serializable: true,
                    ..get(key)
                };
                self.kv.range(request).await.map(drop)
            }
            Op::Txn => {
                let holds = Compare {
                    result: compare::CompareResult::Greater.into(),
                    target: compare::CompareTarget::Version.into(),
                    key: key.clone(),
                    target_union: Some(compare::TargetUnion::Version(-1)),
                    ..Compare::default()
                };
                let request = TxnRequest {
                    compare: vec![holds],
                    success: vec![put_op(key, value)],
                    ..TxnRequest::default()
                };
                self.kv.txn(request).await.map(drop)
            }
            Op::LeaseGrant => {
                let request = LeaseGrantRequest {
                    ttl: LEASE_SECONDS,
                    id: 0,
                };
                self.lease.lease_grant(request).await.map(drop)
            }
            Op::Range => {
                let request = RangeRequest {
                    // One above the prefix's last byte.
                    range_end: Bytes::from_static(b"bench0"),
                    ..get(Bytes::from_static(PREFIX.as_bytes()))
                };
                self.kv.range(request).await.map(drop)
            }
            Op::Snapshot => {
                let stream = self.maintenance.snapshot(SnapshotRequest {}).await?;
                let mut stream = stream.into_inner();
                while stream.message().await?.is_some() {}
                Ok(())
            }
        }
    }
}

pub(crate) fn key(number: u32) -> Bytes {
    format!("{PREFIX}{number:08}").into()
}

fn put(key: Bytes, value: Bytes) -> PutRequest {
    PutRequest {
        key,
        value,
        ..PutRequest::default()
    }
}

pub(crate) fn put_op(key: Bytes, value: Bytes) -> RequestOp {
    RequestOp {
        request: Some(request_op::Request::RequestPut(put(key, value))),
    }
}
