//! A snapshot as one file that leaves its node: what is saved, kept elsewhere and restored.
//!
//! Owns the file's form, from its head to the checksum over everything. Never keeps one: where it
//! goes is the caller's.
//!
//! ```text
//! head block, data blocks, end block | zeros to a multiple of 512 | SHA-256 of all before, 32
//! ```
//!
//! The length is that of etcd's snapshots (a multiple of 512 and a checksum), by which `etcdctl`
//! tells a whole file from one that was cut off.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::block::{self, BLOCK_BYTES, HEADER_BYTES, Kind};
use super::{END_FORMAT, EndRecord, HEAD_FORMAT, HeadRecord, Snapshot};
use crate::codec::{self, CodecError, Format};

const FORMAT: Format = Format {
    magic: *b"SKar",
    version: 1,
};

/// What the blocks and the zeros together are a multiple of.
const ALIGNMENT: u64 = 512;
const CHECKSUM_BYTES: u64 = 32;

/// Where etcd's files say what they are, and the word.
const ETCD_MAGIC_AT: u64 = 16;
const ETCD_MAGIC: [u8; 4] = 0xED0C_DAED_u32.to_le_bytes();

/// Bytes that are read at one time for the checksum.
const READ_BYTES: usize = 256 * 1024;

/// Why a file is no archive that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The system does not let it be read.
    #[error("it cannot be read: {0}")]
    Io(io::Error),
    /// Something else altogether.
    #[error("{0}")]
    Foreign(&'static str),
    /// A newer binary wrote it.
    #[error(
        "it has format version {found}, and this binary reads up to {known}; run the newer skein \
         that wrote it"
    )]
    Newer {
        /// The version found in it.
        found: u16,
        /// The newest version that this binary knows.
        known: u16,
    },
    /// It was one, and is not whole any more.
    #[error("{0}; take another copy of it, or an older one")]
    Damaged(String),
}

/// A whole archive. Its blocks stay readable while a clone exists.
#[derive(Debug, Clone)]
pub struct Archive {
    snapshot: Snapshot,
    bytes: u64,
    sha256: [u8; 32],
}

impl Archive {
    /// Opens a file and checks all of it: block by block, then as a whole. Blocks.
    ///
    /// # Errors
    /// [`ArchiveError`] says what is wrong, and where.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let file = File::open(path).map_err(ArchiveError::Io)?;
        let metadata = file.metadata().map_err(ArchiveError::Io)?;
        if !metadata.is_file() {
            return Err(ArchiveError::Foreign("this is no file"));
        }
        let file = Arc::new(file);
        check_kind(&file)?;
        let (snapshot, end) = Snapshot::read(path, Arc::clone(&file), FORMAT).map_err(damaged)?;
        let whole = end.next_multiple_of(ALIGNMENT) + CHECKSUM_BYTES;
        if metadata.len() != whole {
            let text = format!(
                "the snapshot is damaged at offset {end}: the file has {} bytes and ought to have \
                 {whole}",
                metadata.len()
            );
            return Err(ArchiveError::Damaged(text));
        }
        let sha256 = checksum(&file, whole - CHECKSUM_BYTES).map_err(ArchiveError::Io)?;
        let mut said = [0; 32];
        let at = whole - CHECKSUM_BYTES;
        file.read_exact_at(&mut said, at)
            .map_err(ArchiveError::Io)?;
        if said != sha256 {
            let text = format!(
                "the snapshot is damaged: its blocks are whole, and the checksum over everything, \
                 at offset {at}, does not match"
            );
            return Err(ArchiveError::Damaged(text));
        }
        Ok(Self {
            snapshot,
            bytes: whole,
            sha256,
        })
    }

    /// What the caller said about it, its data, and the log position that it is of.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The length of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The checksum over everything: the file's last 32 bytes.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }
}

