//! Who becomes a member, and what is recorded of those who are: decided by the leader.
//!
//! Owns the rules: one mesh, one name and one address per living node, and no id that comes back.
//! Never promotes or removes anybody: that is the autopilot's.

use std::sync::Arc;

use model::{MeshId, NodeId, Version};
use store_api::errors;
use store_api::skeinpb as pb;
use store_raft::{Leader, Member, MembershipError, RaftStatus, ReadError, Role, Store, convert};
use tonic::Status;

use crate::autopilot::{Judgement, Liveness};
use crate::versions::Versions;

/// Why a node was not taken in, or its record not changed.
pub(crate) enum Refused {
    /// This node does not lead; nothing was done.
    Elsewhere(Option<Leader>),
    /// It was a member and is none any more. The reason and the remedy.
    Removed(String),
    /// Nothing was done.
    Final(Status),
    /// Perhaps it was done.
    Unknown(Status),
}

impl From<MembershipError> for Refused {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::NotLeader { leader } => Self::Elsewhere(leader),
            MembershipError::AlreadyFormed(text) | MembershipError::Refused(text) => refused(&text),
            MembershipError::TimedOut(_) => {
                Self::Unknown(Status::unavailable(format!("skein: {error}")))
            }
            MembershipError::Stopped => Self::Final(errors::stopped()),
        }
    }
}

fn refused(why: &str) -> Refused {
    Refused::Final(Status::failed_precondition(format!("skein: {why}")))
}

/// The way into the mesh. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Gate {
    store: Store,
    liveness: Arc<dyn Liveness>,
    versions: Versions,
}

impl Gate {
    pub(crate) fn new(store: Store, liveness: Arc<dyn Liveness>) -> Self {
        let versions = Versions::new(store.clone(), liveness.clone());
        Self {
            store,
            liveness,
            versions,
        }
    }

    /// Takes a node in, or records where a member is now. Asking twice does no harm.
    pub(crate) async fn admit(&self, request: pb::JoinRequest) -> Result<pb::Joined, Refused> {
        let status = self.store.status();
        let mesh_id = check_mesh(&status, MeshId(request.mesh_id))?;
        if status.role != Role::Leader {
            return Err(Refused::Elsewhere(status.leader));
        }
        let version = request.version.map(convert::version_from_pb).transpose();
        let version = version.map_err(|error| refused(&error.to_string()))?;
        let member = Member {
            id: NodeId(request.node_id),
            name: request.name,
            peer_addr: request.peer_addr,
            client_addr: request.client_addr,
        };
        match status.member(member.id) {
            None if request.returning => return Err(self.removed(&member, mesh_id).await),
            Some(recorded) if *recorded == member => {}
            recorded => {
                let judge = |id| self.liveness.judge(id);
                check_claims(&status, &member, judge).map_err(|why| refused(&why))?;
                if recorded.is_some() {
                    self.store.update_member(member).await?;
                } else {
                    let fits = self.versions.admit_node(version.unwrap_or(Version::FIRST));
                    fits.map_err(|why| refused(&why))?;
                    self.store.add_learner(member).await?;
                }
            }
        }
        let status = self.store.status();
        let members = status.members();
        let members = members.map(|member| member_to_pb(member, mesh_id));
        Ok(pb::Joined {
            mesh_id: mesh_id.0,
            members: members.collect(),
        })
    }

    /// What a node is told that was a member and is not among the members of this leader.
    ///
    /// Its disk may be whole, and Raft could take it back under its id. But whoever removed it, the
    /// operator, the autopilot or its successor, meant it; and nobody can tell a disk that was only
    /// away from a copy restored from before its last vote, which would vote twice. So an id is used
    /// once: with an empty data directory it comes back as a new node.
    async fn removed(&self, member: &Member, mesh_id: MeshId) -> Refused {
        // An old leader that does not know yet that it is succeeded must not say this.
        match self.store.read_index().await {
            Ok(_) => {}
            Err(ReadError::NotLeader { leader }) => return Refused::Elsewhere(leader),
            Err(_) => return Refused::Elsewhere(None),
        }
        let status = self.store.status();
        if status.member(member.id).is_some() {
            return Refused::Elsewhere(None);
        }
        let successor = status.members().find(|other| other.name == member.name);
        let fate = successor.map_or_else(
            || "was removed from it".to_owned(),
            |other| format!("was replaced by node {} at {}", other.id, other.peer_addr),
        );
        Refused::Removed(format!(
            "this node is no longer a member of mesh {mesh_id}: while it was away, `{}` ({}) {fate}. \
             It goes on serving the last config that it has; stop it, and empty its data directory \
             to let it join anew",
            member.name, member.id
        ))
    }
}

fn check_mesh(status: &RaftStatus, wanted: MeshId) -> Result<MeshId, Refused> {
    let Some(mesh_id) = status.mesh_id else {
        return Err(refused(
            "this node has no mesh yet; ask another one, or wait",
        ));
    };
    if wanted != MeshId(0) && wanted != mesh_id {
        return Err(refused(&format!(
            "this is mesh {mesh_id}, the node that asks is of mesh {wanted}, and meshes never \
             merge; start it with an empty data directory, or with another --join"
        )));
    }
    Ok(mesh_id)
}

/// A name and an address mean one node. Those of a dead member are free to its successor.
pub(crate) fn check_claims(
    status: &RaftStatus,
    member: &Member,
    judge: impl Fn(NodeId) -> Judgement,
) -> Result<(), String> {
    let others = status.members().filter(|other| other.id != member.id);
    for other in others.filter(|other| judge(other.id) != Judgement::Dead) {
        if other.name == member.name {
            return Err(format!(
                "a node `{}` is a member already ({}) and not known to be dead; wait until it is, \
                 or choose another --name",
                member.name, other.id
            ));
        }
        let claims = [
            ("peer-addr", &member.peer_addr, &other.peer_addr),
            ("client-addr", &member.client_addr, &other.client_addr),
        ];
        if let Some((flag, address, _)) = claims.iter().find(|(_, ours, theirs)| ours == theirs) {
            return Err(format!(
                "--{flag} {address} is that of the member `{}` ({}), which is not known to be \
                 dead; stop it for good, or choose another address",
                other.name, other.id
            ));
        }
    }
    Ok(())
}

pub(crate) fn member_to_pb(member: &Member, mesh_id: MeshId) -> pb::Member {
    pb::Member {
        node_id: member.id.0,
        name: member.name.clone(),
        peer_addr: member.peer_addr.clone(),
        client_addr: member.client_addr.clone(),
        mesh_id: mesh_id.0,
    }
}
