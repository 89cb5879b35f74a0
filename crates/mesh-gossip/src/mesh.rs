//! The handle to a running mesh.
//!
//! Owns start, publishing and leaving. Never blocks on the network: what is published is the wanted
//! state, which the heart carries into gossip; a newer one replaces an older one that still waits.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::{TaskFault, Tasks};
use mesh_health::Report;
use model::MeshId;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::counters::Counters;
use crate::engine::Life;
use crate::facts::{Facts, PublishError};
use crate::heart::{Channels, Heart};
use crate::keys::KeyRing;
use crate::link::Link;
use crate::peers::Peers;
use crate::roster::HEALTH_PREFIX;
use crate::seeds::{self, SeedAddrs};

/// The time between two rounds of gossip. After a death its last heartbeats still make the round,
/// which takes several intervals: the shorter these are, the more patient the detector may be.
pub const GOSSIP_INTERVAL: Duration = Duration::from_millis(300);

/// The kernel's buffer for arriving datagrams that we ask for (the system may give less): a whole
/// message of pieces from several peers at once.
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// How a mesh is started.
#[derive(Debug, Clone)]
pub struct GossipConfig {
    /// Which life of the node this is: must grow with every start (the time of the start does).
    pub generation: u64,
    /// Where to gossip, which is also where others reach this node: the address of an interface.
    /// Port 0 takes a free one.
    pub bind: SocketAddr,
    /// Whom to ask first, as `HOST:PORT`. The node itself may be among them.
    pub seeds: Vec<String>,
    /// The keys of the mesh.
    pub keys: KeyRing,
    /// The time between two rounds; [`GOSSIP_INTERVAL`] except in tests. All nodes have the same.
    pub interval: Duration,
    /// What this node tells about itself at first.
    pub facts: Facts,
}

/// A mesh cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be bound.
    #[error(
        "cannot bind gossip address {address}/udp: {source}; \
         stop what uses it or choose another with --gossip-addr"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Others could not reach it.
    #[error(
        "gossip address {0} is no address that others can reach; \
         give the address of an interface with --gossip-addr"
    )]
    Unspecified(SocketAddr),
    /// A seed is malformed.
    #[error("`{0}` is not the gossip address of a node; give HOST:PORT with --join")]
    Seed(String),
    /// The facts cannot be told.
    #[error(transparent)]
    Facts(#[from] PublishError),
}

/// A seed answered that it does not know our key, before anybody who does was heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{seed} does not know the gossip key of this node; \
     give every node of the mesh the same --gossip-key-file"
)]
pub struct WrongKey {
    /// The seed as it was given.
    pub seed: String,
}

/// What this node wants to say.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) values: Arc<BTreeMap<String, String>>,
    pub(crate) mesh_id: Option<MeshId>,
}

