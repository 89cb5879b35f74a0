//! Taking a snapshot away from one node.
//!
//! Owns the deadline, which is for each piece: a large snapshot may take its time, a silent node
//! may not. Never goes on at another endpoint: its bytes are others.

use std::time::Duration;

use store_api::etcdserverpb::maintenance_client::MaintenanceClient;
use store_api::etcdserverpb::{SnapshotRequest, SnapshotResponse};
use tokio::time::{Instant, timeout};
use tonic::{Status, Streaming};

use crate::client::{Client, no_answer};
use crate::error::{ClientError, Tried, read_elsewhere, reason};

/// The largest piece that is taken, in bytes.
const PIECE_MAX: usize = 16 << 20;

/// A snapshot that arrives. Ends when dropped.
#[derive(Debug)]
pub struct SnapshotStream {
    endpoint: String,
    answers: Streaming<SnapshotResponse>,
    patience: Duration,
}

impl Client {
    /// Asks the first of the client's endpoints, and only that one, for a snapshot of its store.
    ///
    /// # Errors
    /// [`ClientError`]: `Unavailable` where another endpoint may do better.
    pub async fn snapshot(&self) -> Result<SnapshotStream, ClientError> {
        let endpoint = self.endpoint(0);
        let patience = self.options().deadline;
        // Not through a channel that tells the deadline: the node would end the stream at it.
        let mut client =
            MaintenanceClient::new(endpoint.channel.clone()).max_decoding_message_size(PIECE_MAX);
        let asked = async {
            let mut fresh = false;
            loop {
                let (sign_in, by) = (self.sign_in(), Instant::now() + patience);
                let request = sign_in.request(endpoint, by, fresh, SnapshotRequest {});
                match client.snapshot(request.await?).await {
                    Err(status) if !fresh && sign_in.helps(&status) => fresh = true,
                    done => return done,
                }
            }
        };
        let asked = timeout(patience, asked).await;
        let asked = asked.map_err(|_| unavailable(&endpoint.address, no_answer(patience)))?;
        let answers = asked.map_err(|status| sort(&endpoint.address, &status))?;
        Ok(SnapshotStream {
            endpoint: endpoint.address.clone(),
            answers: answers.into_inner(),
            patience,
        })
    }
}

impl SnapshotStream {
    /// The next piece; `None` after the last one.
    ///
    /// # Errors
    /// [`ClientError`]: `Unavailable` where it may be begun anew at another endpoint.
    pub async fn next(&mut self) -> Result<Option<SnapshotResponse>, ClientError> {
        let next = timeout(self.patience, self.answers.message()).await;
        let next = next.map_err(|_| unavailable(&self.endpoint, no_answer(self.patience)))?;
        next.map_err(|status| sort(&self.endpoint, &status))
    }
}

fn sort(endpoint: &str, status: &Status) -> ClientError {
    // What ends a stream in the middle is no verdict on the request.
    let ended = status.code() == tonic::Code::Aborted;
    if ended || read_elsewhere(status) {
        unavailable(endpoint, reason(status))
    } else {
        ClientError::from_answer(status)
    }
}

fn unavailable(endpoint: &str, reason: String) -> ClientError {
    let endpoint = endpoint.to_owned();
    ClientError::Unavailable {
        tried: vec![Tried { endpoint, reason }],
    }
}
