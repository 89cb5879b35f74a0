//! One record of the log and its bytes on disk.
//!
//! Owns the record's framing and both checksums. Never decides what records mean together.
//!
//! ```text
//! header crc32 u32 | payload crc32 u32 | payload bytes u32 | kind u8 | flags u8 | zero u16
//! batch u64 | !index u64 | payload | zeros up to a multiple of 8       integers little endian
//! ```
//!
//! The index is stored inverted, so that no aligned part of a header is ever all zeros: where one
//! is, it was not written.
//!
//! The header's checksum also covers the segment's random salt and the record's own offset, and
//! through the payload's checksum the payload. So bytes are a record only where they were written:
//! neither the remains of an older file nor a copy of a log inside a value can be taken for one.

use bytes::Bytes;

pub(super) const HEADER_BYTES: usize = 32;

/// Records begin at multiples of this, so that a search for them needs to look only there.
pub(super) const ALIGNMENT: usize = 8;

const ENDS_BATCH: u8 = 1;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first record of each segment: what all earlier ones amount to.
    Head = 1,
    /// A log entry at `index`.
    Entry = 2,
    /// The vote.
    Vote = 3,
    /// The committed position.
    Committed = 4,
    /// Entries from `index` on are gone.
    Truncate = 5,
    /// Entries up to and including `index` are gone; the payload names the last of them.
    Purge = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Head,
            2 => Self::Entry,
            3 => Self::Vote,
            4 => Self::Committed,
            5 => Self::Truncate,
            6 => Self::Purge,
            _ => return None,
        })
    }
}

/// One step of the log's history.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) index: u64,
    pub(super) payload: Bytes,
}

/// Where a record lies; part of its checksum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) salt: u64,
    pub(super) offset: u64,
}

/// What stands ahead of a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) index: u64,
    /// The batch that this record was written with: one write, one sync, all or nothing.
    pub(super) batch: u64,
    pub(super) ends_batch: bool,
    pub(super) payload_bytes: u32,
    payload_checksum: u32,
}

impl Header {
    /// Reads a header. `None`: these bytes were not written as a header at this place.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES], place: Place) -> Option<Self> {
        let kind = Kind::from_byte(bytes[12])?;
        if bytes[13] & !ENDS_BATCH != 0 || u32_at(bytes, 0) != header_checksum(bytes, place) {
            return None;
        }
        Some(Self {
            kind,
            index: !u64_at(bytes, 24),
            batch: u64_at(bytes, 16),
            ends_batch: bytes[13] & ENDS_BATCH != 0,
            payload_bytes: u32_at(bytes, 8),
            payload_checksum: u32_at(bytes, 4),
        })
    }

    /// Whether this is the payload that the header was written with.
    pub(super) fn admits(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes as usize
            && crc32fast::hash(payload) == self.payload_checksum
    }
}

/// The bytes that a record with this payload takes on disk.
pub(super) fn stored_bytes(payload_bytes: usize) -> u64 {
    (HEADER_BYTES + payload_bytes).next_multiple_of(ALIGNMENT) as u64
}

/// Appends the record's bytes to `out`.
pub(super) fn encode(out: &mut Vec<u8>, record: &Record, batch: u64, ends: bool, place: Place) {
    let length = u32::try_from(record.payload.len()).expect("payloads are limited when accepted");
    let mut header = [0; HEADER_BYTES];
    header[4..8].copy_from_slice(&crc32fast::hash(&record.payload).to_le_bytes());
    header[8..12].copy_from_slice(&length.to_le_bytes());
    header[12] = record.kind as u8;
    header[13] = if ends { ENDS_BATCH } else { 0 };
    header[16..24].copy_from_slice(&batch.to_le_bytes());
    header[24..].copy_from_slice(&(!record.index).to_le_bytes());
    let checksum = header_checksum(&header, place);
    header[..4].copy_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(&record.payload);
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}

fn header_checksum(header: &[u8; HEADER_BYTES], place: Place) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place.salt.to_le_bytes());
    hasher.update(&place.offset.to_le_bytes());
    hasher.update(&header[4..]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        salt: 99,
        offset: 64,
    };

    fn encoded() -> Vec<u8> {
        let record = Record {
            kind: Kind::Entry,
            index: 7,
            payload: Bytes::from_static(b"payload"),
        };
        let mut out = vec![0; 8];
        encode(&mut out, &record, 3, true, PLACE);
        out.split_off(8)
    }

    fn header(bytes: &[u8]) -> &[u8; HEADER_BYTES] {
        bytes[..HEADER_BYTES].try_into().unwrap()
    }

    #[test]
    fn a_record_round_trips_and_is_aligned() {
        let bytes = encoded();
        assert_eq!(bytes.len() as u64, stored_bytes(7));
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let header = Header::decode(header(&bytes), PLACE).unwrap();
        assert_eq!(
            (header.kind, header.index, header.batch),
            (Kind::Entry, 7, 3)
        );
        assert!(header.ends_batch);
        assert!(header.admits(b"payload"));
        assert!(!header.admits(b"Payload"));
    }

    #[test]
    fn a_record_is_one_only_where_it_was_written() {
        let bytes = encoded();
        assert!(
            Header::decode(
                header(&bytes),
                Place {
                    offset: 72,
                    ..PLACE
                }
            )
            .is_none()
        );
        assert!(Header::decode(header(&bytes), Place { salt: 98, ..PLACE }).is_none());
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let good = encoded();
        for at in 0..HEADER_BYTES * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(Header::decode(header(&bad), PLACE).is_none(), "bit {at}");
        }
    }
}
