//! Where the hub leaves batches for one stream.
//!
//! Owns the bound: when the box is full the watcher is told from which revision on it must read
//! history by itself. Posting never waits, so no stream holds up another.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::batch::Batch;

/// The most batches that wait for one stream. Past it, its watchers catch up from history.
pub(crate) const MAILBOX_BATCHES_MAX: usize = 128;
/// The most bytes that wait for one stream (batches are shared, so this bounds what a slow
/// stream keeps alive). A single larger batch still fits into an empty box.
pub(crate) const MAILBOX_BYTES_MAX: usize = 4 << 20;

/// A watcher's identity on this node, never used twice (unlike its watch id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Serial(pub(crate) u64);

/// What a stream finds in its box.
#[derive(Debug)]
pub(crate) enum Mail {
    /// Events for a watcher.
    Events(Serial, Arc<Batch>),
    /// The hub has let go of the watcher; it must read history from this revision on.
    Behind(Serial, i64),
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    /// It is in the box.
    Kept,
    /// There was no room: the watcher must be let go of.
    Behind,
}

#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    contents: Mutex<Contents>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Contents {
    mail: VecDeque<Mail>,
    batches: usize,
    bytes: usize,
}

impl Mailbox {
    /// Leaves a batch, or the word that the watcher is behind. That word always fits: the hub
    /// says it once for a watcher and then lets go of it.
    pub(crate) fn post(&self, serial: Serial, batch: &Arc<Batch>) -> Posted {
        let mut contents = self.lock();
        let bytes = batch.events().len();
        let fits = contents.batches < MAILBOX_BATCHES_MAX
            && (contents.bytes == 0 || contents.bytes + bytes <= MAILBOX_BYTES_MAX);
        let posted = if fits {
            contents.batches += 1;
            contents.bytes += bytes;
            contents.mail.push_back(Mail::Events(serial, batch.clone()));
            Posted::Kept
        } else {
            contents.mail.push_back(Mail::Behind(serial, batch.first));
            Posted::Behind
        };
        drop(contents);
        self.arrived.notify_one();
        posted
    }

    /// Says that the watcher must read history from `revision` on.
    pub(crate) fn post_behind(&self, serial: Serial, revision: i64) {
        self.lock().mail.push_back(Mail::Behind(serial, revision));
        self.arrived.notify_one();
    }

    pub(crate) fn take(&self) -> Option<Mail> {
        let mut contents = self.lock();
        let mail = contents.mail.pop_front()?;
        if let Mail::Events(_, batch) = &mail {
            contents.batches -= 1;
            contents.bytes -= batch.events().len();
        }
        Some(mail)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().mail.is_empty()
    }

    /// Returns when something was posted since the last call returned.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // Every change is complete before anything that could panic.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
