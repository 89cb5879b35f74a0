//! The parts of one running node, and what is said of them together.
//!
//! Owns nothing that runs: tasks and runtimes are `run`'s. Whoever needs two planes at once is
//! handed this.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Instant, SystemTime};

use control_api::v1;
use lifecycle::Tasks;
use mesh_gossip::{Facts, Identity, ListenerFact, Mesh, NodeState, RefusedResource};
use mesh_health::HealthView;
use model::{ConfigRevision, NodeId, Version};
use proxy_server::ProxyServer;
use proxy_server::probe::Reports;
use store_disk::DataDir;
use store_mvcc::Image;
use store_raft::{Member, RaftStatus, Store};
use store_server::{Introduction, Judgement, Liveness};
use tokio::sync::watch;

use crate::certificates::Certificates;
use crate::committed::Committed;
use crate::form;
use crate::options::NodeOptions;
use crate::reconcile::InForce;
use crate::registrations::Registrations;
use crate::scheduled::Tally;
use crate::status::{Sources, StatusBoard};
use crate::store_state::StoreState;

/// So many registered endpoints are told that cannot be read; the metrics tell how many there are.
const ENDPOINTS_TOLD_MAX: usize = 3;

/// One running node.
pub(crate) struct Parts {
    pub(crate) options: NodeOptions,
    pub(crate) node_id: NodeId,
    pub(crate) generation: u64,
    /// Whether it remembers peers from an earlier life.
    pub(crate) knew_peers: bool,
    pub(crate) started: SystemTime,
    pub(crate) data: DataDir,
    pub(crate) certificates: Certificates,
    /// The store, or how far it is.
    pub(crate) store: watch::Sender<StoreState>,
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) proxy: Arc<ProxyServer>,
    pub(crate) committed: Committed,
    pub(crate) in_force: watch::Sender<Arc<InForce>>,
    pub(crate) registrations: Registrations,
    pub(crate) health: watch::Sender<Arc<HealthView>>,
    /// What this node's own probes found.
    pub(crate) reports: watch::Receiver<Arc<Reports>>,
    /// The share of the workers' time that was used in the last second, in percent...
    pub(crate) load_percent: AtomicU8,
    /// ...and what the others were told of it.
    pub(crate) load_told: AtomicU8,
    /// Set when the node begins to stop.
    pub(crate) stopping: AtomicBool,
    /// Why the mesh does not have this node as a member as it is, if so.
    pub(crate) standing: watch::Sender<Option<String>>,
    pub(crate) board: StatusBoard,
    /// How the scheduled snapshots went.
    pub(crate) snapshots: Tally,
    pub(crate) tasks: Tasks,
}

impl Parts {
    /// The store, once it is open.
    pub(crate) fn store(&self) -> Option<Store> {
        self.store.borrow().store()
    }

    /// Waits until the store is open; for ever if it never opens.
    pub(crate) async fn opened(&self) -> Store {
        let mut states = self.store.subscribe();
        let open = states.wait_for(|state| matches!(state, StoreState::Open(_)));
        match open.await.ok().and_then(|state| state.store()) {
            Some(store) => store,
            None => std::future::pending().await,
        }
    }

    /// Why the store here will apply nothing more.
    pub(crate) fn store_stopped(&self) -> Option<String> {
        self.store.borrow().stopped()
    }

    /// Whether there is a config in force, and traffic with it.
    pub(crate) fn has_config(&self) -> bool {
        let in_force = self.in_force.borrow();
        in_force.compiled.config.config_revision.0 > 0
    }

    /// This node as a member of the store.
    pub(crate) fn own_member(&self) -> Member {
        Member {
            id: self.node_id,
            name: self.options.name.to_string(),
            peer_addr: self.options.peer_addr.to_string(),
            client_addr: client_address(
                self.options.client_addr,
                self.options.client_tls.are_given(),
            ),
        }
    }

    /// This node as a leader sees it that is asked to take it in.
    pub(crate) fn introduction(&self) -> Introduction {
        Introduction {
            node: self.own_member(),
            promised: self.data.promise().is_some(),
        }
    }

    /// What this node tells about itself.
    pub(crate) fn facts(&self) -> Facts {
        let mut facts = first_facts(&self.options, &self.data);
        facts.identity.gossip_addr = Some(self.mesh.address());
        let in_force = self.in_force.borrow().clone();
        facts.state = NodeState {
            config_revision: in_force.compiled.config.config_revision,
            // What registered badly is told, and is no resource that is behind.
            refused: (in_force.compiled.refused.iter().map(refused))
                .chain(
                    self.registrations
                        .faults(ENDPOINTS_TOLD_MAX)
                        .iter()
                        .map(refused),
                )
                .collect(),
            refused_count: in_force.compiled.refused.len(),
            listeners: listener_facts(&in_force),
            listener_count: in_force.listeners.len(),
            store_fault: self.store_fault(),
            store_stopped: self.store_stopped().is_some(),
            workers: self.options.workers,
            load_percent: self.load_told.load(Ordering::Relaxed),
        };
        facts
    }

    /// Tells the others what changed here.
    pub(crate) fn publish(&self) {
        if let Err(fault) = self.mesh.publish(|| self.facts()) {
            tracing::warn!(%fault, "this node's state is not told to the others");
        }
    }

    /// Takes note of what is wrong with this node's membership, and tells it; answers whether that
    /// is news.
    pub(crate) fn set_standing(&self, fault: Option<String>) -> bool {
        let news = self.standing.send_if_modified(|known| {
            let news = *known != fault;
            *known = fault;
            news
        });
        if news {
            self.publish();
        }
        news
    }

