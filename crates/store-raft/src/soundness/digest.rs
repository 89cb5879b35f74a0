//! What a state comes to in a few bytes, to compare members by.
//!
//! Owns the form of the digest, and the pace at which it is made: the state is an image, so nothing
//! waits for it, and most of a core is left to others. It covers all that a snapshot has: keys with
//! their history, leases, users, counters, members, the place in the log. What an image keeps beside
//! that only to find things faster shows once it has led to a wrong row. Counted sizes are left out:
//! they depend on the build, and members of two builds must not take each other for damaged.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Instant;

use crc32fast::Hasher;
use prost::Message;
use tokio::sync::watch;

use crate::machine::State;
use crate::{snapshot, wire};

/// How the digest is made. A new number whenever equal states come to other digests.
const FORM: u32 = 1;

/// After so many bytes the walk over a state rests,
const STRIDE_BYTES: usize = 2 << 20;
/// for so many times as long as they took: a fifth of a core.
const REST: u32 = 4;

/// Digests that are kept for those who ask.
const KEPT: usize = 4;

/// The digest of a state as of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Digest {
    pub(crate) index: u64,
    pub(crate) form: u32,
    pub(crate) crc32: u32,
    pub(crate) length: u64,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x} of {} bytes", self.crc32, self.length)
    }
}

impl Digest {
    /// Walks over `state`. `rest` is called now and then, and may give up. Blocks.
    pub(crate) fn of(state: &State, rest: impl FnMut() -> io::Result<()>) -> io::Result<Self> {
        let mut sum = Sum {
            crc: Hasher::new(),
            length: 0,
            stride: 0,
            rest,
        };
        sum.write_all(&wire::meta_to_pb(&state.meta()).encode_to_vec())?;
        snapshot::write_records(&state.image, &mut sum)?;
        Ok(Self {
            index: state.applied_index(),
            form: FORM,
            crc32: sum.crc.finalize(),
            length: sum.length,
        })
    }

    /// Whether digests of this form can be compared here.
    pub(crate) fn is_known(&self) -> bool {
        self.form == FORM
    }
}

struct Sum<F> {
    crc: Hasher,
    length: u64,
    /// Bytes since the last rest.
    stride: usize,
    rest: F,
}

