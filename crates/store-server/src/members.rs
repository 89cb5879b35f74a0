//! Changes of the members that somebody asks for, decided and made by the leader.
//!
//! Owns etcd's rules and refusals: what would cost the mesh its quorum is not done. Never adds
//! a member that is not there: whoever is added runs already, since its disk mints its id.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{MeshId, NodeId, Version};
use store_api::errors;
use store_api::etcdserverpb as etcd;
use store_api::skeinpb as pb;
use store_api::skeinpb::change_members_request::Change;
use store_api::verdict::Proposed;
use store_raft::{Member, MembershipError, RaftStatus, Role, Store, convert};
use tls::Dialer;
use tokio::time::timeout;
use tonic::Status;

use crate::admit::check_claims;
use crate::autopilot::{Liveness, answers, caught_up};
use crate::join::ANSWER_WAIT;
use crate::leader_calls::{client, connect};
use crate::versions::Versions;
use crate::writes::WriteError;

/// How long voters get to answer before they are judged. A leader of a moment ago has not heard
/// them yet.
const VOTERS_ANSWER_WAIT: Duration = Duration::from_secs(1);

/// The members, for whoever leads. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Members {
    store: Store,
    liveness: Arc<dyn Liveness>,
    versions: Versions,
}

impl Members {
    pub(crate) fn new(store: Store, liveness: Arc<dyn Liveness>) -> Self {
        let versions = Versions::new(store.clone(), liveness.clone());
        Self {
            store,
            liveness,
            versions,
        }
    }

    /// Makes a change on this node, which should lead; returns when it is committed.
    pub(crate) async fn change(&self, change: Change) -> Result<pb::ChangedMembers, WriteError> {
        let status = self.settled().await;
        match status.role {
            Role::Leader if status.quorum => {}
            Role::Leader => return Err(fault(errors::unhealthy())),
            _ => return Err(WriteError::Elsewhere(status.leader)),
        }
        let added = match change {
            Change::Add(add) => Some(self.add(&status, &add).await?),
            Change::Remove(remove) => {
                self.remove(&status, NodeId(remove.id)).await?;
                None
            }
            Change::Update(update) => {
                self.update(&status, &update).await?;
                None
            }
            Change::Promote(promote) => {
                let id = NodeId(promote.id);
                may_promote(&status, id).map_err(fault)?;
                self.store.promote(id).await.map_err(failed)?;
                None
            }
        };
        let members = list(&self.store);
        let is_tls = self.store.peer_tls().is_some();
        let added = added.map(|added| to_etcd(&added, true, is_tls));
        Ok(pb::ChangedMembers { added, members })
    }

    /// The status once all voters answer this leader, or have had the time to.
    async fn settled(&self) -> RaftStatus {
        let mut statuses = self.store.status_watch();
        let is_settled = |status: &RaftStatus| {
            let all = || status.voters.iter().all(|voter| answers(status, voter.id));
            status.role != Role::Leader || (status.quorum && all())
        };
        // Whoever is silent after that, or a store that ended, is for the checks to name.
        let _ = timeout(VOTERS_ANSWER_WAIT, statuses.wait_for(is_settled)).await;
        self.store.status()
    }

    /// Takes in the node that runs at the address. A member that is only announced would count for
    /// the quorum before it can answer, and its id is on its own disk. It begins as a learner; the
    /// autopilot gives it a vote when it has caught up and gossip sees it alive.
    async fn add(
        &self,
        status: &RaftStatus,
        request: &etcd::MemberAddRequest,
    ) -> Result<Member, WriteError> {
        let peer_addr = peer_address(&request.peer_ur_ls).map_err(fault)?;
        if status.members().any(|member| member.peer_addr == peer_addr) {
            return Err(fault(errors::peer_url_exists()));
        }
        let node = introduce(self.store.peer_tls(), &peer_addr)
            .await
            .map_err(fault)?;
        let version = node.version.map(convert::version_from_pb).transpose();
        let version = version.map_err(|error| refused(&error.to_string()))?;
        let own_mesh = status.mesh_id.unwrap_or_default();
        let member = joinable(node, &peer_addr, own_mesh).map_err(fault)?;
        if status.member(member.id).is_some() {
            return Err(fault(errors::member_exists()));
        }
        check_claims(status, &member, |id| self.liveness.judge(id)).map_err(|why| refused(&why))?;
        let fits = self.versions.admit_node(version.unwrap_or(Version::FIRST));
        fits.map_err(|why| refused(&why))?;
        self.store
            .add_learner(member.clone())
            .await
            .map_err(failed)?;
        Ok(member)
    }

    async fn remove(&self, status: &RaftStatus, id: NodeId) -> Result<(), WriteError> {
        may_remove(status, id).map_err(fault)?;
        if id == status.id {
            // Whoever takes over removes this one, and goes on serving meanwhile.
            self.store.transfer_leadership(None).await.map_err(failed)?;
            return Err(WriteError::Elsewhere(self.store.status().leader));
        }
        self.store.remove(id).await.map_err(failed)
    }

    async fn update(
        &self,
        status: &RaftStatus,
        request: &etcd::MemberUpdateRequest,
    ) -> Result<(), WriteError> {
        let Some(member) = status.member(NodeId(request.id)) else {
            return Err(fault(errors::member_not_found()));
        };
        let peer_addr = peer_address(&request.peer_ur_ls).map_err(fault)?;
        let mut others = status.members().filter(|other| other.id != member.id);
        if others.any(|other| other.peer_addr == peer_addr) {
            return Err(fault(errors::peer_url_exists()));
        }
        let member = Member {
            peer_addr,
            ..member.clone()
        };
        self.store.update_member(member).await.map_err(failed)
    }
}

