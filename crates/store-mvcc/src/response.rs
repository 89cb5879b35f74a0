//! What the store answers.
//!
//! Owns the shapes, which mirror etcd's responses without their headers.

use model::ConfigRevision;

use crate::{CommandError, Row};

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The newest revision after it.
    pub revision: i64,
    /// The count of accepted config changes after it.
    pub config_revision: ConfigRevision,
    /// The answer; on an error nothing changed.
    pub result: Result<Response, CommandError>,
}

/// The answer to a command or to one operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To a range, within a transaction.
    Range(RangeResult),
    /// To a put.
    Put(PutResult),
    /// To a delete.
    Delete(DeleteResult),
    /// To a transaction.
    Txn(TxnResult),
    /// To a compaction.
    Compact,
    /// To a change of the cluster version.
    SetClusterVersion,
    /// To a grant.
    Grant(GrantResult),
    /// To a revocation.
    Revoke,
    /// To a keep-alive.
    KeepAlive(KeepAliveResult),
    /// To a tick.
    Tick(TickResult),
    /// To a change of users and roles.
    Auth,
}

/// What a range found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeResult {
    /// The rows, sorted as asked.
    pub rows: Vec<Row>,
    /// Whether the limit cut rows off.
    pub more: bool,
    /// How many keys are in the range, whatever the limit and the revision filters.
    pub count: usize,
}

/// What a put replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutResult {
    /// The row that was replaced, if one was and it was asked for.
    pub prev: Option<Row>,
}

/// What a delete removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteResult {
    /// How many keys.
    pub deleted: usize,
    /// The rows, by key, if they were asked for.
    pub prev: Vec<Row>,
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnResult {
    /// Whether its compares held, so that its `success` was done.
    pub succeeded: bool,
    /// One response for each operation of the branch that was taken.
    pub responses: Vec<Response>,
}

/// The lease that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GrantResult {
    /// Its name.
    pub id: i64,
    /// The seconds that it lives without a keep-alive.
    pub ttl: i64,
}

/// What became of the leases to be kept alive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeepAliveResult {
    /// The seconds that each lives from now on, in the order of the request; 0 if there is none.
    pub ttls: Vec<i64>,
}

/// What a tick did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TickResult {
    /// Whether the lease clock was where the tick goes on from, so that its time counted.
    pub moved: bool,
    /// The reading of the lease clock after it.
    pub clock_ms: u64,
    /// How many leases ended.
    pub ended: usize,
    /// Whether further ones are over, and wait for the next tick.
    pub more: bool,
}
