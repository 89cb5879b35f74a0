//! openraft's state machine: applies entries to the store's machine and publishes images.
//!
//! Owns the order "apply, publish, answer", so that whoever has an answer finds its effect in the
//! image. Never skips an entry that it does not understand: it stops, and says why.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use model::Version;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use prost::Message;
use store_api::skeinpb as pb;
use store_disk::SnapshotStore;
use store_mvcc::{Command, Image, Machine, Outcome, Proposal};
use tokio::sync::watch;

use crate::convert;
use crate::full_disk;
use crate::log::LogStore;
use crate::snapshot::{self, Received, SnapshotFile};
use crate::store::StartError;
use crate::types::{EncodedBatch, LogId, SnapshotMeta, StoredMembership, Types};

/// Entries that are applied before the image is published and their proposers are answered.
const APPLY_ENTRIES: usize = 64;

/// A state of the store and how it came about: an image and its place in the log.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) image: Image,
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: Arc<StoredMembership>,
    /// Bytes of the batches that were applied since the start.
    pub(crate) bytes: u64,
    /// Counts the snapshots that were installed: across one, the image did not grow out of the
    /// image before.
    pub(crate) installs: u64,
}

impl State {
    pub(crate) fn empty() -> Self {
        Self {
            image: Image::default(),
            applied: None,
            membership: Arc::new(StoredMembership::default()),
            bytes: 0,
            installs: 0,
        }
    }

    /// The state that a snapshot holds. Blocks.
    pub(crate) fn of_snapshot(snapshot: &store_disk::Snapshot) -> io::Result<Self> {
        let meta = snapshot::meta(snapshot)?;
        Ok(Self {
            image: snapshot::read(snapshot)?,
            applied: meta.last_log_id,
            membership: Arc::new(meta.last_membership),
            bytes: 0,
            installs: 0,
        })
    }

    pub(crate) fn applied_index(&self) -> u64 {
        self.applied.map_or(0, |id| id.index)
    }

    pub(crate) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.applied,
            last_membership: StoredMembership::clone(&self.membership),
        }
    }
}

/// Where the newest state can be seen.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) states: watch::Sender<State>,
    pub(crate) images: watch::Sender<Image>,
    /// Never ahead of the image.
    pub(crate) applied: watch::Sender<u64>,
    /// The state as of the newest checkpoint, until somebody takes it.
    pub(crate) checkpoints: watch::Sender<Option<State>>,
}

impl Published {
    pub(crate) fn new(state: &State) -> Self {
        Self {
            states: watch::Sender::new(state.clone()),
            images: watch::Sender::new(state.image.clone()),
            applied: watch::Sender::new(state.applied_index()),
            checkpoints: watch::Sender::new(None),
        }
    }

    fn publish(&self, state: State) {
        let applied = state.applied_index();
        self.images.send_replace(state.image.clone());
        self.states.send_replace(state);
        self.applied.send_replace(applied);
    }
}

/// The state machine of one node.
pub(crate) struct StateMachine {
    /// What this node understands.
    version: Version,
    machine: Machine,
    applied: Option<LogId>,
    membership: Arc<StoredMembership>,
    bytes: u64,
    installs: u64,
    published: Published,
    snapshots: SnapshotStore,
    log: LogStore,
}

impl StateMachine {
    pub(crate) fn new(
        version: Version,
        state: State,
        published: Published,
        snapshots: SnapshotStore,
        log: LogStore,
    ) -> Self {
        Self {
            version,
            machine: Machine::from_image(state.image),
            applied: state.applied,
            membership: state.membership,
            bytes: state.bytes,
            installs: state.installs,
            published,
            snapshots,
            log,
        }
    }

    /// What is applied so far.
    pub(crate) fn state(&self) -> State {
        State {
            image: self.machine.image(),
            applied: self.applied,
            membership: self.membership.clone(),
            bytes: self.bytes,
            installs: self.installs,
        }
    }

