//! The way back after the loss of a quorum: what one node has left becomes a new mesh.
//!
//! Owns the look at a stopped node's disk, and the replacement of what is on it. Never decides that
//! a quorum is lost: that is the caller, and a person.
//!
//! All of the log counts, also entries that the node never heard to be committed: any of them may
//! have been acknowledged through the others. So nothing that was acknowledged and is on this disk
//! is lost; writes whose outcome nobody knew may turn out to have happened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use model::{MeshId, NodeId, Version};
use openraft::EntryPayload;
use openraft::storage::RaftLogStorage;
use prost::Message;
use store_api::skeinpb as pb;
use store_disk::{DataDir, FreshError, OpenError, SnapshotStore, Wal, WalOptions};
use store_mvcc::Image;

use crate::log::LogStore;
use crate::machine::{Published, StateMachine};
use crate::recovery;
use crate::renew::{RenewError, Renewed, found_from};
use crate::status::{Member, members};
use crate::store::StartError;
use crate::types::Entry;

/// How long what was opened may take to end before the disk is changed.
const END_WAIT: Duration = Duration::from_secs(30);

/// Entries that are read at one time.
const PIECE_ENTRIES: u64 = 1_000;

/// Why a disk cannot be recovered from.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The directory cannot be opened; nothing was changed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is nothing to recover.
    #[error("{0} holds no member of a mesh; there is nothing to recover")]
    NoMember(PathBuf),
    /// Log or state cannot be read.
    #[error(transparent)]
    State(#[from] StartError),
    /// The new state cannot be written. The old one still stands.
    #[error(transparent)]
    Renew(#[from] RenewError),
    /// The content was not exchanged to the end.
    #[error(transparent)]
    Exchange(#[from] FreshError),
    /// Something else still holds the directory.
    #[error("{0} is still in use within this process; nothing was changed, try again")]
    Busy(PathBuf),
}

/// What a stopped node has on its disk.
#[derive(Debug)]
pub struct Left {
    data: DataDir,
    image: Image,
    /// The node.
    pub node_id: NodeId,
    /// Its mesh.
    pub mesh_id: MeshId,
    /// The last entry in its log, and its term.
    pub last: (u64, u64),
    /// The last entry that it knew to be committed; 0 for none.
    pub committed: u64,
    /// The entries after that one.
    pub uncertain: Vec<Uncertain>,
    /// Who voted, as far as the log tells.
    pub voters: Arc<[Member]>,
    /// Who only followed.
    pub learners: Arc<[Member]>,
}

/// An entry that the node does not know to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uncertain {
    /// Its place in the log.
    pub index: u64,
    /// The term of the leader that wrote it.
    pub term: u64,
    /// How many writes it holds; 0 for Raft's own.
    pub writes: usize,
}

impl Left {
    /// Looks at a stopped node's data directory, and goes on with an exchange in it that was
    /// interrupted. Blocks.
    ///
    /// # Errors
    /// [`RecoverError`]; the node runs, or what it has cannot be used.
    pub fn find(path: &Path) -> Result<Self, RecoverError> {
        DataDir::finish_replacement(path)?;
        if !path.join("identity").exists() {
            return Err(RecoverError::NoMember(path.to_owned()));
        }
        let data = DataDir::open(path)?;
        let none = || RecoverError::NoMember(path.to_owned());
        let mesh_id = data.mesh().ok_or_else(none)?;
        let left = read(&data, mesh_id)?;
        if left.voters.is_empty() {
            return Err(none());
        }
        Ok(left)
    }

    /// The state, all of the log applied.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Makes the directory that of the only node of a new mesh, with all that is left. What was in
    /// it goes to the folder `keep` in it. Blocks.
    ///
    /// # Errors
    /// [`RecoverError`]. Before the exchange begins, the old content stands.
    pub fn renew(self, keep: &str) -> Result<Renewed, RecoverError> {
        let replacement = self.data.replacement();
        let replacement = replacement.map_err(|error| RecoverError::Renew(error.into()))?;
        let renewed = found_from(&self.image, self.last.0, &replacement)?;
        if !self.data.is_alone(END_WAIT) {
            return Err(RecoverError::Busy(self.data.path().to_owned()));
        }
        self.data.replace(keep)?;
        Ok(renewed)
    }
}

fn read(data: &DataDir, mesh_id: MeshId) -> Result<Left, StartError> {
    let (wal, _) = Wal::open(data, WalOptions::default())?;
    let snapshots = SnapshotStore::open(data)?;
    let recovered = recovery::recover(data, &snapshots, &wal)?;
    let applied = recovered.state.applied_index();
    let published = Published::new(&recovered.state);
    let mut log = LogStore::new(wal, snapshots.clone());
    let raft = |error: std::io::Error| StartError::Raft(error.to_string());
    // Nothing of it waits: it is all in memory.
    let committed = log.read_committed().now_or_never();
    let committed = committed.transpose().map_err(raft)?.flatten();
    let committed = committed.map_or(0, |id| id.index).max(applied);
    let mut machine = StateMachine::new(
        Version::THIS,
        recovered.state,
        published,
        snapshots,
        log.clone(),
    );
    let mut uncertain = Vec::new();
    let end = log.last_index().unwrap_or(applied);
    let mut next = applied + 1;
    // The very first entry is at 0.
    if machine.state().applied.is_none() {
        next = 0;
    }
    while next <= end {
        let piece = next..(end + 1).min(next + PIECE_ENTRIES);
        next = piece.end;
        for entry in log.entries(piece).map_err(raft)? {
            if entry.log_id.index > committed {
                uncertain.push(doubtful(&entry));
            }
            let applied = machine.apply_entry(entry.log_id, entry.payload);
            applied.map_err(raft)?;
        }
    }
    let state = machine.state();
    let last = state
        .applied
        .map_or((0, 0), |id| (id.index, id.leader_id.term));
    let (voters, learners) = members(&state.membership);
    Ok(Left {
        data: data.clone(),
        image: state.image,
        node_id: data.identity().node_id,
        mesh_id,
        last,
        committed,
        uncertain,
        voters,
        learners,
    })
}

fn doubtful(entry: &Entry) -> Uncertain {
    let writes = match &entry.payload {
        EntryPayload::Normal(batch) => {
            let batch = pb::Batch::decode(batch.0.clone());
            batch.map_or(0, |batch| batch.proposals.len())
        }
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    Uncertain {
        index: entry.log_id.index,
        term: entry.log_id.leader_id.term,
        writes,
    }
}
