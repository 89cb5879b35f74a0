//! The commands of leases, and leases themselves, to and from protobuf.
//!
//! Owns the packed form: a keep-alive costs eight bytes of log, and a page of leases has no message
//! for each.

use store_api::skeinpb as pb;
use store_mvcc::{GrantOp, KeepAliveOp, Lease, TickOp};

use super::Unknown;

/// The most leases that are written in one page.
pub(crate) const PAGE_LEASES: usize = 4_096;

pub(super) fn grant_to_pb(op: GrantOp) -> pb::LeaseGrant {
    let GrantOp { id, ttl, age_ms } = op;
    pb::LeaseGrant { id, ttl, age_ms }
}

pub(super) fn grant_from_pb(request: pb::LeaseGrant) -> GrantOp {
    let pb::LeaseGrant { id, ttl, age_ms } = request;
    GrantOp { id, ttl, age_ms }
}

pub(super) fn keep_alive_to_pb(op: &KeepAliveOp) -> pb::LeaseKeepAlive {
    pb::LeaseKeepAlive {
        ids: op.ids.clone(),
        age_ms: op.age_ms,
    }
}

pub(super) fn keep_alive_from_pb(request: pb::LeaseKeepAlive) -> KeepAliveOp {
    let pb::LeaseKeepAlive { ids, age_ms } = request;
    KeepAliveOp { ids, age_ms }
}

pub(super) fn tick_to_pb(op: TickOp) -> pb::LeaseTick {
    let TickOp {
        from_ms,
        advance_ms,
        term,
    } = op;
    pb::LeaseTick {
        from_ms,
        advance_ms,
        term,
    }
}

pub(super) fn tick_from_pb(request: pb::LeaseTick) -> TickOp {
    let pb::LeaseTick {
        from_ms,
        advance_ms,
        term,
    } = request;
    TickOp {
        from_ms,
        advance_ms,
        term,
    }
}

/// Leases that are there, and ids of those that are no more.
pub(crate) fn leases_to_pb(leases: &[Lease], ended: &[i64]) -> pb::LeasePage {
    pb::LeasePage {
        ids: leases.iter().map(|lease| lease.id).collect(),
        ttls: leases.iter().map(|lease| lease.ttl).collect(),
        expires_at_ms: leases.iter().map(|lease| lease.expires_at_ms).collect(),
        ended: ended.to_vec(),
    }
}

/// The leases of a page that are there.
pub(crate) fn leases_from_pb(page: &pb::LeasePage) -> Result<Vec<Lease>, Unknown> {
    let count = page.ids.len();
    if (page.ttls.len(), page.expires_at_ms.len()) != (count, count) {
        return Err(Unknown("part of a lease"));
    }
    let parts = page.ids.iter().zip(&page.ttls).zip(&page.expires_at_ms);
    let lease = |((&id, &ttl), &expires_at_ms): ((&i64, &i64), &u64)| Lease {
        expires_at_ms,
        id,
        ttl,
    };
    Ok(parts.map(lease).collect())
}