/// A running mesh. Dropping it stops it without a word, as a crash does; [`Mesh::leave`] says so.
#[derive(Debug)]
pub struct Mesh {
    address: SocketAddr,
    said: watch::Sender<Said>,
    leave: watch::Sender<bool>,
    peers: watch::Receiver<Arc<Peers>>,
    wrong_key: watch::Receiver<Option<WrongKey>>,
    counters: Counters,
    tasks: Tasks,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Mesh {
    /// Binds and starts to gossip; does not wait for anybody. Must be called within a tokio
    /// runtime.
    pub fn start(config: GossipConfig) -> Result<Self, StartError> {
        if let Some(seed) = config.seeds.iter().find(|seed| !seeds::is_seed(seed)) {
            return Err(StartError::Seed(seed.clone()));
        }
        if config.bind.ip().is_unspecified() {
            return Err(StartError::Unspecified(config.bind));
        }
        let bind = |source| StartError::Bind {
            address: config.bind,
            source,
        };
        let socket = open_socket(config.bind).map_err(bind)?;
        let address = socket.local_addr().map_err(bind)?;

        let mut values = BTreeMap::new();
        say_facts(&mut values, &config.facts, address)?;
        let mesh_id = config.facts.identity.mesh_id;
        let (said, heard_said) = watch::channel(Said {
            values: Arc::new(values),
            mesh_id,
        });
        let (leave, heard_leave) = watch::channel(false);
        let (peers, seen_peers) = watch::channel(Arc::default());
        let (wrong_key, seen_wrong_key) = watch::channel(None);
        let (fixed, names) = seeds::split(&config.seeds);
        let (resolved, seed_addrs) = watch::channel(SeedAddrs::new(fixed.clone()));
        let counters = Counters::default();
        let (link, rejected) = Link::new(socket, config.keys, counters.clone());

        let life = Life {
            node: config.facts.identity.node_id,
            generation: config.generation,
            address,
            interval: config.interval,
        };
        let channels = Channels {
            said: heard_said,
            leave: heard_leave,
            rejected,
            seeds: seed_addrs,
            peers,
            wrong_key,
        };
        let tasks = Tasks::default();
        let heart = Heart::new(link, life, counters.clone(), channels);
        tasks.spawn("gossip heart", heart.run());
        if !names.is_empty() {
            let resolver = seeds::keep_resolved(fixed, names, resolved);
            tasks.spawn("seed resolver", resolver);
        }
        Ok(Self {
            address,
            said,
            leave,
            peers: seen_peers,
            wrong_key: seen_wrong_key,
            counters,
            tasks,
        })
    }

    /// The bound gossip address, by which others reach this node.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces what this node tells about itself; peers hear of it within a round. The facts are
    /// gathered while nobody else publishes any: whoever publishes last tells what is newest.
    ///
    /// # Errors
    /// The facts are too large; what was told before stands.
    pub fn publish(&self, facts: impl FnOnce() -> Facts) -> Result<(), PublishError> {
        let mut outcome = Ok(());
        self.say(|said, mesh_id| {
            let facts = facts();
            outcome = say_facts(said, &facts, self.address);
            if outcome.is_ok() {
                *mesh_id = facts.identity.mesh_id;
            }
        });
        outcome
    }

    /// Replaces this node's health reports, by cluster (`namespace/name`).
    pub fn publish_reports(&self, reports: &BTreeMap<Arc<str>, Report>) {
        self.say(|values, _| {
            values.retain(|key, _| !key.starts_with(HEALTH_PREFIX));
            values.extend(
                reports.iter().map(|(cluster, report)| {
                    (format!("{HEALTH_PREFIX}{cluster}"), report.encode())
                }),
            );
        });
    }

    /// Everybody else, as gossip knows them; changes whenever any of them does.
    pub fn peers(&self) -> watch::Receiver<Arc<Peers>> {
        self.peers.clone()
    }

    /// Waits for a seed to say that it does not know our key while nobody who does was heard yet;
    /// for ever when that does not happen.
    pub async fn wrong_key(&self) -> WrongKey {
        let mut wrong_key = self.wrong_key.clone();
        let told = wrong_key
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|told| told.clone());
        match told {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }

    /// Waits for a task of this mesh to end that should have run on: nobody is seen any more then,
    /// or no seed is resolved again. For ever when that does not happen before [`Mesh::leave`].
    pub async fn ended(&self) -> TaskFault {
        self.tasks.ended().await
    }

    /// What this mesh counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Tells the others that this node leaves, and stops; takes about an interval. Later calls of
    /// any method change nothing.
    pub async fn leave(&self) {
        self.tasks.expect_ends();
        self.leave.send_replace(true);
        // The heart drops its ends of the channels when it has stopped.
        let mut peers = self.peers.clone();
        while peers.changed().await.is_ok() {}
        self.tasks.stop();
    }

    fn say(&self, change: impl FnOnce(&mut BTreeMap<String, String>, &mut Option<MeshId>)) {
        self.said.send_if_modified(|said| {
            let (mut values, mut mesh_id) = ((*said.values).clone(), said.mesh_id);
            change(&mut values, &mut mesh_id);
            let changed = values != *said.values || mesh_id != said.mesh_id;
            if changed {
                *said = Said {
                    values: Arc::new(values),
                    mesh_id,
                };
            }
            changed
        });
    }
}

fn say_facts(
    values: &mut BTreeMap<String, String>,
    facts: &Facts,
    address: SocketAddr,
) -> Result<(), PublishError> {
    let mut facts = facts.clone();
    facts.identity.gossip_addr = Some(address);
    values.extend(facts.encode()?.map(|(key, value)| (key.to_owned(), value)));
    Ok(())
}

fn open_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
