//! The tasks of a store, wired.
//!
//! Owns which part knows which. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::{ShutdownTrigger, Tasks};
use model::Version;
use store_disk::SnapshotStore;
use tls::Dialer;
use tokio::sync::{Notify, mpsc, watch};

use super::{Inner, Store};
use crate::Raft;
use crate::addresses::Addresses;
use crate::counters::Counting;
use crate::log::LogStore;
use crate::machine::Published;
use crate::mesh::MeshSeat;
use crate::network::Calls;
use crate::propose::Proposer;
use crate::pulse::{Pulse, Watch};
use crate::reads::Reads;
use crate::recovery;
use crate::soundness::Keeper;
use crate::soundness::comparison::Rounds;
use crate::soundness::digest;
use crate::soundness::healing::Healing;
use crate::status::{RaftStatus, StatusTask};
use crate::timings::Timings;

/// What the tasks of a store share.
pub(super) struct Parts {
    pub(super) version: Version,
    pub(super) peer_tls: Option<Dialer>,
    pub(super) log: LogStore,
    pub(super) end_rows: mpsc::Sender<()>,
    pub(super) raft: Raft,
    pub(super) seat: Arc<MeshSeat>,
    pub(super) addresses: Arc<Addresses>,
    pub(super) snapshots: SnapshotStore,
    pub(super) published: Published,
    pub(super) keeper: Arc<Keeper>,
    pub(super) compare_every: Option<Duration>,
    pub(super) timings: Timings,
}

impl Parts {
    /// Starts the tasks.
    pub(super) fn wire(self, recovery: recovery::Recovery, tasks: Tasks) -> Store {
        let pulse = Arc::new(Pulse::new());
        let counting = Arc::new(Counting::default());
        let status_watch = self.watch_status(recovery, &pulse, &counting, &tasks);
        let compare = self.watch_soundness(&status_watch, &pulse, &tasks);
        let Self {
            version,
            peer_tls,
            log,
            end_rows,
            raft,
            seat,
            addresses,
            snapshots,
            published,
            keeper,
            compare_every: _,
            timings,
        } = self;
        let (proposer, task) = Proposer::new(
            raft.clone(),
            status_watch.clone(),
            keeper.watch(),
            counting.clone(),
            timings.request,
        );
        tasks.spawn("proposer", task.run());
        let (reads, rounds) = Reads::new(
            raft.clone(),
            status_watch.clone(),
            keeper.watch(),
            published.applied.subscribe(),
            counting.clone(),
            timings.request,
        );
        tasks.spawn("read rounds", rounds.run());
        let watch = Watch {
            me: seat.node(),
            raft: raft.clone(),
            pulse: pulse.clone(),
            addresses: addresses.clone(),
            timings,
        };
        tasks.spawn("leader watch", watch.run());
        let inner = Arc::new(Inner {
            version,
            peer_tls,
            log,
            raft,
            seat,
            addresses,
            pulse,
            snapshots,
            published,
            keeper,
            compare,
            status: status_watch,
            proposer,
            reads,
            counting,
            deadline: timings.request,
            hang_up: ShutdownTrigger::new().0,
            end_rows,
            tasks,
        });
        Store { inner }
    }

    /// Keeps the status up to date.
    fn watch_status(
        &self,
        recovery: recovery::Recovery,
        pulse: &Arc<Pulse>,
        counting: &Arc<Counting>,
        tasks: &Tasks,
    ) -> watch::Receiver<RaftStatus> {
        let initial = StatusTask::initial(&self.seat, recovery.clone());
        let (status, status_watch) = watch::channel(initial);
        let status_task = StatusTask {
            seat: self.seat.clone(),
            addresses: self.addresses.clone(),
            pulse: pulse.clone(),
            recovery,
            lease: self.timings.election_max,
            metrics: self.raft.metrics(),
            server: self.raft.server_metrics(),
            status,
            counting: counting.clone(),
            led_by: None,
            shown: None,
        };
        tasks.spawn("raft status", status_task.run());
        status_watch
    }

    /// Has the members compare their states, and heals this one. Returns what to ask for a
    /// comparison with.
    fn watch_soundness(
        &self,
        status: &watch::Receiver<RaftStatus>,
        pulse: &Arc<Pulse>,
        tasks: &Tasks,
    ) -> Arc<Notify> {
        let (seat, addresses) = (self.seat.clone(), self.addresses.clone());
        let calls = Calls::new(seat, addresses, self.peer_tls.clone());
        let digests = self.keeper.digests().clone();
        let digests = digest::follow(self.published.checkpoints.clone(), digests);
        tasks.spawn("state digests", digests);
        let compare = Arc::new(Notify::new());
        let rounds = Rounds {
            raft: self.raft.clone(),
            calls: calls.clone(),
            status: status.clone(),
            keeper: self.keeper.clone(),
            every: self.compare_every,
            asked: compare.clone(),
        };
        tasks.spawn("state comparison", rounds.run());
        let healing = Healing {
            raft: self.raft.clone(),
            calls,
            status: status.clone(),
            pulse: pulse.clone(),
            keeper: self.keeper.clone(),
            snapshots: self.snapshots.clone(),
            published: self.published.clone(),
            log: self.log.clone(),
        };
        tasks.spawn("healing", healing.run());
        compare
    }
}
