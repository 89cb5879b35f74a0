//! The datagrams on the wire: how one is sealed, recognized and opened.
//!
//! Owns the layout. Never sends, never judges replays (`replay`) or joins pieces (`pieces`).
//!
//! ```text
//! sealed  version=1  kind=1  key id (4)  boot id (16)  counter (8)  sealed bytes  tag (16)
//! reject  version=1  kind=2  boot id (16)  counter (8)
//! ```
//! Boot id and counter together are XChaCha20's nonce of 24 bytes: the boot id is drawn at random
//! by each process, the counter (big-endian) counts its datagrams from 1, so no nonce is used
//! twice. What stands before the sealed bytes is authenticated too. A reject answers a datagram
//! whose key id is not known: it is not sealed, echoes the nonce to prove that it saw the datagram,
//! and is shorter than any datagram that it answers.

use chacha20poly1305::{AeadInPlace, Tag, XNonce};

use crate::keys::{Key, KeyId, KeyRing};

/// The longest datagram: fits every path's MTU, so that no piece is fragmented by IP.
pub(crate) const DATAGRAM_MAX: usize = 1200;

/// What sealing adds.
pub(crate) const OVERHEAD: usize = HEADER + TAG;

const VERSION: u8 = 1;
const SEALED: u8 = 1;
const REJECT: u8 = 2;
const HEADER: usize = 30;
const TAG: usize = 16;
const REJECT_BYTES: usize = 26;

/// One life of one process, drawn at random when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BootId(pub(crate) [u8; 16]);

/// Who sent a datagram and which one of its datagrams it is; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nonce {
    pub(crate) boot: BootId,
    pub(crate) counter: u64,
}

impl Nonce {
    fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.boot.0);
        bytes[16..].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; 24]) -> Self {
        let (boot, counter) = bytes.split_at(16);
        Self {
            boot: BootId(boot.try_into().expect("split at 16")),
            counter: u64::from_be_bytes(counter.try_into().expect("24 less 16 is 8")),
        }
    }
}

/// What a datagram's clear part says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Datagram {
    /// Something for those who have the key.
    Sealed {
        /// The key to open it with.
        key: KeyId,
        /// Its nonce.
        nonce: Nonce,
    },
    /// The receiver of our datagram with this nonce does not know our key.
    Reject(Nonce),
}

/// Why a sealed datagram could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenFault {
    /// Sealed with a key that is not in the ring.
    UnknownKey,
    /// The key is known, but it did not make this seal over these bytes.
    Forged,
}

/// Seals `plain` with `key` into `out`, whose old content is lost.
pub(crate) fn seal(key: &Key, nonce: Nonce, plain: &[&[u8]], out: &mut Vec<u8>) {
    let nonce = nonce.to_bytes();
    out.clear();
    out.extend([VERSION, SEALED]);
    out.extend(key.id.0);
    out.extend(nonce);
    for part in plain {
        out.extend_from_slice(part);
    }
    let (header, text) = out.split_at_mut(HEADER);
    let tag = key
        .cipher
        .encrypt_in_place_detached(&XNonce::from(nonce), header, text)
        .expect("a datagram is far shorter than the cipher's limit");
    out.extend_from_slice(&tag);
}

/// Reads the clear part. `None`: not a datagram of this protocol.
pub(crate) fn recognize(datagram: &[u8]) -> Option<Datagram> {
    let (&[version, kind], rest) = datagram.split_first_chunk()?;
    match (version, kind) {
        (VERSION, SEALED) if (OVERHEAD..=DATAGRAM_MAX).contains(&datagram.len()) => {
            let (&key, rest) = rest.split_first_chunk()?;
            let (&nonce, _) = rest.split_first_chunk()?;
            Some(Datagram::Sealed {
                key: KeyId(key),
                nonce: Nonce::from_bytes(nonce),
            })
        }
        (VERSION, REJECT) if datagram.len() == REJECT_BYTES => {
            Some(Datagram::Reject(Nonce::from_bytes(rest.try_into().ok()?)))
        }
        _ => None,
    }
}

/// Opens a datagram that [`recognize`] called sealed, in place; returns what was sealed.
pub(crate) fn open<'a>(
    ring: &KeyRing,
    key: KeyId,
    nonce: Nonce,
    datagram: &'a mut [u8],
) -> Result<&'a [u8], OpenFault> {
    let key = ring.find(key).ok_or(OpenFault::UnknownKey)?;
    let (header, rest) = datagram
        .split_at_mut_checked(HEADER)
        .ok_or(OpenFault::Forged)?;
    let at = rest.len().checked_sub(TAG).ok_or(OpenFault::Forged)?;
    let (text, tag) = rest.split_at_mut(at);
    key.cipher
        .decrypt_in_place_detached(
            &XNonce::from(nonce.to_bytes()),
            header,
            text,
            Tag::from_slice(tag),
        )
        .map_err(|_| OpenFault::Forged)?;
    Ok(text)
}

/// The answer to the datagram with `nonce`, sealed with a key that is not known here.
pub(crate) fn reject(nonce: Nonce) -> [u8; REJECT_BYTES] {
    let mut bytes = [0; REJECT_BYTES];
    bytes[..2].copy_from_slice(&[VERSION, REJECT]);
    bytes[2..].copy_from_slice(&nonce.to_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: Nonce = Nonce {
        boot: BootId([7; 16]),
        counter: 42,
    };

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        seal(KeyRing::development().sealing(), NONCE, &[plain], &mut out);
        out
    }

    fn opened(datagram: &mut [u8]) -> Option<Vec<u8>> {
        let Datagram::Sealed { key, nonce } = recognize(datagram)? else {
            return None;
        };
        open(&KeyRing::development(), key, nonce, datagram)
            .ok()
            .map(<[u8]>::to_vec)
    }

    #[test]
    fn what_was_sealed_is_opened_and_cannot_be_read_in_between() {
        let mut datagram = sealed(b"hello, skein");
        assert_eq!(datagram.len(), 12 + OVERHEAD);
        assert!(!datagram.windows(5).any(|window| window == b"skein"));
        assert_eq!(opened(&mut datagram).as_deref(), Some(&b"hello, skein"[..]));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let datagram = sealed(b"payload");
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opened(&mut changed), None, "bit {bit}");
        }
        for length in 0..datagram.len() {
            assert_eq!(
                opened(&mut datagram[..length].to_vec()),
                None,
                "cut to {length}"
            );
        }
    }

    #[test]
    fn another_key_is_unknown_and_its_reject_echoes_the_nonce() {
        let mut datagram = sealed(b"x");
        let Some(Datagram::Sealed { key, nonce }) = recognize(&datagram) else {
            panic!()
        };
        let ring = KeyRing::parse(&"ab".repeat(32)).unwrap();
        assert_eq!(
            open(&ring, key, nonce, &mut datagram),
            Err(OpenFault::UnknownKey)
        );
        let answer = reject(nonce);
        assert!(answer.len() < OVERHEAD, "an answer must not amplify");
        assert_eq!(recognize(&answer), Some(Datagram::Reject(NONCE)));
    }

    proptest! {
        #[test]
        fn garbage_is_never_opened(mut bytes in prop::collection::vec(any::<u8>(), 0..1300)) {
            prop_assert_eq!(opened(&mut bytes), None);
            if bytes.len() > 2 {
                bytes[..2].copy_from_slice(&[VERSION, SEALED]);
                prop_assert_eq!(opened(&mut bytes), None);
            }
        }
    }
}
