//! Encodes node-local records: a frame with format version and checksum around bincode.
//!
//! Owns the frame. Never encodes what other nodes read (that is protobuf): bincode names no fields,
//! so a record changes only together with its version.
//!
//! ```text
//! magic 4 | version u16 | crc32 u32 | bincode body      integers little endian
//! ```

use bincode::config::Configuration;
use bincode::{Decode, Encode};

const FRAME_BYTES: usize = 10;

/// The bytes of a body that `decode` is ready to allocate for: damaged lengths must not exhaust
/// memory. Far above any record of ours.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

const BINCODE: Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<BODY_BYTES_MAX>,
> = bincode::config::standard().with_limit::<BODY_BYTES_MAX>();

/// A kind of record and the newest version of it that this binary reads and writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u16,
}

/// Why bytes are not a record of the expected format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// Not this kind of record at all.
    #[error("it is not a record of the expected kind")]
    Foreign,
    /// Written by a newer binary.
    #[error("its format version {found} is newer than {known}, the newest that this binary reads")]
    Newer { found: u16, known: u16 },
    /// Changed since it was written.
    #[error("its checksum does not match its content")]
    Checksum,
    /// Intact, yet not decodable: a fault of the program that wrote it.
    #[error("its content cannot be decoded: {0}")]
    Malformed(String),
}

/// Frames and encodes one record.
pub(crate) fn encode<T: Encode>(format: Format, value: &T) -> Vec<u8> {
    let mut bytes = vec![0; FRAME_BYTES];
    bytes[..4].copy_from_slice(&format.magic);
    bytes[4..6].copy_from_slice(&format.version.to_le_bytes());
    bincode::encode_into_std_write(value, &mut bytes, BINCODE)
        .expect("plain data encodes into memory");
    let checksum = checksum(&bytes);
    bytes[6..FRAME_BYTES].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Decodes what [`encode`] wrote.
pub(crate) fn decode<T: Decode<()>>(format: Format, bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() < FRAME_BYTES || bytes[..4] != format.magic {
        return Err(CodecError::Foreign);
    }
    // Ahead of the version: a damaged version must not send its reader to look for a newer binary.
    if bytes[6..FRAME_BYTES] != checksum(bytes).to_le_bytes() {
        return Err(CodecError::Checksum);
    }
    let found = u16::from_le_bytes([bytes[4], bytes[5]]);
    if found > format.version {
        return Err(CodecError::Newer {
            found,
            known: format.version,
        });
    }
    match bincode::decode_from_slice(&bytes[FRAME_BYTES..], BINCODE) {
        Ok((value, read)) if read == bytes.len() - FRAME_BYTES => Ok(value),
        Ok(_) => Err(CodecError::Malformed("bytes are left over".to_owned())),
        Err(error) => Err(CodecError::Malformed(error.to_string())),
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..6]);
    hasher.update(&bytes[FRAME_BYTES..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format {
        magic: *b"TEST",
        version: 3,
    };

    #[derive(Debug, PartialEq, Encode, Decode)]
    struct Sample {
        number: u64,
        text: Option<String>,
    }

    fn sample() -> Sample {
        Sample {
            number: 300,
            text: Some("x".to_owned()),
        }
    }

    #[test]
    fn a_record_round_trips() {
        assert_eq!(decode(FORMAT, &encode(FORMAT, &sample())), Ok(sample()));
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        let good = encode(FORMAT, &sample());
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(
                    decode::<Sample>(FORMAT, &bad).is_err(),
                    "byte {at} bit {bit}"
                );
            }
            assert!(
                decode::<Sample>(FORMAT, &good[..at]).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let newer = encode(
            Format {
                version: 4,
                ..FORMAT
            },
            &sample(),
        );
        assert_eq!(
            decode::<Sample>(FORMAT, &newer),
            Err(CodecError::Newer { found: 4, known: 3 })
        );
    }
}