impl<F: FnMut() -> io::Result<()>> Write for Sum<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.crc.update(bytes);
        self.length += bytes.len() as u64;
        self.stride += bytes.len();
        if self.stride >= STRIDE_BYTES {
            self.stride = 0;
            (self.rest)()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The newest digests of this member. Clones share them.
#[derive(Clone)]
pub(crate) struct Digests {
    /// Each with the count of installed states that it was made at: one that is of a state that was
    /// replaced meanwhile says nothing.
    kept: Arc<watch::Sender<VecDeque<(u64, Digest)>>>,
    states: watch::Receiver<State>,
}

impl Digests {
    pub(crate) fn new(states: watch::Receiver<State>) -> Self {
        let kept = Arc::new(watch::Sender::new(VecDeque::new()));
        Self { kept, states }
    }

    /// The newest state.
    pub(crate) fn state(&self) -> State {
        self.states.borrow().clone()
    }

    /// The digest as of entry `index`, if this member has it.
    pub(crate) fn at(&self, index: u64) -> Option<Digest> {
        let now = self.states.borrow().installs;
        let kept = self.kept.borrow();
        let mut kept = kept.iter().filter(|(installs, _)| *installs == now);
        let found = kept.find(|(_, digest)| digest.index == index);
        found.map(|(_, digest)| *digest)
    }

    /// The same, once there is one. For ever if this member never was at that entry, as when a
    /// snapshot took it beyond.
    pub(crate) async fn wait_for(&self, index: u64) -> Digest {
        let (mut news, mut states) = (self.kept.subscribe(), self.states.clone());
        loop {
            news.mark_unchanged();
            states.mark_unchanged();
            if let Some(digest) = self.at(index) {
                return digest;
            }
            let changed = tokio::select! {
                changed = news.changed() => changed,
                changed = states.changed() => changed,
            };
            if changed.is_err() {
                std::future::pending().await
            }
        }
    }

    pub(super) fn push(&self, installs: u64, digest: Digest) {
        self.kept.send_modify(|kept| {
            kept.push_front((installs, digest));
            kept.truncate(KEPT);
        });
    }
}

/// Makes a digest at each checkpoint; runs until the store is gone.
pub(crate) async fn follow(checkpoints: watch::Sender<Option<State>>, digests: Digests) {
    let mut news = checkpoints.subscribe();
    // A walk ends with this task.
    let alive = Arc::new(());
    while news.changed().await.is_ok() {
        // Taken out: a state that lies here keeps old rows in memory.
        let mut taken = None;
        checkpoints.send_if_modified(|newest| {
            taken = newest.take();
            false
        });
        let Some(state) = taken else { continue };
        let (installs, alive) = (state.installs, Arc::downgrade(&alive));
        let walk = tokio::task::spawn_blocking(move || walk(&state, &alive));
        let Ok(Ok(digest)) = walk.await else { return };
        digests.push(installs, digest);
    }
}

fn walk(state: &State, alive: &Weak<()>) -> io::Result<Digest> {
    let mut begun = Instant::now();
    Digest::of(state, || {
        if alive.strong_count() == 0 {
            // Anything but an interruption, which a writer's caller tries again.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        thread::sleep(begun.elapsed() * REST);
        begun = Instant::now();
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use store_mvcc::{Command, GrantOp, Image, Machine, Proposal, PutOp, TickOp};

    use super::*;

    fn digest(image: Image) -> Digest {
        let state = State {
            image,
            ..State::empty()
        };
        Digest::of(&state, || Ok(())).unwrap()
    }

    fn machine(value: &'static str) -> Machine {
        let mut machine = Machine::new();
        apply(&mut machine, Command::Put(PutOp::new("a", value)));
        apply(&mut machine, Command::Put(PutOp::new("a", "newest")));
        machine
    }

    fn apply(machine: &mut Machine, command: Command) {
        machine.apply(&Proposal::new(command)).result.unwrap();
    }

    #[test]
    fn equal_states_have_equal_digests_however_they_came_about() {
        let image = machine("v").image();
        let rebuilt = Image::from_rows(image.meta(), image.rows().cloned(), []).unwrap();
        assert_eq!(digest(image), digest(rebuilt));
    }

    /// Another text here takes a new `FORM`: else members of two builds take each other for damaged.
    #[test]
    fn a_form_says_the_same_of_a_state_in_every_build() {
        let told = digest(machine("v").image()).to_string();
        assert_eq!((FORM, told.as_str()), (1, "e5883250 of 57 bytes"));
    }

    #[test]
    fn every_part_of_a_state_counts() {
        let mut seen = vec![digest(Image::default()), digest(machine("v").image())];
        let mut note = |machine: &Machine| {
            let digest = digest(machine.image());
            assert!(!seen.contains(&digest), "after {} others", seen.len());
            seen.push(digest);
        };
        // Only the past differs.
        note(&machine("w"));
        let mut machine = machine("v");
        let (id, ttl, age_ms) = (7, 60, 0);
        apply(&mut machine, Command::Grant(GrantOp { id, ttl, age_ms }));
        note(&machine);
        let (from_ms, advance_ms, term) = (0, 500, 0);
        apply(
            &mut machine,
            Command::Tick(TickOp {
                from_ms,
                advance_ms,
                term,
            }),
        );
        note(&machine);
        apply(&mut machine, Command::Compact { revision: 3 });
        note(&machine);
    }

    #[test]
    fn a_walk_whose_store_is_gone_ends() {
        let mut machine = Machine::new();
        let value = vec![b'x'; STRIDE_BYTES];
        let put = PutOp {
            key: "a".into(),
            value: value.into(),
            ..PutOp::default()
        };
        apply(&mut machine, Command::Put(put));
        let state = State {
            image: machine.image(),
            ..State::empty()
        };
        let alive = Arc::new(());
        assert!(walk(&state, &Arc::downgrade(&alive)).is_ok());
        let gone = Arc::downgrade(&alive);
        drop(alive);
        assert!(walk(&state, &gone).is_err());
    }
}