/// Surely nothing was done.
fn fault(status: Status) -> WriteError {
    WriteError::Final(Proposed::No.mark(status))
}

fn refused(why: &str) -> WriteError {
    fault(Status::failed_precondition(format!("skein: {why}")))
}

fn failed(error: MembershipError) -> WriteError {
    match error {
        MembershipError::NotLeader { leader } => WriteError::Elsewhere(leader),
        MembershipError::AlreadyFormed(text) | MembershipError::Refused(text) => refused(&text),
        MembershipError::TimedOut(_) => {
            WriteError::Final(Proposed::Unknown.mark(errors::timeout()))
        }
        MembershipError::Stopped => fault(errors::stopped()),
    }
}

/// The one address in a request's URLs: `http://IP:PORT`, perhaps with `https`.
fn peer_address(urls: &[String]) -> Result<String, Status> {
    let [url] = urls else {
        return Err(errors::member_bad_urls());
    };
    let address = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .and_then(|address| address.parse::<SocketAddr>().ok())
        .filter(|address| !address.ip().is_unspecified() && address.port() != 0);
    address
        .map(|address| address.to_string())
        .ok_or_else(errors::member_bad_urls)
}

/// Asks who is at an address.
async fn introduce(tls: Option<&Dialer>, peer_addr: &str) -> Result<pb::IntroduceReply, Status> {
    let nobody = |why: &str| {
        Status::failed_precondition(format!(
            "skein: no node that could become a member answers at {peer_addr} ({why}); start it \
             with `skein node --join …`: it becomes a member by itself"
        ))
    };
    let mut forward = client(connect(peer_addr, tls)?);
    let reply = timeout(ANSWER_WAIT, forward.introduce(pb::IntroduceRequest {})).await;
    let reply = reply.map_err(|_| nobody("no answer"))?;
    let reply = reply.map_err(|status| nobody(status.message()))?;
    Ok(reply.into_inner())
}

/// The member that the node would be.
fn joinable(
    reply: pb::IntroduceReply,
    peer_addr: &str,
    own_mesh: MeshId,
) -> Result<Member, Status> {
    let node = reply.node.unwrap_or_default();
    let refused = |why: String| {
        let text = format!("skein: the node at {peer_addr} {why}");
        Err(Status::failed_precondition(text))
    };
    if node.mesh_id == own_mesh.0 {
        return refused(
            "was a member of this mesh before, and ids are used once; empty its data directory, \
             and start it with `skein node --join …`"
                .to_owned(),
        );
    }
    if node.mesh_id != 0 {
        let mesh = MeshId(node.mesh_id);
        return refused(format!(
            "is of mesh {mesh}, and meshes never merge; empty its data directory first"
        ));
    }
    if reply.promised {
        return refused(
            "is promised to others, to found a mesh with them; start it without \
             --bootstrap-expect, on an empty data directory"
                .to_owned(),
        );
    }
    if node.peer_addr != peer_addr {
        let told = node.peer_addr;
        return refused(format!("calls itself {told}; add it at that address"));
    }
    Ok(Member {
        id: NodeId(node.node_id),
        name: node.name,
        peer_addr: node.peer_addr,
        client_addr: node.client_addr,
    })
}

/// Whether the mesh could still write without this member: of the voters that remain, a quorum must
/// answer now.
fn may_remove(status: &RaftStatus, id: NodeId) -> Result<(), Status> {
    if status.member(id).is_none() {
        return Err(errors::member_not_found());
    }
    if !status.voters.iter().any(|voter| voter.id == id) {
        return Ok(());
    }
    let remain = || status.voters.iter().filter(|voter| voter.id != id);
    let living = remain().filter(|voter| answers(status, voter.id)).count();
    let count = remain().count();
    if count == 0 || living < count / 2 + 1 {
        return Err(errors::member_not_enough_started());
    }
    Ok(())
}

fn may_promote(status: &RaftStatus, id: NodeId) -> Result<(), Status> {
    if status.member(id).is_none() {
        Err(errors::member_not_found())
    } else if status.voters.iter().any(|voter| voter.id == id) {
        Err(errors::member_not_learner())
    } else if !caught_up(status, id) {
        Err(errors::learner_not_ready())
    } else {
        Ok(())
    }
}

/// All members in etcd's form: voters, then learners.
pub(crate) fn list(store: &Store) -> Vec<etcd::Member> {
    let (status, is_tls) = (store.status(), store.peer_tls().is_some());
    let voters = status.voters.iter();
    let voters = voters.map(|voter| to_etcd(voter, false, is_tls));
    let learners = status.learners.iter();
    let learners = learners.map(|learner| to_etcd(learner, true, is_tls));
    voters.chain(learners).collect()
}

/// TLS between nodes is spoken by all or none, so this node speaks for the member.
fn to_etcd(member: &Member, is_learner: bool, is_tls: bool) -> etcd::Member {
    let scheme = if is_tls { "https" } else { "http" };
    etcd::Member {
        id: member.id.0,
        name: member.name.clone(),
        peer_ur_ls: vec![format!("{scheme}://{}", member.peer_addr)],
        client_ur_ls: vec![client_url(&member.client_addr)],
        is_learner,
    }
}

/// The URL of a client address, which has a scheme if it is not a plain one.
fn client_url(address: &str) -> String {
    if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    }
}

#[cfg(test)]
mod tests;
