//! What can be asked of the store: operations, transactions, proposals.
//!
//! Owns the shapes, which mirror etcd's requests, and the question whether a command touches
//! config. What they do is in `edit`, `query` and `execute`.

use bytes::Bytes;
use model::{CONFIG_PREFIX, ConfigRevision, Version};

use crate::{AuthOp, Caller, KeyRange};

/// A command, in whose name it is, and the state of the config that it was checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The command.
    pub command: Command,
    /// Who asks. While auth is enabled the command applies only if the caller may do it.
    pub caller: Caller,
    /// The command applies only while this is the config revision. A command that touches config
    /// ([`touches_config`]) never applies without.
    pub config_guard: Option<ConfigRevision>,
}

/// What goes through the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Writes one key.
    Put(PutOp),
    /// Deletes a range of keys.
    Delete(DeleteOp),
    /// Compares, then does one of two lists of operations, as one revision.
    Txn(TxnOp),
    /// Forgets history.
    Compact {
        /// Reads and watches from this revision on stay possible; older ones do not.
        revision: i64,
    },
    /// Agrees on the lowest version that runs.
    SetClusterVersion(SetVersionOp),
    /// Makes a lease.
    Grant(GrantOp),
    /// Ends a lease: deletes its keys as one revision, if it has any, and forgets it.
    Revoke {
        /// The lease.
        lease: i64,
    },
    /// Gives leases their whole time again.
    KeepAlive(KeepAliveOp),
    /// Moves the lease clock, and ends the leases that are then over, as [`Command::Revoke`] does.
    Tick(TickOp),
    /// Changes users, roles, or whether they count. Makes no revision.
    Auth(AuthOp),
}

/// Agrees on a version of the mesh: what newer ones added is not used. Members propose it; it goes
/// up by itself, and down only when somebody asked for a downgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetVersionOp {
    /// The version from now on.
    pub version: Version,
    /// It is the minor version before the current one, and is held there: a downgrade begins. When
    /// not set, the version is not below the current one, and a downgrade ends (which takes the
    /// version that was held).
    pub downgrade: bool,
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Reads a range; sees the earlier writes of the same transaction.
    Range(RangeOp),
    /// Writes one key.
    Put(PutOp),
    /// Deletes a range of keys.
    Delete(DeleteOp),
    /// A transaction within the transaction. Its compares see the state before the outermost one.
    Txn(Box<TxnOp>),
}

/// Reads a range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeOp {
    /// Which keys.
    pub range: KeyRange,
    /// At most so many rows; 0 for all.
    pub limit: usize,
    /// As of this revision; 0 or below for now.
    pub revision: i64,
    /// How rows are sorted; `None` is by key, ascending.
    pub order: Option<(SortTarget, SortOrder)>,
    /// Rows come without their values.
    pub keys_only: bool,
    /// No rows come, only their count.
    pub count_only: bool,
    /// Only rows last written at or after this revision; 0 for all.
    pub min_mod_revision: i64,
    /// Only rows last written at or before this revision; 0 for all.
    pub max_mod_revision: i64,
    /// Only rows created at or after this revision; 0 for all.
    pub min_create_revision: i64,
    /// Only rows created at or before this revision; 0 for all.
    pub max_create_revision: i64,
}

/// What rows are sorted by; equal ones stay in the order of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The version.
    Version,
    /// The revision that created the key.
    Create,
    /// The revision that last wrote the key.
    Mod,
    /// The value, bytewise.
    Value,
}

/// The direction of a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortOrder {
    /// Not asked for. As in etcd, a limit then takes the first rows *by key*, and one more; those
    /// are sorted, ascending, and the last one is left out.
    #[default]
    None,
    /// The least first.
    Ascend,
    /// The greatest first.
    Descend,
}

/// Writes one key. The machine copies key and value, so a row never pins the request's buffer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutOp {
    /// The key; must not be empty.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease that the key hangs on; 0 for none.
    pub lease: i64,
    /// The answer has the row that was replaced.
    pub prev_kv: bool,
    /// Keep the value that is there; the key must exist.
    pub ignore_value: bool,
    /// Keep the lease that is there; the key must exist.
    pub ignore_lease: bool,
}

/// Deletes a range of keys. If none exists, no revision is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteOp {
    /// Which keys.
    pub range: KeyRange,
    /// The answer has the rows that were deleted.
    pub prev_kv: bool,
}

/// Makes a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GrantOp {
    /// Its name, which no lease may have yet; not 0.
    pub id: i64,
    /// The seconds that it lives without a keep-alive.
    pub ttl: i64,
    /// How many milliseconds ago the proposer's reading of the lease clock was taken.
    pub age_ms: u64,
}

/// Gives leases their whole time again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeepAliveOp {
    /// The leases.
    pub ids: Vec<i64>,
    /// How many milliseconds ago the proposer's reading of the lease clock was taken.
    pub age_ms: u64,
}

/// Moves the lease clock by the time that went by since it was at some reading. If it is not there
/// any more, that time was counted already, and the clock is not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TickOp {
    /// The reading.
    pub from_ms: u64,
    /// The milliseconds since; [`crate::LEASE_STEP_MAX_MS`] of them count.
    pub advance_ms: u64,
    /// The term of the leader that measured them: they count in no other, see [`TickOp::in_term`].
    pub term: u64,
}

