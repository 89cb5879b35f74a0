//! Snapshot files: whole images of the applied state, from which the log may be purged.
//!
//! Owns the files below `snapshots/`. What a snapshot says is opaque. A file appears under its
//! final name only when it is whole, durable and read back; the newest two are kept, so that one
//! damaged file does not leave the node without any.
//!
//! ```text
//! file:   head block, data blocks, end block
//! block:  crc32 u32 | payload bytes u32 | ordinal u32 | kind u8 | zeros to 16 | payload
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::codec::{self, CodecError, Format};
use crate::data_dir::DataDir;
use crate::durable;

mod block;

use block::{BLOCK_BYTES, HEADER_BYTES, Kind};

const FOLDER: &str = "snapshots";
const EXTENSION: &str = "snap";

/// Snapshots that are kept; older ones are removed when a new one is finished.
const KEPT: usize = 2;

/// A snapshot is synced each time this many bytes were written: it shares the disk with the log,
/// whose syncs would otherwise wait for all of it at once.
const SYNC_BYTES: u64 = 4 * 1024 * 1024;

const HEAD_FORMAT: Format = Format {
    magic: *b"SKsn",
    version: 1,
};
const END_FORMAT: Format = Format {
    magic: *b"SKse",
    version: 1,
};

#[derive(Encode, Decode)]
struct HeadRecord {
    index: u64,
    meta: Vec<u8>,
}

#[derive(Encode, Decode)]
struct EndRecord {
    data_bytes: u64,
}

/// The snapshots of one node. Clones share it.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    known: Mutex<Known>,
    /// Sets apart the temporary files of writers that are open at the same time.
    writers: AtomicU64,
    _data_dir: DataDir,
}

#[derive(Debug, Default)]
struct Known {
    /// Newest first.
    intact: Vec<Snapshot>,
    damaged: Vec<DamagedSnapshot>,
}

/// A snapshot file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedSnapshot {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: String,
}

/// An intact snapshot. Its blocks stay readable while a clone exists, even when newer snapshots
/// have replaced it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    index: u64,
    meta: Bytes,
    data_bytes: u64,
    path: PathBuf,
    file: Arc<File>,
    /// Where the first data block begins.
    data_at: u64,
}

