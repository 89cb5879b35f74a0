//! The write-ahead log: Raft's entries, vote and committed position, with group commit.
//!
//! Owns the files below `wal/` and the thread that writes them. Never knows what an entry says.
//!
//! The log is a history that is only ever appended to: an entry, a vote, a committed position, a
//! truncation and a purge are one record each ([`record`]), in the order of the calls. Truncation
//! overwrites nothing, so a crash cannot bring back half of it. Records are written in batches,
//! each on stable storage before the next one begins ([`writer`]), into preallocated segments
//! ([`segment`]), each of which begins with the state that all earlier ones amount to; so purged
//! segments are simply removed. On start, the history is replayed ([`recovery`]).

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use self::ledger::{Ledger, Location, Source};
use self::outline::Outline;
use self::queue::Shared;
use self::record::{HEADER_BYTES, Header, Kind, Record};
use self::recovery::Recovery;
use self::segment::{Opening, Segment};
use self::writer::{Active, Writer};
use crate::data_dir::DataDir;
use crate::durable;

mod disk;
mod error;
mod ledger;
mod outline;
mod queue;
mod record;
mod recovery;
mod scan;
mod segment;
mod writer;

pub use disk::{Disk, RealDisk};
pub use error::WalError;
pub use outline::Purged;
pub use queue::{Done, QUEUE_BYTES_MAX, QUEUE_JOBS_MAX, SYNC_TIMES, WalCounters};

/// Payload bytes that one entry, vote or id may have. More is refused.
pub const ENTRY_BYTES_MAX: usize = 64 * 1024 * 1024;

const FOLDER: &str = "wal";

/// Tells a directory that never had a log from one that lost it.
const BEGUN: &str = "log-begun";

/// The bounds of [`WalOptions::segment_bytes`].
const SEGMENT_BYTES: Range<u64> = 4096..(1 << 30) + 1;

/// How the log is kept.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// Length of a segment file in bytes, preallocated; 4 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Bytes of the newest payloads that are kept in memory. Older ones are read from the files;
    /// those that are not written yet are kept in any case.
    pub cache_bytes: usize,
    /// How segments are written and synced.
    pub disk: Arc<dyn Disk>,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            cache_bytes: 4 * 1024 * 1024,
            disk: Arc::new(RealDisk),
        }
    }
}

/// What opening the log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Segment files.
    pub segments: usize,
    /// What a crash had cut short, if it did; already discarded.
    pub torn: Option<TornTail>,
}

/// A write that a crash cut short. Nobody had been told that it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub path: PathBuf,
    /// Where it began.
    pub offset: u64,
    /// The bytes discarded.
    pub bytes: u64,
}

/// What the log holds, entries aside. Includes what is still on its way to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalState {
    /// Index of the first entry held; `None` if there is none.
    pub first: Option<u64>,
    /// Index of the last entry held; `None` if there is none.
    pub last: Option<u64>,
    /// Up to where the log was purged.
    pub purged: Option<Purged>,
    /// The last vote saved.
    pub vote: Option<Bytes>,
    /// The last committed position saved.
    pub committed: Option<Bytes>,
}

/// An open log. Clones share it. When the last one is dropped, what is queued is still written.
///
/// All changes take effect for readers when their call returns, and on disk in the order of the
/// calls. After a failed write or sync every later change fails, and so does reading: the memory
/// is then ahead of the disk, and nobody knows by how much.
#[derive(Clone)]
pub struct Wal {
    shared: Arc<Shared>,
    _thread: Arc<WriterThread>,
}

impl Wal {
    /// Opens the log of a data directory, or begins one.
    ///
    /// # Errors
    /// [`WalError`] says which and what to do about it.
    pub fn open(data_dir: &DataDir, options: WalOptions) -> Result<(Self, Recovered), WalError> {
        if !SEGMENT_BYTES.contains(&options.segment_bytes) {
            return Err(WalError::SegmentBytes(options.segment_bytes));
        }
        let dir = data_dir.path().join(FOLDER);
        durable::create_folder(&dir).map_err(failing("create", &dir))?;
        // Made by a process that may have died before the names were durable.
        durable::sync_folder(&dir).map_err(failing("sync", &dir))?;
        let begun = data_dir.path().join(BEGUN);
        let Recovery {
            ledger,
            active,
            batch,
            torn,
        } = match recovery::recover(&dir, options.cache_bytes)? {
            Some(recovery) => recovery,
            None if begun.exists() => {
                return Err(WalError::damaged(
                    &dir,
                    0,
                    "its segments are gone".to_owned(),
                ));
            }
            None => begin(&dir, &options).map_err(failing("write", &dir))?,
        };
        if !begun.exists() {
            durable::replace_file(&begun, b"").map_err(failing("write", &begun))?;
        }
        let outline = ledger.outline().clone();
        let shared = Arc::new(Shared::new(ledger));
        let writer = Writer {
            shared: Arc::clone(&shared),
            dir: dir.clone(),
            options,
            active,
            outline,
            batch,
            buffer: Vec::new(),
            _data_dir: data_dir.clone(),
        };
        writer.remove_purged().map_err(failing("clean", &dir))?;
        let handle = thread::Builder::new()
            .name("skein-wal".to_owned())
            .spawn(move || writer.run())
            .map_err(failing("start the writer of", &dir))?;
        let thread = WriterThread {
            shared: Arc::clone(&shared),
            handle: Some(handle),
        };
        let recovered = Recovered {
            segments: shared.lock().ledger.segments().count(),
            torn,
        };
        Ok((
            Self {
                shared,
                _thread: Arc::new(thread),
            },
            recovered,
        ))
    }

