//! Reads of an image that may take long.
//!
//! Owns the choice which of them are done aside, so that writes, heartbeats and other clients do not
//! wait behind them.

use lifecycle::aside;
use store_mvcc::{CommandError, Image, RangeOp, RangeResult, TxnOp, TxnResult};

/// [`Image::range`].
pub(crate) fn range(image: &Image, op: &RangeOp) -> Result<RangeResult, CommandError> {
    if image.is_long(op) {
        aside(|| image.range(op))
    } else {
        image.range(op)
    }
}

/// [`Image::read_txn`].
pub(crate) fn read_txn(image: &Image, txn: &TxnOp) -> Result<TxnResult, CommandError> {
    if image.is_long_txn(txn) {
        aside(|| image.read_txn(txn))
    } else {
        image.read_txn(txn)
    }
}

/// [`Image::hash`], which looks at everything.
pub(crate) fn hash(image: &Image, revision: i64) -> u32 {
    aside(|| image.hash(revision))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use store_mvcc::{Command, KeyRange, Machine, Op, Proposal, PutOp};

    use super::*;

    fn machine(rows: u32) -> Machine {
        let mut machine = Machine::default();
        for row in 0..rows {
            let put = PutOp::new(format!("k{row:06}"), "v");
            machine.apply(&Proposal::new(Command::Put(put)));
        }
        machine
    }

    /// How often another task of the only thread ran while the work was done many times.
    fn others_run(work: impl Fn() + Send + 'static) -> usize {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let working = runtime.spawn(async move {
            tokio::spawn(async move {
                loop {
                    counted.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            });
            (0..50).for_each(|_| work());
            runs.load(Ordering::Relaxed)
        });
        runtime.block_on(working).unwrap()
    }

    #[test]
    fn others_go_on_beside_a_long_read_and_a_short_one_just_runs() {
        let machine = machine(5_000);
        let long = machine.image();
        let all = RangeOp::new(KeyRange::all());
        let txn = TxnOp {
            success: vec![Op::Range(all.clone())],
            ..TxnOp::default()
        };
        let nested = TxnOp {
            success: vec![Op::Txn(Box::new(txn.clone()))],
            ..TxnOp::default()
        };
        let image = long.clone();
        assert!(others_run(move || assert_eq!(range(&image, &all).unwrap().rows.len(), 5_000)) > 0);
        let image = long.clone();
        assert!(others_run(move || drop(read_txn(&image, &txn).unwrap())) > 0);
        let image = long.clone();
        assert!(others_run(move || drop(read_txn(&image, &nested).unwrap())) > 0);
        let image = long.clone();
        assert!(others_run(move || assert_ne!(hash(&image, image.revision()), 0)) > 0);

        let one = RangeOp::new(KeyRange::key("k000007"));
        let few = RangeOp::new(KeyRange::prefix("k00000"));
        assert_eq!(
            others_run(move || {
                assert_eq!(range(&long, &one).unwrap().rows.len(), 1);
                assert_eq!(range(&long, &few).unwrap().rows.len(), 10);
            }),
            0
        );
    }
}
