//! The load program of `bench/run`: what Python is too slow or too coarse for.
//!
//! Speaks etcd's interface only, so that etcd and Skein get the very same requests. Each subcommand
//! is one measurement and prints one JSON object. Never starts or configures what it measures.

mod config;
mod failover;
mod figures;
mod fill;
mod leader;
mod leases;
mod requests;
mod store;
mod watch;

use std::io::Write;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "One measurement; `bench/run` is the whole comparison")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Operations of one kind in a closed loop
    Store(store::Arguments),
    /// Fills a store with keys
    Fill(fill::Arguments),
    /// Puts at a steady pace, and how late many watchers hear of them
    Watch(watch::Arguments),
    /// Waits until every endpoint takes a put, and names the leader
    Leader(leader::Arguments),
    /// Signals the leader to end, and tells how long no put succeeded
    Failover(failover::Arguments),
    /// Changes a route, and tells when each node's traffic follows
    Config(config::Arguments),
    /// Grants many leases and keeps them alive
    Leases(leases::Arguments),
    /// HTTP requests at a fixed rate
    Requests(requests::Arguments),
}

/// One thread: the cores belong to what is measured.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let figures = match Arguments::parse().what {
        What::Store(arguments) => store::run(arguments).await?,
        What::Fill(arguments) => fill::run(arguments).await?,
        What::Watch(arguments) => watch::run(arguments).await?,
        What::Leader(arguments) => leader::run(arguments).await?,
        What::Failover(arguments) => failover::run(arguments).await?,
        What::Config(arguments) => config::run(arguments).await?,
        What::Leases(arguments) => leases::run(arguments).await?,
        What::Requests(arguments) => requests::run(&arguments)?,
    };
    writeln!(std::io::stdout(), "{figures}")?;
    Ok(())
}
