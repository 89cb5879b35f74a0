//! The config this node last ran without fault, on its own disk: what it serves from at boot, before
//! Raft or gossip are up, and when they never come up.
//!
//! Owns the form of such a file: one header line with a format version and a checksum, then JSON.
//! Never compiles.

use std::path::{Path, PathBuf};

use model::{ConfigRevision, MeshId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The file's name in the data directory.
const FILE: &str = "last-known-good.json";
/// The first words of the file; the number is the format.
const HEADER: &str = "skein last-known-good 1 ";

/// A config as resources, and where it comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastKnownGood {
    /// The mesh whose config it is.
    pub(crate) mesh_id: Option<MeshId>,
    /// The accepted config change that it is.
    pub(crate) config_revision: ConfigRevision,
    /// Each resource: its key in the store and its text.
    pub(crate) resources: Vec<(String, String)>,
}

/// The file is there and cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The system cannot read it.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its content is not what was written.
    #[error(
        "{path} is damaged ({fault}); this node does without it until the store tells it the \
         same again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
}

impl LastKnownGood {
    /// What `data_dir` holds; `None` on a node that never ran a config.
    pub(crate) fn load(data_dir: &Path) -> Result<Option<Self>, LoadError> {
        load(data_dir.join(FILE), HEADER)
    }

    /// Replaces the file in `data_dir`, durably and whole.
    pub(crate) fn save(&self, data_dir: &Path) -> std::io::Result<()> {
        save(&data_dir.join(FILE), HEADER, self)
    }
}

/// What the file of this format holds; `None` if there is none.
pub(crate) fn load<T: DeserializeOwned>(
    path: PathBuf,
    header: &str,
) -> Result<Option<T>, LoadError> {
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LoadError::Read { path, source }),
    };
    match decode(&bytes, header) {
        Ok(found) => Ok(Some(found)),
        Err(fault) => Err(LoadError::Damaged { path, fault }),
    }
}

/// Replaces a file of this format, durably and whole.
pub(crate) fn save<T: Serialize>(path: &Path, header: &str, content: &T) -> std::io::Result<()> {
    let body = serde_json::to_vec(content)?;
    let mut bytes = format!("{header}{:08x}\n", crc32fast::hash(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    store_disk::replace_file(path, &bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8], first_words: &str) -> Result<T, String> {
    let end = bytes
        .iter()
        .position(|&byte| byte == b'\n')
        .ok_or("it has no header line")?;
    let (header, body) = (&bytes[..end], &bytes[end + 1..]);
    let sum = header
        .strip_prefix(first_words.as_bytes())
        .ok_or("its format is unknown")?;
    if sum != format!("{:08x}", crc32fast::hash(body)).as_bytes() {
        return Err("its checksum does not match".to_owned());
    }
    serde_json::from_slice(body).map_err(|fault| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> LastKnownGood {
        LastKnownGood {
            mesh_id: Some(MeshId(7)),
            config_revision: ConfigRevision(3),
            resources: vec![("/skein/config/default/Cluster/a".into(), "{}".into())],
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(LastKnownGood::load(dir.path()).unwrap(), None);
        sample().save(dir.path()).unwrap();
        assert_eq!(LastKnownGood::load(dir.path()).unwrap(), Some(sample()));
    }

    #[test]
    fn a_flipped_bit_and_a_cut_are_both_found_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        sample().save(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert!(
                LastKnownGood::load(dir.path()).is_err(),
                "bit flipped in byte {at}"
            );
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(LastKnownGood::load(dir.path()).is_err(), "cut at byte {at}");
        }
    }
}
