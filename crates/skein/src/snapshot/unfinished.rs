//! A file that is being written.
//!
//! Owns its temporary name, beside the final one, until it has that. Never leaves it behind when the
//! command fails or is interrupted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file without its final name. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Unfinished {
    temp: PathBuf,
    file: File,
    finished: bool,
}

impl Unfinished {
    /// Begins what is to become `path`, readable by its owner only.
    pub(super) fn begin(path: &Path) -> io::Result<Self> {
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
            finished: false,
        })
    }

    /// Its name until it is finished.
    pub(super) fn path(&self) -> &Path {
        &self.temp
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Gives it its name, durably.
    pub(super) fn finish(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.temp, path)?;
        self.finished = true;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder)?.sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // Nobody is left who could do more about it.
            let _ = fs::remove_file(&self.temp);
        }
    }
}
