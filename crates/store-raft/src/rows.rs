//! The applied rows on disk, behind the commit path.
//!
//! Owns what is written when, and the rebuilding of a state from what was read. Never holds a
//! commit up, never runs ahead of the durable log, and is never the only copy.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use store_api::skeinpb as pb;
use store_disk::{Loaded, Rows, RowsBatch};
use store_mvcc::{ImageBuilder, KeyValue, Row, RowId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;
use tokio::time::Instant;

use crate::auth_row;
use crate::convert;
use crate::lease_pages::{LeasePages, PageReader};
use crate::log::Durable;
use crate::machine::State;
use crate::snapshot::{image_meta_from_pb, image_meta_to_pb};
use crate::wire;

/// Changes gather so long before they are written: hot keys are written once.
const GATHER: Duration = Duration::from_millis(500);
/// At the end the log is about to hold what is applied: between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Keeps the rows close behind the newest state.
pub(crate) struct RowsTask {
    rows: Rows,
    states: watch::Receiver<State>,
    durable: Arc<Durable>,
    /// What the rows hold, once the queue is written; `None`: not what any state holds.
    written: Option<InRows>,
    /// Asks to write what there is and to end.
    end: mpsc::Receiver<()>,
}

/// What the rows hold.
#[derive(Clone)]
pub(crate) struct InRows {
    pub(crate) state: State,
    pages: LeasePages,
}

impl RowsTask {
    pub(crate) fn new(
        rows: Rows,
        states: watch::Receiver<State>,
        durable: Arc<Durable>,
        written: Option<InRows>,
        end: mpsc::Receiver<()>,
    ) -> Self {
        Self {
            rows,
            states,
            durable,
            written,
            end,
        }
    }

    /// Runs until the state machine is gone, or until it is asked to end: then the rows hold the
    /// newest state that the log holds, too.
    pub(crate) async fn run(mut self) {
        loop {
            // What waits for the log is looked at again; otherwise only news are.
            let waits = !self.catch_up().await && self.is_behind();
            let news = async {
                tokio::time::sleep(GATHER).await;
                waits || self.states.changed().await.is_ok()
            };
            tokio::select! {
                more = news => if !more {
                    return;
                },
                _ = self.end.recv() => break,
            }
        }
        // What is applied is about to be durable, unless the disk failed.
        let last_look = Instant::now() + GATHER;
        while !self.catch_up().await && self.is_behind() && Instant::now() < last_look {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let rows = self.rows.clone();
        // Only a runtime that ends cancels it.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || rows.flush()).await {
            tracing::warn!(%error, "the applied rows are behind");
        }
    }

    /// Queues the newest state, if there is a newer one and the log holds it.
    async fn catch_up(&mut self) -> bool {
        let state = self.states.borrow_and_update().clone();
        let due = self.is_due(&state);
        if due {
            let rows = self.rows.clone();
            let from = self.written.take();
            // Off the runtime: it blocks while too much is pending.
            let write = tokio::task::spawn_blocking(move || write(&rows, from, state));
            match write.await.map_err(JoinError::try_into_panic) {
                Ok(written) => self.written = Some(written),
                // Its panic is this task's, so that the store tells it; else the runtime ends.
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                Err(Err(_)) => {}
            }
        }
        due
    }

    fn is_behind(&self) -> bool {
        let written = self
            .written
            .as_ref()
            .map(|InRows { state, .. }| (state.applied, state.installs));
        let newest = self.states.borrow();
        written != Some((newest.applied, newest.installs)) && newest.applied.is_some()
    }

    fn is_due(&self, state: &State) -> bool {
        self.is_behind() && self.durable.index() >= state.applied_index()
    }
}

/// Queues the way from one state to another, or all of the other.
fn write(rows: &Rows, from: Option<InRows>, to: State) -> InRows {
    let applied = applied_bytes(&to);
    let pages = match from.filter(|from| from.state.installs == to.installs) {
        Some(InRows { state, mut pages }) => {
            let delta = to.image.delta_since(&state.image);
            let leases = pages.follow(&state.image, &to.image);
            let auth = auth_row::follow(&state.image, &to.image);
            let puts = delta.added.iter().map(encode).chain(leases.puts);
            let puts = puts.chain(auth).collect();
            let deletes = delta.removed.into_iter().map(key);
            let deletes = deletes.chain(leases.deletes).collect();
            rows.write(RowsBatch {
                puts,
                deletes,
                applied,
            });
            pages
        }
        None => {
            let mut pages = LeasePages::default();
            let leases = pages.tell_anew(&to.image).puts;
            let all: Vec<Row> = to.image.rows().cloned().collect();
            let all = all.into_iter().map(|row| encode(&row));
            let auth = auth_row::tell(&to.image);
            rows.rebuild(all.chain(leases).chain(auth), applied);
            pages
        }
    };
    InRows { state: to, pages }
}

fn applied_bytes(state: &State) -> Bytes {
    let applied = pb::AppliedState {
        raft: Some(wire::meta_to_pb(&state.meta())),
        image: Some(image_meta_to_pb(state.image.meta())),
    };
    applied.encode_to_vec().into()
}

fn encode(row: &Arc<KeyValue>) -> (Bytes, Bytes) {
    let value = convert::row_with_place_to_pb(row).encode_to_vec();
    (key(row.id()), value.into())
}

/// Orders as rows were written, which is the order that a rebuild needs.
fn key(id: RowId) -> Bytes {
    // Revisions are positive, so their bytes order as they do.
    [&id.revision.to_be_bytes()[..], &id.sub.to_be_bytes()[..]]
        .concat()
        .into()
}

/// The state that loaded rows hold; `None` if there are none. The error says what is wrong.
pub(crate) fn state_of(loaded: Loaded) -> Result<Option<InRows>, String> {
    let Some(applied) = loaded.applied else {
        return Ok(None);
    };
    let text = |error: &dyn std::fmt::Display| format!("the rows are damaged: {error}");
    let applied = pb::AppliedState::decode(applied).map_err(|error| text(&error))?;
    let missing = || text(&"the position is incomplete");
    let meta = wire::meta_from_pb(applied.raft.ok_or_else(missing)?).map_err(|e| text(&e))?;
    let image = image_meta_from_pb(applied.image.ok_or_else(missing)?).map_err(|e| text(&e))?;
    let mut builder = ImageBuilder::new(image);
    let mut pages = PageReader::default();
    for (key, value) in loaded.rows {
        if auth_row::is(&key) {
            builder.set_auth(auth_row::read(value).map_err(|error| text(&error))?);
            continue;
        }
        if LeasePages::is_page(&key) {
            pages.push(&key, value).map_err(|error| text(&error))?;
            continue;
        }
        let row = pb::Row::decode(value).map_err(|error| text(&error))?;
        let row = convert::row_from_pb(row).map_err(|error| text(&error))?;
        builder.push(row).map_err(|error| text(&error))?;
    }
    let (leases, pages) = pages.finish();
    for lease in leases {
        builder.push_lease(lease).map_err(|error| text(&error))?;
    }
    let state = State {
        image: builder.finish().map_err(|error| text(&error))?,
        applied: meta.last_log_id,
        membership: Arc::new(meta.last_membership),
        bytes: 0,
        installs: 0,
    };
    Ok(Some(InRows { state, pages }))
}
