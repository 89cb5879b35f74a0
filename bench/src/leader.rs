//! Waits until a store is ready, and finds its leader.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;
use store_api::etcdserverpb::{PutRequest, StatusRequest};
use tonic::transport::Channel;

use crate::store::connect;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Client addresses of all members, HOST:PORT
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// How long to wait for it
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
}

/// The leader's place among the endpoints, once a put through each of them has succeeded.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let deadline = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    loop {
        match find(&arguments.endpoints).await {
            Ok(place) => return Ok(json!({ "leader": place })),
            Err(fault) if Instant::now() > deadline => {
                return Err(fault.context("the store did not become ready in time"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn find(endpoints: &[String]) -> anyhow::Result<usize> {
    let mut place = None;
    for (at, endpoint) in endpoints.iter().enumerate() {
        let channel = connect(endpoint).await?;
        put(&channel).await?;
        let status = MaintenanceClient::new(channel)
            .status(StatusRequest::default())
            .await?
            .into_inner();
        let header = status.header.context("a status has a header")?;
        if header.member_id == status.leader {
            place = Some(at);
        }
    }
    place.context("no member says that it leads")
}

/// One put, to see whether the store takes it.
pub(crate) async fn put(channel: &Channel) -> Result<(), tonic::Status> {
    let request = PutRequest {
        key: "bench-ready".into(),
        value: "yes".into(),
        ..PutRequest::default()
    };
    KvClient::new(channel.clone()).put(request).await.map(drop)
}
