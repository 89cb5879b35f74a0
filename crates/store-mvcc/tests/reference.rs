//! The machine against a naive reference over random histories.
//!
//! The reference keeps a full copy of every state, so it has nothing of the machine's structure to
//! be wrong in the same way.

mod reference {
    pub(crate) mod commands;
    pub(crate) mod model;
}

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use reference::commands;
use reference::model::Model;
use store_mvcc::{
    Command, Image, ImageBuilder, KeyRange, Lease, Machine, Proposal, RangeOp, Row, RowId,
    RowsError,
};

/// Applies `proposals` to both and compares every answer and every readable state.
fn agree(proposals: &[Proposal]) -> Result<Machine, TestCaseError> {
    let mut machine = Machine::new();
    let mut model = Model::new();
    for proposal in proposals {
        let outcome = machine.apply(proposal);
        prop_assert_eq!(&outcome, &model.apply(proposal), "{:?}", proposal);
        prop_assert_eq!(outcome.revision, machine.image().revision());
    }
    let image = machine.image();
    prop_assert_eq!(image.compact_revision(), model.compact_revision());
    prop_assert_eq!(image.cluster_version().minor, model.version());
    prop_assert_eq!(leases(&image), model.leases());
    prop_assert_eq!(image.meta().lease_clock_ms, model.clock_ms());
    for revision in 1..=image.revision() + 1 {
        let op = RangeOp {
            revision,
            ..RangeOp::new(KeyRange::all())
        };
        prop_assert_eq!(
            image.range(&op),
            model.range(&op),
            "state at revision {}",
            revision
        );
    }
    for from in image.compact_revision().max(1)..=image.revision() + 1 {
        let kept: Vec<_> = image
            .changes_since(from)
            .expect("it is readable")
            .map(|it| (**it).clone())
            .collect();
        prop_assert_eq!(kept, model.changes_since(from), "changes since {}", from);
    }
    prop_assert!(image.changes_since(image.compact_revision() - 1).is_err());
    Ok(machine)
}

fn rebuilt(image: &Image) -> Result<Image, RowsError> {
    Image::from_rows(image.meta(), image.rows().cloned(), image.leases().copied())
}

/// The leases, the next to end first, and the keys of each.
fn leases(image: &Image) -> Vec<(Lease, Vec<Bytes>)> {
    let keys = |lease: &Lease| image.lease_keys(lease.id).cloned().collect();
    image.leases().map(|lease| (*lease, keys(lease))).collect()
}

fn by_id<'a>(rows: impl Iterator<Item = &'a Row>) -> BTreeMap<RowId, Row> {
    rows.map(|row| (row.id(), row.clone())).collect()
}

