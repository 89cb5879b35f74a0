//! Between the callers and the writer thread: the ledger, the bounded queue, and the failure that
//! ends both.
//!
//! Owns the one lock of the log. Under it an operation changes the ledger and takes its place in
//! the queue, so that readers and disk see the same order. Never does I/O.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ENTRY_BYTES_MAX;
use super::ledger::Ledger;
use super::outline::Misfit;
use super::record::{Kind, Record};

/// Called once, when an operation and all before it are on stable storage, or with the error that
/// keeps them from it. Runs on the writer thread (after a misuse: on the caller's): be brief.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Operations that may wait for the disk. At the limit callers block until the writer took some.
pub const QUEUE_JOBS_MAX: usize = 65_536;

/// Payload bytes that may wait for the disk. At the limit callers block until the writer took
/// some; below it, one more operation of any size passes.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The bytes after which a batch is written, although more is queued.
pub(super) const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a committed position waits for another operation to be written with. It needs no
/// durability, so it is not worth a sync of its own while more is to come.
const COMMITTED_LINGER: Duration = Duration::from_millis(100);

/// One operation on its way to the disk.
pub(super) struct Job {
    pub(super) records: Vec<Queued>,
    pub(super) done: Option<Done>,
}

/// A record and, if it is an entry, its ticket in the ledger.
pub(super) struct Queued {
    pub(super) record: Record,
    pub(super) ticket: u64,
}

impl Job {
    fn size(&self) -> usize {
        self.records
            .iter()
            .map(|queued| queued.record.payload.len())
            .sum()
    }
}

/// Why the log takes no more writes.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    kind: io::ErrorKind,
    text: String,
}

impl Failure {
    pub(super) fn new(error: &io::Error) -> Self {
        let text = format!(
            "the log takes no more writes, because one failed ({error}); check the disk, then restart the node"
        );
        Self {
            kind: error.kind(),
            text,
        }
    }

