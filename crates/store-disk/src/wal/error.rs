//! Why the log cannot be opened.
//!
//! Owns the words that a user reads about it. Never decides anything.

use std::io;
use std::path::{Path, PathBuf};

/// Why the log cannot be opened. Every text names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Something that had been durable is gone or changed. This node cannot know any more what it
    /// promised to others, so it must not go on under its identity.
    #[error(
        "the log is damaged: {path} at offset {offset}: {fault}; move the data directory away and start the node with --join: it returns as a new member and gets the data from the others; where there are no others, keep it: its `snapshots` and `rows` hold what was applied"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Byte offset of the first thing that is wrong.
        offset: u64,
        /// What is wrong.
        fault: String,
    },
    /// A newer binary wrote it.
    #[error(
        "{path} has format version {found}, and this binary reads up to {known}; run the newer skein that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version found in it.
        found: u32,
        /// The newest version that this binary knows.
        known: u32,
    },
    /// Not a length that a segment can have.
    #[error("segments of {0} bytes are not possible; choose between 4096 and 1073741824")]
    SegmentBytes(u64),
    /// The system refused something.
    #[error("cannot {action} {path} ({source}); check the disk and its mount")]
    Io {
        /// What was being done, as an imperative.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl WalError {
    /// Damage in this file, from this offset on.
    pub(super) fn damaged(path: &Path, offset: u64, fault: String) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            offset,
            fault,
        }
    }
}
