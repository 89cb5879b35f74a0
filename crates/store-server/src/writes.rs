//! Every write of this node, whoever makes it: the client port, the control service, a follower.
//!
//! Owns the way to the leader: here, or forwarded, until the deadline. Goes on after a failure only
//! if surely nothing was proposed, and says in each error whether that is so.

use std::sync::Arc;

use store_api::errors;
use store_api::verdict::Proposed;
use store_mvcc::{Caller, Command, Outcome, Proposal};
use store_raft::{Leader, ProposeError, Role, Store, Unfit, check_fit};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::access::Access;
use crate::answer::{Answer, Written, command_error};
use crate::damaged;
use crate::history;
use crate::lane::Lane;
use crate::leader_calls::LeaderCalls;
use crate::lease::LeaseTime;
use crate::limits::Limits;
use crate::patience::Patience;
use crate::quota::Quota;
use crate::refusal::Admission;
use crate::reserved::{Route, route};
use crate::versions::Versions;

/// The way into the log. A clone is another handle.
#[derive(Clone)]
pub struct Writes {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    lane: Lane,
    versions: Versions,
    quota: Quota,
    leader: Arc<LeaderCalls>,
    access: Access,
    lease_time: LeaseTime,
    limits: Limits,
}

/// How many operations a transaction may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TxnSize {
    /// etcd's limit, for clients.
    Clients,
    /// As many as fit into a proposal, for Skein's own.
    Own,
}

/// Why an attempt gave no outcome.
#[derive(Debug, Clone)]
pub(crate) enum WriteError {
    /// Surely not proposed, and the leader may do it: this one if it is known.
    Elsewhere(Option<Leader>),
    /// What the client gets. Its metadata says whether the command was proposed.
    Final(Status),
}

impl From<ProposeError> for WriteError {
    fn from(error: ProposeError) -> Self {
        Self::Final(match error {
            ProposeError::NotLeader { leader } => return Self::Elsewhere(leader),
            // The others may be slow for a moment, or about to elect another.
            ProposeError::NoQuorum => return Self::Elsewhere(None),
            ProposeError::Overloaded => Proposed::No.mark(errors::too_many_requests()),
            ProposeError::Unfit(unfit) => refusal_of(unfit),
            ProposeError::NotProposed(text) => {
                Proposed::No.mark(Status::unavailable(format!("skein: {text}")))
            }
            ProposeError::OutcomeUnknown(text) => {
                tracing::debug!(text, "a write has no known outcome");
                Proposed::Unknown.mark(errors::timeout())
            }
            ProposeError::Stopped => Proposed::No.mark(errors::stopped()),
        })
    }
}

/// What the sender of a command that no node can propose gets.
fn refusal_of(unfit: Unfit) -> Status {
    Proposed::No.mark(match unfit {
        Unfit::TooLarge(_) => errors::request_too_large(),
        Unfit::TooDeep => Status::invalid_argument(format!("skein: {unfit}")),
    })
}

impl Writes {
    pub(crate) fn new(
        admission: Arc<dyn Admission>,
        versions: Versions,
        leader: Arc<LeaderCalls>,
        access: Access,
        lease_time: LeaseTime,
        limits: Limits,
    ) -> Self {
        let store = access.store().clone();
        let lane = Lane::new(admission);
        let quota = Quota::new(limits.quota_bytes, store.images());
        Self {
            inner: Arc::new(Inner {
                store,
                lane,
                versions,
                quota,
                leader,
                access,
                lease_time,
                limits,
            }),
        }
    }

    /// The bound on what is stored.
    pub(crate) fn quota(&self) -> &Quota {
        &self.inner.quota
    }

    /// Gets a command of `caller` committed and applied, through whichever node leads, and waits for its
    /// outcome (on this node, if it leads; otherwise on the leader). Commands below `/skein/` are
    /// admitted on the way. A transaction may have any number of operations. What the caller may not is
    /// refused before it is proposed, and again when it is applied.
    ///
    /// # Errors
    /// etcd's errors, `skein: config refused: …`, and for lack of a leader `Unavailable`. The
    /// metadata `skein-proposed` ([`Proposed::of`]) tells what is known where that is in doubt.
    pub async fn submit(
        &self,
        caller: &Caller,
        command: Command,
        patience: Patience,
    ) -> Result<Written, Status> {
        self.submit_sized(caller, command, TxnSize::Own, patience)
            .await
    }