    /// Every node as this node knows it.
    pub(crate) fn status(&self) -> v1::StatusResponse {
        let peers = self.mesh.peers().borrow().clone();
        let store = self.store();
        let empty = Image::default;
        let not_open = || RaftStatus::not_open(self.node_id, self.data.mesh());
        self.board.status(&Sources {
            own: &self.facts(),
            raft: &store.as_ref().map_or_else(not_open, Store::status),
            peers: &peers,
            image: &store.as_ref().map_or_else(empty, Store::image),
            quota_bytes: self.options.limits.quota_bytes,
            started: self.started,
            now: Instant::now(),
        })
    }

    /// The config revision of the newest image here; 0 while the store is not open.
    pub(crate) fn committed(&self) -> ConfigRevision {
        let image = self.store().map(|store| store.image());
        image.map_or_else(ConfigRevision::default, |image| image.config_revision())
    }

    /// What ended that should have run on, in words; the proxy's workers do not depend on it.
    pub(crate) fn store_fault(&self) -> Option<String> {
        if let Some(twin) = self.mesh.peers().borrow().twin {
            return Some(format!(
                "another process at {twin} has this node's id: a data directory was copied; stop \
                 one of the two and empty its copy"
            ));
        }
        let standing = self.standing.borrow().clone();
        let doubt = || self.certificates.doubt();
        let unsound = || store_server::state_fault(&self.store()?);
        self.store_stopped()
            .or_else(unsound)
            .or(standing)
            .or_else(doubt)
            .or_else(|| {
                let faults = self.tasks.faults();
                let first = faults.first()?;
                Some(format!(
                    "the task `{}` ended: {}; restart this node",
                    first.task, first.fault
                ))
            })
    }
}

/// Where clients reach a node, as its member record has it: a scheme says that it is not plain.
pub(crate) fn client_address(address: SocketAddr, is_tls: bool) -> String {
    if is_tls {
        format!("https://{address}")
    } else {
        address.to_string()
    }
}

/// What a node tells before anything runs.
pub(crate) fn first_facts(options: &NodeOptions, data: &DataDir) -> Facts {
    let identity = Identity {
        node_id: data.identity().node_id,
        name: options.name.clone(),
        mesh_id: data.mesh(),
        promise: data.promise().as_ref().map(form::to_gossip),
        bootstrap_expect: u32::try_from(options.bootstrap_expect).ok(),
        client_addr: Some(options.client_addr),
        client_tls: options.client_tls.are_given(),
        peer_addr: Some(options.peer_addr),
        admin_addr: Some(options.admin_addr),
        gossip_addr: None,
        zone: options.zone.clone(),
        labels: options.labels.clone(),
        version: telemetry::VERSION.to_owned(),
        roles: vec!["store".to_owned(), "proxy".to_owned()],
    };
    Facts {
        identity,
        state: NodeState::default(),
    }
}

fn refused(fault: &proxy_config::Fault) -> RefusedResource {
    RefusedResource {
        resource: fault.resource.clone(),
        fault: fault_text(fault),
    }
}

/// The fault without the resource, which is told beside it.
fn fault_text(fault: &proxy_config::Fault) -> String {
    let text = fault.to_string();
    let prefix = format!("{}: ", fault.resource);
    text.strip_prefix(&prefix)
        .map_or_else(|| text.clone(), str::to_owned)
}

fn listener_facts(in_force: &InForce) -> Vec<ListenerFact> {
    let facts = in_force.listeners.iter().map(|outcome| ListenerFact {
        name: outcome.name.to_string(),
        bind: outcome.bind,
        state: if outcome.result.is_ok() {
            "listening"
        } else {
            "failed"
        }
        .to_owned(),
        fault: outcome.result.as_ref().err().map(ToString::to_string),
    });
    facts.collect()
}

/// How long a node must have been up before a member that it never heard of counts as dead: gossip
/// has reached everybody by then.
const HEARD_ALL_AFTER: std::time::Duration = std::time::Duration::from_secs(20);

/// Who lives, as the gossip of this node knows it.
pub(crate) struct GossipLiveness {
    mesh: Arc<Mesh>,
    begun: Instant,
}

impl GossipLiveness {
    pub(crate) fn new(mesh: Arc<Mesh>) -> Self {
        Self {
            mesh,
            begun: Instant::now(),
        }
    }
}

impl Liveness for GossipLiveness {
    fn judge(&self, id: NodeId) -> Judgement {
        match self
            .mesh
            .peers()
            .borrow()
            .peer(id)
            .map(|peer| peer.liveness)
        {
            Some(mesh_gossip::Liveness::Alive) => Judgement::Alive,
            Some(mesh_gossip::Liveness::Down | mesh_gossip::Liveness::Left) => Judgement::Dead,
            None if self.begun.elapsed() < HEARD_ALL_AFTER => Judgement::Unknown,
            None => Judgement::Dead,
        }
    }

    fn version(&self, id: NodeId) -> Option<Version> {
        let peers = self.mesh.peers().borrow().clone();
        peers.peer(id)?.facts.identity.version.parse().ok()
    }
}

/// What resources select this node by: its name, and its labels with its zone among them.
pub(crate) fn target(options: &NodeOptions) -> proxy_config::compiled::Target {
    let mut labels = BTreeMap::clone(&options.labels);
    if let Some(zone) = &options.zone {
        labels.insert("zone".to_owned(), zone.clone());
    }
    proxy_config::compiled::Target {
        node: options.name.clone(),
        labels,
        proxy_ip: options.proxy_ip,
    }
}
