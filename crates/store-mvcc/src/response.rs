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
