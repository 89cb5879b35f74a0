//! A file that is being written.
//!
//! Owns its temporary name, beside the final one, until it has that. Never leaves it behind when the
//! writing fails or is given up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::durable;

/// The file is synced each time that this many bytes were written: whoever else uses the disk would
/// otherwise wait for all of it at once.
const SYNC_BYTES: usize = 4 * 1024 * 1024;

/// A file without its final name. Dropping it removes it.
#[derive(Debug)]
pub struct UnfinishedFile {
    temp: PathBuf,
    file: File,
    unsynced: usize,
    finished: bool,
}

impl UnfinishedFile {
    /// Begins what is to become `path`, readable by its owner only: a hidden file beside it, with
    /// this process's id in its name.
    ///
    /// # Errors
    /// What the system reports.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the name is missing"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.part", std::process::id()));
        let temp = path.with_file_name(hidden);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temp)?;
        Ok(Self {
            temp,
            file,
            unsynced: 0,
            finished: false,
        })
    }

    /// Its name until it is finished.
    pub fn path(&self) -> &Path {
        &self.temp
    }

    /// Makes what was written durable. What is read from now on is what the disk kept, as far as
    /// the system permits.
    ///
    /// # Errors
    /// What the system reports.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()?;
        let advice = rustix::fs::Advice::DontNeed;
        if let Err(error) = rustix::fs::fadvise(&self.file, 0, None, advice) {
            tracing::debug!(%error, "a file is checked from the page cache");
        }
        Ok(())
    }

    /// Gives it its name, durably.
    ///
    /// # Errors
    /// What the system reports.
    pub fn finish(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.temp, path)?;
        self.finished = true;
        durable::sync_folder(durable::parent(path))
    }
}

impl Write for UnfinishedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        if !self.finished {
            // Nobody is left who could do more about it.
            let _ = fs::remove_file(&self.temp);
        }
    }
}
