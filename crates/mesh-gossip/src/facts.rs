//! What a node tells about itself.
//!
//! Owns the gossiped form: two keys of JSON, one for what a node *is* and one for what it is doing
//! now, so that a new config revision does not repeat the labels. Unknown fields are skipped and
//! missing ones have defaults: two versions meet here. Never checks what a fact means.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use model::{ConfigRevision, MeshId, NodeId, NodeName};
use serde::{Deserialize, Serialize};

/// The gossip key of what a node is.
pub(crate) const IDENTITY_KEY: &str = "identity";

/// The gossip key of what a node is doing now.
pub(crate) const STATE_KEY: &str = "state";

/// The longest value under one of the two keys: a value must fit one gossip message with room to
/// spare.
pub const FACT_BYTES_MAX: usize = 24 * 1024;

/// So many refused resources are told; `refused_count` tells how many there are.
pub const REFUSED_MAX: usize = 16;

/// So many listeners are told; `listener_count` tells how many there are.
pub const LISTENERS_MAX: usize = 64;

/// A fault's text is cut after so many characters.
const FAULT_CHARS_MAX: usize = 240;

/// Everything that a node tells the mesh about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Who and where it is; changes seldom.
    pub identity: Identity,
    /// What it is doing; changes often.
    pub state: NodeState,
}

/// Who and where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub node_id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// The mesh that it belongs to. `None` before it belongs to one.
    #[serde(default)]
    pub mesh_id: Option<MeshId>,
    /// The first members to which it has durably promised itself.
    #[serde(default)]
    pub promise: Option<Vec<Promised>>,
    /// The size of the mesh that it was told to form.
    #[serde(default)]
    pub bootstrap_expect: Option<u32>,
    /// Where it serves clients.
    #[serde(default)]
    pub client_addr: Option<SocketAddr>,
    /// Whether it speaks TLS there.
    #[serde(default)]
    pub client_tls: bool,
    /// Where it serves Raft.
    #[serde(default)]
    pub peer_addr: Option<SocketAddr>,
    /// Where it serves metrics and the dashboard.
    #[serde(default)]
    pub admin_addr: Option<SocketAddr>,
    /// Where it gossips; filled in by [`Mesh`](crate::Mesh).
    #[serde(default)]
    pub gossip_addr: Option<SocketAddr>,
    /// Its zone.
    #[serde(default)]
    pub zone: Option<String>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The version of its program.
    #[serde(default)]
    pub version: String,
    /// What it does: `store`, `proxy`.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// One member of a mesh that is being formed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Promised {
    /// Its id.
    pub node_id: NodeId,
    /// Its Raft address.
    pub peer_addr: String,
}

/// What a node is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeState {
    /// The config revision that it runs.
    pub config_revision: ConfigRevision,
    /// The resources that it could not bring into force; the first [`REFUSED_MAX`].
    pub refused: Vec<RefusedResource>,
    /// How many such resources there are.
    pub refused_count: usize,
    /// Its listeners; the first [`LISTENERS_MAX`].
    pub listeners: Vec<ListenerFact>,
    /// How many listeners there are.
    pub listener_count: usize,
    /// Why its store stopped, or what else of it ended. `None` when all works.
    pub store_fault: Option<String>,
    /// Whether its store stopped for good: it has no part in Raft, and takes no further config.
    pub store_stopped: bool,
    /// Its proxy workers.
    pub workers: usize,
    /// The share of the workers' time that is used, in percent.
    pub load_percent: u8,
}

/// A resource that kept its previous version on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusedResource {
    /// The resource as people call it.
    pub resource: String,
    /// What is wrong, with the remedy.
    pub fault: String,
}

/// One listener of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerFact {
    /// The Listener resource as people call it.
    pub name: String,
    /// The bound address.
    pub bind: SocketAddr,
    /// What became of it: `listening`, `draining` or `failed`.
    pub state: String,
    /// Why it does not work. `None` when it does.
    #[serde(default)]
    pub fault: Option<String>,
}

/// The facts cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The identity passes [`FACT_BYTES_MAX`].
    #[error(
        "this node's name, zone and labels are {0} bytes as gossip, more than {FACT_BYTES_MAX}; \
         use fewer or shorter labels"
    )]
    TooLarge(usize),
}

