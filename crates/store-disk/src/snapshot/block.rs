//! One block of a snapshot file.
//!
//! Owns its framing and checksum. Never knows what a payload says.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

pub(super) const HEADER_BYTES: usize = 16;

/// Payload bytes of a full data block.
pub(super) const BLOCK_BYTES: usize = 256 * 1024;

/// Head blocks carry the caller's words, which may be longer than a data block. A damaged length
/// beyond this is not even tried.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Head = 1,
    Data = 2,
    End = 3,
}

pub(super) struct Block {
    pub(super) kind: Kind,
    pub(super) payload: Bytes,
}

/// The header for a payload, which follows it.
pub(super) fn header(kind: Kind, ordinal: u32, payload: &[u8]) -> io::Result<[u8; HEADER_BYTES]> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        let text = format!(
            "{} bytes are too many for a block of a snapshot",
            payload.len()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut header = [0; HEADER_BYTES];
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..12].copy_from_slice(&ordinal.to_le_bytes());
    header[12] = kind as u8;
    let checksum = checksum(&header, payload);
    header[..4].copy_from_slice(&checksum.to_le_bytes());
    Ok(header)
}

/// Reads the block at `at`, which has this ordinal, and moves `at` behind it.
pub(super) fn read(file: &File, at: &mut u64, ordinal: u32) -> io::Result<Block> {
    let begin = *at;
    let mut header = [0; HEADER_BYTES];
    read_exact(file, &mut header, ordinal, begin)?;
    let u32_at = |at: usize| {
        u32::from_le_bytes(
            header[at..at + 4]
                .try_into()
                .expect("four bytes of the header"),
        )
    };
    let kind = match header[12] {
        1 => Kind::Head,
        2 => Kind::Data,
        3 => Kind::End,
        _ => return Err(damage_in(ordinal, begin, "there is no block")),
    };
    let length = u32_at(4) as usize;
    if u32_at(8) != ordinal || length > PAYLOAD_BYTES_MAX {
        let fault = "the block is not the one that belongs here";
        return Err(damage_in(ordinal, begin, fault));
    }
    let mut payload = vec![0; length];
    read_exact(file, &mut payload, ordinal, begin + HEADER_BYTES as u64)?;
    if u32_at(0) != checksum(&header, &payload) {
        let fault = "the block does not match its checksum";
        return Err(damage_in(ordinal, begin, fault));
    }
    *at = begin + (HEADER_BYTES + length) as u64;
    Ok(Block {
        kind,
        payload: payload.into(),
    })
}

pub(super) fn damage(offset: u64, fault: &str) -> io::Error {
    let text = format!("the snapshot is damaged at offset {offset}: {fault}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// As [`damage`], where the block is known.
pub(super) fn damage_in(ordinal: u32, offset: u64, fault: &str) -> io::Error {
    let text = format!("the snapshot is damaged in block {ordinal}, at offset {offset}: {fault}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn read_exact(file: &File, bytes: &mut [u8], ordinal: u32, at: u64) -> io::Result<()> {
    file.read_exact_at(bytes, at)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                damage_in(ordinal, at, "the file ends in the middle of a block")
            }
            _ => error,
        })
}

fn checksum(header: &[u8; HEADER_BYTES], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[4..]);
    hasher.update(payload);
    hasher.finalize()
}
