//! Whether this member's applied state is the one that the log makes.
//!
//! Owns what is known of that, and the mark of it on the disk. The members find it out by comparing
//! digests of their states as of one entry (`comparison`); a member that differs from a majority
//! answers nothing from its state until it has another's (`healing`). Never touches log and vote:
//! what is damaged is what was made of the log, so the member goes on voting and storing entries.

pub(crate) mod comparison;
pub(crate) mod digest;
pub(crate) mod healing;

use std::time::{SystemTime, UNIX_EPOCH};

use store_disk::{DataDir, Doubt};
use tokio::sync::watch;

use self::digest::{Digest, Digests};

/// What is known of the soundness of this member's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Soundness {
    /// This member's state differs from the one that a majority has: what was found, and what
    /// happens now. Nothing is answered from the state while this is said.
    pub damage: Option<String>,
    /// Members differ and no majority agrees: what was found, and what to do.
    pub undecided: Option<String>,
    /// The last entry as of which this member's state was what a majority has; 0 for none yet.
    pub agreed: u64,
    /// When that was found, in seconds since 1970; 0 for never since the start.
    pub agreed_unix: u64,
    /// How often this member got another's state in place of its own since the start.
    pub heals: u64,
}

/// What is said while the state is damaged.
const REMEDY: &str = "this member answers nothing from its state until it has that of the leader, \
                      which it gets by itself; should that come again, look at this machine's memory";

/// What is said of a state that was found damaged before a restart.
const BEFORE: &str = "the applied state was found to differ from the other members' before the \
                      restart";

/// Keeps the [`Soundness`] of one store.
pub(crate) struct Keeper {
    known: watch::Sender<Soundness>,
    digests: Digests,
    data: DataDir,
}

impl Keeper {
    /// `in_doubt`: the state was found damaged before, and is still the same.
    pub(crate) fn new(data: DataDir, digests: Digests, in_doubt: bool) -> Self {
        let damage = in_doubt.then(|| format!("{BEFORE}; {REMEDY}"));
        let known = watch::Sender::new(Soundness {
            damage,
            ..Soundness::default()
        });
        Self {
            known,
            digests,
            data,
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Soundness> {
        self.known.subscribe()
    }

    pub(crate) fn damage(&self) -> Option<String> {
        self.known.borrow().damage.clone()
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.known.borrow().damage.is_some()
    }

    pub(crate) fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Hears that a majority of the voters has `digest`.
    pub(crate) async fn hear_agreed(&self, digest: Digest) {
        let Some(own) = self.digests.at(digest.index) else {
            return;
        };
        if own == digest {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            self.known.send_modify(|known| {
                known.undecided = None;
                known.agreed = digest.index;
                known.agreed_unix = now.map_or(0, |since| since.as_secs());
            });
        } else if own.form == digest.form {
            self.condemn(&own, &digest).await;
        }
    }

    /// Hears that members differ and nobody can tell who is right.
    pub(crate) fn hear_undecided(&self, text: String) {
        tracing::error!(fault = text, "the members' states differ");
        self.known.send_modify(|known| known.undecided = Some(text));
    }

    async fn condemn(&self, own: &Digest, agreed: &Digest) {
        let text = format!(
            "the applied state differs from the one that a majority has as of log entry {} (digest \
             {own}, theirs {agreed}); {REMEDY}",
            agreed.index
        );
        let news = self.known.send_if_modified(|known| {
            let news = known.damage.is_none();
            known.damage.get_or_insert_with(|| text.clone());
            known.undecided = None;
            news
        });
        if !news {
            return;
        }
        tracing::error!(
            fault = text,
            "this member is damaged and takes itself out until it is healed"
        );
        if let Err(error) = self.mark(Doubt::State).await {
            // It is out all the same; only a restart would forget it, until the next comparison.
            tracing::error!(%error, "the damage cannot be noted on the disk");
        }
    }

    /// This member has another's state now, and a snapshot of it.
    pub(crate) async fn healed(&self) -> std::io::Result<()> {
        // The rows on the disk follow a moment later.
        self.mark(Doubt::Rows).await?;
        self.known.send_modify(|known| {
            known.damage = None;
            known.heals += 1;
        });
        Ok(())
    }

    async fn mark(&self, doubt: Doubt) -> std::io::Result<()> {
        let data = self.data.clone();
        let saved = tokio::task::spawn_blocking(move || doubt.save(&data));
        saved
            .await
            .unwrap_or_else(|ended| Err(std::io::Error::other(ended)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::State;

    #[tokio::test]
    async fn what_is_found_is_on_the_disk_until_it_is_healed() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let state = State::empty();
        let states = watch::Sender::new(state.clone());
        let own = Digest::of(&state, || Ok(())).unwrap();
        let digests = Digests::new(states.subscribe());
        digests.push(state.installs, own);
        let keeper = Keeper::new(data.clone(), digests, false);
        keeper.hear_agreed(own).await;
        assert!(!keeper.is_damaged());
        assert_eq!(Doubt::load(&data).unwrap(), None);
        let length = own.length + 1;
        keeper.hear_agreed(Digest { length, ..own }).await;
        assert!(keeper.is_damaged());
        assert_eq!(Doubt::load(&data).unwrap(), Some(Doubt::State));
        keeper.healed().await.unwrap();
        assert!(!keeper.is_damaged());
        assert_eq!(Doubt::load(&data).unwrap(), Some(Doubt::Rows));
    }
}