/// Whether the head is one of ours. A damaged byte elsewhere is found block by block.
fn check_kind(file: &File) -> Result<(), ArchiveError> {
    let mut start = Vec::new();
    let limit = (HEADER_BYTES + FORMAT.magic.len()) as u64;
    Read::take(file, limit)
        .read_to_end(&mut start)
        .map_err(ArchiveError::Io)?;
    let magic = start.get(HEADER_BYTES..).unwrap_or_default();
    if magic == FORMAT.magic {
        return match block::read(file, &mut 0, 0) {
            Ok(head) => match codec::decode::<HeadRecord>(FORMAT, &head.payload) {
                Err(CodecError::Newer { found, known }) => {
                    Err(ArchiveError::Newer { found, known })
                }
                Err(error) => Err(ArchiveError::Damaged(format!(
                    "the snapshot is damaged in block 0, at offset 0: {error}"
                ))),
                Ok(_) => Ok(()),
            },
            Err(error) => Err(damaged(error)),
        };
    }
    if start.is_empty() {
        return Err(ArchiveError::Foreign("the file is empty"));
    }
    if magic == HEAD_FORMAT.magic {
        return Err(ArchiveError::Foreign(
            "this is one of a node's own snapshots, not what `skein snapshot save` writes: start that \
             node and save from it, or see `skein recover`",
        ));
    }
    let mut word = [0; 4];
    let read = file.read_exact_at(&mut word, ETCD_MAGIC_AT);
    if read.is_ok() && word == ETCD_MAGIC {
        return Err(ArchiveError::Foreign(
            "this is a snapshot of etcd, which cannot be read here: start an etcd from it and copy the \
             keys, as with `etcdctl make-mirror`",
        ));
    }
    Err(ArchiveError::Foreign(
        "this is no snapshot of Skein, or it is damaged in block 0, at offset 0",
    ))
}

fn damaged(error: io::Error) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::InvalidData => ArchiveError::Damaged(error.to_string()),
        _ => ArchiveError::Io(error),
    }
}

/// The checksum of the file's first `length` bytes.
fn checksum(file: &File, length: u64) -> io::Result<[u8; 32]> {
    let mut sum = Sha256::new();
    let mut piece = vec![0; READ_BYTES];
    let mut at = 0;
    while at < length {
        let wanted = usize::try_from(length - at).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        file.read_exact_at(&mut piece[..wanted], at)?;
        sum.update(&piece[..wanted]);
        at += wanted as u64;
    }
    Ok(sum.finalize().into())
}

/// How long an archive with this meta and so many bytes of data is.
pub fn archive_bytes(index: u64, meta: &[u8], data_bytes: u64) -> u64 {
    let header = HEADER_BYTES as u64;
    let head = codec::encode(FORMAT, &head_record(index, meta)).len() as u64;
    let end = codec::encode(END_FORMAT, &EndRecord { data_bytes }).len() as u64;
    let blocks = data_bytes.div_ceil(BLOCK_BYTES as u64);
    let all = (blocks + 2) * header + head + data_bytes + end;
    all.next_multiple_of(ALIGNMENT) + CHECKSUM_BYTES
}

fn head_record(index: u64, meta: &[u8]) -> HeadRecord {
    HeadRecord {
        index,
        meta: meta.to_vec(),
    }
}

/// Writes an archive: give it the data by [`Write`].
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    out: W,
    sum: Sha256,
    /// Data that does not fill a block yet.
    block: Vec<u8>,
    next_ordinal: u32,
    data_bytes: u64,
    bytes: u64,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins an archive of the state at log position `index`.
    ///
    /// # Errors
    /// What `out` reports.
    pub fn begin(out: W, index: u64, meta: &[u8]) -> io::Result<Self> {
        let mut writer = Self {
            out,
            sum: Sha256::new(),
            block: Vec::with_capacity(BLOCK_BYTES),
            next_ordinal: 0,
            data_bytes: 0,
            bytes: 0,
        };
        let head = codec::encode(FORMAT, &head_record(index, meta));
        writer.put(Kind::Head, &head)?;
        Ok(writer)
    }

    /// Writes what is left and the checksum over everything.
    ///
    /// # Errors
    /// What `out` reports.
    pub fn finish(mut self) -> io::Result<W> {
        self.put_block()?;
        let end = EndRecord {
            data_bytes: self.data_bytes,
        };
        self.put(Kind::End, &codec::encode(END_FORMAT, &end))?;
        let zeros = self.bytes.next_multiple_of(ALIGNMENT) - self.bytes;
        let mut rest = vec![0; usize::try_from(zeros).map_err(io::Error::other)?];
        self.sum.update(&rest);
        rest.extend_from_slice(&self.sum.finalize());
        self.out.write_all(&rest)?;
        self.out.flush()?;
        Ok(self.out)
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
        for part in [&header[..], payload] {
            self.sum.update(part);
            self.out.write_all(part)?;
            self.bytes += part.len() as u64;
        }
        self.next_ordinal += 1;
        Ok(())
    }
}