/// If all compares hold, does `success`, else `failure`; all of it as one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnOp {
    /// All must hold; none at all holds.
    pub compares: Vec<Compare>,
    /// What is done when they hold.
    pub success: Vec<Op>,
    /// What is done when one does not.
    pub failure: Vec<Op>,
}

/// Holds if it holds for every key in the range. If no key is there, it is asked of an absent row
/// (all numbers 0), and a compare of the value does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub range: KeyRange,
    /// How the row must relate to the target.
    pub result: CompareResult,
    /// What of the row is compared, and with what.
    pub target: CompareTarget,
}

/// The relation of a row's field (on the left) to the target (on the right).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareResult {
    /// They are equal.
    Equal,
    /// They differ.
    NotEqual,
    /// The row's is greater.
    Greater,
    /// The row's is less.
    Less,
}

/// A field of a row, with what it is compared to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareTarget {
    /// The version.
    Version(i64),
    /// The revision that created the key.
    Create(i64),
    /// The revision that last wrote the key.
    Mod(i64),
    /// The value, bytewise.
    Value(Bytes),
    /// The lease.
    Lease(i64),
}

impl Proposal {
    /// A proposal without a guard, by nobody.
    pub fn new(command: Command) -> Self {
        Self {
            command,
            caller: Caller::Nobody,
            config_guard: None,
        }
    }

    /// A proposal without a guard, by the mesh itself: no right is asked for.
    pub fn own(command: Command) -> Self {
        Self {
            caller: Caller::Own,
            ..Self::new(command)
        }
    }
}

impl RangeOp {
    /// All rows of `range`, now, by key.
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            limit: 0,
            revision: 0,
            order: None,
            keys_only: false,
            count_only: false,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
        }
    }
}

impl PutOp {
    /// Sets `key` to `value`, without a lease.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            ..Self::default()
        }
    }
}

impl TickOp {
    /// The tick as it counts in the term of its log entry: time of another term counts nothing. A
    /// leader that was deposed and elected again, and did not notice, measured time in which
    /// others led, and made promises from their own beginning on.
    #[must_use]
    pub fn in_term(self, term: u64) -> Self {
        Self {
            advance_ms: if self.term == term {
                self.advance_ms
            } else {
                0
            },
            ..self
        }
    }
}

impl DeleteOp {
    /// Deletes `range`; the answer only counts.
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            prev_kv: false,
        }
    }
}

impl TxnOp {
    /// Whether neither branch can write, nested transactions included.
    pub fn is_read_only(&self) -> bool {
        self.ops().all(|op| match op {
            Op::Range(_) => true,
            Op::Put(_) | Op::Delete(_) => false,
            Op::Txn(txn) => txn.is_read_only(),
        })
    }

    /// Whether some write of either branch, nested transactions included, could change a key that
    /// begins with `prefix`.
    pub fn writes_below(&self, prefix: &[u8]) -> bool {
        self.ops().any(|op| match op {
            Op::Range(_) => false,
            Op::Put(put) => put.key.starts_with(prefix),
            Op::Delete(delete) => delete.range.intersects_prefix(prefix),
            Op::Txn(txn) => txn.writes_below(prefix),
        })
    }

    pub(crate) fn ops(&self) -> impl Iterator<Item = &Op> {
        self.success.iter().chain(&self.failure)
    }
}

impl Command {
    /// Whether this command could change a key that begins with `prefix`, whichever branches its
    /// transactions take. The keys that go with their lease are not looked at: config keys have
    /// none.
    pub fn writes_below(&self, prefix: &[u8]) -> bool {
        match self {
            Self::Put(put) => put.key.starts_with(prefix),
            Self::Delete(delete) => delete.range.intersects_prefix(prefix),
            Self::Txn(txn) => txn.writes_below(prefix),
            Self::Compact { .. }
            | Self::SetClusterVersion(_)
            | Self::Grant(_)
            | Self::Revoke { .. }
            | Self::KeepAlive(_)
            | Self::Tick(_)
            | Self::Auth(_) => false,
        }
    }

    /// The version that added this command: an older one does not understand it. Whoever adds a
    /// command, or a field to one, names the version here.
    pub fn since(&self) -> Version {
        match self {
            Self::Put(_)
            | Self::Delete(_)
            | Self::Txn(_)
            | Self::Compact { .. }
            | Self::Grant(_)
            | Self::Revoke { .. }
            | Self::KeepAlive(_)
            | Self::Tick(_)
            | Self::Auth(_) => Version::FIRST,
            // A node that is older must not go on in a mesh of this version.
            Self::SetClusterVersion(op) => op.version,
        }
    }

    /// What the command is called where people read it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Put(_) => "a put",
            Self::Delete(_) => "a delete",
            Self::Txn(_) => "a transaction",
            Self::Compact { .. } => "a compaction",
            Self::SetClusterVersion(_) => "a change of the cluster version",
            Self::Grant(_) => "a grant of a lease",
            Self::Revoke { .. } => "a revocation of a lease",
            Self::KeepAlive(_) => "a keep-alive",
            Self::Tick(_) => "a tick of the lease clock",
            Self::Auth(_) => "a change of users and roles",
        }
    }
}

/// Whether `command` could change config, so that it needs a guard.
pub fn touches_config(command: &Command) -> bool {
    command.writes_below(CONFIG_PREFIX.as_bytes())
}