proptest! {
    #[test]
    fn every_answer_and_every_state_is_the_references(proposals in commands::history(40)) {
        agree(&proposals)?;
    }

    #[test]
    fn every_range_in_the_past_is_the_references(
        proposals in commands::history(30),
        ops in prop::collection::vec(commands::range(), 1..20),
    ) {
        let (mut machine, mut model) = (Machine::new(), Model::new());
        for proposal in &proposals {
            machine.apply(proposal);
            model.apply(proposal);
        }
        for op in &ops {
            prop_assert_eq!(machine.image().range(op), model.range(op), "{:?}", op);
        }
    }

    #[test]
    fn an_image_survives_its_rows_and_goes_on_alike(
        before in commands::history(30),
        after in commands::history(15),
    ) {
        let mut machine = agree(&before)?;
        let image = machine.image();
        let again = rebuilt(&image).expect("the rows are an image's own");
        prop_assert_eq!(&again, &image);
        prop_assert!(again.rows().eq(image.rows()), "the order of the stream is the same");
        // The base may come in any order, as from a table sorted by the time of writing.
        let (rows, leases) = (by_id(image.rows()).into_values(), image.leases().copied());
        let sorted = Image::from_rows(image.meta(), rows, leases);
        prop_assert_eq!(sorted, Ok(image));

        let mut other = Machine::from_image(again);
        for proposal in &after {
            prop_assert_eq!(machine.apply(proposal), other.apply(proposal));
        }
        prop_assert_eq!(machine.image(), other.image());
    }

    #[test]
    fn the_same_log_gives_equal_images_and_old_images_stay(proposals in commands::history(30)) {
        let (mut left, mut right) = (Machine::new(), Machine::new());
        let mut kept = Vec::new();
        for proposal in &proposals {
            let outcome = left.apply(proposal);
            // One machine publishes after each command, as with one client; the other never does.
            kept.push((left.image(), left.image().rows().cloned().collect::<Vec<_>>()));
            prop_assert_eq!(outcome, right.apply(proposal));
        }
        prop_assert_eq!(left.image(), right.image());
        for (image, rows) in kept {
            prop_assert!(image.rows().eq(&rows), "a reader's image changed");
        }
    }

    #[test]
    fn a_delta_turns_the_older_rows_into_the_later_ones(
        before in commands::history(25),
        after in commands::history(25),
    ) {
        let mut machine = agree(&before)?;
        let older = machine.image();
        for proposal in &after {
            machine.apply(proposal);
        }
        let later = machine.image();
        let delta = later.delta_since(&older);
        let mut rows = by_id(older.rows());
        for id in &delta.removed {
            prop_assert!(rows.remove(id).is_some(), "removes a row that was there: {:?}", id);
        }
        for row in &delta.added {
            prop_assert!(rows.insert(row.id(), row.clone()).is_none(), "adds a new row");
        }
        prop_assert_eq!(rows, by_id(later.rows()));
        prop_assert_eq!(delta.meta, later.meta());

        let mut leases: BTreeMap<i64, Lease> = older.leases().map(|it| (it.id, *it)).collect();
        let delta = later.leases_since(&older);
        for id in delta.ended {
            prop_assert!(leases.remove(&id).is_some(), "ends a lease that was there: {}", id);
        }
        for lease in delta.renewed {
            prop_assert!(leases.insert(lease.id, lease) != Some(lease), "renews what changed");
        }
        let mut leases: Vec<Lease> = leases.into_values().collect();
        leases.sort();
        prop_assert!(leases.iter().eq(later.leases()));
    }

    #[test]
    fn an_image_whose_keys_lack_their_lease_is_refused(proposals in commands::history(40)) {
        let image = agree(&proposals)?.image();
        for gone in image.leases().map(|lease| lease.id) {
            let kept = image.leases().copied().filter(|lease| lease.id != gone);
            let rebuilt = Image::from_rows(image.meta(), image.rows().cloned(), kept);
            let needed = image.lease_keys(gone).next().is_some();
            prop_assert_eq!(rebuilt.err(), needed.then_some(RowsError::Lease { id: gone }));
        }
        let twice = image.leases().chain(image.leases().take(1)).copied();
        let rebuilt = Image::from_rows(image.meta(), image.rows().cloned(), twice);
        prop_assert_eq!(rebuilt.is_err(), image.lease_count() > 0);
    }

    #[test]
    fn compacting_in_steps_is_compacting_at_once(
        proposals in commands::history(30),
        steps in prop::collection::btree_set(1_i64..40, 1..6),
    ) {
        let machine = agree(&proposals)?;
        let compact = |machine: &mut Machine, revision| {
            machine.apply(&Proposal::new(Command::Compact { revision })).result
        };
        let newest = machine.image().revision();
        let last = steps.iter().copied().filter(|step| *step <= newest).max();
        let (mut stepwise, mut at_once) = (machine.clone(), machine);
        for step in steps {
            // Steps that are compacted already, or in the future, are refused and change nothing.
            let _ = compact(&mut stepwise, step);
        }
        if let Some(last) = last {
            let _ = compact(&mut at_once, last);
        }
        prop_assert_eq!(stepwise.image(), at_once.image());
    }

    #[test]
    fn rows_with_a_hole_are_refused(proposals in commands::history(30), hole in any::<prop::sample::Index>()) {
        let image = agree(&proposals)?.image();
        let start = image.compact_revision().max(2);
        let mut rows: Vec<Row> = image.rows().cloned().collect();
        let history = rows.iter().filter(|row| row.mod_revision >= start).count();
        prop_assume!(history > 0);
        let base = rows.len() - history;
        let gone = rows.remove(base + hole.index(history));
        let alone = image.changes(gone.mod_revision).is_some_and(|it| it.rows.len() == 1);
        let last_of_several = image
            .changes(gone.mod_revision)
            .is_some_and(|it| it.rows.len() > 1 && gone.sub as usize == it.rows.len() - 1);
        let mut builder = ImageBuilder::new(image.meta());
        for lease in image.leases() {
            builder.push_lease(*lease).expect("the leases are the image's own");
        }
        let refused = rows.into_iter().try_for_each(|row| builder.push(row)).is_err()
            || builder.finish().is_err();
        // A revision's last row of several is missed by nobody but a checksum.
        prop_assert!(refused || last_of_several, "alone: {}", alone);
    }
}
