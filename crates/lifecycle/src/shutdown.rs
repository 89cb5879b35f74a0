//! One request to stop, seen by all who hold a [`Shutdown`].
//!
//! Owns the request. Never forces anything: deadlines belong to those who drain.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Asks every holder of the paired [`Shutdown`] to stop; dropping it asks too.
#[derive(Debug)]
pub struct ShutdownTrigger {
    requested: watch::Sender<bool>,
}

/// A cheap handle that knows whether stopping was requested.
#[derive(Debug, Clone)]
pub struct Shutdown {
    requested: watch::Receiver<bool>,
}

impl ShutdownTrigger {
    /// A trigger with its first handle.
    pub fn new() -> (Self, Shutdown) {
        let (tx, rx) = watch::channel(false);
        (Self { requested: tx }, Shutdown { requested: rx })
    }

    /// Another handle.
    pub fn handle(&self) -> Shutdown {
        Shutdown {
            requested: self.requested.subscribe(),
        }
    }

    /// Requests the stop; a second call changes nothing.
    pub fn request(&self) {
        self.requested.send_replace(true);
    }
}

impl Shutdown {
    /// Whether the stop was requested.
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Returns when the stop is requested, at once if it was.
    pub async fn requested(&mut self) {
        // An error means that the trigger is gone: nobody could ask any more, so stop.
        let _ = self.requested.wait_for(|requested| *requested).await;
    }
}

/// Waits for SIGTERM or SIGINT and returns its name.
///
/// # Errors
/// When the process cannot install signal handlers.
pub async fn terminate_signal() -> std::io::Result<&'static str> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => Ok("SIGTERM"),
        _ = int.recv() => Ok("SIGINT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_reaches_every_handle_early_and_late() {
        let (trigger, shutdown) = ShutdownTrigger::new();
        let mut early = shutdown.clone();
        let waiting = tokio::spawn(async move { early.requested().await });
        assert!(!shutdown.is_requested());
        trigger.request();
        waiting.await.unwrap();
        shutdown.clone().requested().await;
        trigger.handle().requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test]
    async fn a_lost_trigger_counts_as_a_request() {
        let (trigger, mut shutdown) = ShutdownTrigger::new();
        drop(trigger);
        shutdown.requested().await;
    }
}