impl Facts {
    /// The gossip values by key. Lists and texts of the state are cut to their limits, so only an
    /// identity can be too large.
    pub(crate) fn encode(&self) -> Result<[(&'static str, String); 2], PublishError> {
        let identity = to_json(&self.identity);
        if identity.len() > FACT_BYTES_MAX {
            return Err(PublishError::TooLarge(identity.len()));
        }
        let mut state = self.state.shortened();
        let mut text = to_json(&state);
        while text.len() > FACT_BYTES_MAX
            && !(state.listeners.is_empty() && state.refused.is_empty())
        {
            state.listeners.truncate(state.listeners.len() / 2);
            state.refused.truncate(state.refused.len() / 2);
            text = to_json(&state);
        }
        Ok([(IDENTITY_KEY, identity), (STATE_KEY, text)])
    }

    /// Reads gossip values; a state that is not there yet is the default one.
    pub(crate) fn decode(identity: &str, state: Option<&str>) -> Result<Self, serde_json::Error> {
        Ok(Self {
            identity: serde_json::from_str(identity)?,
            state: state
                .map(serde_json::from_str)
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

impl NodeState {
    /// With its lists and texts cut, and the lists' true lengths beside them.
    fn shortened(&self) -> Self {
        let mut state = self.clone();
        state.refused_count = state.refused_count.max(state.refused.len());
        state.refused.truncate(REFUSED_MAX);
        state.listener_count = state.listener_count.max(state.listeners.len());
        state.listeners.truncate(LISTENERS_MAX);
        let refused = state
            .refused
            .iter_mut()
            .flat_map(|one| [&mut one.resource, &mut one.fault]);
        let listeners = state
            .listeners
            .iter_mut()
            .filter_map(|listener| listener.fault.as_mut());
        for text in refused.chain(listeners).chain(state.store_fault.as_mut()) {
            cut(text);
        }
        state
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structs with text keys are JSON")
}

fn cut(text: &mut String) {
    if let Some((at, _)) = text.char_indices().nth(FAULT_CHARS_MAX) {
        text.truncate(at);
        text.push('…');
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Facts of a node for tests.
    pub(crate) fn facts(id: u64, name: &str) -> Facts {
        let identity = format!(r#"{{"node_id":"{id:x}","name":"{name}"}}"#);
        Facts::decode(&identity, None).unwrap()
    }

    #[test]
    fn facts_survive_and_unknown_fields_are_skipped() {
        let mut facts = facts(7, "a");
        facts.identity.mesh_id = Some(MeshId(9));
        facts.identity.labels.insert("rack".into(), "r1".into());
        facts.state.config_revision = ConfigRevision(12);
        let [(_, identity), (_, state)] = facts.encode().unwrap();
        assert_eq!(Facts::decode(&identity, Some(&state)).unwrap(), facts);
        let later = identity.replacen('{', r#"{"later":[1],"#, 1);
        assert_eq!(Facts::decode(&later, Some(&state)).unwrap(), facts);
        assert!(
            Facts::decode("{}", None).is_err(),
            "an id and a name are needed"
        );
        assert!(Facts::decode(&identity, Some("[")).is_err());
    }

    #[test]
    fn a_state_is_cut_to_fit_and_counted() {
        let mut facts = facts(7, "a");
        let refused = RefusedResource {
            resource: "Cluster x".into(),
            fault: "é".repeat(9000),
        };
        facts.state.refused = vec![refused; 500];
        let listener = ListenerFact {
            name: "n".repeat(200),
            bind: ([127, 0, 0, 1], 80).into(),
            state: "failed".into(),
            fault: Some("é".repeat(9000)),
        };
        facts.state.listeners = vec![listener; 500];
        let [_, (_, state)] = facts.encode().unwrap();
        assert!(state.len() <= FACT_BYTES_MAX);
        let read: NodeState = serde_json::from_str(&state).unwrap();
        assert_eq!((read.refused_count, read.listener_count), (500, 500));
        assert_eq!(read.refused[0].fault.chars().count(), FAULT_CHARS_MAX + 1);
        assert!(!read.listeners.is_empty());
    }

    #[test]
    fn an_identity_is_refused_rather_than_cut() {
        let mut facts = facts(7, "a");
        facts
            .identity
            .labels
            .insert("big".into(), "x".repeat(FACT_BYTES_MAX));
        assert!(
            matches!(facts.encode(), Err(PublishError::TooLarge(bytes)) if bytes > FACT_BYTES_MAX)
        );
    }
}