    /// As [`Writes::submit`], with the limit that `size` means.
    pub(crate) async fn submit_sized(
        &self,
        caller: &Caller,
        command: Command,
        size: TxnSize,
        patience: Patience,
    ) -> Result<Written, Status> {
        let ops_max = match size {
            TxnSize::Clients => self.inner.limits.txn_ops,
            TxnSize::Own => usize::MAX,
        };
        command
            .check(ops_max)
            .map_err(|error| Proposed::No.mark(command_error(&error)))?;
        // Before anybody looks for a leader, who could do nothing about it.
        let proposal = Proposal {
            caller: caller.clone(),
            ..Proposal::new(command)
        };
        check_fit(&proposal).map_err(refusal_of)?;
        damaged::check(&self.inner.store)?;
        let access = &self.inner.access;
        access.admit(caller, &proposal.command, patience).await?;
        let deadline = Instant::now() + self.inner.limits.request_deadline;
        let mut status = self.inner.store.status_watch();
        loop {
            let (role, leader) = {
                let status = status.borrow_and_update();
                (status.role, status.leader.clone())
            };
            let attempt = match (role, &leader) {
                (Role::Stopped, _) => return Err(Proposed::No.mark(errors::stopped())),
                (Role::Leader, _) => {
                    self.submit_here(caller.clone(), proposal.command.clone())
                        .await
                }
                (_, Some(leader)) => self.inner.leader.propose(leader, &proposal, deadline).await,
                (_, None) => Err(WriteError::Elsewhere(None)),
            };
            match attempt {
                Ok(written) => return Ok(written),
                Err(WriteError::Final(status)) => return Err(status),
                Err(WriteError::Elsewhere(_)) if !patience.is_over() => {}
                Err(WriteError::Elsewhere(_)) => {
                    let late = match (role, &leader) {
                        (Role::Leader, _) => {
                            Status::unavailable(format!("skein: {}", ProposeError::NoQuorum))
                        }
                        (_, None) => errors::no_leader(),
                        (_, Some(_)) => errors::timeout(),
                    };
                    return Err(Proposed::No.mark(late));
                }
            }
            let news = status.wait_for(|now| (now.role, &now.leader) != (role, &leader));
            let _ = timeout_at(patience.next_look(), news).await;
        }
    }

    /// Admits and proposes on this node, which should lead.
    pub(crate) async fn submit_here(
        &self,
        caller: Caller,
        command: Command,
    ) -> Result<Written, WriteError> {
        let Inner {
            store,
            versions,
            quota,
            lease_time,
            limits,
            ..
        } = &*self.inner;
        let command = lease_time.stamp(command, &store.image(), limits);
        versions.admit(&command).map_err(WriteError::Final)?;
        quota.admit(&command).map_err(WriteError::Final)?;
        let route = route(&command).map_err(|refusal| WriteError::Final(refusal.to_status()))?;
        let outcome = match route {
            Route::Direct => match command {
                Command::Compact { revision } => history::compact(store, caller, revision).await?,
                command => {
                    let proposal = Proposal {
                        caller,
                        ..Proposal::new(command)
                    };
                    store.propose(&proposal).await?
                }
            },
            Route::Lane => self.inner.lane.run(store, caller, command).await?,
        };
        let Outcome {
            revision,
            config_revision,
            result,
        } = outcome;
        let response = result.map_err(|error| WriteError::Final(command_error(&error)))?;
        let answer = Answer::new(response, revision).ok_or_else(|| {
            WriteError::Final(Status::internal(
                "skein: the outcome does not fit the command",
            ))
        })?;
        Ok(Written {
            revision,
            config_revision,
            answer,
        })
    }
}
