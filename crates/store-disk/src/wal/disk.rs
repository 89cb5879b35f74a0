//! The two calls by which the log's writer reaches the disk.
//!
//! Owns the seam where tests count, delay or fail them. Never opens or names files.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Writes and syncs segment files. [`RealDisk`] everywhere but in tests of faults.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the system reports; the log then takes no more writes.
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns once everything written to `file` is on stable storage (`fdatasync`).
    ///
    /// # Errors
    /// What the system reports; the log then takes no more writes.
    fn sync_data(&self, file: &File) -> io::Result<()>;
}

/// The system's own `pwrite` and `fdatasync`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}
