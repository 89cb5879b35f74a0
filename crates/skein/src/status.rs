//! `skein status`: every node, its role, and whether it runs the newest config.
//!
//! Owns the forms of a node's status. Never judges: the states are those of the node that answers.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::SystemTime;

use control_api::v1;
use model::{MeshId, NodeId};
use serde::Serialize;

use crate::age;
use crate::failure::Failure;
use crate::output::{Output, Report};
use crate::session::{MeshCommand, Session};
use crate::table::Table;

/// From this part of the quota on, the status warns.
const WARN_PERCENT: u128 = 80;

/// The options of `skein status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {}

impl MeshCommand for Status {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        output.show(&StatusReport::of(
            session.status().await?,
            age::unix_seconds(SystemTime::now()),
        ))
    }
}

/// What `status` answers.
#[derive(Debug, Serialize)]
struct StatusReport {
    mesh_id: Option<MeshId>,
    leader: Option<String>,
    has_quorum: bool,
    config_revision: u64,
    answered_by: String,
    cluster_version: Option<String>,
    downgrade: bool,
    live_bytes: u64,
    history_bytes: u64,
    quota_bytes: u64,
    nodes: Vec<Node>,
    #[serde(skip)]
    now: u64,
}

#[derive(Debug, Serialize)]
struct Node {
    name: String,
    id: Option<NodeId>,
    role: &'static str,
    state: &'static str,
    config_revision: u64,
    version: String,
    zone: String,
    labels: BTreeMap<String, String>,
    addresses: Addresses,
    listeners: Vec<Listener>,
    refused: Vec<Refusal>,
    store_fault: Option<String>,
    since_unix: Option<u64>,
    load_percent: u32,
}

/// Where a node can be reached; an address that is not known is empty.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Addresses {
    pub(crate) client: String,
    pub(crate) peer: String,
    pub(crate) gossip: String,
    pub(crate) admin: String,
}

#[derive(Debug, Serialize)]
struct Listener {
    name: String,
    bind: String,
    state: &'static str,
    fault: Option<String>,
}

#[derive(Debug, Serialize)]
struct Refusal {
    resource: String,
    fault: String,
}

/// How a node's state is spelled.
pub(crate) fn state_word(state: v1::ConfigState) -> &'static str {
    match state {
        v1::ConfigState::Synced => "SYNCED",
        v1::ConfigState::Stale => "STALE",
        v1::ConfigState::Refused => "REFUSED",
        v1::ConfigState::Down => "DOWN",
        v1::ConfigState::Unspecified => "UNKNOWN",
    }
}

fn role_word(role: v1::Role) -> &'static str {
    match role {
        v1::Role::Leader => "leader",
        v1::Role::Follower => "follower",
        v1::Role::Learner => "learner",
        v1::Role::Candidate => "candidate",
        v1::Role::None => "none",
    }
}

fn listener_word(state: v1::ListenerState) -> &'static str {
    match state {
        v1::ListenerState::Listening => "listening",
        v1::ListenerState::Draining => "draining",
        v1::ListenerState::Failed => "failed",
        v1::ListenerState::Unspecified => "unknown",
    }
}

