//! Tokens: the proof that a client was seen with a password.
//!
//! Owns their form and their time. A token is sealed under a key that every member has, so that
//! each can tell whose it is; it counts for a while from when it was issued, and on a node that it is
//! used at, for a while from its last use. Never asks whether the user is still who it was: that is
//! in the store.
//!
//! ```text
//! base64url(nonce (24)  sealed(issued at, Unix ms (8)  auth revision (8)  user name)  tag (16))
//! ```

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use store_mvcc::{Caller, TokenKey};

/// What the key is used for, should it ever be used for something else.
const PURPOSE: &[u8] = b"skein auth token 1";
const NONCE: usize = 24;
/// Longer ones are not looked into: no name that a request could bring is.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Tokens whose last use is remembered. Those beyond count from when they were issued only.
const REMEMBERED_MAX: usize = 65_536;

type Nonce = [u8; NONCE];

/// The tokens of one node.
#[derive(Debug)]
pub(crate) struct Tokens {
    ttl_ms: u64,
    /// When each was last used here.
    used: Mutex<HashMap<Nonce, u64>>,
}

/// Now, as tokens tell time. Members' clocks need not agree by more than a part of a token's life.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

impl Tokens {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            used: Mutex::default(),
        }
    }

    /// A token for the user `name`, whose password was right at this auth revision.
    pub(crate) fn issue(key: TokenKey, name: &str, revision: u64, now_ms: u64) -> String {
        let nonce: Nonce = rand::random();
        let text = [
            &now_ms.to_be_bytes()[..],
            &revision.to_be_bytes()[..],
            name.as_bytes(),
        ]
        .concat();
        let payload = Payload {
            msg: &text,
            aad: PURPOSE,
        };
        let sealed = cipher(key).encrypt(XNonce::from_slice(&nonce), payload);
        let sealed = sealed.expect("a name is far shorter than what the cipher takes");
        URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat())
    }

    /// Whose token it is, if it is one and its time is not over; using it prolongs it.
    pub(crate) fn open(&self, key: TokenKey, token: &[u8], now_ms: u64) -> Option<Caller> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>()?;
        let payload = Payload {
            msg: sealed,
            aad: PURPOSE,
        };
        let text = cipher(key)
            .decrypt(XNonce::from_slice(nonce), payload)
            .ok()?;
        let (issued, text) = text.split_first_chunk()?;
        let (revision, name) = text.split_first_chunk()?;
        let name = std::str::from_utf8(name).ok()?.to_owned();
        let revision = u64::from_be_bytes(*revision);
        self.counts(*nonce, u64::from_be_bytes(*issued), now_ms)
            .then_some(Caller::User { name, revision })
    }

    fn counts(&self, nonce: Nonce, issued_ms: u64, now_ms: u64) -> bool {
        let lives = |from: u64| now_ms < from.saturating_add(self.ttl_ms);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let last = used.get(&nonce).copied();
        if !lives(issued_ms) && !last.is_some_and(lives) {
            used.remove(&nonce);
            return false;
        }
        if last.is_none() && used.len() >= REMEMBERED_MAX {
            used.retain(|_, last| lives(*last));
        }
        if last.is_some() || used.len() < REMEMBERED_MAX {
            used.insert(nonce, now_ms);
        }
        true
    }
}

fn cipher(key: TokenKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&key.0.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: TokenKey = TokenKey([7; 32]);
    const BEGIN: u64 = 1_000_000;

    fn user(name: &str, revision: u64) -> Option<Caller> {
        let name = name.to_owned();
        Some(Caller::User { name, revision })
    }

    fn tokens() -> Tokens {
        Tokens::new(Duration::from_secs(300))
    }

    #[test]
    fn a_token_tells_whose_it_is_at_every_node_that_has_the_key() {
        let token = Tokens::issue(KEY, "ann", 9, BEGIN);
        for node in [tokens(), tokens()] {
            let opened = node.open(KEY, token.as_bytes(), BEGIN);
            assert_eq!(opened, user("ann", 9));
        }
        let other = TokenKey([8; 32]);
        assert_eq!(tokens().open(other, token.as_bytes(), BEGIN), None);
        assert_ne!(token, Tokens::issue(KEY, "ann", 9, BEGIN));
    }

    #[test]
    fn a_token_that_was_changed_anywhere_is_none() {
        let token = Tokens::issue(KEY, "ann", 9, BEGIN).into_bytes();
        let node = tokens();
        for at in 0..token.len() {
            let mut changed = token.clone();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(node.open(KEY, &changed, BEGIN), None, "{at}");
            assert_eq!(node.open(KEY, &token[..at], BEGIN), None, "{at}");
        }
        for strange in [&b""[..], b"abc.7", &[0xff; 40], &[b'A'; 9_000]] {
            assert_eq!(node.open(KEY, strange, BEGIN), None);
        }
    }

    #[test]
    fn a_token_lives_on_where_it_is_used_and_ends_where_it_is_not() {
        let token = Tokens::issue(KEY, "ann", 9, BEGIN);
        let (used, idle) = (tokens(), tokens());
        let open = |node: &Tokens, after: u64| node.open(KEY, token.as_bytes(), BEGIN + after);
        for after in [0, 299_999, 500_000, 799_999] {
            assert!(open(&used, after).is_some(), "{after}");
        }
        assert!(open(&idle, 300_000).is_none());
        assert!(open(&used, 1_099_999).is_none());
        assert!(
            open(&used, 1_099_999).is_none(),
            "asking did not prolong it"
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let node = tokens();
        for n in 0..REMEMBERED_MAX as u64 + 10 {
            let mut nonce = Nonce::default();
            nonce[..8].copy_from_slice(&n.to_be_bytes());
            assert!(node.counts(nonce, BEGIN, BEGIN));
        }
        assert_eq!(node.used.lock().unwrap().len(), REMEMBERED_MAX);
        let later = BEGIN + 400_000;
        assert!(node.counts([9; NONCE], later, later));
        assert_eq!(node.used.lock().unwrap().len(), 1, "the old ones made room");
    }
}
