//! Fills a store with keys, once each, so that it has a known size.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use store_api::etcdserverpb::TxnRequest;
use store_api::etcdserverpb::kv_client::KvClient;
use tokio::task::LocalSet;

use crate::store::{connect, key, put_op};

/// Puts per transaction; 128 is the most that etcd takes.
const PUTS: u32 = 100;
/// Transactions in flight.
const CLIENTS: usize = 8;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Client addresses, HOST:PORT
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    #[arg(long, default_value_t = 100_000)]
    keys: u32,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let began = Instant::now();
    let next = Rc::new(Cell::new(0));
    let local = LocalSet::new();
    let mut clients = Vec::new();
    for at in 0..CLIENTS {
        let endpoint = &arguments.endpoints[at % arguments.endpoints.len()];
        let mut kv = KvClient::new(connect(endpoint).await?);
        let (next, keys, bytes) = (next.clone(), arguments.keys, arguments.value_bytes);
        clients.push(local.spawn_local(async move {
            let mut rng = SmallRng::seed_from_u64(at as u64);
            loop {
                let from = next.get();
                if from >= keys {
                    return anyhow::Ok(());
                }
                next.set(from + PUTS);
                let success = (from..keys.min(from + PUTS)).map(|number| {
                    let mut value = vec![0; bytes];
                    rng.fill_bytes(&mut value);
                    put_op(key(number), Bytes::from(value))
                });
                let request = TxnRequest {
                    success: success.collect(),
                    ..TxnRequest::default()
                };
                kv.txn(request).await?;
            }
        }));
    }
    local
        .run_until(async {
            for client in clients {
                client.await.context("a client of the load panicked")??;
            }
            anyhow::Ok(())
        })
        .await?;
    Ok(json!({ "keys": arguments.keys, "seconds": began.elapsed().as_secs_f64() }))
}
