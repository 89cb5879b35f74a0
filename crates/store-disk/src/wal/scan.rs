//! Reads a segment from front to back, and judges what lies behind its last readable record.
//!
//! Owns the distinction between a torn tail and damage, as far as one file tells. Never changes
//! anything.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use super::record::{self, ALIGNMENT, HEADER_BYTES, Header};
use super::segment::Segment;

const READ_BYTES: usize = 256 * 1024;

/// The unit that a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

pub(super) struct Scanner<'a> {
    segment: &'a Segment,
    reader: BufReader<&'a File>,
    /// Where the next record begins.
    pub(super) offset: u64,
    payload: Vec<u8>,
}

/// The next thing in a segment.
pub(super) enum Step<'a> {
    Record {
        header: Header,
        offset: u64,
        payload: &'a [u8],
    },
    Unreadable(Stop),
}

/// Where a scan could not go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    pub(super) offset: u64,
    /// The bytes that would have to be there for the record to be readable.
    span: u64,
}

impl Stop {
    /// Of a record that is readable by itself but not the one that belongs here.
    pub(super) fn out_of_order(offset: u64) -> Self {
        Self {
            offset,
            span: HEADER_BYTES as u64,
        }
    }
}

impl<'a> Scanner<'a> {
    pub(super) fn new(segment: &'a Segment, offset: u64) -> io::Result<Self> {
        let mut file = &segment.file;
        file.seek(SeekFrom::Start(offset))?;
        let reader = BufReader::with_capacity(READ_BYTES, file);
        Ok(Self {
            segment,
            reader,
            offset,
            payload: Vec::new(),
        })
    }

    pub(super) fn step(&mut self) -> io::Result<Step<'_>> {
        let offset = self.offset;
        let room = self.segment.length - offset;
        if room < HEADER_BYTES as u64 {
            return Ok(Step::Unreadable(Stop { offset, span: room }));
        }
        let mut bytes = [0; HEADER_BYTES];
        self.reader.read_exact(&mut bytes)?;
        let Some(header) = Header::decode(&bytes, self.segment.place(offset)) else {
            return Ok(Step::Unreadable(Stop {
                offset,
                span: HEADER_BYTES as u64,
            }));
        };
        let stored = record::stored_bytes(header.payload_bytes as usize);
        if stored > room {
            return Ok(Step::Unreadable(Stop { offset, span: room }));
        }
        let rest = usize::try_from(stored).map_err(io::Error::other)? - HEADER_BYTES;
        self.payload.resize(rest, 0);
        self.reader.read_exact(&mut self.payload)?;
        self.payload.truncate(header.payload_bytes as usize);
        if !header.admits(&self.payload) {
            return Ok(Step::Unreadable(Stop {
                offset,
                span: stored,
            }));
        }
        self.offset += stored;
        Ok(Step::Record {
            header,
            offset,
            payload: &self.payload,
        })
    }
}

/// What follows the last complete batch of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// From here on there are only zeros.
    pub(super) dirty_to: u64,
    /// A record of a batch that was begun after the unreadable one had been synced.
    pub(super) later: Option<u64>,
}

/// Looks for anything from `from` on that is not zero, above all records of batches later than
/// `batch`, the one that a crash may have torn.
pub(super) fn inspect_tail(segment: &Segment, from: u64, batch: u64) -> io::Result<Tail> {
    let mut tail = Tail {
        dirty_to: from,
        later: None,
    };
    let mut window = vec![0; READ_BYTES + HEADER_BYTES];
    let zeros = vec![0; window.len()];
    let mut at = from;
    while at < segment.length {
        // Steps over the preallocated blocks that were never written.
        let data = next_data(&segment.file, at, segment.length);
        at = at.max(data / ALIGNMENT as u64 * ALIGNMENT as u64);
        let left = segment.length.saturating_sub(at).min(window.len() as u64);
        let window = &mut window[..usize::try_from(left).map_err(io::Error::other)?];
        segment.file.read_exact_at(window, at)?;
        // Most of a segment was written with nothing but zeros yet; a comparison at once costs a
        // start far less than a look at each unit.
        if *window == zeros[..window.len()] {
            at += READ_BYTES as u64;
            continue;
        }
        for begin in (0..window.len().min(READ_BYTES)).step_by(ALIGNMENT) {
            let rest = &window[begin..];
            if rest.iter().take(ALIGNMENT).any(|byte| *byte != 0) {
                tail.dirty_to = (at + (begin + ALIGNMENT) as u64).min(segment.length);
            }
            let Some(bytes) = rest.first_chunk::<HEADER_BYTES>() else {
                continue;
            };
            let offset = at + begin as u64;
            let found = Header::decode(bytes, segment.place(offset));
            if found.is_some_and(|header| header.batch > batch) {
                tail.later = Some(offset);
                return Ok(tail);
            }
        }
        at += READ_BYTES as u64;
    }
    Ok(tail)
}

/// Whether a crash explains the unreadable record: a part of it that the disk writes at once is
/// still the zeros that were there before. Otherwise it was written whole and changed since.
/// (etcd tells torn entries the same way: `isTornEntry` in its `wal/decoder.go`.)
pub(super) fn is_torn(segment: &Segment, stop: Stop) -> io::Result<bool> {
    let mut bytes = vec![0; usize::try_from(stop.span).map_err(io::Error::other)?];
    segment.file.read_exact_at(&mut bytes, stop.offset)?;
    let head = usize::try_from(SECTOR_BYTES - stop.offset % SECTOR_BYTES).unwrap_or(usize::MAX);
    let (head, rest) = bytes.split_at(head.min(bytes.len()));
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == 0);
    Ok(is_zero(head) || rest.chunks(SECTOR_BYTES as usize).any(is_zero))
}

/// The next offset, from `at` on, where the file system keeps anything but a hole.
fn next_data(file: &File, at: u64, length: u64) -> u64 {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(offset) => offset,
        Err(rustix::io::Errno::NXIO) => length,
        // Not every file system can tell; then everything is read.
        Err(_) => at,
    }
}
