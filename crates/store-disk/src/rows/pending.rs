//! Changes on their way to the rows.
//!
//! Owns the bounded, merged set of pending changes and the failure that ends it. Never does I/O.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{RowsBatch, RowsIter};

/// Bytes of keys and values that may be pending. At the limit callers block until the writer took
/// them; below it, one more batch of any size passes.
pub const ROWS_PENDING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The bytes at which the writer does not wait any longer.
const PENDING_BYTES_URGENT: usize = ROWS_PENDING_BYTES_MAX / 4;

/// How long changes wait for others to be merged with. Rows that change often are written once.
const MERGE_FOR: Duration = Duration::from_millis(100);

/// What a pending row costs beside its bytes, roughly.
const ROW_OVERHEAD: usize = 128;

/// What the writer takes at once. The rebuild comes first.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) rebuild: Option<(RowsIter, Bytes)>,
    /// `None` removes the row.
    pub(super) rows: BTreeMap<Bytes, Option<Bytes>>,
    pub(super) applied: Option<Bytes>,
    /// Somebody waits until the changes are in the files.
    pub(super) flush: bool,
    bytes: usize,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.rebuild.is_none() && self.applied.is_none()
    }

    fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        let size = |key: &Bytes, value: &Option<Bytes>| {
            key.len() + value.as_ref().map_or(0, Bytes::len) + ROW_OVERHEAD
        };
        self.bytes += size(&key, &value);
        let freed = key.clone();
        if let Some(old) = self.rows.insert(key, value) {
            self.bytes -= size(&freed, &old);
        }
    }
}

pub(super) struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// Signals room, written changes, and failure.
    progress: Condvar,
}

#[derive(Default)]
struct State {
    changes: Changes,
    /// Counts what callers queued.
    queued: u64,
    /// Up to which of it somebody waits for it to be in the files, and up to which it is.
    flush_to: u64,
    flushed: u64,
    failure: Option<String>,
    closed: bool,
}

impl State {
    fn must_flush(&self) -> bool {
        self.flushed < self.flush_to
    }
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State::default()),
            work: Condvar::new(),
            progress: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.progress
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self, batch: RowsBatch) {
        let mut state = self.lock();
        while state.changes.bytes >= ROWS_PENDING_BYTES_MAX && state.failure.is_none() {
            state = self.wait(state);
        }
        if state.failure.is_some() {
            return;
        }
        let idle = state.changes.is_empty();
        for key in batch.deletes {
            state.changes.set(key, None);
        }
        for (key, value) in batch.puts {
            state.changes.set(key, Some(value));
        }
        state.changes.applied = Some(batch.applied);
        state.queued += 1;
        if idle || state.changes.bytes >= PENDING_BYTES_URGENT {
            self.work.notify_one();
        }
    }

    pub(super) fn rebuild(&self, rows: RowsIter, applied: Bytes) {
        let mut state = self.lock();
        if state.failure.is_some() {
            return;
        }
        let replaced = Changes {
            rebuild: Some((rows, applied)),
            ..Changes::default()
        };
        state.changes = replaced;
        state.queued += 1;
        self.work.notify_one();
        self.progress.notify_all();
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        let mut state = self.lock();
        let target = state.queued;
        state.flush_to = target;
        self.work.notify_one();
        while state.flushed < target && state.failure.is_none() {
            state = self.wait(state);
        }
        state
            .failure
            .as_ref()
            .map_or(Ok(()), |text| Err(io::Error::other(text.clone())))
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    /// Whether somebody waits for the writer to be done.
    pub(super) fn is_waited_for(&self) -> bool {
        let state = self.lock();
        state.closed || state.must_flush()
    }

    /// Takes all changes, once they had time to be merged. `None` when the rows are closed and
    /// nothing is left.
    pub(super) fn take(&self) -> Option<(Changes, u64)> {
        let mut state = self.lock();
        while state.changes.is_empty() && !state.must_flush() && !state.closed {
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + MERGE_FOR;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let urgent = state.closed
                || state.must_flush()
                || state.changes.rebuild.is_some()
                || state.changes.bytes >= PENDING_BYTES_URGENT;
            if urgent || left.is_zero() {
                break;
            }
            let woken = self.work.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.changes.is_empty() && !state.must_flush() {
            return None;
        }
        let mut changes = std::mem::take(&mut state.changes);
        changes.flush = state.must_flush();
        self.progress.notify_all();
        Some((changes, state.queued))
    }

    /// Bytes that are pending, for tests.
    #[cfg(test)]
    pub(super) fn pending_bytes(&self) -> usize {
        self.lock().changes.bytes
    }

    /// Notes that everything up to `queued` is in the files.
    pub(super) fn note_flushed(&self, queued: u64) {
        self.lock().flushed = queued;
        self.progress.notify_all();
    }

    pub(super) fn fail(&self, text: String) {
        let mut state = self.lock();
        state.failure = Some(text);
        state.changes = Changes::default();
        self.progress.notify_all();
    }
}
