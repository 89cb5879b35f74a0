//! Why a data directory cannot be opened or changed.
//!
//! Owns the words that a user reads about it. Never decides anything.

use std::io;
use std::path::PathBuf;

/// Why a data directory cannot be used. Every text names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path, or a part of it, is a file.
    #[error("{path} is not a directory; choose another data directory")]
    NotADirectory {
        /// The path as given.
        path: PathBuf,
    },
    /// The directory cannot be created or written.
    #[error(
        "the data directory {path} is not writable ({source}); give its owner write permission, or choose another one"
    )]
    NotWritable {
        /// The path as given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the data directory {path} is in use by {holder}; stop that process, or choose another one"
    )]
    InUse {
        /// The path as given.
        path: PathBuf,
        /// The other process, as far as the lock file tells.
        holder: String,
    },
    /// It was never finished.
    #[error(
        "the data directory {path} was being made or changed and never finished (`{marker}` in it says by what); do that again"
    )]
    Unfinished {
        /// The path as given.
        path: PathBuf,
        /// The file in it that says so.
        marker: &'static str,
    },
    /// A newer binary wrote it.
    #[error(
        "{path} has format version {found}, and this binary reads up to {known}; run the newer skein that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version found in it.
        found: u16,
        /// The newest version that this binary knows.
        known: u16,
    },
    /// A file is damaged, or one that must be there is gone.
    #[error(
        "{path} is damaged ({fault}); move the data directory away and start the node with --join: it returns as a new member and gets the data from the others"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// The system refused something else.
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

/// Why a fact about the node was not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// A different one was saved before, and it is for life.
    #[error(
        "this node already has the {what} {held} and cannot take {wanted}; to found or join another mesh, start with an empty data directory"
    )]
    Conflict {
        /// Which fact: `mesh id` or `promise`.
        what: &'static str,
        /// What the disk holds.
        held: String,
        /// What the caller wanted to save.
        wanted: String,
    },
    /// The disk refused; the old state still stands.
    #[error("cannot save {path} ({source}); check the disk and its mount")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
