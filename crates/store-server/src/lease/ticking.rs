//! The leader's share in lease time: what it adds to lease commands, and the task that ticks.
//!
//! Owns the stopwatch of this node. A tick is a proposal like others: one of a leader that was
//! deposed or hears no quorum is not committed, so it ends no lease.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lifecycle::Shutdown;
use store_mvcc::{Command, GrantOp, Image, KeepAliveOp, Proposal, Response};
use store_raft::{RaftStatus, Role, Store};

use super::stopwatch::{Step, Stopwatch};
use crate::limits::Limits;

/// How often it is looked whether there is something to count.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The pause after a tick that was not committed.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// This node's share in lease time. A clone shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseTime {
    stopwatch: Arc<Mutex<Stopwatch>>,
}

impl LeaseTime {
    /// Fills in what a lease command needs from the leader: the time of its arrival, and of a new
    /// lease the id, if none was asked for, and the least time to live.
    pub(crate) fn stamp(&self, command: Command, image: &Image, limits: &Limits) -> Command {
        let age_ms = self.lock().age_ms(Instant::now());
        match command {
            Command::Grant(op) => Command::Grant(GrantOp {
                id: if op.id == 0 { free_id(image) } else { op.id },
                ttl: op.ttl.max(limits.lease_ttl_min),
                age_ms,
            }),
            Command::KeepAlive(op) => Command::KeepAlive(KeepAliveOp { age_ms, ..op }),
            other => other,
        }
    }

    /// Ticks while this node leads and there are leases; runs until this node stops.
    pub(crate) async fn run(self, store: Store, mut shutdown: Shutdown) {
        let mut status = store.status_watch();
        loop {
            let term = leading_term(&status.borrow_and_update());
            let now = Instant::now();
            let pause = match self.look(term, &store.image(), now) {
                Next::Propose(step) => {
                    tokio::select! {
                        pause = self.tick(&store, step) => pause,
                        () = shutdown.requested() => return,
                    }
                }
                Next::Wait(pause) => pause,
            };
            let turned = status.wait_for(|now| leading_term(now) != term);
            tokio::select! {
                _ = tokio::time::timeout(pause, turned) => {}
                () = shutdown.requested() => return,
            }
        }
    }

    /// What to do now, if this node leads in `term`.
    fn look(&self, term: Option<u64>, image: &Image, now: Instant) -> Next {
        let mut stopwatch = self.lock();
        let Some((term, first)) = term.zip(image.first_lease_to_end()) else {
            stopwatch.stop();
            return Next::Wait(LOOK_EVERY);
        };
        stopwatch.see(term, image.meta().lease_clock_ms, now);
        match (stopwatch.due(first.expires_at_ms), stopwatch.step(now)) {
            (Some(due), Some(step)) if due <= now => Next::Propose(step),
            (due, _) => Next::Wait(due.map_or(LOOK_EVERY, |due| due - now)),
        }
    }

    /// Proposes a tick; returns how long to wait then.
    async fn tick(&self, store: &Store, step: Step) -> Duration {
        let outcome = store.propose(&Proposal::own(Command::Tick(step.op))).await;
        match outcome.map(|outcome| outcome.result) {
            Ok(Ok(Response::Tick(result))) => {
                self.lock().stepped(step, result, Instant::now());
                if result.ended > 0 {
                    tracing::debug!(leases = result.ended, more = result.more, "leases ended");
                }
                Duration::ZERO
            }
            // If it is committed after all, the clock is no longer where the next one begins.
            outcome => {
                tracing::debug!(?outcome, "lease time stands still");
                RETRY_AFTER
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stopwatch> {
        self.stopwatch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The term that this node leads in, if it leads.
fn leading_term(status: &RaftStatus) -> Option<u64> {
    (status.role == Role::Leader).then_some(status.term)
}

enum Next {
    Propose(Step),
    Wait(Duration),
}

/// A positive id that no lease has.
fn free_id(image: &Image) -> i64 {
    loop {
        let id = rand::random::<i64>() & i64::MAX;
        if id != 0 && image.lease(id).is_none() {
            return id;
        }
    }
}
