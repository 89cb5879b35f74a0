//! The header of every response.
//!
//! Owns where its numbers come from. Never waits.

use store_api::etcdserverpb::ResponseHeader;
use store_raft::RaftStatus;
use tokio::sync::watch;

/// Makes headers of this node.
#[derive(Debug, Clone)]
pub(crate) struct Headers {
    status: watch::Receiver<RaftStatus>,
}

impl Headers {
    pub(crate) fn new(status: watch::Receiver<RaftStatus>) -> Self {
        Self { status }
    }

    /// The header of a response as of `revision`. The mesh is etcd's cluster.
    pub(crate) fn at(&self, revision: i64) -> ResponseHeader {
        let status = self.status.borrow();
        ResponseHeader {
            cluster_id: status.mesh_id.map_or(0, |id| id.0),
            member_id: status.id.0,
            revision,
            raft_term: status.term,
        }
    }
}
