//! The store's commands to and from the protobuf that the log, the peers and etcd's clients speak.
//!
//! Owns the mapping in both directions. Never fills in for what it does not know: an operation, a
//! comparison or a sort order of an unknown kind is an error, at the API as in the log.

use bytes::Bytes;
use model::{ConfigRevision, Version};
use store_api::etcdserverpb as etcd;
use store_api::mvccpb;
use store_api::skeinpb as pb;
use store_mvcc::{
    Command, Compare, CompareResult, CompareTarget, DeleteOp, KeyRange, KeyValue, Op, Proposal,
    PutOp, RangeOp, Row, SetVersionOp, SortOrder, SortTarget, TxnOp,
};

pub(crate) mod auth;
pub(crate) mod leases;

pub use auth::{permission_from_pb, permission_to_pb};

/// A request that this version does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request has an unknown or missing {0}; send it to a node of a newer version")]
pub struct Unknown(&'static str);

/// How deep transactions may nest: deeper ones are refused before anything walks them.
pub const TXN_DEPTH_MAX: usize = 16;

// ---- proposals

/// The bytes that go into the log.
pub fn proposal_to_pb(proposal: &Proposal) -> pb::Proposal {
    use pb::proposal::Command as Encoded;
    let command = match &proposal.command {
        Command::Put(op) => Encoded::Put(put_to_pb(op)),
        Command::Delete(op) => Encoded::DeleteRange(delete_to_pb(op)),
        Command::Txn(op) => Encoded::Txn(txn_to_pb(op)),
        Command::Compact { revision } => Encoded::Compaction(etcd::CompactionRequest {
            revision: *revision,
            physical: false,
        }),
        Command::SetClusterVersion(op) => Encoded::SetClusterVersion(pb::SetClusterVersion {
            version: Some(version_to_pb(op.version)),
            downgrade: op.downgrade,
        }),
        Command::Grant(op) => Encoded::LeaseGrant(leases::grant_to_pb(*op)),
        Command::Revoke { lease } => Encoded::LeaseRevoke(pb::LeaseRevoke { id: *lease }),
        Command::KeepAlive(op) => Encoded::LeaseKeepAlive(leases::keep_alive_to_pb(op)),
        Command::Tick(op) => Encoded::LeaseTick(leases::tick_to_pb(*op)),
        Command::Auth(op) => Encoded::Auth(auth::change_to_pb(op)),
    };
    pb::Proposal {
        command: Some(command),
        caller: auth::caller_to_pb(&proposal.caller),
        config_guard: proposal.config_guard.map(|revision| revision.0),
    }
}

/// Reads a proposal. The buffers of keys and values are shared with the message.
pub fn proposal_from_pb(proposal: pb::Proposal) -> Result<Proposal, Unknown> {
    use pb::proposal::Command as Encoded;
    let command = match proposal.command.ok_or(Unknown("command"))? {
        Encoded::Put(request) => Command::Put(put_from_pb(request)),
        Encoded::DeleteRange(request) => Command::Delete(delete_from_pb(request)),
        Encoded::Txn(request) => Command::Txn(txn_from_pb(request)?),
        Encoded::Compaction(request) => Command::Compact {
            revision: request.revision,
        },
        Encoded::SetClusterVersion(request) => Command::SetClusterVersion(SetVersionOp {
            version: version_from_pb(request.version.ok_or(Unknown("version"))?)?,
            downgrade: request.downgrade,
        }),
        Encoded::LeaseGrant(request) => Command::Grant(leases::grant_from_pb(request)),
        Encoded::LeaseRevoke(request) => Command::Revoke { lease: request.id },
        Encoded::LeaseKeepAlive(request) => Command::KeepAlive(leases::keep_alive_from_pb(request)),
        Encoded::LeaseTick(request) => Command::Tick(leases::tick_from_pb(request)),
        Encoded::Auth(change) => Command::Auth(auth::change_from_pb(change)?),
    };
    Ok(Proposal {
        command,
        caller: auth::caller_from_pb(proposal.caller),
        config_guard: proposal.config_guard.map(ConfigRevision),
    })
}

/// A version.
pub fn version_to_pb(version: Version) -> pb::Version {
    pb::Version {
        major: version.major.into(),
        minor: version.minor.into(),
    }
}

/// A version.
pub fn version_from_pb(version: pb::Version) -> Result<Version, Unknown> {
    let number = |number| u16::try_from(number).map_err(|_| Unknown("version"));
    Ok(Version {
        major: number(version.major)?,
        minor: number(version.minor)?,
    })
}

// ---- operations

/// Writes one key.
pub fn put_to_pb(op: &PutOp) -> etcd::PutRequest {
    etcd::PutRequest {
        key: op.key.clone(),
        value: op.value.clone(),
        lease: op.lease,
        prev_kv: op.prev_kv,
        ignore_value: op.ignore_value,
        ignore_lease: op.ignore_lease,
    }
}

/// Writes one key.
pub fn put_from_pb(request: etcd::PutRequest) -> PutOp {
    PutOp {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// Deletes keys.
pub fn delete_to_pb(op: &DeleteOp) -> etcd::DeleteRangeRequest {
    let (key, range_end) = op.range.to_etcd();
    etcd::DeleteRangeRequest {
        key,
        range_end,
        prev_kv: op.prev_kv,
    }
}

/// Deletes keys.
pub fn delete_from_pb(request: etcd::DeleteRangeRequest) -> DeleteOp {
    let range = KeyRange::from_etcd(request.key, request.range_end);
    DeleteOp {
        range,
        prev_kv: request.prev_kv,
    }
}

/// Reads keys.
pub fn range_to_pb(op: &RangeOp) -> etcd::RangeRequest {
    use etcd::range_request::{SortOrder as Order, SortTarget as Target};
    let (key, range_end) = op.range.to_etcd();
    let (target, order) = op.order.unwrap_or_default();
    let target = match target {
        SortTarget::Key => Target::Key,
        SortTarget::Version => Target::Version,
        SortTarget::Create => Target::Create,
        SortTarget::Mod => Target::Mod,
        SortTarget::Value => Target::Value,
    };
    let order = match order {
        SortOrder::None => Order::None,
        SortOrder::Ascend => Order::Ascend,
        SortOrder::Descend => Order::Descend,
    };
    etcd::RangeRequest {
        key,
        range_end,
        limit: i64::try_from(op.limit).unwrap_or(i64::MAX),
        revision: op.revision,
        sort_order: order.into(),
        sort_target: target.into(),
        serializable: false,
        keys_only: op.keys_only,
        count_only: op.count_only,
        min_mod_revision: op.min_mod_revision,
        max_mod_revision: op.max_mod_revision,
        min_create_revision: op.min_create_revision,
        max_create_revision: op.max_create_revision,
    }
}

/// Reads keys. Whether the read is serializable is not part of the operation.
pub fn range_from_pb(request: etcd::RangeRequest) -> Result<RangeOp, Unknown> {
    use etcd::range_request::{SortOrder as Order, SortTarget as Target};
    let target = match Target::try_from(request.sort_target).map_err(|_| Unknown("sort target"))? {
        Target::Key => SortTarget::Key,
        Target::Version => SortTarget::Version,
        Target::Create => SortTarget::Create,
        Target::Mod => SortTarget::Mod,
        Target::Value => SortTarget::Value,
    };
    let order = match Order::try_from(request.sort_order).map_err(|_| Unknown("sort order"))? {
        Order::None => SortOrder::None,
        Order::Ascend => SortOrder::Ascend,
        Order::Descend => SortOrder::Descend,
    };
    let by_key = (target, order) == (SortTarget::Key, SortOrder::None);
    Ok(RangeOp {
        range: KeyRange::from_etcd(request.key, request.range_end),
        limit: usize::try_from(request.limit).unwrap_or(0),
        revision: request.revision,
        order: (!by_key).then_some((target, order)),
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    })
}

// ---- transactions

/// Compares, then does one of two lists of operations.
pub fn txn_to_pb(op: &TxnOp) -> etcd::TxnRequest {
    etcd::TxnRequest {
        compare: op.compares.iter().map(compare_to_pb).collect(),
        success: op.success.iter().map(op_to_pb).collect(),
        failure: op.failure.iter().map(op_to_pb).collect(),
    }
}

/// Whether no transaction nests deeper than [`TXN_DEPTH_MAX`]: what does would not be read back.
pub(crate) fn is_shallow(command: &Command) -> bool {
    fn fits(txn: &TxnOp, depth: usize) -> bool {
        depth > 0
            && txn.success.iter().chain(&txn.failure).all(|op| match op {
                Op::Txn(txn) => fits(txn, depth - 1),
                Op::Range(_) | Op::Put(_) | Op::Delete(_) => true,
            })
    }
    match command {
        Command::Txn(txn) => fits(txn, TXN_DEPTH_MAX),
        _ => true,
    }
}

/// Compares, then does one of two lists of operations. Refuses what nests deeper than
/// [`TXN_DEPTH_MAX`].
pub fn txn_from_pb(request: etcd::TxnRequest) -> Result<TxnOp, Unknown> {
    txn_at_depth(request, TXN_DEPTH_MAX)
}

fn txn_at_depth(request: etcd::TxnRequest, depth: usize) -> Result<TxnOp, Unknown> {
    let depth = depth
        .checked_sub(1)
        .ok_or(Unknown("depth of nested transactions"))?;
    let ops = |ops: Vec<etcd::RequestOp>| -> Result<Vec<Op>, Unknown> {
        ops.into_iter().map(|op| op_from_pb(op, depth)).collect()
    };
    Ok(TxnOp {
        compares: request
            .compare
            .into_iter()
            .map(compare_from_pb)
            .collect::<Result<_, _>>()?,
        success: ops(request.success)?,
        failure: ops(request.failure)?,
    })
}

fn op_to_pb(op: &Op) -> etcd::RequestOp {
    use etcd::request_op::Request;
    let request = match op {
        Op::Range(op) => Request::RequestRange(range_to_pb(op)),
        Op::Put(op) => Request::RequestPut(put_to_pb(op)),
        Op::Delete(op) => Request::RequestDeleteRange(delete_to_pb(op)),
        Op::Txn(op) => Request::RequestTxn(txn_to_pb(op)),
    };
    etcd::RequestOp {
        request: Some(request),
    }
}

fn op_from_pb(op: etcd::RequestOp, depth: usize) -> Result<Op, Unknown> {
    use etcd::request_op::Request;
    Ok(
        match op.request.ok_or(Unknown("operation in a transaction"))? {
            Request::RequestRange(request) => Op::Range(range_from_pb(request)?),
            Request::RequestPut(request) => Op::Put(put_from_pb(request)),
            Request::RequestDeleteRange(request) => Op::Delete(delete_from_pb(request)),
            Request::RequestTxn(request) => Op::Txn(Box::new(txn_at_depth(request, depth)?)),
        },
    )
}

fn compare_to_pb(compare: &Compare) -> etcd::Compare {
    use etcd::compare::{CompareResult as Result, CompareTarget as Target, TargetUnion};
    let (key, range_end) = compare.range.to_etcd();
    let result = match compare.result {
        CompareResult::Equal => Result::Equal,
        CompareResult::NotEqual => Result::NotEqual,
        CompareResult::Greater => Result::Greater,
        CompareResult::Less => Result::Less,
    };
    let (target, value) = match &compare.target {
        CompareTarget::Version(n) => (Target::Version, TargetUnion::Version(*n)),
        CompareTarget::Create(n) => (Target::Create, TargetUnion::CreateRevision(*n)),
        CompareTarget::Mod(n) => (Target::Mod, TargetUnion::ModRevision(*n)),
        CompareTarget::Value(v) => (Target::Value, TargetUnion::Value(v.clone())),
        CompareTarget::Lease(n) => (Target::Lease, TargetUnion::Lease(*n)),
    };
    etcd::Compare {
        result: result.into(),
        target: target.into(),
        key,
        range_end,
        target_union: Some(value),
    }
}

/// A target whose value is left out compares with 0 or the empty value, as in etcd.
fn compare_from_pb(compare: etcd::Compare) -> Result<Compare, Unknown> {
    use etcd::compare::{CompareResult as Encoded, CompareTarget as Target, TargetUnion};
    let result = match Encoded::try_from(compare.result).map_err(|_| Unknown("comparison"))? {
        Encoded::Equal => CompareResult::Equal,
        Encoded::NotEqual => CompareResult::NotEqual,
        Encoded::Greater => CompareResult::Greater,
        Encoded::Less => CompareResult::Less,
    };
    let value = compare.target_union;
    let target = Target::try_from(compare.target).map_err(|_| Unknown("comparison target"))?;
    let target = match (target, value) {
        (Target::Version, Some(TargetUnion::Version(n))) => CompareTarget::Version(n),
        (Target::Version, _) => CompareTarget::Version(0),
        (Target::Create, Some(TargetUnion::CreateRevision(n))) => CompareTarget::Create(n),
        (Target::Create, _) => CompareTarget::Create(0),
        (Target::Mod, Some(TargetUnion::ModRevision(n))) => CompareTarget::Mod(n),
        (Target::Mod, _) => CompareTarget::Mod(0),
        (Target::Value, Some(TargetUnion::Value(v))) => CompareTarget::Value(v),
        (Target::Value, _) => CompareTarget::Value(Bytes::new()),
        (Target::Lease, Some(TargetUnion::Lease(n))) => CompareTarget::Lease(n),
        (Target::Lease, _) => CompareTarget::Lease(0),
    };
    let range = KeyRange::from_etcd(compare.key, compare.range_end);
    Ok(Compare {
        range,
        result,
        target,
    })
}

// ---- rows

/// A row as etcd's clients see it.
pub fn row_to_pb(row: &KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: row.key.clone(),
        create_revision: row.create_revision,
        mod_revision: row.mod_revision,
        version: row.version,
        value: row.value.clone(),
        lease: row.lease,
    }
}

/// A row of a snapshot or of the row files: etcd's row and its place within its revision.
pub(crate) fn row_from_pb(row: pb::Row) -> Result<Row, Unknown> {
    let kv = row.kv.ok_or(Unknown("row"))?;
    Ok(Row::new(KeyValue {
        // Copies, so that a small row does not pin the large buffer that it was read from.
        key: Bytes::copy_from_slice(&kv.key),
        value: Bytes::copy_from_slice(&kv.value),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
        sub: row.sub,
    }))
}

/// The inverse of [`row_from_pb`].
pub(crate) fn row_with_place_to_pb(row: &KeyValue) -> pb::Row {
    pb::Row {
        kv: Some(row_to_pb(row)),
        sub: row.sub,
    }
}

#[cfg(test)]
mod tests;