    pub(super) fn to_error(&self) -> io::Error {
        io::Error::new(self.kind, self.text.clone())
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// How finely the times of syncs are told apart: up to 8 s, as in etcd.
pub const SYNC_TIMES: usize = 15;

/// What the log has written since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalCounters {
    /// Syncs of data, each of which made one batch durable.
    pub syncs: u64,
    /// Nanoseconds spent in them.
    pub sync_nanos: u64,
    /// How many of them took up to 1 ms, 2 ms, 4 ms and so on; the last: longer than all of these.
    pub sync_times: [u64; SYNC_TIMES],
    /// Records written.
    pub records: u64,
    /// Bytes written, preparation of empty space aside.
    pub bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counting {
    pub(super) syncs: AtomicU64,
    pub(super) sync_nanos: AtomicU64,
    pub(super) sync_times: [AtomicU64; SYNC_TIMES],
    pub(super) records: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl Counting {
    pub(super) fn synced(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_nanos.fetch_add(nanos, Ordering::Relaxed);
        // The least n with took <= 2^n ms.
        let millis = nanos.div_ceil(1_000_000).max(1);
        let n = millis.next_power_of_two().trailing_zeros() as usize;
        self.sync_times[n.min(SYNC_TIMES - 1)].fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) struct Shared {
    state: Mutex<State>,
    work: Condvar,
    room: Condvar,
    pub(super) counting: Counting,
}

pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) failure: Option<Failure>,
    jobs: VecDeque<Job>,
    bytes: usize,
    /// Newest first to matter: an older one that still waits is not written at all.
    committed: Option<Bytes>,
    closed: bool,
    /// The writer sleeps until it is told.
    writer_sleeps: bool,
}

impl Shared {
    pub(super) fn new(ledger: Ledger) -> Self {
        let state = State {
            ledger,
            failure: None,
            jobs: VecDeque::new(),
            bytes: 0,
            committed: None,
            closed: false,
            writer_sleeps: false,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Condvar::new(),
            counting: Counting::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No operation panics half way through a change: see `State::enqueue`.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the records as one operation, waiting for room. `done` also gets the misfit, if the
    /// records cannot follow what the log holds; then nothing changed.
    pub(super) fn submit(&self, records: Vec<Record>, done: Done) {
        let mut state = self.lock();
        while state.jobs.len() >= QUEUE_JOBS_MAX || state.bytes >= QUEUE_BYTES_MAX {
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        match state.enqueue(records, done) {
            Ok(()) => self.work.notify_one(),
            Err((misfit, done)) => {
                drop(state);
                done(Err(io::Error::new(io::ErrorKind::InvalidInput, misfit)));
            }
        }
    }

    /// Notes the committed position; the writer takes it along with the next operation.
    pub(super) fn save_committed(&self, committed: Bytes) {
        let mut state = self.lock();
        if state.failure.is_some() {
            return;
        }
        let record = Record {
            kind: Kind::Committed,
            index: 0,
            payload: committed.clone(),
        };
        let applied = state.ledger.apply(&record);
        debug_assert!(applied.is_ok(), "a committed position fits anywhere");
        state.committed = Some(committed);
        if state.writer_sleeps {
            self.work.notify_one();
        }
    }

    /// Takes what is queued, up to a batch, waiting for something. `None` once the log is closed
    /// and everything was taken.
    pub(super) fn take(&self) -> Option<Vec<Job>> {
        // A committed position tends to follow right after the batch that was just written, so
        // the first wait is a short one, and the caller need not wake this thread for it.
        let mut linger = Some(Instant::now() + COMMITTED_LINGER);
        let mut state = self.lock();
        while state.jobs.is_empty() && !state.closed {
            state = match linger.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) if state.committed.is_some() => break,
                Some(Duration::ZERO) => {
                    linger = None;
                    state
                }
                Some(left) => {
                    self.work
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None if state.committed.is_some() => break,
                None => {
                    state.writer_sleeps = true;
                    let mut woken = self
                        .work
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                    woken.writer_sleeps = false;
                    woken
                }
            };
        }
        let jobs = state.take_batch();
        self.room.notify_all();
        if jobs.is_empty() && state.closed {
            None
        } else {
            Some(jobs)
        }
    }

    /// Lets the writer finish what is queued and end.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    pub(super) fn counters(&self) -> WalCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WalCounters {
            syncs: load(&self.counting.syncs),
            sync_nanos: load(&self.counting.sync_nanos),
            sync_times: self.counting.sync_times.each_ref().map(load),
            records: load(&self.counting.records),
            bytes: load(&self.counting.bytes),
        }
    }
}

impl State {
    fn enqueue(&mut self, records: Vec<Record>, done: Done) -> Result<(), (Misfit, Done)> {
        let mut job = Job {
            records: Vec::new(),
            done: Some(done),
        };
        // After a failure the writer answers everything with it, in order.
        if self.failure.is_none() {
            if let Err(misfit) = self.check(&records) {
                return Err((misfit, job.done.take().expect("just put in")));
            }
            for record in records {
                if record.kind == Kind::Purge && !self.ledger.outline().is_purge_news(record.index)
                {
                    continue;
                }
                let ticket = self.ledger.apply(&record).expect("checked above");
                job.records.push(Queued { record, ticket });
            }
        }
        self.bytes += job.size();
        self.jobs.push_back(job);
        Ok(())
    }

    /// Whether all of the records fit, so that an operation happens whole or not at all.
    fn check(&self, records: &[Record]) -> Result<(), Misfit> {
        let too_large = records
            .iter()
            .find(|record| record.payload.len() > ENTRY_BYTES_MAX);
        if let Some(record) = too_large {
            return Err(Misfit::TooLarge(record.payload.len()));
        }
        let mut entries = records.iter().filter(|record| record.kind == Kind::Entry);
        let Some(first) = entries.next() else {
            return Ok(());
        };
        self.ledger.outline().check_entry(first.index)?;
        let mut last = first.index;
        for entry in entries {
            if last.checked_add(1) != Some(entry.index) || entry.index == u64::MAX {
                return Err(Misfit::Gap {
                    expected: last.wrapping_add(1),
                    found: entry.index,
                });
            }
            last = entry.index;
        }
        Ok(())
    }

    fn take_batch(&mut self) -> Vec<Job> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES_MAX
            && let Some(job) = self.jobs.pop_front()
        {
            bytes += job.size();
            taken.push(job);
        }
        self.bytes -= bytes;
        // Behind all entries that it may point at, and so never ahead of the log.
        if self.jobs.is_empty()
            && let Some(payload) = self.committed.take()
        {
            let record = Record {
                kind: Kind::Committed,
                index: 0,
                payload,
            };
            taken.push(Job {
                records: vec![Queued { record, ticket: 0 }],
                done: None,
            });
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(jobs: &[Job]) -> Vec<Kind> {
        jobs.iter()
            .flat_map(|job| &job.records)
            .map(|queued| queued.record.kind)
            .collect()
    }

    #[test]
    fn a_committed_position_never_overtakes_the_entries_ahead_of_it() {
        let shared = Shared::new(Ledger::new(0));
        let payload = Bytes::from(vec![0; BATCH_BYTES_MAX]);
        for index in 0..2 {
            let record = Record {
                kind: Kind::Entry,
                index,
                payload: payload.clone(),
            };
            shared.submit(vec![record], Box::new(drop));
        }
        shared.save_committed(Bytes::from_static(b"older"));
        shared.save_committed(Bytes::from_static(b"newer"));
        assert_eq!(kinds(&shared.take().unwrap()), [Kind::Entry]);
        let second = shared.take().unwrap();
        assert_eq!(kinds(&second), [Kind::Entry, Kind::Committed]);
        assert_eq!(second[1].records[0].record.payload, "newer");
        shared.close();
        assert!(shared.take().is_none());
    }

    #[test]
    fn a_committed_position_alone_is_taken_after_a_moment() {
        let shared = Shared::new(Ledger::new(0));
        shared.save_committed(Bytes::from_static(b"c"));
        assert_eq!(kinds(&shared.take().unwrap()), [Kind::Committed]);
    }
}
