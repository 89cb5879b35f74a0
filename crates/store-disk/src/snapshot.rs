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

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bincode::{Decode, Encode};

use crate::codec::Format;
use crate::data_dir::DataDir;
use crate::durable;

mod archive;
mod block;
mod reader;
mod writer;

pub use archive::{Archive, ArchiveError, ArchiveWriter, archive_bytes};
pub use reader::{Snapshot, SnapshotBlocks};
pub use writer::{SealedSnapshot, SnapshotWriter};

const FOLDER: &str = "snapshots";
const EXTENSION: &str = "snap";

/// Snapshots that are kept; older ones are removed when a new one is finished.
const KEPT: usize = 2;

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
        let found = list(&dir)?;
        // What is listed counts from now on: its name may not be durable yet, if the process died
        // between giving it and the sync.
        durable::sync_folder(&dir)?;
        for path in found {
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

    /// The intact snapshot before the newest: what a node starts from if the newest is damaged, so
    /// the log after it is worth keeping.
    pub fn older(&self) -> Option<Snapshot> {
        self.known().intact.get(1).cloned()
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
        SnapshotWriter::begin(
            self,
            path,
            temp,
            &HeadRecord {
                index,
                meta: meta.to_vec(),
            },
        )
    }

    /// Takes in a finished snapshot and removes those beyond the newest two.
    fn admit(&self, snapshot: Snapshot) -> io::Result<()> {
        let mut known = self.known();
        known.intact.retain(|held| held.index() != snapshot.index());
        known.damaged.retain(|held| held.path != snapshot.path());
        known.intact.push(snapshot);
        known
            .intact
            .sort_by_key(|held| std::cmp::Reverse(held.index()));
        while known.intact.len() > KEPT {
            let Some(old) = known.intact.pop() else { break };
            durable::remove_file(old.path())?;
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

#[cfg(test)]
mod tests;
