//! Many leases that are kept alive, as many clients' would be: each at a third of its time.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use store_api::etcdserverpb::lease_client::LeaseClient;
use store_api::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tonic::transport::Channel;

use crate::figures::cpu_seconds;
use crate::store::connect;

/// Grants in flight per stream while the leases are made.
const GRANTS: usize = 4;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Client addresses, HOST:PORT
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    #[arg(long, default_value_t = 100_000)]
    leases: usize,
    /// Time of each lease, in seconds
    #[arg(long, default_value_t = 60)]
    ttl: i64,
    /// Streams of keep-alives, each with a connection of its own
    #[arg(long, default_value_t = 48)]
    streams: usize,
    /// How long the leases are kept alive, once all are granted
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Processes whose time is counted meanwhile
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    LocalSet::new().run_until(kept(arguments)).await
}

async fn kept(arguments: Arguments) -> anyhow::Result<Value> {
    let began = Instant::now();
    let mut granting = Vec::new();
    for at in 0..arguments.streams {
        let endpoint = &arguments.endpoints[at % arguments.endpoints.len()];
        let client = LeaseClient::new(connect(endpoint).await?);
        let leases = (at..arguments.leases).step_by(arguments.streams).count();
        let grants = grant(client.clone(), leases, arguments.ttl);
        granting.push((client, tokio::task::spawn_local(grants)));
    }
    let mut streams = Vec::new();
    for (client, leases) in granting {
        streams.push((client, leases.await.context("granting panicked")??));
    }
    let granted = began.elapsed().as_secs_f64();

    // One round before it is measured, so that all keep-alives are spread over a third of a lease.
    let period = Duration::from_secs(arguments.ttl.unsigned_abs()) / 3;
    let measured_from = Instant::now() + period.min(Duration::from_secs(5));
    let until = measured_from + Duration::from_secs_f64(arguments.seconds);
    let kept: Vec<_> = streams
        .into_iter()
        .map(|(client, leases)| tokio::task::spawn_local(keep(client, leases, period, until)))
        .collect();
    tokio::time::sleep_until(measured_from.into()).await;
    let before = cpu_seconds(&arguments.pids)?;
    tokio::time::sleep_until(until.into()).await;
    let after = cpu_seconds(&arguments.pids)?;
    let mut answers = 0;
    for one in kept {
        answers += one.await.context("a stream of keep-alives panicked")??;
    }
    let cores: Vec<f64> = after
        .iter()
        .zip(before)
        .map(|(after, before)| (after - before) / arguments.seconds)
        .collect();
    Ok(json!({ "granted_seconds": granted, "keep_alives": answers, "cores": cores }))
}

async fn grant(
    client: LeaseClient<Channel>,
    leases: usize,
    ttl: i64,
) -> anyhow::Result<Rc<Vec<i64>>> {
    let mut granting = tokio::task::JoinSet::new();
    let mut granted = Vec::with_capacity(leases);
    for at in 0..leases {
        let mut client = client.clone();
        granting.spawn_local(async move {
            let request = LeaseGrantRequest { ttl, id: 0 };
            client
                .lease_grant(request)
                .await
                .map(|it| it.into_inner().id)
        });
        if at + 1 >= GRANTS {
            granted.extend(granting.join_next().await.transpose()?.transpose()?);
        }
    }
    while let Some(one) = granting.join_next().await {
        granted.push(one??);
    }
    anyhow::ensure!(
        granted.len() == leases,
        "{} of {leases} granted",
        granted.len()
    );
    Ok(Rc::new(granted))
}

/// Sends each lease's keep-alive once a period, evenly spread, and checks each answer.
async fn keep(
    mut client: LeaseClient<Channel>,
    leases: Rc<Vec<i64>>,
    period: Duration,
    until: Instant,
) -> anyhow::Result<u64> {
    let (requests, outgoing) = mpsc::channel(1024);
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    // The head of etcd's answer comes with the first of its messages.
    let first = leases.first().context("a stream without leases")?;
    requests.try_send(LeaseKeepAliveRequest { id: *first })?;
    let mut responses = client.lease_keep_alive(outgoing).await?.into_inner();
    let mut ticks = tokio::time::interval(period / u32::try_from(leases.len().max(1))?);
    let sending = async {
        for id in leases.iter().cycle() {
            ticks.tick().await;
            if Instant::now() >= until {
                break;
            }
            requests.send(LeaseKeepAliveRequest { id: *id }).await?;
        }
        drop(requests);
        anyhow::Ok(())
    };
    let receiving = async {
        let mut answers = 0;
        while let Some(response) = responses.message().await? {
            anyhow::ensure!(response.ttl > 0, "lease {:x} is gone", response.id);
            answers += 1;
        }
        anyhow::Ok(answers)
    };
    let (sent, answers) = tokio::join!(sending, receiving);
    sent?;
    answers
}
