//! The log against a model, over any sequence of operations and restarts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// One operation. Indices are relative to the log's end, so that most of them hit something.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Append { count: u64, size: usize },
    Vote(u8),
    Committed(u8),
    Truncate { back: u64 },
    Purge { back: i64 },
    Reopen,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6_u64, 0..900_usize).prop_map(|(count, size)| Step::Append { count, size }),
        2 => any::<u8>().prop_map(Step::Vote),
        2 => any::<u8>().prop_map(Step::Committed),
        2 => (0..12_u64).prop_map(|back| Step::Truncate { back }),
        2 => (-3..15_i64).prop_map(|back| Step::Purge { back }),
        1 => Just(Step::Reopen),
    ]
}

impl Step {
    /// How many states it takes the log through: an append goes entry by entry.
    pub(super) fn states(&self) -> usize {
        match self {
            Self::Append { count, .. } => usize::try_from(*count).unwrap(),
            _ => 1,
        }
    }
}

/// What the log must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) entries: BTreeMap<u64, Bytes>,
    pub(super) purged: Option<Purged>,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    /// Makes every payload another one.
    serial: u64,
}

impl Model {
    fn next(&self) -> u64 {
        let after_last = self.entries.last_key_value().map(|(index, _)| index + 1);
        after_last
            .or_else(|| self.purged.as_ref().map(|purged| purged.index + 1))
            .unwrap_or(0)
    }

    /// Performs the step here and on the log; returns every state on the way.
    pub(super) fn run(&mut self, step: &Step, wal: &Wal, done: Done) -> Vec<Self> {
        let mut states = Vec::new();
        match *step {
            Step::Append { count, size } => {
                let first = self.next();
                let entries: Vec<_> = (first..first + count)
                    .map(|index| (index, self.payload(size)))
                    .collect();
                for (index, payload) in &entries {
                    self.entries.insert(*index, payload.clone());
                    states.push(self.clone());
                }
                wal.append(entries, done);
                return states;
            }
            Step::Vote(value) => {
                let vote = Bytes::from(vec![value; 3]);
                self.vote = Some(vote.clone());
                wal.save_vote(vote, done);
            }
            Step::Committed(value) => {
                let committed = Bytes::from(vec![value; 2]);
                self.committed = Some(committed.clone());
                wal.save_committed(committed);
                wal.append(Vec::new(), done);
            }
            Step::Truncate { back } => {
                let after = self.next().checked_sub(back + 1);
                let from = after.map_or(0, |after| after + 1);
                self.entries.split_off(&from);
                wal.truncate_after(after, done);
            }
            Step::Purge { back } => {
                let index = self.next().saturating_add_signed(-back);
                let id = self.payload(4);
                if self
                    .purged
                    .as_ref()
                    .is_none_or(|purged| purged.index < index)
                {
                    self.entries = self.entries.split_off(&(index + 1));
                    self.purged = Some(Purged {
                        index,
                        id: id.clone(),
                    });
                }
                wal.purge_to(index, id, done);
            }
            Step::Reopen => wal.append(Vec::new(), done),
        }
        states.push(self.clone());
        states
    }

    fn payload(&mut self, size: usize) -> Bytes {
        self.serial += 1;
        let mut payload = self.serial.to_string().into_bytes();
        payload.resize(payload.len().max(size), b'.');
        payload.into()
    }

    /// Whether the log is this one; `committed` may be older after a crash.
    pub(super) fn is_of(&self, wal: &Wal) -> bool {
        let state = wal.state();
        let entries: BTreeMap<_, _> = wal.read(0..u64::MAX).unwrap().into_iter().collect();
        entries == self.entries
            && state.first == self.entries.first_key_value().map(|(index, _)| *index)
            && state.last == self.entries.last_key_value().map(|(index, _)| *index)
            && (&state.purged, &state.vote) == (&self.purged, &self.vote)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_log_equals_the_model(steps in proptest::collection::vec(step(), 1..80)) {
        let mut log = Log::new();
        let mut model = Model::default();
        for step in steps.iter().chain([&Step::Reopen]) {
            model.run(step, &log.wal, ignored());
            if matches!(step, Step::Reopen) {
                log = log.reopen();
                prop_assert_eq!(&log.recovered.torn, &None);
            }
            prop_assert!(model.is_of(&log.wal), "{:?} is not {:?}", log.wal, model);
            prop_assert_eq!(&log.wal.state().committed, &model.committed);
        }
    }
}