impl<W: Write> Write for ArchiveWriter<W> {
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn archive(meta: &[u8], data: &[u8]) -> Vec<u8> {
        let mut writer = ArchiveWriter::begin(Vec::new(), 7, meta).unwrap();
        writer.write_all(data).unwrap();
        writer.finish().unwrap()
    }

    struct Home {
        temp: tempfile::TempDir,
    }

    impl Home {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            Self { temp }
        }

        fn file(&self, bytes: &[u8]) -> PathBuf {
            let path = self.temp.path().join("a");
            fs::write(&path, bytes).unwrap();
            path
        }

        fn fault(&self, bytes: &[u8]) -> String {
            Archive::open(&self.file(bytes)).unwrap_err().to_string()
        }
    }

    #[test]
    fn what_is_written_is_read_and_its_length_was_known() {
        let home = Home::new();
        for length in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 5] {
            let data: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let bytes = archive(b"meta", &data);
            assert_eq!(bytes.len() as u64, archive_bytes(7, b"meta", length as u64));
            // What etcdctl asks of a file that it saves.
            assert_eq!(bytes.len() % 512, 32);
            let found = Archive::open(&home.file(&bytes)).unwrap();
            assert_eq!(found.bytes(), bytes.len() as u64);
            assert_eq!(found.sha256(), bytes[bytes.len() - 32..]);
            let snapshot = found.snapshot();
            assert_eq!((snapshot.index(), &snapshot.meta()[..]), (7, &b"meta"[..]));
            let blocks: Vec<_> = snapshot.blocks().map(Result::unwrap).collect();
            assert_eq!(blocks.concat(), data);
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let home = Home::new();
        let good = archive(b"m", &[9; 300]);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Archive::open(&home.file(&bad)).is_err(), "byte {at}");
            let path = home.file(&good[..at]);
            assert!(Archive::open(&path).is_err(), "cut at {at}");
        }
        let longer = [&good[..], &[0]].concat();
        assert!(home.fault(&longer).contains("ought to have"));
    }

    #[test]
    fn damage_is_named_by_block_and_offset() {
        let home = Home::new();
        let good = archive(b"m", &vec![9; 2 * BLOCK_BYTES]);
        let second = good.len() - BLOCK_BYTES;
        let mut bad = good.clone();
        bad[second] ^= 1;
        let fault = home.fault(&bad);
        assert!(fault.contains("in block 2, at offset 262"), "{fault}");
        assert!(fault.contains("checksum"), "{fault}");
        let cut = home.fault(&good[..second]);
        assert!(cut.contains("in block 2") && cut.contains("ends"), "{cut}");
        let mut tail = good;
        *tail.last_mut().unwrap() ^= 1;
        let fault = home.fault(&tail);
        assert!(fault.contains("over everything"), "{fault}");
    }

    #[test]
    fn what_is_something_else_is_told_as_that() {
        let home = Home::new();
        let foreign = |bytes: &[u8], word: &str| {
            let error = Archive::open(&home.file(bytes)).unwrap_err();
            assert!(matches!(error, ArchiveError::Foreign(_)), "{error:?}");
            assert!(error.to_string().contains(word), "{error}");
        };
        foreign(b"", "empty");
        foreign(&[b'x'; 4096], "no snapshot of Skein");
        let mut etcd = vec![0; 4096];
        etcd[16..20].copy_from_slice(&ETCD_MAGIC);
        foreign(&etcd, "etcd");
        let head = codec::encode(HEAD_FORMAT, &head_record(1, b""));
        let header = block::header(Kind::Head, 0, &head).unwrap();
        foreign(&[&header[..], &head].concat(), "node's own");
        let error = Archive::open(home.temp.path()).unwrap_err();
        assert!(error.to_string().contains("no file"), "{error}");
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let home = Home::new();
        let newer = Format {
            version: 2,
            ..FORMAT
        };
        let head = codec::encode(newer, &head_record(1, b""));
        let header = block::header(Kind::Head, 0, &head).unwrap();
        let error = Archive::open(&home.file(&[&header[..], &head].concat()));
        let expected = matches!(error, Err(ArchiveError::Newer { found: 2, known: 1 }));
        assert!(expected, "{error:?}");
    }
}
