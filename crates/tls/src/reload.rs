//! What is made of files, in force and on disk.
//!
//! Owns the rule of replacing it: what stands stays until the files have something else that can be
//! used; what cannot is told once it is no better at a second look, for a certificate and its key
//! are two files, and one of them comes first. Never decides when to look.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files::Fault;

/// Where something comes from.
pub(crate) trait Source {
    /// What the files hold.
    type Contents: PartialEq;
    /// What is made of it.
    type Made;

    /// Reads the files.
    fn read(&self) -> Result<Self::Contents, Fault>;
    /// Checks what was read, and makes of it what comes into force. `before`: what is in force.
    fn make(
        &self,
        contents: &Self::Contents,
        before: Option<(&Self::Contents, &Self::Made)>,
    ) -> Result<Self::Made, Fault>;
    /// The names of the files, for a line in the log.
    fn shown(&self) -> String;
}

/// What is in force.
pub(crate) struct Reloaded<S: Source> {
    pub(crate) source: S,
    state: Mutex<State<S>>,
}

struct State<S: Source> {
    made: Arc<S::Made>,
    contents: Arc<S::Contents>,
    /// Why the files were no good at the last look, if so...
    doubt: Option<Fault>,
    /// ...and at the one before too.
    refused: Option<Fault>,
    reloads: u64,
}

impl<S: Source> Reloaded<S> {
    /// Reads and makes it for the first time.
    pub(crate) fn load(source: S) -> Result<Self, Fault> {
        let contents = source.read()?;
        let made = source.make(&contents, None)?;
        let state = State {
            made: Arc::new(made),
            contents: Arc::new(contents),
            doubt: None,
            refused: None,
            reloads: 0,
        };
        Ok(Self {
            source,
            state: Mutex::new(state),
        })
    }

    /// What is in force.
    pub(crate) fn made(&self) -> Arc<S::Made> {
        Arc::clone(&self.state().made)
    }

    /// How often new files came into force, and why those on disk are not, if so.
    pub(crate) fn history(&self) -> (u64, Option<Fault>) {
        let state = self.state();
        (state.reloads, state.refused.clone())
    }

    /// Looks at the files once.
    pub(crate) fn look(&self) {
        // The lock is not held while files are read and certificates checked: handshakes take it.
        let (known, in_force) = {
            let state = self.state();
            (Arc::clone(&state.contents), Arc::clone(&state.made))
        };
        let made = self.source.read().and_then(|read| {
            if read == *known {
                return Ok(None);
            }
            let made = self.source.make(&read, Some((&known, &in_force)))?;
            Ok(Some((read, made)))
        });
        let mut state = self.state();
        match made {
            Ok(None) => state.all_is_well(),
            Ok(Some((contents, made))) => {
                state.made = Arc::new(made);
                state.contents = Arc::new(contents);
                state.reloads += 1;
                state.all_is_well();
                tracing::info!(files = self.source.shown(), "new certificates are in force");
            }
            Err(fault) => {
                let again = state.doubt.as_ref() == Some(&fault);
                if again && state.refused.as_ref() != Some(&fault) {
                    tracing::error!(%fault, "the new certificates cannot be used; the old ones stay in force");
                    state.refused = Some(fault.clone());
                }
                state.doubt = Some(fault);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Source> State<S> {
    fn all_is_well(&mut self) {
        self.doubt = None;
        self.refused = None;
    }
}
