//! The one lane for changes below `/skein/`, on the leader.
//!
//! Owns their order: admit on the newest image, propose under that image's config revision, and
//! admit anew if the config moved meanwhile. Never judges by itself.

use std::sync::Arc;

use store_api::errors;
use store_api::verdict::Proposed;
use store_mvcc::{Caller, Command, CommandError, Outcome, Proposal, touches_config};
use store_raft::Store;
use tokio::sync::{Mutex, Semaphore};
use tonic::Status;

use crate::limits::{ADMISSIONS_MAX, LANE_WAITING_MAX};
use crate::refusal::Admission;
use crate::writes::WriteError;

pub(crate) struct Lane {
    admission: Arc<dyn Admission>,
    places: Semaphore,
    turn: Mutex<()>,
}

impl Lane {
    pub(crate) fn new(admission: Arc<dyn Admission>) -> Self {
        Self {
            admission,
            places: Semaphore::new(LANE_WAITING_MAX),
            turn: Mutex::new(()),
        }
    }

    /// Waits for its turn, then admits and proposes. Dropping the future gives the turn away; what
    /// was proposed by then stays proposed, and the guard of the next one copes with it.
    pub(crate) async fn run(
        &self,
        store: &Store,
        caller: Caller,
        command: Command,
    ) -> Result<Outcome, WriteError> {
        let busy = || WriteError::Final(Proposed::No.mark(errors::too_many_requests()));
        let _place = self.places.try_acquire().map_err(|_| busy())?;
        let _turn = self.turn.lock().await;
        for _ in 0..ADMISSIONS_MAX {
            let image = store.image();
            let config_guard = touches_config(&command).then(|| image.config_revision());
            let (admission, judged) = (self.admission.clone(), command.clone());
            let verdict = tokio::task::spawn_blocking(move || admission.admit(&image, &judged));
            let verdict = verdict.await.map_err(|fault| {
                // A panic of the checks must not pass for an approval.
                let text = format!("skein: the admission check failed: {fault}; see the log");
                WriteError::Final(Proposed::No.mark(Status::internal(text)))
            })?;
            verdict.map_err(|refusal| WriteError::Final(refusal.to_status()))?;
            let proposal = Proposal {
                command: command.clone(),
                caller: caller.clone(),
                config_guard,
            };
            let outcome = store.propose(&proposal).await?;
            if !matches!(
                outcome.result,
                Err(CommandError::ConfigGuardMismatch { .. })
            ) {
                return Ok(outcome);
            }
            // An outcome is given when the published image has it, so the next round sees it.
        }
        Err(busy())
    }
}
