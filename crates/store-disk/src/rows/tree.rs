//! The rows as sled holds them. The only place that names sled.
//!
//! Owns the stored form of a row, the sum that all rows must add up to, and sled's settings.
//!
//! ```text
//! row:       0x01 key -> crc32 of key and value, u32 | value        integers little endian
//! position:  0x00     -> codec record: applied position, count of rows, sum of their checksums
//! ```

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use bincode::{Decode, Encode};
use bytes::Bytes;

use super::{Loaded, RowsError};
use crate::codec::{self, CodecError, Format};

/// sled's page cache; its own default is 1 GiB.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// How often sled syncs and tidies up by itself. Nothing waits for it: the log has what the rows
/// lack. Each round is a moment in which a flush can meet sled's own thread, see [`BATCHES`].
const SYNC_EVERY_MS: u64 = 10_000;

/// How long to wait until the threads of an earlier opening in this process let go of the files.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(10);

const POSITION_KEY: &[u8] = &[0];
const ROW_PREFIX: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

const POSITION_FORMAT: Format = Format {
    magic: *b"SKrp",
    version: 1,
};

/// The position that the rows are of, and what they must add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
struct PositionRecord {
    applied: Vec<u8>,
    count: u64,
    sum: u64,
}

/// Why the rows cannot be used or changed.
#[derive(Debug)]
pub(super) enum Fault {
    Unfinished,
    Damaged(String),
}

impl Fault {
    pub(super) fn at(self, path: PathBuf) -> RowsError {
        match self {
            Self::Unfinished => RowsError::Unfinished { path },
            Self::Damaged(fault) => RowsError::Damaged { path, fault },
        }
    }
}

// An error of the disk too: the rows are dispensable, and if the disk is at fault, wiping them
// fails with the system's own words.
impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<CodecError> for Fault {
    fn from(error: CodecError) -> Self {
        Self::Damaged(format!("the applied position: {error}"))
    }
}

/// Count and sum of the rows, as changes go by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    count: u64,
    sum: u64,
}

impl Tally {
    fn add(&mut self, checksum: u32) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(u64::from(checksum));
    }

    fn remove(&mut self, checksum: u32) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(u64::from(checksum));
    }
}

pub(super) struct RowTree {
    db: Database,
}

/// sled has one lock for all databases of a process: a batch takes it alone, whatever else shares
/// it. A flush keeps its share while it waits for sled's own thread, and that thread waits for a
/// share, which it does not get while a batch of another database waits for the lock: for ever.
/// Hence flushes and batches keep out of each other's way before they come to sled. A node has one
/// database and one thread that writes, so there nobody waits here.
static BATCHES: RwLock<()> = RwLock::new(());

/// A database that is closed, and so flushed, while no batch waits.
struct Database(Option<sled::Db>);

impl Deref for Database {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        self.0.as_ref().expect("only drop takes it")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _alone = BATCHES.write().unwrap_or_else(PoisonError::into_inner);
        self.0.take();
    }
}

