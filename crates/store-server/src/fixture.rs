//! States that tests begin from.
//!
//! Owns made-up values; nothing here is compiled into the product.

use std::sync::Arc;

use model::{MeshId, NodeId};
use store_raft::{Leader, RaftStatus, Recovery, Role, Source};

/// Node 1 leads mesh 9 in term 3, with a log of 1000 entries and no members yet.
pub(crate) fn leading_status() -> RaftStatus {
    RaftStatus {
        id: NodeId(1),
        mesh_id: Some(MeshId(9)),
        role: Role::Leader,
        leader: Some(Leader {
            id: NodeId(1),
            peer_addr: "127.0.0.1:2380".to_owned(),
        }),
        quorum: true,
        term: 3,
        last_log: 1000,
        committed: 1000,
        applied: 1000,
        snapshot: 0,
        purged: 0,
        voters: Arc::default(),
        joint: false,
        learners: Arc::default(),
        matched: Vec::new(),
        answering: Vec::new(),
        fatal: None,
        recovery: Recovery {
            source: Source::Nothing,
            index: 0,
            damage: Vec::new(),
        },
    }
}