impl SnapshotStore {
    /// Opens the snapshots of a data directory and reads all of them: damaged ones are logged,
    /// listed by [`SnapshotStore::damaged`] and otherwise left alone.
    ///
    /// # Errors
    /// What the system reports.
    pub fn open(data_dir: &DataDir) -> io::Result<Self> {
        let dir = data_dir.path().join(FOLDER);
        durable::create_folder(&dir)?;
        let mut known = Known::default();
        for path in list(&dir)? {
            match Snapshot::open(&path) {
                Ok(snapshot) => known.intact.push(snapshot),
                Err(error) => {
                    let fault = error.to_string();
                    tracing::error!(path = %path.display(), fault, "skipped a damaged snapshot");
                    known.damaged.push(DamagedSnapshot { path, fault });
                }
            }
        }
        let inner = Inner {
            dir,
            known: Mutex::new(known),
            writers: AtomicU64::new(0),
            _data_dir: data_dir.clone(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The intact snapshot with the highest index.
    pub fn newest(&self) -> Option<Snapshot> {
        self.known().intact.first().cloned()
    }

    /// The files that were damaged when the store was opened.
    pub fn damaged(&self) -> Vec<DamagedSnapshot> {
        self.known().damaged.clone()
    }

    /// Begins a snapshot of the state at log position `index`. Nothing of it counts before
    /// [`SnapshotWriter::finish`]; dropping the writer removes it.
    ///
    /// # Errors
    /// What the system reports.
    pub fn begin(&self, index: u64, meta: &[u8]) -> io::Result<SnapshotWriter> {
        let ordinal = self.inner.writers.fetch_add(1, Ordering::Relaxed);
        let path = self.inner.dir.join(format!("{index:016x}.{EXTENSION}"));
        let temp = durable::temp_path(&path.with_extension(format!("{ordinal}")));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temp)?;
        let mut writer = SnapshotWriter {
            store: self.clone(),
            path,
            temp,
            file,
            block: Vec::with_capacity(BLOCK_BYTES),
            next_ordinal: 0,
            data_bytes: 0,
            unsynced: 0,
            finished: false,
        };
        let head = HeadRecord {
            index,
            meta: meta.to_vec(),
        };
        writer.put(Kind::Head, &codec::encode(HEAD_FORMAT, &head))?;
        Ok(writer)
    }

    /// Takes in a finished snapshot and removes those beyond the newest two.
    fn admit(&self, snapshot: Snapshot) -> io::Result<()> {
        let mut known = self.known();
        known.intact.retain(|held| held.index != snapshot.index);
        known.damaged.retain(|held| held.path != snapshot.path);
        known.intact.push(snapshot);
        known
            .intact
            .sort_by_key(|held| std::cmp::Reverse(held.index));
        while known.intact.len() > KEPT {
            let Some(old) = known.intact.pop() else { break };
            durable::remove_file(&old.path)?;
        }
        // A damaged file is evidence until there are as many good ones as there ever are.
        if known.intact.len() == KEPT {
            for old in known.damaged.drain(..) {
                durable::remove_file(&old.path)?;
            }
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change leaves the list whole, so a panic elsewhere does no harm.
        self.inner
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

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
    /// Makes the snapshot durable, reads it back from the disk and gives it its name. When this
    /// returns, the log may be purged up to the snapshot.
    ///
    /// # Errors
    /// What the system reports, or `InvalidData` if the disk gave back something else. The
    /// snapshot then does not exist.
    pub fn finish(mut self) -> io::Result<Snapshot> {
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
        let mut snapshot = Snapshot::open(&self.temp)?;
        durable::publish(&self.temp, &self.path)?;
        self.finished = true;
        snapshot.path.clone_from(&self.path);
        self.store.admit(snapshot.clone())?;
        Ok(snapshot)
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

impl Snapshot {
    /// Opens a snapshot file and reads all of it.
    fn open(path: &Path) -> io::Result<Self> {
        let file = Arc::new(File::open(path)?);
        let mut at = 0;
        let head = block::read(&file, &mut at, 0)?;
        if head.kind != Kind::Head {
            return Err(block::damage(0, "the head block is missing"));
        }
        let HeadRecord { index, meta } =
            codec::decode(HEAD_FORMAT, &head.payload).map_err(from_codec)?;
        let path = path.to_owned();
        let mut snapshot = Self {
            index,
            meta: meta.into(),
            data_bytes: 0,
            path,
            file,
            data_at: at,
        };
        let mut data_bytes = 0;
        for block in snapshot.blocks() {
            data_bytes += block?.len() as u64;
        }
        snapshot.data_bytes = data_bytes;
        Ok(snapshot)
    }

    /// The log position that it is of.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// What the caller said about it.
    pub fn meta(&self) -> &Bytes {
        &self.meta
    }

    /// The length of its data in bytes.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its data, block by block, each checked.
    pub fn blocks(&self) -> SnapshotBlocks {
        SnapshotBlocks {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            at: self.data_at,
            next_ordinal: 1,
            data_bytes: 0,
            ended: false,
        }
    }
}

/// The data of a snapshot in blocks of up to 256 KiB. The sequence ends after an error, and ends
/// without one only if the data was whole.
#[derive(Debug)]
pub struct SnapshotBlocks {
    file: Arc<File>,
    path: PathBuf,
    at: u64,
    next_ordinal: u32,
    data_bytes: u64,
    ended: bool,
}

impl Iterator for SnapshotBlocks {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let outcome = self.read().transpose();
        self.ended = !matches!(outcome, Some(Ok(_)));
        Some(outcome?.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        }))
    }
}

impl SnapshotBlocks {
    fn read(&mut self) -> io::Result<Option<Bytes>> {
        let begin = self.at;
        let block = block::read(&self.file, &mut self.at, self.next_ordinal)?;
        self.next_ordinal += 1;
        match block.kind {
            Kind::Data => {
                self.data_bytes += block.payload.len() as u64;
                Ok(Some(block.payload))
            }
            Kind::End => {
                let EndRecord { data_bytes } =
                    codec::decode(END_FORMAT, &block.payload).map_err(from_codec)?;
                if data_bytes != self.data_bytes {
                    return Err(block::damage(begin, "blocks are missing"));
                }
                Ok(None)
            }
            Kind::Head => Err(block::damage(begin, "a head block is out of place")),
        }
    }
}

/// The snapshot files in a folder, the highest index first. What a crash left half made is removed.
fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if name.ends_with(durable::TEMP_SUFFIX) {
            durable::remove_file(&path)?;
        } else if name
            .strip_suffix(EXTENSION)
            .is_some_and(|stem| stem.ends_with('.'))
        {
            found.push(path);
        }
    }
    // The names are indices of a fixed width.
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

fn from_codec(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