fn present(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<Option<v1::Addresses>> for Addresses {
    fn from(addresses: Option<v1::Addresses>) -> Self {
        let v1::Addresses {
            client,
            peer,
            gossip,
            admin,
        } = addresses.unwrap_or_default();
        Self {
            client,
            peer,
            gossip,
            admin,
        }
    }
}

impl From<v1::ListenerStatus> for Listener {
    fn from(listener: v1::ListenerStatus) -> Self {
        let state = listener_word(listener.state());
        Self {
            name: listener.name,
            bind: listener.bind,
            state,
            fault: present(listener.fault),
        }
    }
}

impl From<v1::NodeStatus> for Node {
    fn from(node: v1::NodeStatus) -> Self {
        let refusal = |refusal: v1::Refusal| Refusal {
            resource: refusal.resource,
            fault: refusal.fault,
        };
        Self {
            role: role_word(node.role()),
            state: state_word(node.state()),
            name: node.name,
            id: (node.id != 0).then_some(NodeId(node.id)),
            config_revision: node.config_revision,
            version: node.version,
            zone: node.zone,
            labels: node.labels,
            addresses: node.addresses.into(),
            listeners: node.listeners.into_iter().map(Listener::from).collect(),
            refused: node.refused.into_iter().map(refusal).collect(),
            store_fault: present(node.store_fault),
            since_unix: (node.since != 0).then_some(node.since),
            load_percent: node.load_percent,
        }
    }
}

impl StatusReport {
    fn of(response: v1::StatusResponse, now: u64) -> Self {
        Self {
            mesh_id: (response.mesh_id != 0).then_some(MeshId(response.mesh_id)),
            leader: present(response.leader),
            has_quorum: response.has_quorum,
            config_revision: response.config_revision,
            answered_by: response.answered_by,
            cluster_version: present(response.cluster_version),
            downgrade: response.downgrade,
            live_bytes: response.live_bytes,
            history_bytes: response.history_bytes,
            quota_bytes: response.quota_bytes,
            nodes: response.nodes.into_iter().map(Node::from).collect(),
            now,
        }
    }

    fn heading(&self) -> String {
        let Some(mesh_id) = self.mesh_id else {
            return format!(
                "no mesh yet: {} waits for as many nodes as its --bootstrap-expect says",
                self.answered_by
            );
        };
        let leader = self.leader.as_deref().unwrap_or("none");
        let quorum = if self.has_quorum {
            "quorum"
        } else {
            "NO QUORUM (no writes until a majority of the voters is back; traffic goes on)"
        };
        let version = match &self.cluster_version {
            Some(version) if self.downgrade => format!(", version {version} (downgrade)"),
            Some(version) => format!(", version {version}"),
            None => String::new(),
        };
        format!(
            "mesh {mesh_id}{version}, config revision {}, leader {leader}, {quorum}",
            self.config_revision
        )
    }
}

impl StatusReport {
    /// What to do about a store that fills up. History is not counted: it makes way.
    fn space_warning(&self) -> Option<String> {
        let (live, quota) = (u128::from(self.live_bytes), u128::from(self.quota_bytes));
        let percent = (live * 100).checked_div(quota)?;
        if percent < WARN_PERCENT {
            return None;
        }
        Some(format!(
            "the store's keys take {percent} % of its quota ({} of {} bytes): delete some, or raise \
             --quota on every node; at the quota only what makes room is accepted",
            self.live_bytes, self.quota_bytes
        ))
    }
}

impl Node {
    fn listeners_cell(&self) -> String {
        let listener = |listener: &Listener| match listener.state {
            "listening" => format!("{} {}", listener.name, listener.bind),
            state => format!("{} {} ({state})", listener.name, listener.bind),
        };
        self.listeners
            .iter()
            .map(listener)
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn faults(&self) -> impl Iterator<Item = String> {
        let listeners = self.listeners.iter().filter_map(|listener| {
            let fault = listener.fault.as_ref()?;
            Some(format!("Listener {}: {fault}", listener.name))
        });
        let refused = self
            .refused
            .iter()
            .map(|refusal| format!("{}: {}", refusal.resource, refusal.fault));
        listeners.chain(refused).chain(self.store_fault.clone())
    }
}

impl Report for StatusReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.heading())?;
        let headings = [
            "NODE",
            "ROLE",
            "STATE",
            "SINCE",
            "CONFIG",
            "VERSION",
            "ZONE",
            "CLIENT",
            "LISTENERS",
        ];
        let mut table = Table::new(&headings);
        for node in &self.nodes {
            table.row([
                node.name.clone(),
                node.role.to_owned(),
                node.state.to_owned(),
                age::since(node.since_unix, self.now),
                node.config_revision.to_string(),
                node.version.clone(),
                node.zone.clone(),
                node.addresses.client.clone(),
                node.listeners_cell(),
            ]);
        }
        table.write(out)?;
        if let Some(warning) = self.space_warning() {
            writeln!(out, "{warning}")?;
        }
        for node in &self.nodes {
            for fault in node.faults() {
                writeln!(out, "{}: {fault}", node.name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
