//! The handshake of WebSocket, where one side of it has to be made: HTTP/2 has none (RFC 8441, 5).
//!
//! Owns the key and the proof that a server understood it (RFC 6455, 4.2.2). Neither keeps a secret:
//! they tell a server of WebSocket from one that sends back what it gets.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rand::{Rng, RngExt as _};
use sha1::{Digest as _, Sha1};

/// What the proof is made with (RFC 6455, 1.3).
const NAMESPACE: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A new key.
pub(super) fn key(rng: &mut impl Rng) -> Box<str> {
    let nonce: u128 = rng.random();
    BASE64_STANDARD.encode(nonce.to_be_bytes()).into()
}

/// What a server answers to `key`.
pub(super) fn proof(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(NAMESPACE);
    BASE64_STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn the_proof_is_that_of_the_rfc() {
        let proof = proof(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(proof, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_16_bytes_and_differ() {
        let mut rng = SmallRng::seed_from_u64(1);
        let keys = [key(&mut rng), key(&mut rng)];
        assert_ne!(keys[0], keys[1]);
        for key in &keys {
            assert_eq!(BASE64_STANDARD.decode(&**key).unwrap().len(), 16);
        }
    }
}
