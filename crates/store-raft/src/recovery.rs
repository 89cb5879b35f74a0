//! What a node starts from.
//!
//! Owns the choice between rows and snapshot, and the tale of what was damaged. The log is replayed
//! on top of it by openraft. Never goes on from a state that the log does not reach.

use std::io;

use store_disk::{DataDir, Doubt, Rows, RowsError, SnapshotStore, Wal};

use crate::machine::State;
use crate::rows::{InRows, state_of};

/// Where a store's state came from when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// There was none: a new node.
    Nothing,
    /// The applied rows.
    Rows,
    /// A snapshot.
    Snapshot,
}

/// How a store found its state when it started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Where the state came from; the log was replayed on top.
    pub source: Source,
    /// Up to which log entry that source went; 0 for none.
    pub index: u64,
    /// What was damaged, and was rebuilt or done without.
    pub damage: Vec<String>,
}

/// What is told of rows that were not read, because they were known to be wrong.
const DOUBTED: &str = "the rows are of a state that differed from the other members'; rebuilt them \
                       from snapshot and log";

/// Why a state cannot be had from this disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error(
        "neither rows nor a snapshot reach the log, which begins at entry {first} (they end at {index}); \
         move the data directory away and start the node with --join: it returns as a new member \
         and gets the data from the others"
    )]
    Gap { index: u64, first: u64 },
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error("cannot read the snapshots: {0}; check the disk and its mount")]
    Io(#[from] io::Error),
}

/// What recovery hands over.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) rows: Rows,
    /// The state that the rows hold, if they hold the one to start from.
    pub(crate) in_rows: Option<InRows>,
    pub(crate) recovery: Recovery,
    /// Whether the state was found to be wrong before, and must come from another member.
    pub(crate) in_doubt: bool,
}

/// Finds the newest state: the rows', or the newest snapshot's. Blocks.
pub(crate) fn recover(
    data: &DataDir,
    snapshots: &SnapshotStore,
    wal: &Wal,
) -> Result<Recovered, RecoveryError> {
    let damaged = snapshots.damaged().into_iter();
    let mut damage: Vec<String> = damaged
        .map(|it| {
            format!(
                "{}: {}; used an older snapshot",
                it.path.display(),
                it.fault
            )
        })
        .collect();
    let doubt = Doubt::load(data)?;
    if doubt.is_some() {
        damage.push(DOUBTED.to_owned());
        Rows::wipe(data)?;
    }
    if doubt == Some(Doubt::Rows) {
        Doubt::clear(data)?;
    }
    let (rows, in_rows) = open_rows(data, &mut damage)?;
    let snapshot = snapshots.newest();
    let snapshot_index = snapshot.as_ref().map_or(0, store_disk::Snapshot::index);
    let rows_index = in_rows.as_ref().map_or(0, |it| it.state.applied_index());

    let (state, source, in_rows) = match (in_rows, snapshot) {
        (Some(in_rows), _) if rows_index >= snapshot_index => {
            (in_rows.state.clone(), Source::Rows, Some(in_rows))
        }
        (_, Some(snapshot)) => (State::of_snapshot(&snapshot)?, Source::Snapshot, None),
        (_, None) => (State::empty(), Source::Nothing, None),
    };
    let index = state.applied_index();
    check_reach(index, wal)?;
    for fault in &damage {
        tracing::warn!(fault, "found damage, and recovered");
    }
    let recovery = Recovery {
        source,
        index,
        damage,
    };
    Ok(Recovered {
        state,
        rows,
        in_rows,
        recovery,
        in_doubt: doubt == Some(Doubt::State),
    })
}

fn open_rows(
    data: &DataDir,
    damage: &mut Vec<String>,
) -> Result<(Rows, Option<InRows>), RecoveryError> {
    let fault = match Rows::open(data) {
        Ok((rows, loaded)) => match state_of(loaded) {
            Ok(in_rows) => return Ok((rows, in_rows)),
            Err(fault) => fault,
        },
        Err(error @ RowsError::Io { .. }) => return Err(error.into()),
        Err(error @ (RowsError::Unfinished { .. } | RowsError::Damaged { .. })) => {
            error.to_string()
        }
    };
    damage.push(format!("{fault}; rebuilt them from snapshot and log"));
    Rows::wipe(data)?;
    let (rows, _) = Rows::open(data)?;
    Ok((rows, None))
}

/// The state must touch the log, or nothing can be replayed on it.
fn check_reach(index: u64, wal: &Wal) -> Result<(), RecoveryError> {
    let purged = wal.state().purged.map_or(0, |purged| purged.index);
    if index >= purged {
        Ok(())
    } else {
        Err(RecoveryError::Gap {
            index,
            first: purged + 1,
        })
    }
}
