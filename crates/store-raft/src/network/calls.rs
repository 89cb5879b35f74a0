//! Calls to other members that are not openraft's.
//!
//! Owns the way to a member: where it is now, and how it is called. A connection lasts for one call:
//! these are rare. Never sets a deadline: the caller knows how long its answer may take.

use std::sync::Arc;

use store_api::skeinpb::raft_client::RaftClient;
use tls::Dialer;
use tonic::transport::Channel;

use super::lane;
use crate::addresses::Addresses;
use crate::mesh::{Address, MeshSeat};
use crate::status::Member;

/// Calls from one node. Clones share everything.
#[derive(Clone)]
pub(crate) struct Calls {
    seat: Arc<MeshSeat>,
    addresses: Arc<Addresses>,
    tls: Option<Dialer>,
}

impl Calls {
    pub(crate) fn new(seat: Arc<MeshSeat>, addresses: Arc<Addresses>, tls: Option<Dialer>) -> Self {
        Self {
            seat,
            addresses,
            tls,
        }
    }

    /// A client of a member's peer port, and what its requests are addressed with.
    ///
    /// # Errors
    /// What is wrong with its address, or that this node is of no mesh.
    pub(crate) fn to(&self, member: &Member) -> Result<(RaftClient<Channel>, Address), String> {
        let mesh = self.seat.mesh().ok_or("this node is of no mesh")?;
        let told = self.addresses.of(member.id);
        let peer_addr = told.unwrap_or_else(|| member.peer_addr.clone());
        let client = lane::connect(&peer_addr, self.tls.as_ref())?;
        Ok((client, Address::new(mesh, member.id)))
    }
}