    /// Appends entries, which follow the last one without a gap. They are readable when this
    /// returns; `done` is called when they are durable.
    ///
    /// Blocks while the queue is full ([`QUEUE_JOBS_MAX`], [`QUEUE_BYTES_MAX`]). Entries with a
    /// gap, or larger than [`ENTRY_BYTES_MAX`], are answered with `InvalidInput` and change
    /// nothing. An empty list is a barrier: `done` is called after everything before it.
    pub fn append(&self, entries: Vec<(u64, Bytes)>, done: Done) {
        let entry = |(index, payload)| Record {
            kind: Kind::Entry,
            index,
            payload,
        };
        self.shared
            .submit(entries.into_iter().map(entry).collect(), done);
    }

    /// Saves the vote; `done` is called when it is durable.
    pub fn save_vote(&self, vote: Bytes, done: Done) {
        self.submit_one(Kind::Vote, 0, vote, done);
    }

    /// Saves the committed position, soon, but without a sync of its own: after a crash an older
    /// one may be found. It is never found without the entries that were appended before it.
    pub fn save_committed(&self, committed: Bytes) {
        self.shared.save_committed(committed);
    }

    /// Removes all entries after `index`, or all entries. `done` is called when that is durable.
    pub fn truncate_after(&self, index: Option<u64>, done: Done) {
        let from = index.map_or(0, |index| index.saturating_add(1));
        self.submit_one(Kind::Truncate, from, Bytes::new(), done);
    }

    /// Removes all entries up to and including `index`, which may lie beyond the last one; the
    /// log then goes on at `index + 1`. `id` is kept as [`WalState::purged`]. `done` is called
    /// when that is durable. Purging less than before does nothing.
    pub fn purge_to(&self, index: u64, id: Bytes, done: Done) {
        self.submit_one(Kind::Purge, index, id, done);
    }

    /// Reads the entries that the log holds of `range`, in order.
    ///
    /// # Errors
    /// The failure of the log; what the system reports; `InvalidData`, naming file and offset, if
    /// an entry does not match its checksum.
    pub fn read(&self, range: Range<u64>) -> io::Result<Vec<(u64, Bytes)>> {
        self.read_up_to(range, usize::MAX)
    }

    /// Like [`Wal::read`], but stops ahead of the entry that would exceed `bytes_max` payload
    /// bytes. The first entry is returned in any case.
    ///
    /// # Errors
    /// As [`Wal::read`].
    pub fn read_up_to(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>> {
        let mut sources = Vec::new();
        {
            let state = self.shared.lock();
            if let Some(failure) = &state.failure {
                return Err(failure.to_error());
            }
            let mut bytes = 0;
            for (index, source) in state.ledger.sources(range) {
                bytes += source.size();
                if bytes > bytes_max && !sources.is_empty() {
                    break;
                }
                sources.push((index, source));
            }
        }
        sources
            .into_iter()
            .map(|(index, source)| match source {
                Source::Cached(payload) => Ok((index, payload)),
                Source::Stored(segment, location) => {
                    read_entry(&segment, location, index).map(|payload| (index, payload))
                }
            })
            .collect()
    }

    /// What the log holds, entries aside.
    pub fn state(&self) -> WalState {
        let state = self.shared.lock();
        let outline = state.ledger.outline();
        let held = !outline.is_empty();
        WalState {
            first: held.then_some(outline.first),
            last: held.then(|| outline.next - 1),
            purged: outline.purged.clone(),
            vote: outline.vote.clone(),
            committed: outline.committed.clone(),
        }
    }

    /// Why the log takes no more writes, if it failed.
    pub fn failure(&self) -> Option<String> {
        self.shared
            .lock()
            .failure
            .as_ref()
            .map(|failure| failure.text().to_owned())
    }

    /// What was written since the log was opened.
    pub fn counters(&self) -> WalCounters {
        self.shared.counters()
    }

    fn submit_one(&self, kind: Kind, index: u64, payload: Bytes, done: Done) {
        self.shared.submit(
            vec![Record {
                kind,
                index,
                payload,
            }],
            done,
        );
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// Ends the writer, and waits for its last write, when the last handle is gone.
struct WriterThread {
    shared: Arc<Shared>,
    handle: Option<JoinHandle<()>>,
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.shared.close();
        let Some(handle) = self.handle.take() else {
            return;
        };
        // The last handle may have lived in a callback, which runs on the writer itself.
        if handle.thread().id() != thread::current().id() && handle.join().is_err() {
            tracing::error!("the log's writer panicked");
        }
    }
}

/// Makes the first segment.
fn begin(dir: &Path, options: &WalOptions) -> io::Result<Recovery> {
    let outline = Outline::default();
    let active = Active::begin(dir, options, &Opening::new(1, &outline, 1), 0)?;
    let mut ledger = Ledger::new(options.cache_bytes);
    ledger.add_segment(Arc::clone(&active.segment));
    Ok(Recovery {
        ledger,
        active,
        batch: 2,
        torn: None,
    })
}

fn read_entry(segment: &Segment, location: Location, index: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; HEADER_BYTES + location.payload_bytes as usize];
    let offset = u64::from(location.offset);
    segment.file.read_exact_at(&mut bytes, offset)?;
    let header = bytes
        .first_chunk::<HEADER_BYTES>()
        .and_then(|header| Header::decode(header, segment.place(offset)))
        .filter(|header| header.kind == Kind::Entry && header.index == index);
    let payload = Bytes::from(bytes).split_off(HEADER_BYTES);
    if header.is_some_and(|header| header.admits(&payload)) {
        return Ok(payload);
    }
    let fault = "the entry does not match its checksum".to_owned();
    let damaged = WalError::damaged(&segment.path, offset, fault);
    Err(io::Error::new(io::ErrorKind::InvalidData, damaged))
}

fn failing(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WalError + use<> {
    let path = path.to_owned();
    move |source| WalError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests;
