//! The store of a node, from the moment at which it begins to open.
//!
//! Owns the words for a store that is not there. Never decides what a node does without one.

use std::sync::Arc;

use store_api::verdict::Proposed;
use store_raft::{Role, Store};
use tonic::Status;

/// For a store that ended without a word.
const SEE_LOG: &str = "a task of it ended, which its log tells; restart this node";

/// How far the store of this node is.
#[derive(Clone)]
pub(crate) enum StoreState {
    /// It reads its disk and replays its log.
    Opening,
    /// It is there, whatever may have stopped it since.
    Open(Store),
    /// It will never be there in this life of the node: why, and what to do.
    Failed(Arc<str>),
}

impl StoreState {
    /// The store, once it is open.
    pub(crate) fn store(&self) -> Option<Store> {
        match self {
            Self::Open(store) => Some(store.clone()),
            Self::Opening | Self::Failed(_) => None,
        }
    }

    /// Why nothing more will be applied here; `None` for a store that works or still opens.
    pub(crate) fn stopped(&self) -> Option<String> {
        match self {
            Self::Opening => None,
            Self::Open(store) => {
                let status = store.status();
                let stopped = status.role == Role::Stopped;
                let why = status
                    .fatal
                    .or_else(|| stopped.then(|| SEE_LOG.to_owned()))?;
                Some(format!("the store stopped: {why}"))
            }
            Self::Failed(fault) => Some(format!("the store cannot be opened: {fault}")),
        }
    }

    /// The answer to a call that needs the store while it is not there. Nothing was proposed, so
    /// the caller may ask another node at once.
    pub(crate) fn refusal(&self) -> Status {
        let why = self.stopped();
        let why = why.unwrap_or_else(|| "the store of this node is opening".to_owned());
        Proposed::No.mark(Status::unavailable(format!("skein: {why}")))
    }
}
