//! How a damaged member gets a sound state.
//!
//! Owns the order: it stands for nothing any more, gives leadership away, takes the leader's newest
//! state as a snapshot, applies to it what its own log has beyond, and only then answers again. Log,
//! vote and the process go on meanwhile. It does not try its own snapshot first: that may have been
//! written from the same damage.

use std::future::ready;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use openraft::async_runtime::watch::WatchReceiver;
use store_api::skeinpb as pb;
use store_api::skeinpb::snapshot_chunk::Part;
use store_disk::SnapshotStore;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::{Keeper, Soundness};
use crate::Raft;
use crate::log::LogStore;
use crate::machine::{Published, State};
use crate::network::Calls;
use crate::pulse::Pulse;
use crate::snapshot::{self, Checksum};
use crate::status::{Member, RaftStatus, Role};
use crate::types::VoteId;
use crate::wire;

/// The pause after an attempt that failed; it doubles,
const PAUSE: Duration = Duration::from_secs(1);
/// up to this.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long leadership may take to move, and entries to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of one piece of a state.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that wait for the network.
const PIECES_AHEAD: usize = 4;

/// Heals this member whenever it is damaged.
pub(crate) struct Healing {
    pub(crate) raft: Raft,
    pub(crate) calls: Calls,
    pub(crate) status: watch::Receiver<RaftStatus>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) published: Published,
    pub(crate) log: LogStore,
}

impl Healing {
    /// Runs until its task is aborted.
    pub(crate) async fn run(self) {
        let mut known = self.keeper.watch();
        let is_damaged = |known: &Soundness| known.damage.is_some();
        while known.wait_for(is_damaged).await.is_ok() {
            // Who votes alone has nobody to give way to; it leads, and answers nothing.
            let voters = self
                .raft
                .metrics()
                .borrow_watched()
                .membership_config
                .voter_ids()
                .count();
            self.raft.runtime_config().elect(voters <= 1);
            self.pulse.bench(true);
            let mut pause = PAUSE;
            while let Err(reason) = self.attempt().await {
                tracing::warn!(reason, "this damaged member is not healed yet");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            self.pulse.bench(false);
            self.raft.runtime_config().elect(!self.pulse.is_retired());
            tracing::warn!("this member is healed: it has the leader's state, and answers again");
        }
    }

    async fn attempt(&self) -> Result<(), String> {
        let leader = self.leader_elsewhere().await?;
        let state = self.fetch(&leader).await?;
        let index = state.applied_index();
        let mut applied = self.published.applied.subscribe();
        let reached = applied.wait_for(|applied| *applied >= index);
        let late = |_| format!("entry {index} did not arrive");
        timeout(PATIENCE, reached)
            .await
            .map_err(late)?
            .map_err(|gone| gone.to_string())?;
        let replaced = self.raft.with_state_machine(move |machine| {
            let replaced = machine.replace(state);
            Box::pin(ready(replaced))
        });
        replaced.await.map_err(|fatal| fatal.to_string())??;
        self.keep_snapshot(index).await?;
        self.keeper
            .healed()
            .await
            .map_err(|error| error.to_string())
    }

    /// Sees to it that the newest snapshot here is a sound one. That of entry `index` is.
    async fn keep_snapshot(&self, index: u64) -> Result<(), String> {
        if self
            .snapshots
            .newest()
            .is_some_and(|newest| newest.index() == index)
        {
            return Ok(());
        }
        let state = self.published.states.borrow().clone();
        let snapshots = self.snapshots.clone();
        let written = tokio::task::spawn_blocking(move || {
            snapshot::write(&snapshots, &state.meta(), &state.image).map(drop)
        });
        let written = written.await.map_err(|ended| ended.to_string())?;
        written.map_err(|error| error.to_string())
    }

    /// The leader, once it is not this member.
    async fn leader_elsewhere(&self) -> Result<Member, String> {
        let mut status = self.status.clone();
        let leads = status.borrow_and_update().role == Role::Leader;
        if leads {
            self.step_down().await?;
        }
        let other = |status: &RaftStatus| {
            let leader = status.leader.as_ref().map(|leader| leader.id);
            leader.is_some_and(|leader| leader != status.id)
        };
        let found = timeout(PATIENCE, status.wait_for(other)).await;
        let found = found.map_err(|_| "no other member leads".to_owned())?;
        let status = found.map_err(|gone| gone.to_string())?;
        let leader = status
            .leader
            .as_ref()
            .and_then(|leader| status.member(leader.id));
        leader
            .cloned()
            .ok_or_else(|| "the leader is no member".to_owned())
    }

    async fn step_down(&self) -> Result<(), String> {
        let to = {
            let status = self.status.borrow();
            let votes = |id| status.voters.iter().any(|voter| voter.id == id);
            let others = status.matched.iter().filter(|(id, _)| votes(*id));
            others
                .max_by_key(|(_, matched)| *matched)
                .map(|(id, _)| *id)
        };
        let to = to.ok_or_else(|| "nobody else can lead".to_owned())?;
        let asked = self.raft.trigger().transfer_leader(to).await;
        asked.map_err(|fatal| fatal.to_string())
    }

    /// Takes the leader's state, as a snapshot that this member keeps.
    async fn fetch(&self, leader: &Member) -> Result<State, String> {
        let told = |status: tonic::Status| status.message().to_owned();
        let (mut client, address) = self.calls.to(leader)?;
        let chunks = client.fetch_state(address.request(pb::FetchStateRequest {}));
        let chunks = chunks.await.map_err(told)?.into_inner();
        let received = snapshot::receive(chunks, &self.snapshots, |_: &VoteId| {}).await;
        let (_, received) = received.map_err(told)?;
        // What this log will never hold must not be found beside it after a crash.
        self.log
            .barrier()
            .await
            .map_err(|error| error.to_string())?;
        let snapshots = self.snapshots.clone();
        let read = tokio::task::spawn_blocking(move || {
            State::of_snapshot(&snapshot::keep(&snapshots, received.snapshot)?)
        });
        let read = read.await.map_err(|ended| ended.to_string())?;
        read.map_err(|error: io::Error| error.to_string())
    }
}

/// The messages that carry `state`, as a snapshot's: head, blocks, and an end with their checksum.
pub(crate) fn chunks(
    vote: &VoteId,
    state: State,
) -> impl futures_util::Stream<Item = pb::SnapshotChunk> + Send + use<> {
    let head = pb::SnapshotHead {
        vote: Some(wire::vote_to_pb(vote)),
        meta: Some(wire::meta_to_pb(&state.meta())),
    };
    let (chunks, receiver) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let out = Pieces {
            chunks,
            piece: BytesMut::new(),
            checksum: Checksum::default(),
        };
        // The receiver went away: then nothing is left to do.
        let _ = out.send(head, &state);
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver).boxed()
}

/// Hands what is written to the network, piece by piece.
struct Pieces {
    chunks: mpsc::Sender<pb::SnapshotChunk>,
    piece: BytesMut,
    checksum: Checksum,
}

impl Pieces {
    fn send(mut self, head: pb::SnapshotHead, state: &State) -> io::Result<()> {
        self.put(Part::Head(head))?;
        snapshot::write_records(&state.image, &mut self)?;
        self.flush()?;
        let end = std::mem::take(&mut self.checksum).end();
        self.put(Part::End(end))
    }

    fn put(&self, part: Part) -> io::Result<()> {
        let chunk = pb::SnapshotChunk { part: Some(part) };
        let sent = self.chunks.blocking_send(chunk);
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece: Bytes = self.piece.split().freeze();
        self.checksum.add(&piece);
        self.put(Part::Data(piece))
    }
}