    /// Applies the entry after the last one. Publishes nothing.
    pub(crate) fn apply_entry(
        &mut self,
        log_id: LogId,
        payload: Payload,
    ) -> io::Result<Vec<Outcome>> {
        let (outcomes, is_checkpoint) = match payload {
            EntryPayload::Blank => (Vec::new(), false),
            EntryPayload::Normal(batch) => self.apply_batch(&log_id, batch)?,
            EntryPayload::Membership(membership) => {
                self.membership = Arc::new(StoredMembership::new(Some(log_id), membership));
                (Vec::new(), false)
            }
        };
        self.applied = Some(log_id);
        if is_checkpoint {
            let checkpoints = &self.published.checkpoints;
            checkpoints.send_replace(Some(self.state()));
        }
        Ok(outcomes)
    }

    /// Puts `other`, the state of another member, in place of this one, once what the log has beyond
    /// it is applied to it. Nothing changes for Raft: the same entries are applied as before.
    ///
    /// # Errors
    /// It is ahead of this member, or the log does not reach it; nothing has changed.
    pub(crate) fn replace(&mut self, other: State) -> Result<(), String> {
        let old = self.state();
        let (from, to) = (other.applied_index(), old.applied_index());
        if from > to {
            return Err(format!("it is of entry {from}, and only {to} is applied"));
        }
        check_version(self.version, &other.image).map_err(|misfit| misfit.to_string())?;
        self.adopt(State {
            installs: old.installs + 1,
            ..other
        });
        let reached = self.apply_up_to(to).map_err(|error| error.to_string());
        let reached = reached.and_then(|()| match self.applied == old.applied {
            true => Ok(()),
            false => Err(format!("it is of another log at entry {to}")),
        });
        self.bytes = old.bytes;
        match reached {
            Ok(()) => self.published.publish(self.state()),
            Err(_) => self.adopt(old),
        }
        reached
    }

    fn adopt(&mut self, state: State) {
        self.machine = Machine::from_image(state.image);
        self.applied = state.applied;
        self.membership = state.membership;
        self.installs = state.installs;
    }

    /// Applies what the log has after the state, up to entry `last`.
    fn apply_up_to(&mut self, last: u64) -> io::Result<()> {
        let mut next = self.applied.map_or(0, |id| id.index) + 1;
        while next <= last {
            let entries = self.log.piece(next..last + 1)?;
            if entries
                .first()
                .is_none_or(|entry| entry.log_id.index != next)
            {
                let text = format!("entry {next} is not in the log here any more");
                return Err(io::Error::other(text));
            }
            for entry in entries {
                next = entry.log_id.index + 1;
                self.apply_entry(entry.log_id, entry.payload)?;
            }
        }
        Ok(())
    }

    fn apply_batch(
        &mut self,
        log_id: &LogId,
        batch: EncodedBatch,
    ) -> io::Result<(Vec<Outcome>, bool)> {
        self.bytes += batch.0.len() as u64;
        let (own, index) = (self.version, log_id.index);
        let strange = |reason: &dyn std::fmt::Display, wanted: &str| {
            let text = format!(
                "log entry {index} cannot be applied ({reason}); this node runs version {own}: \
                 run {wanted}, it goes on from here"
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let writers = "at least the version of the node that wrote it";
        let batch = pb::Batch::decode(batch.0).map_err(|error| strange(&error, writers))?;
        let is_checkpoint = batch.checkpoint;
        if let Some(needs) = batch.needs {
            let needs = convert::version_from_pb(needs).map_err(|e| strange(&e, writers))?;
            if needs > own {
                let reason = format!("it needs version {needs} or newer");
                return Err(strange(&reason, &format!("version {needs}")));
            }
        }
        // All are read before the first is applied: a batch is applied whole or not at all.
        let proposals: Result<Vec<_>, _> = batch
            .proposals
            .into_iter()
            .map(convert::proposal_from_pb)
            .collect();
        let mut proposals = proposals.map_err(|error| strange(&error, writers))?;
        let outcomes = proposals
            .iter_mut()
            .map(|proposal| {
                if let Command::Tick(op) = &mut proposal.command {
                    *op = op.in_term(log_id.leader_id.term);
                }
                self.machine.apply(proposal)
            })
            .collect();
        let moves = |proposal: &Proposal| matches!(proposal.command, Command::SetClusterVersion(_));
        if proposals.iter().any(moves) {
            check_version(own, &self.machine.image()).map_err(io::Error::other)?;
        }
        Ok((outcomes, is_checkpoint))
    }
}

/// A node's version does not go with the mesh's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node runs version {own}, and the mesh is at version {mesh}: {}",
    remedy(*.own, *.mesh)
)]
pub(crate) struct Misfit {
    own: Version,
    mesh: Version,
}

