//! Power cuts at any sync, again and again on the same log: what was acknowledged is there.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::disks::ForgetfulDisk;
use super::model::{Model, Step, step};
use super::*;

#[derive(Debug, Clone)]
struct Life {
    steps: Vec<Step>,
    /// The power goes at the sync after these.
    syncs: u64,
    seed: u64,
}

fn life() -> impl Strategy<Value = Life> {
    (
        proptest::collection::vec(step(), 1..40),
        0..25_u64,
        any::<u64>(),
    )
        .prop_map(|(steps, syncs, seed)| Life { steps, syncs, seed })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_operations_survive_power_cuts(lives in proptest::collection::vec(life(), 1..5)) {
        let mut temp = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        for life in lives {
            let disk = Arc::new(ForgetfulDisk::new(life.syncs, life.seed));
            let data_dir = DataDir::open(temp.path()).unwrap();
            let Ok((wal, _)) = Wal::open(&data_dir, on(&disk)) else {
                // The power went while the first segment was made.
                continue;
            };
            prop_assert!(model.is_of(&wal), "{wal:?} is not {model:?}");
            // Every state that the log went through, in order, and up to which it was promised.
            let mut states = vec![model.clone()];
            let acknowledged = Arc::new(AtomicUsize::new(0));
            for step in &life.steps {
                let acknowledged = Arc::clone(&acknowledged);
                let last = states.len() - 1 + step.states();
                states.extend(model.run(step, &wal, Box::new(move |outcome| {
                    if outcome.is_ok() {
                        acknowledged.store(last, Ordering::SeqCst);
                    }
                })));
            }
            drop((wal, data_dir));
            let log = Log::open(temp, small()).unwrap();
            let promised = acknowledged.load(Ordering::SeqCst);
            let found = states[promised..].iter().find(|state| state.is_of(&log.wal));
            prop_assert!(found.is_some(), "{:?} lost some of {:?}", log.wal, states[promised]);
            model = found.unwrap().clone();
            temp = log.close();
        }
    }
}
