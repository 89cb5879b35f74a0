//! A snapshot on its way to the disk.
//!
//! Owns the temporary file until it has proved to be whole. Never touches finished ones.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use super::block::{self, BLOCK_BYTES, HEADER_BYTES, Kind};
use super::{END_FORMAT, EndRecord, HEAD_FORMAT, HeadRecord, Snapshot, SnapshotStore};
use crate::codec;
use crate::durable;

/// A snapshot is synced each time this many bytes were written: it shares the disk with the log,
/// whose syncs would otherwise wait for all of it at once.
const SYNC_BYTES: u64 = 4 * 1024 * 1024;

/// A snapshot that is being written. Give it the bytes by [`Write`].
#[derive(Debug)]
pub struct SnapshotWriter {
    store: SnapshotStore,
    path: PathBuf,
    temp: PathBuf,
    file: File,
    /// Data that does not fill a block yet.
    block: Vec<u8>,
    next_ordinal: u32,
    data_bytes: u64,
    unsynced: u64,
    finished: bool,
}

impl SnapshotWriter {
    /// Begins a snapshot in `temp` that is to appear as `path`.
    pub(super) fn begin(
        store: &SnapshotStore,
        path: PathBuf,
        temp: PathBuf,
        head: &HeadRecord,
    ) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temp)?;
        let mut writer = Self {
            store: store.clone(),
            path,
            temp,
            file,
            block: Vec::with_capacity(BLOCK_BYTES),
            next_ordinal: 0,
            data_bytes: 0,
            unsynced: 0,
            finished: false,
        };
        writer.put(Kind::Head, &codec::encode(HEAD_FORMAT, head))?;
        Ok(writer)
    }

    /// Makes the snapshot durable, reads it back from the disk and gives it its name. When this
    /// returns, the log may be purged up to the snapshot.
    ///
    /// # Errors
    /// What the system reports, or `InvalidData` if the disk gave back something else. The
    /// snapshot then does not exist.
    pub fn finish(self) -> io::Result<Snapshot> {
        self.seal()?.publish()
    }

    /// All of [`SnapshotWriter::finish`] that needs room on the disk: what is sealed only lacks its
    /// name.
    ///
    /// # Errors
    /// As for [`SnapshotWriter::finish`].
    pub fn seal(mut self) -> io::Result<SealedSnapshot> {
        self.put_block()?;
        let end = EndRecord {
            data_bytes: self.data_bytes,
        };
        self.put(Kind::End, &codec::encode(END_FORMAT, &end))?;
        self.file.sync_all()?;
        // Not what the page cache remembers, but what the disk kept. Advice only: it may be
        // ignored, as on a file system in memory.
        let advice = rustix::fs::Advice::DontNeed;
        if let Err(error) = rustix::fs::fadvise(&self.file, 0, None, advice) {
            tracing::debug!(%error, "the snapshot is verified from the page cache");
        }
        let snapshot = Snapshot::open(&self.temp)?;
        Ok(SealedSnapshot {
            writer: self,
            snapshot,
        })
    }

    fn put_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        self.put(Kind::Data, &block)?;
        self.data_bytes += block.len() as u64;
        self.block = block;
        self.block.clear();
        Ok(())
    }

    fn put(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let header = block::header(kind, self.next_ordinal, payload)?;
        self.file.write_all(&header)?;
        self.file.write_all(payload)?;
        self.next_ordinal += 1;
        self.unsynced += (HEADER_BYTES + payload.len()) as u64;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

/// A snapshot that is whole, durable and read back, and does not count yet. Dropping it removes it.
#[derive(Debug)]
pub struct SealedSnapshot {
    writer: SnapshotWriter,
    snapshot: Snapshot,
}

impl SealedSnapshot {
    /// Gives the snapshot its name: from now on it counts.
    ///
    /// # Errors
    /// What the system reports.
    pub fn publish(mut self) -> io::Result<Snapshot> {
        let writer = &mut self.writer;
        durable::publish(&writer.temp, &writer.path)?;
        writer.finished = true;
        let snapshot = self.snapshot.renamed(&writer.path);
        writer.store.admit(snapshot.clone())?;
        Ok(snapshot)
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK_BYTES {
            self.put_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = durable::remove_file(&self.temp)
        {
            // The next opening removes it.
            tracing::debug!(path = %self.temp.display(), %error, "left an unfinished snapshot");
        }
    }
}
