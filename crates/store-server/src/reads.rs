//! Linearizable reads on any node.
//!
//! Owns the way to the leader's read index. On a follower one call serves all readers who asked
//! before it was sent. Never reads a lease, never reads a clock to decide what is fresh.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use store_api::errors;
use store_mvcc::Image;
use store_raft::{ReadError, Role, Store};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use crate::damaged;
use crate::leader_calls::LeaderCalls;
use crate::limits::Limits;
use crate::patience::Patience;

/// Reads of this node. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Reads {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    leader: Arc<LeaderCalls>,
    limits: Limits,
    /// The call that is still to be sent; whoever asks now shares it.
    next: Mutex<Option<Round>>,
    /// One call is under way at a time; those who ask meanwhile gather for the next.
    turn: tokio::sync::Mutex<()>,
}

/// A read index that many wait for.
type Round = Shared<BoxFuture<'static, Result<u64, Status>>>;

impl Reads {
    pub(crate) fn new(store: Store, leader: Arc<LeaderCalls>, limits: Limits) -> Self {
        let (next, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        Self {
            inner: Arc::new(Inner {
                store,
                leader,
                limits,
                next,
                turn,
            }),
        }
    }

    /// The newest image of this node, which may lack what it has not applied yet.
    pub(crate) fn here(&self) -> Image {
        self.inner.store.image()
    }

    /// An image that has everything that was acknowledged, by whichever node, before this call.
    ///
    /// # Errors
    /// `Unavailable` when no leader answered in time.
    pub(crate) async fn linearizable(&self, patience: Patience) -> Result<Image, Status> {
        let store = &self.inner.store;
        damaged::check(store)?;
        let deadline = Instant::now() + self.inner.limits.request_deadline;
        let mut status = store.status_watch();
        loop {
            let (role, leader) = {
                let status = status.borrow_and_update();
                (status.role, status.leader.clone())
            };
            let attempt = match role {
                Role::Stopped => return Err(errors::stopped()),
                Role::Leader => store.read_barrier().await.map_err(read_error),
                _ if leader.is_none() => Err(errors::no_leader()),
                _ => {
                    // One that has gone may be asked in vain for long after there is another.
                    let other = status.wait_for(|now| (now.role, &now.leader) != (role, &leader));
                    tokio::select! {
                        attempt = self.follow(deadline) => attempt,
                        Ok(_) = other => Err(errors::leader_changed()),
                    }
                }
            };
            match attempt {
                Ok(()) => {
                    let image = store.image();
                    damaged::check(store)?;
                    return Ok(image);
                }
                // Reads change nothing, so any doubt is worth another try.
                Err(error) if error.code() != Code::Unavailable => return Err(error),
                Err(error) if patience.is_over() => return Err(error),
                Err(_) => {}
            }
            let news = status.wait_for(|now| (now.role, &now.leader) != (role, &leader));
            let _ = timeout_at(patience.next_look(), news).await;
        }
    }

    /// Learns the leader's read index, and waits until this node has applied that far.
    async fn follow(&self, deadline: Instant) -> Result<(), Status> {
        let round = self.join_round(deadline);
        let index = round.await?;
        self.inner
            .store
            .wait_applied(index)
            .await
            .map_err(read_error)
    }

    fn join_round(&self, deadline: Instant) -> Round {
        let mut next = self
            .inner
            .next
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        next.get_or_insert_with(|| {
            let inner = self.inner.clone();
            async move {
                let _turn = inner.turn.lock().await;
                // From here on nobody can join, so the call is younger than all who wait for it.
                inner
                    .next
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                let leader = inner.store.status_watch().borrow().leader.clone();
                let leader = leader.ok_or_else(errors::no_leader)?;
                inner.leader.read_index(&leader, deadline).await
            }
            .boxed()
            .shared()
        })
        .clone()
    }
}

fn read_error(error: ReadError) -> Status {
    match error {
        ReadError::NotLeader { .. } => errors::leader_changed(),
        ReadError::TimedOut(text) => {
            tracing::debug!(text, "a linearizable read timed out");
            errors::timeout()
        }
        ReadError::Overloaded => errors::too_many_requests(),
        ReadError::Stopped => errors::stopped(),
    }
}
