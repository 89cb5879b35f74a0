//! One file of the log.
//!
//! Owns its name, its header and its preallocation. A segment appears under its final name only
//! when its header, its first record and its length are durable, so it is never half made.
//!
//! ```text
//! "SKEINWAL" | version u32 | crc32 u32 | number u64 | salt u64 | length u64 | zeros to 64
//! records from offset 64 on, then zeros up to `length`                 integers little endian
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::WalError;
use super::disk::Disk;
use super::outline::Outline;
use super::record::{self, Place, Record};
use crate::durable;

/// Where the first record of a segment begins.
pub(super) const FIRST_RECORD: u64 = 64;

const MAGIC: &[u8; 8] = b"SKEINWAL";
const VERSION: u32 = 1;
const EXTENSION: &str = "wal";

/// An open segment. Reads need no lock and stay possible after the file was removed.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Random for each file; see [`record`].
    pub(super) salt: u64,
    /// The file's length in bytes, fixed for life.
    pub(super) length: u64,
    /// The index at which the log went on when this segment began.
    pub(super) opens_at: u64,
}

/// What a new segment starts with.
pub(super) struct Opening {
    number: u64,
    opens_at: u64,
    head: Record,
    /// The head is a batch of its own.
    batch: u64,
}

impl Opening {
    /// Of the segment that goes on from this outline.
    pub(super) fn new(number: u64, outline: &Outline, batch: u64) -> Self {
        Self {
            number,
            opens_at: outline.next,
            head: outline.to_head(),
            batch,
        }
    }

    /// Where the second record goes.
    pub(super) fn position(&self) -> u64 {
        FIRST_RECORD + record::stored_bytes(self.head.payload.len())
    }
}

impl Segment {
    /// Makes a segment and returns once it is durable.
    pub(super) fn create(
        dir: &Path,
        opening: &Opening,
        length: u64,
        disk: &dyn Disk,
    ) -> io::Result<Self> {
        let path = dir.join(format!("{:016x}.{EXTENSION}", opening.number));
        let temp = durable::temp_path(&path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temp)?;
        preallocate(&file, length)?;
        let salt = rand::random();
        let mut bytes = header(opening.number, salt, length).to_vec();
        let place = Place {
            salt,
            offset: FIRST_RECORD,
        };
        record::encode(&mut bytes, &opening.head, opening.batch, true, place);
        disk.write_all_at(&file, &bytes, 0)?;
        disk.sync_data(&file)?;
        // Once per file, and beyond `fdatasync`: the length is relied upon after a crash.
        file.sync_all()?;
        durable::publish(&temp, &path)?;
        let Opening {
            number, opens_at, ..
        } = *opening;
        Ok(Self {
            number,
            path,
            file,
            salt,
            length,
            opens_at,
        })
    }

    /// Opens a segment and checks its header and length. `opens_at` is not known yet.
    pub(super) fn open(path: PathBuf, number: u64) -> Result<Self, WalError> {
        let fail = |source| WalError::Io {
            action: "open",
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(fail)?;
        // Not what the page cache remembers of a write that failed, but what the disk kept. Advice
        // only: it may be ignored, as on a file system in memory.
        if let Err(error) = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed) {
            tracing::debug!(%error, "the log is read from the page cache");
        }
        let actual = file.metadata().map_err(fail)?.len();
        let damaged = |offset, fault: String| WalError::damaged(&path, offset, fault);
        if actual < FIRST_RECORD {
            return Err(damaged(
                actual,
                format!("the file ends after {actual} bytes"),
            ));
        }
        let mut found = [0; FIRST_RECORD as usize];
        file.read_exact_at(&mut found, 0).map_err(fail)?;
        let u64_at = |at: usize| {
            u64::from_le_bytes(
                found[at..at + 8]
                    .try_into()
                    .expect("eight bytes of the header"),
            )
        };
        let version = u32::from_le_bytes(found[8..12].try_into().expect("four bytes"));
        let (salt, length) = (u64_at(24), u64_at(32));
        if &found[..8] != MAGIC || found[12..16] != checksum(&found).to_le_bytes() {
            return Err(damaged(
                0,
                "the file's header does not match its checksum".to_owned(),
            ));
        }
        if version > VERSION {
            return Err(WalError::Newer {
                path,
                found: version,
                known: VERSION,
            });
        }
        if u64_at(16) != number {
            let fault = format!("the header is of segment {:x}, not {number:x}", u64_at(16));
            return Err(damaged(0, fault));
        }
        // The length was durable before the first record, so no crash can shorten the file.
        if actual < length {
            return Err(damaged(
                actual,
                format!("the file was cut: {length} bytes were made"),
            ));
        }
        Ok(Self {
            number,
            path,
            file,
            salt,
            length,
            opens_at: 0,
        })
    }

    /// The part of a record's checksum that binds it to this place.
    pub(super) fn place(&self, offset: u64) -> Place {
        Place {
            salt: self.salt,
            offset,
        }
    }
}

/// The segments in a folder, oldest first. What a crash left half made is removed.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if name.ends_with(durable::TEMP_SUFFIX) {
            durable::remove_file(&path)?;
            continue;
        }
        let number = name
            .strip_suffix(EXTENSION)
            .and_then(|stem| stem.strip_suffix('.'))
            .and_then(|stem| u64::from_str_radix(stem, 16).ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

fn header(number: u64, salt: u64, length: u64) -> [u8; FIRST_RECORD as usize] {
    let mut header = [0; FIRST_RECORD as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    header[24..32].copy_from_slice(&salt.to_le_bytes());
    header[32..40].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum(&header);
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
    header
}

fn checksum(header: &[u8; FIRST_RECORD as usize]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..12]);
    hasher.update(&header[16..]);
    hasher.finalize()
}

/// Reserves the blocks, so that a full disk shows here and not in the middle of a batch.
fn preallocate(file: &File, length: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        // Some file systems cannot reserve; a sparse file reads the same.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(length),
        Err(error) => Err(error.into()),
    }
}
