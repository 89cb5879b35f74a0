//! The time from `kill -9` of the leader to the next put that succeeds.
//!
//! A new put starts every few milliseconds, by turns at each surviving member, and none is waited
//! for: so neither a client's patience nor its back-off is in the figure.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::leader::put;
use crate::store::connect;

/// How often a put starts.
const PERIOD: Duration = Duration::from_millis(10);
/// After so long without success the measurement fails.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Client addresses of the members that stay, HOST:PORT
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// Process id of the leader
    #[arg(long)]
    kill: i32,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let mut channels = Vec::new();
    for endpoint in &arguments.endpoints {
        let channel = connect(endpoint).await?;
        put(&channel).await?;
        channels.push(channel);
    }
    let leader = rustix::process::Pid::from_raw(arguments.kill).context("no process has id 0")?;
    let killed = Instant::now();
    rustix::process::kill_process(leader, rustix::process::Signal::KILL)?;
    let mut ticks = tokio::time::interval(PERIOD);
    let mut puts = JoinSet::new();
    let mut turns = channels.iter().cycle();
    loop {
        tokio::select! {
            Some(Ok(Ok(()))) = puts.join_next(), if !puts.is_empty() => {
                return Ok(json!({ "first_write_ms": killed.elapsed().as_secs_f64() * 1e3 }));
            }
            _ = ticks.tick() => {
                anyhow::ensure!(killed.elapsed() < PATIENCE, "no put succeeded in {PATIENCE:?}");
                let channel = turns.next().context("no endpoint survives")?.clone();
                puts.spawn(async move { put(&channel).await });
            }
        }
    }
}
