//! What is done about a disk without room for a snapshot.
//!
//! Owns the patience: the log has room of its own, so the store goes on meanwhile, and an error
//! would stop it. Never makes room.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::sync::watch;

/// Between two attempts to write a snapshot to a full disk.
pub(crate) const PAUSE: Duration = Duration::from_secs(10);

/// Whether `error` ends by itself when somebody makes room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// Tries until there is room on the disk. Gives up when the store is gone.
pub(crate) async fn with_room<T, F: Future<Output = io::Result<T>>>(
    pause: Duration,
    mut store: watch::Receiver<u64>,
    mut attempt: impl FnMut() -> F,
) -> io::Result<T> {
    loop {
        let error = match attempt().await {
            Err(error) if is_full(&error) => error,
            result => return result,
        };
        tracing::error!(%error, "no room for a snapshot, and the log grows until there is: make room");
        let gone = async { while store.changed().await.is_ok() {} };
        if tokio::time::timeout(pause, gone).await.is_ok() {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_disk_is_waited_out_and_other_faults_are_not() {
        let pause = Duration::from_millis(1);
        let running = watch::Sender::new(0);
        let mut attempts = 0;
        let written = with_room(pause, running.subscribe(), || {
            attempts += 1;
            let attempt = match attempts {
                1 => Err(io::ErrorKind::StorageFull.into()),
                2 => Err(io::ErrorKind::QuotaExceeded.into()),
                _ => Ok(attempts),
            };
            std::future::ready(attempt)
        });
        assert_eq!(written.await.unwrap(), 3);

        let failed = || std::future::ready(Err::<(), _>(io::ErrorKind::InvalidData.into()));
        let error = with_room(pause, running.subscribe(), failed).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidData);

        // Nobody is left to need it.
        let stopped = running.subscribe();
        drop(running);
        let full = || std::future::ready(Err::<(), _>(io::ErrorKind::StorageFull.into()));
        let error = with_room(Duration::MAX, stopped, full).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
