//! A finished snapshot and its blocks.
//!
//! Owns the check of every block that is read. Never changes a file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::block::{self, Kind};
use super::{END_FORMAT, EndRecord, HEAD_FORMAT, HeadRecord};
use crate::codec::{self, CodecError, Format};

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

impl Snapshot {
    /// Opens a snapshot file and reads all of it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = Arc::new(File::open(path)?);
        Ok(Self::read(path, file, HEAD_FORMAT)?.0)
    }

    /// Reads all of an open file, whose head has this format. Beside it: where its end block ends.
    pub(super) fn read(path: &Path, file: Arc<File>, format: Format) -> io::Result<(Self, u64)> {
        let mut at = 0;
        let head = block::read(&file, &mut at, 0)?;
        if head.kind != Kind::Head {
            return Err(block::damage_in(0, 0, "the head block is missing"));
        }
        let HeadRecord { index, meta } =
            codec::decode(format, &head.payload).map_err(from_codec)?;
        let path = path.to_owned();
        let mut snapshot = Self {
            index,
            meta: meta.into(),
            data_bytes: 0,
            path,
            file,
            data_at: at,
        };
        let mut blocks = snapshot.blocks();
        for block in &mut blocks {
            snapshot.data_bytes += block?.len() as u64;
        }
        Ok((snapshot, blocks.at))
    }

    /// The same under its final name.
    pub(super) fn renamed(self, path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            ..self
        }
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

fn from_codec(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
