//! A writer that never stops: one key after the other, remembering what was acknowledged.
//!
//! Owns the record. A write whose outcome is unknown is not counted as acknowledged.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use store_api::etcdserverpb::PutRequest;
use store_client::Client;
use tokio::task::JoinHandle;

/// Where the writes go.
pub(crate) const PREFIX: &str = "demo/writes/";
/// The pause between two writes.
const PAUSE: Duration = Duration::from_millis(10);

/// The running writer.
pub(crate) struct Writes {
    acknowledged: Arc<Mutex<Vec<String>>>,
    count: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writes {
    /// Begins to write through `client`.
    pub(crate) fn start(client: Client) -> Self {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let count = Arc::new(AtomicUsize::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(write_until(
            client,
            Arc::clone(&acknowledged),
            Arc::clone(&count),
            Arc::clone(&stopping),
        ));
        Self {
            acknowledged,
            count,
            stopping,
            task,
        }
    }

    /// Acknowledged writes so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Ends the writer and gives the acknowledged keys.
    pub(crate) async fn stop(self) -> Vec<String> {
        self.stopping.store(true, Ordering::Release);
        // A panic in the writer would show as missing acknowledgements long before this.
        let _ = self.task.await;
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn write_until(
    client: Client,
    acknowledged: Arc<Mutex<Vec<String>>>,
    count: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
) {
    let mut number = 0u64;
    while !stopping.load(Ordering::Acquire) {
        number += 1;
        let key = format!("{PREFIX}{number:08}");
        let request = PutRequest {
            key: key.clone().into(),
            value: number.to_string().into(),
            ..PutRequest::default()
        };
        if client.put(request).await.is_ok() {
            acknowledged
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(key);
            count.fetch_add(1, Ordering::Release);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
