//! The gossip keys of a mesh and the file that holds them.
//!
//! Owns parsing and key ids. Never prints a key, never seals: that is `seal`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chacha20poly1305::{AeadInPlace, Key as KeyBytes, KeyInit, XChaCha20Poly1305, XNonce};

/// The length of a key.
const KEY_BYTES: usize = 32;

/// The most keys that a ring holds: a rotation needs two.
pub const KEYS_MAX: usize = 8;

/// The longest key file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The key that everybody knows. It only keeps meshes that never chose a key compatible.
const DEVELOPMENT_KEY: &[u8; KEY_BYTES] = b"skein-development-key-not-secret";

/// Which key sealed a datagram: said in clear, so that a receiver need not try all of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyId(pub(crate) [u8; 4]);

/// One key, ready to use.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: KeyId,
    pub(crate) cipher: XChaCha20Poly1305,
}

impl Key {
    fn new(bytes: [u8; KEY_BYTES]) -> Self {
        let cipher = XChaCha20Poly1305::new(&KeyBytes::from(bytes));
        // The tag of nothing, under a nonce that no datagram has (their last eight bytes are a
        // counter that never gets there), tells keys apart and tells nothing about them.
        let tag = cipher
            .encrypt_in_place_detached(&XNonce::from([0xff; 24]), b"skein gossip key id", &mut [])
            .expect("an empty text is never too long");
        Self {
            id: KeyId([tag[0], tag[1], tag[2], tag[3]]),
            cipher,
        }
    }
}

/// The keys of a mesh: the first one seals, every one opens. So a key is rotated by adding the new
/// one last everywhere, then moving it first everywhere, then removing the old one.
#[derive(Clone)]
pub struct KeyRing {
    keys: Arc<[Key]>,
}

/// A key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error(
        "cannot read gossip key file {path}: {source}; \
         give a readable file (`skein keygen -o FILE` makes one)"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line or the number of lines is wrong.
    #[error("gossip key file {path}: {fault}")]
    Fault {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: KeyFault,
    },
}

/// The text of a key file is wrong. Never quotes the text: it may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// No key at all.
    #[error(
        "it holds no key; \
         put 32 random bytes in base64 or hexadecimal on a line (`skein keygen` makes one)"
    )]
    Empty,
    /// A line is no key.
    #[error(
        "line {0} is not a key of 32 bytes in base64 or hexadecimal; make one with `skein keygen`"
    )]
    Line(usize),
    /// A key appears twice.
    #[error("line {0} repeats a key; remove it")]
    Repeated(usize),
    /// More than [`KEYS_MAX`] keys.
    #[error("it holds more than {KEYS_MAX} keys; remove those that are no longer in use")]
    TooMany,
    /// The file is far too long.
    #[error("it is longer than 64 KiB; give a file with one key on each line")]
    TooLong,
}

impl KeyRing {
    /// Reads a key file: one key on each line, as base64 or hexadecimal; empty lines and what
    /// follows a `#` are skipped. Warns in the log when others than the owner may read the file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let fault = |fault| KeyError::Fault {
            path: path.to_owned(),
            fault,
        };
        let text = read_file(path).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => fault(KeyFault::TooLong),
            _ => KeyError::Read {
                path: path.to_owned(),
                source: error,
            },
        })?;
        Self::parse(&text).map_err(fault)
    }

    /// Reads the text of a key file.
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        let mut keys: Vec<Key> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let bytes = from_hex(line).or_else(|| from_base64(line));
            let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
            let key = Key::new(bytes.ok_or(KeyFault::Line(number))?);
            if keys.iter().any(|other| other.id == key.id) {
                return Err(KeyFault::Repeated(number));
            }
            if keys.len() == KEYS_MAX {
                return Err(KeyFault::TooMany);
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(KeyFault::Empty);
        }
        Ok(Self { keys: keys.into() })
    }

    /// The published key for a mesh on one machine: it keeps nobody out.
    pub fn development() -> Self {
        Self {
            keys: Arc::new([Key::new(*DEVELOPMENT_KEY)]),
        }
    }

    /// Whether the published key opens datagrams here, wherever it came from.
    pub fn has_development_key(&self) -> bool {
        let published = Key::new(*DEVELOPMENT_KEY).id;
        self.keys.iter().any(|key| key.id == published)
    }

    /// The key that seals.
    pub(crate) fn sealing(&self) -> &Key {
        &self.keys[0]
    }

    /// The key with `id`.
    pub(crate) fn find(&self, id: KeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| key.id))
            .finish()
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    use std::io::Read;

    let file = std::fs::File::open(path)?;
    warn_if_readable_by_others(path, &file.metadata()?);
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

#[cfg(unix)]
fn warn_if_readable_by_others(path: &Path, file: &std::fs::Metadata) {
    use std::os::unix::fs::PermissionsExt;

    let mode = file.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = format_args!("{mode:o}"),
            "others may read the gossip key file; restrict it with chmod 600"
        );
    }
}

#[cfg(not(unix))]
fn warn_if_readable_by_others(_: &Path, _: &std::fs::Metadata) {}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * KEY_BYTES {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}

/// Standard and URL alphabet, with or without padding; bits beyond the last byte must be zero.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let padding = text.len() - text.trim_end_matches('=').len();
    if padding > 0 && (padding > 2 || !text.len().is_multiple_of(4)) {
        return None;
    }
    let mut bytes = Vec::with_capacity(KEY_BYTES);
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in text[..text.len() - padding].bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0 && count < 6).then_some(bytes)
}

#[cfg(test)]
mod tests;
