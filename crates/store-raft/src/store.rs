//! One node's replicated store, from its data directory to its API.
//!
//! Owns the start, the wiring of the parts and the stop. Never serves a port: the peer service is
//! handed out.

mod parts;

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::{ShutdownTrigger, TaskFault, Tasks};
use model::{MeshId, NodeId, Version};
use openraft::async_runtime::watch::WatchReceiver;
use store_api::skeinpb::raft_server::RaftServer;
use store_disk::{SnapshotStore, Wal, WalError};
use store_mvcc::{Image, Outcome, Proposal};
use tls::Dialer;
use tokio::sync::{Notify, mpsc, watch};

use self::parts::Parts;
use crate::Raft;
use crate::addresses::Addresses;
use crate::config::StoreConfig;
use crate::counters::{Counters, Counting, SyncTimes};
use crate::log::LogStore;
use crate::machine::{Published, State, StateMachine, check_version};
use crate::mesh::MeshSeat;
use crate::network::Network;
use crate::propose::{ProposeError, Proposer};
use crate::pulse::Pulse;
use crate::reads::{ReadError, Reads};
use crate::recovery::{self, Recovered, RecoveryError};
use crate::retention::Retention;
use crate::rows::RowsTask;
use crate::service::PeerService;
use crate::soundness::digest::Digests;
use crate::soundness::{Keeper, Soundness};
use crate::status::{RaftStatus, Role};

/// Why a store does not start. Every text names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Neither rows nor snapshot can be used.
    #[error("{0}")]
    State(String),
    /// This node is too old or too new for its mesh.
    #[error("{0}")]
    Version(String),
    /// The snapshots cannot be listed.
    #[error("cannot read the snapshots: {0}; check the disk and its mount")]
    Io(#[from] io::Error),
    /// The timings contradict each other.
    #[error("the timings are impossible: {0}; choose heartbeat < election minimum < maximum")]
    Timings(String),
    /// The log does not fit the state, or an entry cannot be replayed.
    #[error("raft does not start: {0}")]
    Raft(String),
}

impl From<RecoveryError> for StartError {
    fn from(error: RecoveryError) -> Self {
        Self::State(error.to_string())
    }
}

/// A running store. Clones share it; when the last one is gone, its tasks end.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    version: Version,
    peer_tls: Option<Dialer>,
    log: LogStore,
    raft: Raft,
    seat: Arc<MeshSeat>,
    addresses: Arc<Addresses>,
    pulse: Arc<Pulse>,
    snapshots: SnapshotStore,
    published: Published,
    keeper: Arc<Keeper>,
    compare: Arc<Notify>,
    status: watch::Receiver<RaftStatus>,
    proposer: Proposer,
    reads: Reads,
    counting: Arc<Counting>,
    deadline: Duration,
    hang_up: ShutdownTrigger,
    end_rows: mpsc::Sender<()>,
    tasks: Tasks,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// What was opened on the disk.
struct Opened {
    log: LogStore,
    snapshots: SnapshotStore,
    recovered: Recovered,
}

impl Store {
    /// Opens the log, finds the newest state, replays what is committed, and joins the others.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong and what to do.
    pub fn start(
        config: StoreConfig,
    ) -> Pin<Box<dyn Future<Output = Result<Self, StartError>> + Send>> {
        // A future without a name: one with a name, and with it all of openraft, is compiled by each
        // crate that awaits it, and as that crate is.
        Box::pin(Self::opened_and_joined(config))
    }

