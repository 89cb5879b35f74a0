//! The applied rows in sled: for quick restarts, and never the only copy.
//!
//! Owns the folder `rows/` and the thread that writes it. Rows and position are opaque.
//!
//! sled 0.34 syncs rarely and is known to lose writes at a power cut, so nothing here is trusted
//! because it was written, only because it adds up. Rows change together with the applied position;
//! they are stored in sorted runs, each piece of which has a checksum and tells its place, so that a
//! lost row shows as well as a changed one. Whoever gets [`RowsError::Damaged`] or [`RowsError::Unfinished`] wipes the rows, opens them again and
//! rebuilds them from snapshot and log.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::{fmt, panic};

use bytes::Bytes;

use crate::data_dir::DataDir;
use crate::durable;
use crate::panics;

mod pending;
mod run;
mod tree;
mod writer;

use pending::Shared;
use tree::{Fault, RowTree};

pub use pending::ROWS_PENDING_BYTES_MAX;

const FOLDER: &str = "rows";

/// Exists while an opening is under way. sled may take for ever, or end the process, on files that
/// it does not like; the next start then knows.
const OPENING: &str = "rows.opening";

/// Why the rows cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// An earlier opening did not get to its end, or an earlier write failed.
    #[error(
        "the rows at {path} were left unfinished; they have to be wiped and rebuilt from snapshot and log"
    )]
    Unfinished {
        /// The folder.
        path: PathBuf,
    },
    /// The rows do not add up.
    #[error(
        "the rows at {path} are damaged ({fault}); they have to be wiped and rebuilt from snapshot and log"
    )]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// The system refused something that has nothing to do with the rows' content.
    #[error("cannot {action} {path} ({source}); check the disk and its mount")]
    Io {
        /// What was being done, as an imperative.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What was in the rows when they were opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The position that the rows are of; `None` if there are none yet.
    pub applied: Option<Bytes>,
    /// Key and value of every row, ordered by key.
    pub rows: Vec<(Bytes, Bytes)>,
}

/// Changes that belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowsBatch {
    /// Rows to set.
    pub puts: Vec<(Bytes, Bytes)>,
    /// Keys of rows to remove; removed ahead of the puts.
    pub deletes: Vec<Bytes>,
    /// The position that the rows are of afterwards.
    pub applied: Bytes,
}

/// Rows in a stable order, made while they are written.
pub(crate) type RowsIter = Box<dyn Iterator<Item = (Bytes, Bytes)> + Send>;

/// The open rows. Clones share them. When the last one is dropped, what is pending is written.
#[derive(Clone)]
pub struct Rows {
    shared: Arc<Shared>,
    _thread: Arc<WriterThread>,
}

impl Rows {
    /// Opens the rows of a data directory and reads and checks all of them.
    ///
    /// # Errors
    /// [`RowsError`] says whether to wipe and rebuild them.
    pub fn open(data_dir: &DataDir) -> Result<(Self, Loaded), RowsError> {
        let path = data_dir.path().join(FOLDER);
        let marker = data_dir.path().join(OPENING);
        let fail = |action, path: &Path, source| {
            Err(RowsError::Io {
                action,
                path: path.to_owned(),
                source,
            })
        };
        if marker.exists() {
            return Err(RowsError::Unfinished { path });
        }
        if let Err(source) = durable::replace_file(&marker, b"") {
            return fail("write", &marker, source);
        }
        // sled answers some damage with a panic.
        let opened = panic::catch_unwind(|| {
            RowTree::open(&path).and_then(|tree| {
                let loaded = tree.load()?;
                Ok((tree, loaded))
            })
        });
        let (tree, loaded) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(Fault(fault))) => return Err(RowsError::Damaged { path, fault }),
            Err(panic) => {
                let fault = panics::describe(&*panic);
                return Err(RowsError::Damaged { path, fault });
            }
        };
        if let Err(source) = durable::remove_file(&marker) {
            return fail("remove", &marker, source);
        }
        let shared = Arc::new(Shared::new());
        let writer = writer::Writer {
            shared: Arc::clone(&shared),
            tree,
            marker,
            _data_dir: data_dir.clone(),
        };
        let handle = match thread::Builder::new()
            .name("skein-rows".to_owned())
            .spawn(move || writer.run())
        {
            Ok(handle) => handle,
            Err(source) => return fail("start the writer of", &path, source),
        };
        let thread = WriterThread {
            shared: Arc::clone(&shared),
            handle: Some(handle),
        };
        Ok((
            Self {
                shared,
                _thread: Arc::new(thread),
            },
            loaded,
        ))
    }

    /// Removes the rows of a data directory, and the mark of an opening that never finished.
    ///
    /// # Errors
    /// What the system reports.
    pub fn wipe(data_dir: &DataDir) -> io::Result<()> {
        match fs::remove_dir_all(data_dir.path().join(FOLDER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        durable::sync_folder(data_dir.path())?;
        durable::remove_file(&data_dir.path().join(OPENING))
    }

    /// Queues changes. They are merged with what is pending and written together with it, a
    /// moment later. Blocks while [`ROWS_PENDING_BYTES_MAX`] bytes are pending. After a failure,
    /// changes are dropped: the rows stay behind, and the next opening finds them unfinished.
    pub fn write(&self, batch: RowsBatch) {
        self.shared.write(batch);
    }

    /// Replaces all rows, as after the installation of a snapshot. Drops what is pending. The rows
    /// are made while they are written; should making them fail, the next opening finds them
    /// unfinished. A crash on the way leaves what was there before.
    pub fn rebuild(
        &self,
        rows: impl Iterator<Item = (Bytes, Bytes)> + Send + 'static,
        applied: Bytes,
    ) {
        self.shared.rebuild(Box::new(rows), applied);
    }

    /// Blocks until everything queued so far is in the rows' files.
    ///
    /// # Errors
    /// The failure of the rows, if they failed.
    pub fn flush(&self) -> io::Result<()> {
        self.shared.flush()
    }

    /// Why the rows take no more changes, if they failed. The node works on without them.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("failure", &self.failure())
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
        if self
            .handle
            .take()
            .is_some_and(|handle| handle.join().is_err())
        {
            tracing::error!("the rows' writer panicked");
        }
    }
}

#[cfg(test)]
mod tests;
