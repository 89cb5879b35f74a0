//! Why a command, a read or a rebuild was refused.
//!
//! Owns one error for each decision of a caller. All command errors are deterministic: every node
//! that applies the same log refuses the same commands, for the same reason.

use model::{ConfigRevision, Version};

use crate::AuthError;

/// Why a command changed nothing. Each maps to one of etcd's errors, the guard aside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A key is empty.
    #[error("key is not provided: a key needs at least one byte")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("key not found: `ignore_value` and `ignore_lease` need a key that exists")]
    KeyMissing,
    /// `ignore_value` together with a value.
    #[error("value is provided: leave it out, or unset `ignore_value`")]
    ValueProvided,
    /// `ignore_lease` together with a lease.
    #[error("lease is provided: leave it out, or unset `ignore_lease`")]
    LeaseProvided,
    /// The lease does not exist.
    #[error("requested lease not found: grant it first")]
    LeaseNotFound,
    /// The id of a new lease is taken.
    #[error("lease already exists: choose another id, or 0 to have one chosen")]
    LeaseExists,
    /// The time to live is beyond [`crate::LEASE_TTL_MAX`].
    #[error("too large lease TTL: ask for at most {} s", crate::LEASE_TTL_MAX)]
    LeaseTtlTooLarge,
    /// A config key together with a lease: config does not end by itself.
    #[error("a config key cannot have a lease: put it without one")]
    ConfigLease,
    /// The caller may not, or the change of users and roles cannot be.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The revision is older than compaction left.
    #[error(transparent)]
    Compacted(#[from] Compacted),
    /// The revision has not happened yet.
    #[error("required revision is a future revision: the newest is {revision}")]
    FutureRevision {
        /// The newest revision.
        revision: i64,
    },
    /// One branch of a transaction writes a key twice.
    #[error("duplicate key given in txn request: a transaction may write a key once")]
    DuplicateKey,
    /// A transaction has more operations than the limit.
    #[error("too many operations in txn request: split it into parts of at most {limit}")]
    TooManyOps {
        /// The limit.
        limit: usize,
    },
    /// A command that touches config was checked against another state of the config.
    #[error("config changed meanwhile (now {now}): check the command against it and try again")]
    ConfigGuardMismatch {
        /// The count of accepted config changes now.
        now: ConfigRevision,
    },
    /// The cluster version cannot go there from where it is.
    #[error("the mesh is at version {now} by now: look again")]
    VersionMoved {
        /// The version that the mesh agreed on.
        now: Version,
    },
}

/// The revision was compacted away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("required revision has been compacted: begin at {compact_revision} or later")]
pub struct Compacted {
    /// The oldest revision that can still be read.
    pub compact_revision: i64,
}

/// The rows are not those of one image: the snapshot or the row files are damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// A row breaks the order, or claims a revision that cannot be.
    #[error(
        "row {sub} of revision {revision} is out of place: these rows are damaged; \
         rebuild from a snapshot or from another member"
    )]
    OutOfPlace {
        /// The row's revision.
        revision: i64,
        /// Its place within it.
        sub: u32,
    },
    /// A revision has no rows.
    #[error(
        "revision {revision} is missing: these rows are damaged; \
         rebuild from a snapshot or from another member"
    )]
    Missing {
        /// The first revision that is missing.
        revision: i64,
    },
    /// A lease is there twice, or is missing although keys hang on it.
    #[error(
        "lease {id} is out of place: these rows are damaged; \
         rebuild from a snapshot or from another member"
    )]
    Lease {
        /// The lease.
        id: i64,
    },
}
