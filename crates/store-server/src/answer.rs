//! The store's answers in etcd's words.
//!
//! Owns the mapping of results and of a command's own errors. Never fills in a response's header,
//! except for the revision that etcd puts into the parts of a transaction's response.

use model::ConfigRevision;
use store_api::errors;
use store_api::etcdserverpb as pb;
use store_mvcc::{
    AuthError, CommandError, DeleteResult, GrantResult, PutResult, RangeResult, Response, Row,
    TxnResult,
};
use store_raft::convert;
use tonic::Status;

/// A command that was committed and did what it should.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The newest revision after it.
    pub revision: i64,
    /// The config revision after it.
    pub config_revision: ConfigRevision,
    /// The answer, without a header.
    pub answer: Answer,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To a put.
    Put(pb::PutResponse),
    /// To a delete.
    Delete(pb::DeleteRangeResponse),
    /// To a transaction.
    Txn(pb::TxnResponse),
    /// To a compaction.
    Compact(pb::CompactionResponse),
    /// To a change of the cluster version.
    SetClusterVersion,
    /// To a grant.
    Grant(pb::LeaseGrantResponse),
    /// To a revocation.
    Revoke(pb::LeaseRevokeResponse),
    /// To a keep-alive: the seconds that each lease lives from now on; 0 if there is none.
    KeepAlive(Vec<i64>),
    /// To a change of users and roles.
    Auth,
}

impl Answer {
    /// The answer that a response is, as of `revision`. A range is no command, and a tick is
    /// nobody's, so there is none.
    pub(crate) fn new(response: Response, revision: i64) -> Option<Self> {
        Some(match response {
            Response::Put(result) => Self::Put(put(result)),
            Response::Delete(result) => Self::Delete(delete(result)),
            Response::Txn(result) => Self::Txn(txn(result, revision)),
            Response::Compact => Self::Compact(pb::CompactionResponse::default()),
            Response::SetClusterVersion => Self::SetClusterVersion,
            Response::Grant(GrantResult { id, ttl }) => Self::Grant(pb::LeaseGrantResponse {
                id,
                ttl,
                ..Default::default()
            }),
            Response::Revoke => Self::Revoke(pb::LeaseRevokeResponse::default()),
            Response::KeepAlive(result) => Self::KeepAlive(result.ttls),
            Response::Auth => Self::Auth,
            Response::Range(_) | Response::Tick(_) => return None,
        })
    }
}

pub(crate) fn range(result: RangeResult) -> pb::RangeResponse {
    pb::RangeResponse {
        header: None,
        kvs: rows(&result.rows),
        more: result.more,
        count: count(result.count),
    }
}

fn put(result: PutResult) -> pb::PutResponse {
    pb::PutResponse {
        header: None,
        prev_kv: result.prev.map(|row| convert::row_to_pb(&row)),
    }
}

fn delete(result: DeleteResult) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: None,
        deleted: count(result.deleted),
        prev_kvs: rows(&result.prev),
    }
}

/// The response to a transaction after which the store is at `revision`.
pub(crate) fn txn(result: TxnResult, revision: i64) -> pb::TxnResponse {
    let before = revision - i64::from(changes(&result));
    parts(
        result,
        &mut Revision {
            before,
            now: before,
        },
    )
}

/// The revision that the parts of a transaction's response tell, as etcd's do: the one before the
/// transaction until something is changed, and then the transaction's own.
struct Revision {
    before: i64,
    now: i64,
}

impl Revision {
    fn header(&mut self, changes: bool) -> Option<pb::ResponseHeader> {
        if changes {
            self.now = self.before + 1;
        }
        Some(pb::ResponseHeader {
            revision: self.now,
            ..Default::default()
        })
    }
}

fn changes(result: &TxnResult) -> bool {
    result.responses.iter().any(|response| match response {
        Response::Put(_) => true,
        Response::Delete(result) => result.deleted > 0,
        Response::Txn(result) => changes(result),
        _ => false,
    })
}

fn parts(result: TxnResult, revision: &mut Revision) -> pb::TxnResponse {
    use pb::response_op::Response as Part;
    let part = |response| {
        let part = match response {
            Response::Range(result) => Part::ResponseRange(pb::RangeResponse {
                header: revision.header(false),
                ..range(result)
            }),
            Response::Put(result) => Part::ResponsePut(pb::PutResponse {
                header: revision.header(true),
                ..put(result)
            }),
            Response::Delete(result) => Part::ResponseDeleteRange(pb::DeleteRangeResponse {
                header: revision.header(result.deleted > 0),
                ..delete(result)
            }),
            // Its own parts tell a revision, it does not.
            Response::Txn(result) => Part::ResponseTxn(pb::TxnResponse {
                header: Some(pb::ResponseHeader::default()),
                ..parts(result, revision)
            }),
            // The others are no operations of a transaction.
            _ => return None,
        };
        Some(pb::ResponseOp {
            response: Some(part),
        })
    };
    pb::TxnResponse {
        header: None,
        succeeded: result.succeeded,
        responses: result.responses.into_iter().filter_map(part).collect(),
    }
}

fn rows(rows: &[Row]) -> Vec<store_api::mvccpb::KeyValue> {
    rows.iter().map(|row| convert::row_to_pb(row)).collect()
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// An outcome that does not fit its command would be a fault of the leader's version.
pub(crate) fn misfit() -> Status {
    Status::internal("skein: the leader's answer does not fit the command; see the versions")
}

/// etcd's error for a command that changed nothing.
pub(crate) fn command_error(error: &CommandError) -> Status {
    match error {
        CommandError::EmptyKey => errors::empty_key(),
        CommandError::KeyMissing => errors::key_not_found(),
        CommandError::ValueProvided => errors::value_provided(),
        CommandError::LeaseProvided => errors::lease_provided(),
        CommandError::LeaseNotFound => errors::lease_not_found(),
        CommandError::LeaseExists => errors::lease_exists(),
        CommandError::LeaseTtlTooLarge => errors::lease_ttl_too_large(),
        CommandError::ConfigLease => Status::invalid_argument(format!("skein: {error}")),
        CommandError::Auth(error) => auth_error(*error),
        CommandError::Compacted(_) => errors::compacted(),
        CommandError::FutureRevision { .. } => errors::future_revision(),
        CommandError::DuplicateKey => errors::duplicate_key(),
        CommandError::TooManyOps { .. } => errors::too_many_ops(),
        CommandError::ConfigGuardMismatch { .. } | CommandError::VersionMoved { .. } => {
            Status::aborted(format!("skein: {error}"))
        }
    }
}

/// etcd's error for a caller who may not, or for a change of users and roles that cannot be.
pub(crate) fn auth_error(error: AuthError) -> Status {
    match error {
        AuthError::RootUserMissing => errors::root_user_not_exist(),
        AuthError::RootRoleMissing => errors::root_role_not_exist(),
        AuthError::UserEmpty => errors::user_empty(),
        AuthError::UserExists => errors::user_already_exists(),
        AuthError::UserNotFound => errors::user_not_found(),
        AuthError::RoleEmpty => errors::role_empty(),
        AuthError::RoleExists => errors::role_already_exists(),
        AuthError::RoleNotFound => errors::role_not_found(),
        AuthError::RoleNotGranted => errors::role_not_granted(),
        AuthError::PermissionNotGranted => errors::permission_not_granted(),
        AuthError::InvalidManagement => errors::invalid_auth_management(),
        AuthError::Denied => errors::permission_denied(),
        AuthError::InvalidToken => errors::invalid_auth_token(),
    }
}