impl From<Misfit> for StartError {
    fn from(misfit: Misfit) -> Self {
        Self::Version(misfit.to_string())
    }
}

fn remedy(own: Version, mesh: Version) -> String {
    if own < mesh {
        format!("run version {mesh} or the one after it")
    } else {
        "upgrade every node by one minor version at a time, this one too".to_owned()
    }
}

/// Whether a node of version `own` can go on from `image`. Before the members agreed on a version,
/// nobody knows better.
pub(crate) fn check_version(own: Version, image: &Image) -> Result<(), Misfit> {
    match image.meta().version {
        Some(agreed) if !own.fits(agreed.version) => Err(Misfit {
            own,
            mesh: agreed.version,
        }),
        _ => Ok(()),
    }
}

pub(crate) type Payload = EntryPayload<EncodedBatch, model::NodeId, crate::types::MemberInfo>;

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, StoredMembership::clone(&self.membership)))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut pieces = entries.ready_chunks(APPLY_ENTRIES);
        while let Some(piece) = pieces.next().await {
            let mut answers = Vec::new();
            for item in piece {
                let (entry, responder) = item?;
                let outcomes = self.apply_entry(entry.log_id, entry.payload)?;
                answers.extend(responder.map(|responder| (responder, outcomes)));
            }
            self.published.publish(self.state());
            for (responder, outcomes) in answers {
                responder.send(outcomes);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: self.state(),
            snapshots: self.snapshots.clone(),
            log: self.log.clone(),
            applied: self.published.applied.subscribe(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        file: SnapshotFile,
    ) -> io::Result<()> {
        // Entries that contradict the snapshot are truncated by now, and must not come back beside
        // it after a crash.
        self.log.barrier().await?;
        let snapshots = self.snapshots.clone();
        let installed = blocking(move || State::of_snapshot(&snapshot::keep(&snapshots, file)?));
        let state = installed.await?;
        check_version(self.version, &state.image).map_err(io::Error::other)?;
        tracing::info!(
            index = meta.last_log_id.map(|id| id.index),
            keys = state.image.len(),
            "installed a snapshot"
        );
        self.machine = Machine::from_image(state.image);
        self.applied = meta.last_log_id;
        self.membership = Arc::new(meta.last_membership.clone());
        self.installs += 1;
        let state = self.state();
        self.log.durable().raise(state.applied_index());
        self.published.publish(state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Received>> {
        let Some(snapshot) = self.snapshots.newest() else {
            return Ok(None);
        };
        let meta = snapshot::meta(&snapshot)?;
        Ok(Some(Received {
            meta,
            snapshot: SnapshotFile::Whole(snapshot),
        }))
    }
}

/// Writes a snapshot of one state while the machine goes on.
pub(crate) struct Builder {
    state: State,
    snapshots: SnapshotStore,
    log: LogStore,
    /// Closed when the store is gone.
    applied: watch::Receiver<u64>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Received> {
        // A leader applies what a quorum has: a snapshot must not go beyond this node's own log.
        self.log.barrier().await?;
        let written = full_disk::with_room(full_disk::PAUSE, self.applied.clone(), || {
            let (state, snapshots) = (self.state.clone(), self.snapshots.clone());
            blocking(move || {
                let meta = state.meta();
                let snapshot = snapshot::write(&snapshots, &meta, &state.image)?;
                Ok((meta, snapshot))
            })
        });
        let (meta, snapshot) = written.await?;
        tracing::info!(
            index = snapshot.index(),
            bytes = snapshot.data_bytes(),
            "wrote a snapshot"
        );
        Ok(Received {
            meta,
            snapshot: SnapshotFile::Whole(snapshot),
        })
    }
}

/// Runs what waits for the disk off the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
