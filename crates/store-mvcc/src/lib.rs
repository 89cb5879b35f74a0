//! The store's state machine: keys, values, revisions, with etcd's semantics.
//!
//! Owns what a command does and what a reader sees: [`Machine::apply`] turns one proposal into one
//! [`Outcome`], and every state is an immutable, structurally shared [`Image`] that readers,
//! watchers and snapshots hold without a lock. Pure: never reads a clock, a file, a socket or a
//! random number, never parses what config values mean, and the same log gives the same image on
//! every node.

mod auth;
mod changes;
mod check;
mod command;
mod compact;
mod delta;
mod edit;
mod error;
mod execute;
mod growth;
mod image;
mod key_range;
mod leases;
mod leasing;
mod past;
mod query;
mod response;
mod row;
mod rows;
mod version;
mod written;

pub use auth::{Access, Auth, AuthError, AuthOp, Caller, Hash, Permission, Role, TokenKey, User};
pub use changes::{ChangedRow, Changes};
pub use check::TXN_OPS_MAX;
pub use command::{
    Command, Compare, CompareResult, CompareTarget, DeleteOp, GrantOp, KeepAliveOp, Op, Proposal,
    PutOp, RangeOp, SetVersionOp, SortOrder, SortTarget, TickOp, TxnOp, touches_config,
};
pub use delta::Delta;
pub use error::{CommandError, Compacted, RowsError};
pub use execute::Machine;
pub use image::{AgreedVersion, Image, ImageMeta};
pub use key_range::{KeyRange, RangeEnd};
pub use leases::{Lease, LeaseDelta};
pub use leasing::{LEASE_STEP_MAX_MS, LEASE_TTL_MAX, TICK_LEASES_MAX};
pub use response::{
    DeleteResult, GrantResult, KeepAliveResult, Outcome, PutResult, RangeResult, Response,
    TickResult, TxnResult,
};
pub use row::{KeyValue, Row, RowId};
pub use rows::ImageBuilder;