impl RowTree {
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(Some(SYNC_EVERY_MS));
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match config.open() {
                Ok(db) => {
                    let db = Database(Some(db));
                    return Ok(Self { db });
                }
                // The data directory's lock keeps other processes out, so this is our own past.
                Err(error) if error.to_string().contains("could not acquire lock") => {
                    if Instant::now() >= deadline {
                        return Err(error.into());
                    }
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads all rows, and checks each and their sum.
    pub(super) fn load(&self) -> Result<Loaded, Fault> {
        let position = self.position()?;
        let mut tally = Tally::default();
        let mut rows = Vec::new();
        for row in self.db.scan_prefix([ROW_PREFIX]) {
            let (key, stored) = row?;
            let key = Bytes::copy_from_slice(&key[1..]);
            let checksum = stored_checksum(&stored)?;
            let value = Bytes::copy_from_slice(&stored[CHECKSUM_BYTES..]);
            if row_checksum(&key, &value) != checksum {
                let text = format!(
                    "the row {:?} does not match its checksum",
                    key.escape_ascii().to_string()
                );
                return Err(Fault::Damaged(text));
            }
            tally.add(checksum);
            rows.push((key, value));
        }
        match position {
            None if rows.is_empty() => Ok(Loaded::default()),
            None => Err(Fault::Unfinished),
            Some(PositionRecord { count, sum, .. }) if tally != (Tally { count, sum }) => {
                let text = format!(
                    "{} rows were found, and {count} other ones were written",
                    tally.count
                );
                Err(Fault::Damaged(text))
            }
            Some(position) => Ok(Loaded {
                applied: Some(position.applied.into()),
                rows,
            }),
        }
    }

    /// Changes rows and position together; `None` removes a row.
    pub(super) fn apply(
        &self,
        changes: impl IntoIterator<Item = (Bytes, Option<Bytes>)>,
        applied: &[u8],
    ) -> Result<(), Fault> {
        let position = self.position()?.unwrap_or_default();
        let mut tally = Tally {
            count: position.count,
            sum: position.sum,
        };
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            let stored_key = stored_key(&key);
            if let Some(old) = self.db.get(&stored_key)? {
                tally.remove(stored_checksum(&old)?);
            }
            match value {
                Some(value) => {
                    let checksum = row_checksum(&key, &value);
                    tally.add(checksum);
                    batch.insert(stored_key, stored_row(checksum, &value));
                }
                None => batch.remove(stored_key),
            }
        }
        batch.insert(POSITION_KEY, position_bytes(tally, applied));
        let _others = BATCHES.read().unwrap_or_else(PoisonError::into_inner);
        Ok(self.db.apply_batch(batch)?)
    }

    /// Replaces everything. Until the last step there is no position, so that an end on the way
    /// is found out.
    pub(super) fn rebuild(
        &self,
        rows: impl Iterator<Item = (Bytes, Bytes)>,
        applied: &[u8],
    ) -> Result<(), Fault> {
        self.db.remove(POSITION_KEY)?;
        self.db.clear()?;
        let mut tally = Tally::default();
        for (key, value) in rows {
            let checksum = row_checksum(&key, &value);
            let replaced = self
                .db
                .insert(stored_key(&key), stored_row(checksum, &value))?;
            if let Some(old) = replaced {
                tally.remove(stored_checksum(&old)?);
            }
            tally.add(checksum);
        }
        self.db
            .insert(POSITION_KEY, position_bytes(tally, applied))?;
        Ok(())
    }

    /// Hands everything to the system. sled's own flush is no fsync; see the module `rows`.
    pub(super) fn flush(&self) -> Result<(), Fault> {
        let _alone = BATCHES.write().unwrap_or_else(PoisonError::into_inner);
        self.db.flush()?;
        Ok(())
    }

    fn position(&self) -> Result<Option<PositionRecord>, Fault> {
        match self.db.get(POSITION_KEY)? {
            Some(bytes) => Ok(Some(codec::decode(POSITION_FORMAT, &bytes)?)),
            None => Ok(None),
        }
    }
}

fn position_bytes(tally: Tally, applied: &[u8]) -> Vec<u8> {
    let Tally { count, sum } = tally;
    codec::encode(
        POSITION_FORMAT,
        &PositionRecord {
            applied: applied.to_vec(),
            count,
            sum,
        },
    )
}

fn stored_key(key: &[u8]) -> Vec<u8> {
    [&[ROW_PREFIX], key].concat()
}

fn stored_row(checksum: u32, value: &[u8]) -> Vec<u8> {
    [&checksum.to_le_bytes(), value].concat()
}

fn stored_checksum(stored: &[u8]) -> Result<u32, Fault> {
    let bytes = stored.first_chunk::<CHECKSUM_BYTES>();
    let bytes = bytes.ok_or_else(|| Fault::Damaged("a row has no checksum".to_owned()))?;
    Ok(u32::from_le_bytes(*bytes))
}

fn row_checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}
