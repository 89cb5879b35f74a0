//! The thread that writes the log.
//!
//! Owns the newest segment. Takes what queued, writes it, syncs it, then answers everybody, in
//! order (group commit). A batch is on stable storage before the next one is begun: recovery tells
//! a torn tail from damage by that. Never goes on after an error: what a failed sync left behind
//! is unknown, and a second one would report success without it.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::WalOptions;
use super::ledger::Location;
use super::outline::Outline;
use super::queue::{BATCH_BYTES_MAX, Failure, Job, Queued, Shared};
use super::record::{self, Kind};
use super::segment::{Opening, Segment};
use crate::data_dir::DataDir;
use crate::durable;
use crate::panics::describe;

/// How far ahead of the records zeros are written. Preallocated blocks that were never written
/// cost their first sync a change of metadata; this pays for many of them at once.
const ZEROS_AHEAD: usize = 128 * 1024;

/// What the buffer may keep of its size between batches, in bytes.
const BUFFER_KEPT: usize = 256 * 1024;

/// The segment that is being written.
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    /// Where the next record goes; only zeros follow.
    pub(super) position: u64,
    /// Up to where zeros were written.
    pub(super) zeroed_to: u64,
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) dir: PathBuf,
    pub(super) options: WalOptions,
    pub(super) active: Active,
    /// Of all that was written; the ledger's own is ahead of it.
    pub(super) outline: Outline,
    /// Number of the next batch.
    pub(super) batch: u64,
    pub(super) buffer: Vec<u8>,
    /// Keeps the directory locked until the last write is done.
    pub(super) _data_dir: DataDir,
}

impl Active {
    /// Makes a segment with room for at least one record of this size.
    pub(super) fn begin(
        dir: &Path,
        options: &WalOptions,
        opening: &Opening,
        record_bytes: u64,
    ) -> io::Result<Self> {
        let position = opening.position();
        let length = options.segment_bytes.max(position + record_bytes);
        let segment = Segment::create(dir, opening, length, &*options.disk)?;
        Ok(Self {
            segment: Arc::new(segment),
            position,
            zeroed_to: position,
        })
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.position + bytes <= self.segment.length
    }
}

impl Writer {
    /// Writes until the log is closed.
    pub(super) fn run(mut self) {
        let mut failure: Option<Failure> = None;
        while let Some(jobs) = self.shared.take() {
            if failure.is_none() {
                // A panic is a fault of ours, yet callers must not wait for answers for ever.
                let outcome = panic::catch_unwind(AssertUnwindSafe(|| self.write(&jobs)))
                    .unwrap_or_else(|panic| Err(io::Error::other(describe(&*panic))));
                if let Err(error) = outcome {
                    tracing::error!(path = %self.dir.display(), %error, "the log failed");
                    let sticky = Failure::new(&error);
                    self.shared.lock().failure = Some(sticky.clone());
                    failure = Some(sticky);
                }
            }
            for done in jobs.into_iter().filter_map(|job| job.done) {
                let outcome = failure
                    .as_ref()
                    .map_or(Ok(()), |failure| Err(failure.to_error()));
                if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| done(outcome))) {
                    tracing::error!(panic = describe(&*panic), "a caller of the log panicked");
                }
            }
        }
    }

    fn write(&mut self, jobs: &[Job]) -> io::Result<()> {
        let mut batch: Vec<&Queued> = Vec::new();
        let mut bytes = 0;
        for queued in jobs.iter().flat_map(|job| &job.records) {
            let more = record::stored_bytes(queued.record.payload.len());
            let full = bytes + more > BATCH_BYTES_MAX as u64 || !self.active.has_room(bytes + more);
            if full && !batch.is_empty() {
                self.commit(&batch)?;
                batch.clear();
                bytes = 0;
            }
            if !self.active.has_room(bytes + more) {
                self.rotate(more)?;
            }
            batch.push(queued);
            bytes += more;
        }
        if !batch.is_empty() {
            self.commit(&batch)?;
        }
        let mut written = jobs.iter().flat_map(|job| &job.records);
        if written.any(|queued| queued.record.kind == Kind::Purge) {
            self.remove_purged()?;
        }
        Ok(())
    }

    /// Makes one batch durable; it fits into the active segment.
    fn commit(&mut self, batch: &[&Queued]) -> io::Result<()> {
        let start = self.active.position;
        let segment = Arc::clone(&self.active.segment);
        let mut placed = Vec::with_capacity(batch.len());
        self.buffer.clear();
        for (at, queued) in batch.iter().enumerate() {
            let record = &queued.record;
            let offset = start + self.buffer.len() as u64;
            let ends = at + 1 == batch.len();
            record::encode(
                &mut self.buffer,
                record,
                self.batch,
                ends,
                segment.place(offset),
            );
            self.outline.apply(record).map_err(io::Error::other)?;
            if record.kind == Kind::Entry {
                let location = Location {
                    segment: segment.number,
                    offset: u32::try_from(offset).map_err(io::Error::other)?,
                    payload_bytes: u32::try_from(record.payload.len()).map_err(io::Error::other)?,
                };
                placed.push((record.index, queued.ticket, location));
            }
        }
        self.put_buffer(batch.len())?;
        self.batch += 1;

        let mut state = self.shared.lock();
        for (index, ticket, location) in placed {
            state.ledger.place(index, ticket, location);
        }
        state.ledger.evict();
        Ok(())
    }

    /// Writes the buffer behind the last record, and syncs it.
    fn put_buffer(&mut self, records: usize) -> io::Result<()> {
        let disk = &*self.options.disk;
        let file = &self.active.segment.file;
        let start = self.active.position;
        let bytes = self.buffer.len();
        let end = start + bytes as u64;
        if end > self.active.zeroed_to {
            let to = (end + ZEROS_AHEAD as u64).min(self.active.segment.length);
            self.buffer
                .resize(usize::try_from(to - start).map_err(io::Error::other)?, 0);
            self.active.zeroed_to = to;
        }
        disk.write_all_at(file, &self.buffer, start)?;
        let begun = Instant::now();
        disk.sync_data(file)?;
        let took = begun.elapsed();
        self.active.position = end;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT);
        let counting = &self.shared.counting;
        counting.synced(took);
        counting
            .records
            .fetch_add(records as u64, Ordering::Relaxed);
        counting.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Goes on in a new segment with room for a record of this size.
    fn rotate(&mut self, record_bytes: u64) -> io::Result<()> {
        let number = self.active.segment.number + 1;
        let opening = Opening::new(number, &self.outline, self.batch);
        self.active = Active::begin(&self.dir, &self.options, &opening, record_bytes)?;
        self.batch += 1;
        self.shared
            .lock()
            .ledger
            .add_segment(Arc::clone(&self.active.segment));
        Ok(())
    }

    /// Removes the segments that a durable purge left without an entry, oldest first.
    pub(super) fn remove_purged(&self) -> io::Result<()> {
        let Some(purged) = &self.outline.purged else {
            return Ok(());
        };
        loop {
            let segment = self.shared.lock().ledger.take_purged_segment(purged.index);
            let Some(segment) = segment else {
                return Ok(());
            };
            // Each durably before the next: a gap in the numbers must always mean a loss.
            durable::remove_file(&segment.path)?;
            tracing::debug!(path = %segment.path.display(), "removed a purged segment");
        }
    }
}
