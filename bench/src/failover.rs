//! What a signal to the leader costs those who write.
//!
//! A new put starts every few milliseconds, by turns at each member that stays, and none is waited
//! for: so neither a client's patience nor its back-off is in the figure.

use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::leader::put;
use crate::store::connect;

/// How often a put starts.
const PERIOD: Duration = Duration::from_millis(10);
/// After so long without success the measurement fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a leader that ends in good order is watched.
const WATCHED: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Client addresses of the members that stay, HOST:PORT
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// Process id of the leader
    #[arg(long)]
    leader: i32,
    /// `kill`: the time to the first put that succeeds. `term`: the longest time in which none did,
    /// since the leader goes on for a moment
    #[arg(long, value_enum)]
    signal: Sent,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Sent {
    Kill,
    Term,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let mut channels = Vec::new();
    for endpoint in &arguments.endpoints {
        let channel = connect(endpoint).await?;
        put(&channel).await?;
        channels.push(channel);
    }
    let leader = Pid::from_raw(arguments.leader).context("no process has id 0")?;
    let (signal, watched) = match arguments.signal {
        Sent::Kill => (Signal::KILL, Duration::ZERO),
        Sent::Term => (Signal::TERM, WATCHED),
    };
    let signalled = Instant::now();
    kill_process(leader, signal)?;
    let (mut succeeded, mut longest, mut failed) = (signalled, Duration::ZERO, 0);
    let mut ticks = tokio::time::interval(PERIOD);
    let mut puts = JoinSet::new();
    let mut turns = channels.iter().cycle();
    loop {
        tokio::select! {
            Some(put) = puts.join_next(), if !puts.is_empty() => match put? {
                Ok(()) => {
                    longest = longest.max(succeeded.elapsed());
                    succeeded = Instant::now();
                    if signalled.elapsed() >= watched {
                        let longest = longest.as_secs_f64() * 1e3;
                        return Ok(json!({ "without_writes_ms": longest, "failed": failed }));
                    }
                }
                Err(_) => failed += 1,
            },
            _ = ticks.tick() => {
                anyhow::ensure!(
                    succeeded.elapsed() < PATIENCE,
                    "no put succeeded in {PATIENCE:?}"
                );
                let channel = turns.next().context("no endpoint stays")?.clone();
                puts.spawn(async move { put(&channel).await });
            }
        }
    }
}
