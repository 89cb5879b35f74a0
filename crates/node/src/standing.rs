//! A member's standing in its mesh: where it is recorded to be, and whether it still belongs.
//!
//! Owns the questions to the leader and their pace. A node that was removed while it was away hears
//! from nobody, so it asks; what it learns is in its log once and in its status from then on. Never
//! changes the membership: that is the leader's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::MeshId;
use store_raft::{Member, RaftStatus, Store};
use store_server::JoinError;

use crate::parts::Parts;

/// A member that heard of no leader for so long asks whether it still is one. Elections take less.
const SILENCE: Duration = Duration::from_secs(3);
/// The pause after a question that nobody answered.
const RETRY: Duration = Duration::from_secs(1);
/// The pause after a refusal: it stands until something changed.
const REFUSED_RETRY: Duration = Duration::from_secs(3);

/// Whether this node was a member at some time, as far as its disk knows: only members get entries.
pub(crate) fn was_member(status: &RaftStatus) -> bool {
    status.is_member() || (status.mesh_id.is_some() && status.last_log > 0)
}

/// Keeps the record of this node up to date; ends if it is a member no longer.
pub(crate) async fn keep(parts: &Parts, store: &Store) {
    let me = parts.own_member();
    // Once in a process: afterwards the record is what an operator makes of it.
    let mut recorded = false;
    loop {
        let mut status = store.status_watch();
        let now = status.borrow_and_update().clone();
        recorded |= now.member(me.id) == Some(&me);
        if recorded {
            if now.leader.is_some() {
                parts.set_standing(None);
                let lost = status.wait_for(|now| now.leader.is_none()).await;
                if lost.is_err() {
                    return;
                }
            }
            let heard = status.wait_for(|now| now.leader.is_some());
            if tokio::time::timeout(SILENCE, heard).await.is_ok() {
                continue;
            }
        }
        let Some(mesh) = now.mesh_id else { return };
        match ask(parts, store, &me, mesh).await {
            Ok(()) => recorded = true,
            Err(JoinError::Removed(why)) => {
                tracing::error!(fault = %why, "removed from the mesh");
                parts.set_standing(Some(why));
                store.retire();
                return;
            }
            Err(JoinError::Refused(why)) => {
                if parts.set_standing(Some(why.clone())) {
                    tracing::warn!(fault = %why, "the mesh does not take over this node's addresses");
                }
                tokio::time::sleep(REFUSED_RETRY).await;
            }
            Err(JoinError::Unavailable(why)) => {
                tracing::debug!(why, "nobody confirms this node's membership");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn ask(parts: &Parts, store: &Store, me: &Member, mesh: MeshId) -> Result<(), JoinError> {
    // Its own store first: it may lead, alone perhaps, or know who does.
    let mut through = vec![me.peer_addr.clone()];
    let peers = parts.mesh.peers().borrow().clone();
    let told = peers
        .alive()
        .filter_map(|peer| peer.facts.identity.peer_addr);
    through.extend(told.map(|address| address.to_string()));
    through.extend(
        store
            .status()
            .members()
            .map(|member| member.peer_addr.clone()),
    );
    let mut seen = BTreeSet::new();
    through.retain(|address| seen.insert(address.clone()));
    let joined = store_server::request_record(store.peer_tls(), &through, me, mesh).await?;
    tracing::debug!(members = joined.members.len(), "still a member");
    Ok(())
}

/// Tells the store where the living members say that they are, as long as this node runs.
pub(crate) async fn tell_addresses(parts: &Parts, store: &Store) {
    let mut peers = parts.mesh.peers();
    loop {
        let known = peers.borrow_and_update().clone();
        let told: BTreeMap<_, _> = known
            .alive()
            .filter_map(|peer| {
                let identity = &peer.facts.identity;
                Some((identity.node_id, identity.peer_addr?.to_string()))
            })
            .collect();
        store.tell_addresses(told);
        if peers.changed().await.is_err() {
            return;
        }
    }
}