    async fn opened_and_joined(config: StoreConfig) -> Result<Self, StartError> {
        let raft_config = config.raft().validate();
        let raft_config = raft_config.map_err(|error| StartError::Timings(error.to_string()))?;
        let seat = Arc::new(MeshSeat::new(config.data.clone()));
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opening));
        let opened = opened
            .await
            .map_err(|error| StartError::Raft(error.to_string()))??;
        let Opened {
            log,
            snapshots,
            recovered,
        } = opened;

        let published = Published::new(&recovered.state);
        let (end_rows, rows_end) = mpsc::channel(1);
        let rows = RowsTask::new(
            recovered.rows,
            published.states.subscribe(),
            log.durable(),
            recovered.in_rows,
            rows_end,
        );
        let machine = StateMachine::new(
            config.version,
            recovered.state,
            published.clone(),
            snapshots.clone(),
            log.clone(),
        );
        let addresses = Arc::new(Addresses::default());
        let counted = log.clone();
        let in_doubt = recovered.in_doubt;
        let digests = Digests::new(published.states.subscribe());
        let keeper = Keeper::new(config.data.clone(), digests, in_doubt);
        let network = Network::new(seat.clone(), addresses.clone(), config.peer_tls.clone());
        let raft = Raft::new(seat.node(), Arc::new(raft_config), network, log, machine).await;
        let raft = raft.map_err(|fatal| StartError::Raft(fatal.to_string()))?;

        let tasks = Tasks::default();
        tasks.spawn("applied rows", rows.run());
        let states = published.states.subscribe();
        let retention = Retention::new(raft.clone(), states, config.snapshots);
        tasks.spawn("log retention", retention.run());
        let parts = Parts {
            version: config.version,
            peer_tls: config.peer_tls,
            log: counted,
            end_rows,
            raft,
            seat,
            addresses,
            snapshots,
            published,
            keeper: Arc::new(keeper),
            compare_every: config.compare_every,
            timings: config.timings,
        };
        Ok(parts.wire(recovered.recovery, tasks))
    }

    /// How the peer ports of the other members are called; `None`: in plain text.
    pub fn peer_tls(&self) -> Option<&Dialer> {
        self.inner.peer_tls.as_ref()
    }

    /// The newest image. Serializable: perhaps behind what other nodes acknowledged.
    pub fn image(&self) -> Image {
        self.inner.published.images.borrow().clone()
    }

    /// The newest image, whenever there is a newer one.
    pub fn images(&self) -> watch::Receiver<Image> {
        self.inner.published.images.subscribe()
    }

    /// Proposes, on the leader, and waits until the outcome is in the published image.
    ///
    /// # Errors
    /// [`ProposeError`] tells what surely was not proposed from what may be applied.
    pub async fn propose(&self, proposal: &Proposal) -> Result<Outcome, ProposeError> {
        self.inner.proposer.propose(proposal).await
    }

    /// On the leader: after this, [`Store::image`] holds everything that was acknowledged before.
    ///
    /// # Errors
    /// [`ReadError`]; elsewhere than on the leader, ask it for [`Store::read_index`], then
    /// [`Store::wait_applied`].
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let index = self.read_index().await?;
        self.wait_applied(index).await
    }

    /// On the leader: confirms leadership, and tells the entry up to which a reader anywhere must
    /// have applied to see everything that was acknowledged before. One round serves all who wait.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        self.inner.reads.index().await
    }

    /// Waits until this node's image holds entry `index`.
    ///
    /// # Errors
    /// [`ReadError::TimedOut`] if it lags.
    pub async fn wait_applied(&self, index: u64) -> Result<(), ReadError> {
        self.inner.reads.wait_applied(index).await
    }

    /// Returns when the image holds all that was committed when this process first heard a leader,
    /// or began to lead: what is on its way before is history. For ever without a leader.
    pub async fn caught_up(&self) {
        let (mut status, mut told) = (self.status_watch(), self.inner.pulse.first_commit());
        let led = status.wait_for(|status| status.role == Role::Leader);
        let followed = told.wait_for(Option::is_some);
        let index = tokio::select! {
            led = led => led.map_or(0, |status| status.last_log),
            followed = followed => followed.map_or(0, |index| index.unwrap_or(0)),
        };
        let mut applied = self.inner.published.applied.subscribe();
        // An error means that the store is gone, and with it everybody who could wait.
        let _ = applied.wait_for(|applied| *applied >= index).await;
    }

    /// The state of this store.
    pub fn status(&self) -> RaftStatus {
        let mut status = self.inner.status.borrow().clone();
        status.progress(&self.inner.raft.metrics().borrow_watched());
        status
    }

    /// The state of this store, whenever it changes otherwise than by writes: how far the log is may
    /// be as of some time ago.
    pub fn status_watch(&self) -> watch::Receiver<RaftStatus> {
        self.inner.status.clone()
    }

    /// Whether this member's state is sound, as far as is known; whenever that changes.
    pub fn soundness(&self) -> watch::Receiver<Soundness> {
        self.inner.keeper.watch()
    }

    /// Why nothing may be answered from this member's state now, if so: see
    /// [`Soundness::damage`].
    pub fn damage(&self) -> Option<String> {
        self.inner.keeper.damage()
    }

    /// On the leader: has the members compare their states now, whatever the configured time says;
    /// elsewhere nothing. What comes out is in each member's [`Store::soundness`].
    pub fn compare(&self) {
        self.inner.compare.notify_one();
    }

    /// What this store did since it started.
    pub fn counters(&self) -> Counters {
        self.inner.counting.snapshot()
    }

    /// How many proposals wait or are under way on this node.
    pub fn pending_proposals(&self) -> usize {
        self.inner.proposer.pending()
    }

    /// How long making the log durable took.
    pub fn sync_times(&self) -> SyncTimes {
        SyncTimes(self.inner.log.counters())
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.inner.seat.node()
    }

    /// This node's version.
    pub fn version(&self) -> Version {
        self.inner.version
    }

    /// The mesh, once this node belongs to one.
    pub fn mesh_id(&self) -> Option<MeshId> {
        self.inner.seat.mesh()
    }

    /// Tells where the living members say that they are called, `HOST:PORT` by node, in place of
    /// what was told before. It counts more than what the log records, which may be from before a
    /// move.
    pub fn tell_addresses(&self, told: BTreeMap<NodeId, String>) {
        self.inner.addresses.tell(told);
    }

    /// Ends this node's part in elections for this process: it was removed from the mesh and knows
    /// it only from others. It follows nobody any more; its image stays as it is.
    pub fn retire(&self) {
        self.inner.raft.runtime_config().elect(false);
        self.inner.pulse.retire();
    }

    /// The service that the other members call; serve it on the peer port.
    pub fn peer_service(&self) -> RaftServer<PeerService> {
        let Inner {
            raft,
            seat,
            pulse,
            snapshots,
            keeper,
            hang_up,
            ..
        } = &*self.inner;
        let (raft, seat) = (raft.clone(), seat.clone());
        let (pulse, snapshots) = (pulse.clone(), snapshots.clone());
        let (keeper, hang_up) = (keeper.clone(), hang_up.handle());
        PeerService::new(raft, seat, pulse, snapshots, keeper, hang_up).into_server()
    }

    /// Ends the streams on which the leader appends, which last as long as it leads, so that a
    /// server that waits for its connections can stop. For a node that is about to.
    pub fn hang_up(&self) {
        self.inner.hang_up.request();
    }

    /// Writes a snapshot now, whatever the limits say. Returns when it was asked for.
    pub async fn snapshot(&self) {
        // The only error is that Raft has stopped, which the status tells.
        let _ = self.inner.raft.trigger().snapshot().await;
    }

    /// Waits for a task of this store to end that should have run on, as all of Raft does when the
    /// disk fails ([`RaftStatus::fatal`] tells that). For ever when that does not happen before
    /// [`Store::shutdown`].
    pub async fn ended(&self) -> TaskFault {
        self.inner.tasks.ended().await
    }

    /// Stops Raft. Whoever waits gets an error; what is acknowledged is on disk, and the applied rows
    /// are where the log is: the next start has nothing to replay, whatever version it is of.
    pub async fn shutdown(&self) {
        self.inner.tasks.expect_ends();
        if self.inner.raft.shutdown().await.is_err() {
            tracing::warn!("raft ended by a panic");
        }
        // Those who watch the status learn it; the task ends by itself once Raft has.
        let mut status = self.status_watch();
        let told = status.wait_for(|status| status.role == Role::Stopped);
        if tokio::time::timeout(self.deadline(), told).await.is_err() {
            tracing::warn!("the status did not follow the stop");
        }
        // An error means that it was asked before, or has ended.
        let _ = self.inner.end_rows.try_send(());
        let ended = self.inner.end_rows.closed();
        if tokio::time::timeout(self.deadline(), ended).await.is_err() {
            tracing::warn!("the applied rows did not follow the stop; the next start takes longer");
        }
        self.inner.tasks.stopped().await;
    }

    pub(crate) fn state(&self) -> State {
        self.inner.published.states.borrow().clone()
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    pub(crate) fn seat(&self) -> &MeshSeat {
        &self.inner.seat
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.inner.deadline
    }
}

/// Blocks.
fn open(config: &StoreConfig) -> Result<Opened, StartError> {
    let (wal, found) = Wal::open(&config.data, config.wal.clone())?;
    if let Some(torn) = found.torn {
        tracing::info!(?torn, "discarded a write that a crash had cut short");
    }
    let snapshots = SnapshotStore::open(&config.data)?;
    let recovered = recovery::recover(&config.data, &snapshots, &wal)?;
    check_version(config.version, &recovered.state.image)?;
    tracing::info!(recovery = ?recovered.recovery, "recovered the store");
    let log = LogStore::new(wal, snapshots.clone());
    log.durable().raise(recovered.state.applied_index());
    Ok(Opened {
        log,
        snapshots,
        recovered,
    })
}
