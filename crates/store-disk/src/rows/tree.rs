//! The rows as sled holds them: sorted runs, and the manifest that says which.
//!
//! Owns the manifest, when runs are merged, and sled's settings. With `run`, the only place that
//! names sled.
//!
//! Each batch is one run more, and one new manifest with run and position: a single insert, so that
//! a crash leaves the one or the other. Chunks that no manifest names are what a crash left over.
//! sled's own batches are not used: they take the one lock that sled has for all databases of a
//! process, and a flush that waits for sled's thread while another database wants that lock stands
//! still for ever. Without batches nobody takes it. A row costs a few copies this way, too, where
//! an insert of its own costs some microseconds.
//!
//! ```text
//! manifest: 0x00 -> codec record: applied position, runs from the oldest to the newest
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use bincode::{Decode, Encode};
use bytes::Bytes;

use super::Loaded;
use super::run::{Change, Merged, Run, RunWriter, chunk_key, run_of};
use crate::codec::{self, CodecError, Format};

/// sled's page cache; its own default is 1 GiB.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// How often sled syncs and tidies up by itself. Nothing waits for it: the log has what the rows
/// lack.
const SYNC_EVERY_MS: u64 = 10_000;

/// How long to wait until the threads of an earlier opening in this process let go of the files.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// So many runs of one level become one of the next. Each row is written once per level.
const RUNS_PER_LEVEL: usize = 8;

const MANIFEST_KEY: &[u8] = &[0];
const MANIFEST_FORMAT: Format = Format {
    magic: *b"SKrm",
    version: 1,
};

#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
struct Manifest {
    /// The position that the rows are of.
    applied: Option<Vec<u8>>,
    /// From the oldest to the newest.
    runs: Vec<Run>,
    /// The id of the next run.
    next: u64,
}

impl Manifest {
    /// The first of the newest runs that are to become one.
    fn merge_from(&self) -> Option<usize> {
        let many = self.runs.len().checked_sub(RUNS_PER_LEVEL)?;
        // What is removed or replaced must not take more room than what is there.
        let newer: u64 = self.runs[1..].iter().map(|run| run.bytes).sum();
        if newer >= self.runs[0].bytes {
            return Some(0);
        }
        let newest = &self.runs[many..];
        let level = newest[0].level;
        newest.iter().all(|run| run.level == level).then_some(many)
    }
}

/// What is wrong with the rows. An error of the disk, too: the rows are dispensable, and if the
/// disk is at fault, wiping them fails with the system's own words.
#[derive(Debug)]
pub(super) struct Fault(pub(super) String);

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<CodecError> for Fault {
    fn from(error: CodecError) -> Self {
        Self(format!("the list of the runs: {error}"))
    }
}

pub(super) struct RowTree {
    db: sled::Db,
    manifest: Manifest,
}

impl RowTree {
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(Some(SYNC_EVERY_MS));
        let deadline = Instant::now() + LOCK_PATIENCE;
        let db = loop {
            match config.open() {
                Ok(db) => break db,
                // The data directory's lock keeps other processes out, so this is our own past.
                Err(error) if error.to_string().contains("could not acquire lock") => {
                    if Instant::now() >= deadline {
                        return Err(error.into());
                    }
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(error) => return Err(error.into()),
            }
        };
        let manifest = match db.get(MANIFEST_KEY)? {
            Some(bytes) => codec::decode(MANIFEST_FORMAT, &bytes)?,
            None => Manifest::default(),
        };
        let tree = Self { db, manifest };
        tree.remove_leftovers()?;
        Ok(tree)
    }

    /// Removes the chunks that no manifest names.
    fn remove_leftovers(&self) -> Result<(), Fault> {
        let mut from = chunk_key(0, 0);
        while let Some(next) = self.db.range(from..).next() {
            let (key, _) = next?;
            let Some(run) = run_of(&key) else {
                return Err(Fault("there is a key that is no chunk's".to_owned()));
            };
            from = if self.manifest.runs.iter().any(|known| known.id == run) {
                chunk_key(run + 1, 0)
            } else {
                self.db.remove(&key)?;
                key.to_vec()
            };
        }
        Ok(())
    }

    /// Reads and checks all rows.
    pub(super) fn load(&self) -> Result<Loaded, Fault> {
        let mut merged = Merged::new(&self.db, &self.manifest.runs)?;
        let mut rows = Vec::new();
        while let Some((key, value)) = merged.next()? {
            rows.extend(value.map(|value| (key, value)));
        }
        let applied = self.manifest.applied.clone().map(Bytes::from);
        Ok(Loaded { applied, rows })
    }

    /// Changes rows and position together. The changes come in the order of their keys.
    pub(super) fn apply(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
        applied: &[u8],
    ) -> Result<(), Fault> {
        let mut manifest = self.manifest.clone();
        let mut run = RunWriter::new(&self.db, manifest.next, 0);
        for change in changes {
            run.push(change)?;
        }
        manifest.next += 1;
        manifest.runs.extend(run.finish()?);
        manifest.applied = Some(applied.to_vec());
        self.switch(manifest)
    }

    /// Replaces everything.
    pub(super) fn rebuild(
        &mut self,
        rows: impl Iterator<Item = (Bytes, Bytes)>,
        applied: &[u8],
    ) -> Result<(), Fault> {
        let mut manifest = Manifest {
            applied: Some(applied.to_vec()),
            runs: Vec::new(),
            next: self.manifest.next,
        };
        let mut last = Bytes::new();
        let mut run: Option<RunWriter<'_>> = None;
        for (key, value) in rows {
            // A run is in order; where the rows are not, the next one begins.
            if key <= last
                && let Some(full) = run.take()
            {
                manifest.runs.extend(full.finish()?);
            }
            last = key.clone();
            let run = run.get_or_insert_with(|| {
                manifest.next += 1;
                RunWriter::new(&self.db, manifest.next - 1, 0)
            });
            run.push((key, Some(value)))?;
        }
        if let Some(last) = run {
            manifest.runs.extend(last.finish()?);
        }
        self.switch(manifest)
    }

    /// Merges runs until there are few. `stop` is asked from time to time: what is not done then is
    /// done another time.
    pub(super) fn merge(&mut self, stop: impl Fn() -> bool) -> Result<(), Fault> {
        while let Some(from) = self.manifest.merge_from() {
            let mut manifest = self.manifest.clone();
            let old = manifest.runs.split_off(from);
            let level = old.iter().map(|run| run.level).max().unwrap_or_default();
            let mut run = RunWriter::new(&self.db, manifest.next, level.saturating_add(1));
            let mut merged = Merged::new(&self.db, &old)?;
            while let Some(change) = merged.next()? {
                // Below the oldest run there is nothing that a removal would have to hide.
                if from == 0 && change.1.is_none() {
                    continue;
                }
                if run.push(change)? && stop() {
                    return run.abandon();
                }
            }
            manifest.next += 1;
            manifest.runs.extend(run.finish()?);
            self.switch(manifest)?;
        }
        Ok(())
    }

    /// Makes a manifest the one in force, and removes the runs that it has no more.
    fn switch(&mut self, manifest: Manifest) -> Result<(), Fault> {
        let record = codec::encode(MANIFEST_FORMAT, &manifest);
        self.db.insert(MANIFEST_KEY, record)?;
        let old = std::mem::replace(&mut self.manifest, manifest);
        let kept = &self.manifest.runs;
        for run in old.runs.iter().filter(|old| !kept.contains(old)) {
            run.remove(&self.db)?;
        }
        Ok(())
    }

    /// Hands everything to the system. sled's own flush is no fsync; see the module `rows`.
    pub(super) fn flush(&self) -> Result<(), Fault> {
        self.db.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u16) -> Bytes {
        number.to_be_bytes().to_vec().into()
    }

    /// Values whose length depends on their number, from nothing to more than a chunk.
    fn value(number: u16) -> Bytes {
        vec![number as u8; usize::from(number) * 37 % 9000].into()
    }

    fn chunks(tree: &RowTree) -> usize {
        tree.db.len() - 1
    }

    #[derive(Debug, Clone)]
    enum Step {
        Apply(BTreeMap<u16, Option<u16>>),
        Rebuild(Vec<u16>),
        Merge { stop_after: usize },
        Reopen,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let change = (0..60_u16, proptest::option::weighted(0.7, 0..1000_u16));
        let step = prop_oneof![
            20 => proptest::collection::btree_map(change.clone().prop_map(|it| it.0), change.prop_map(|it| it.1), 0..20)
                .prop_map(Step::Apply),
            1 => proptest::collection::vec(0..60_u16, 0..40).prop_map(Step::Rebuild),
            8 => (0..6_usize).prop_map(|stop_after| Step::Merge { stop_after }),
            1 => Just(Step::Reopen),
        ];
        proptest::collection::vec(step, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever is applied, rebuilt, merged, given up half-way and opened again: the rows are
        /// those of a plain map.
        #[test]
        fn runs_hold_what_a_map_holds(steps in steps()) {
            let temp = tempfile::tempdir().unwrap();
            let mut tree = RowTree::open(temp.path()).unwrap();
            let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
            for (at, step) in steps.into_iter().enumerate() {
                let applied = at.to_string();
                match step {
                    Step::Apply(changes) => {
                        let changes = changes.into_iter();
                        let changes: Vec<Change> =
                            changes.map(|(at, to)| (key(at), to.map(value))).collect();
                        for (key, value) in changes.clone() {
                            match value {
                                Some(value) => drop(model.insert(key, value)),
                                None => drop(model.remove(&key)),
                            }
                        }
                        tree.apply(changes, applied.as_bytes()).unwrap();
                    }
                    Step::Rebuild(rows) => {
                        let rows = rows.into_iter().map(|at| (key(at), value(at)));
                        model = rows.clone().collect();
                        tree.rebuild(rows, applied.as_bytes()).unwrap();
                    }
                    Step::Merge { stop_after } => {
                        let asked = Cell::new(0);
                        tree.merge(|| asked.replace(asked.get() + 1) >= stop_after).unwrap();
                    }
                    Step::Reopen => {
                        drop(tree);
                        tree = RowTree::open(temp.path()).unwrap();
                    }
                }
                let expected: Vec<_> = model.clone().into_iter().collect();
                prop_assert_eq!(tree.load().unwrap().rows, expected);
            }
        }
    }

    #[test]
    fn what_is_replaced_and_removed_gives_its_room_back() {
        let temp = tempfile::tempdir().unwrap();
        let mut tree = RowTree::open(temp.path()).unwrap();
        let mut most = 0;
        for round in 0..500_u16 {
            let changes = (0..20).map(|at| (key(at), Some(value(300 + at))));
            tree.apply(changes, b"1").unwrap();
            tree.merge(|| false).unwrap();
            most = most.max(tree.manifest.runs.len());
            assert!(chunks(&tree) < 400, "round {round}: {}", chunks(&tree));
        }
        assert!(most < 3 * RUNS_PER_LEVEL, "{most} runs");
        for round in 0..u8::try_from(2 * RUNS_PER_LEVEL).unwrap() {
            tree.apply((0..20).map(|at| (key(at), None)), &[round])
                .unwrap();
        }
        tree.merge(|| false).unwrap();
        // Removals are small, so the run that they empty may wait for the next merge of all.
        assert_eq!(tree.load().unwrap().rows, []);
    }

    #[test]
    fn a_removal_outlives_a_merge_that_leaves_the_row_below_it() {
        let temp = tempfile::tempdir().unwrap();
        let mut tree = RowTree::open(temp.path()).unwrap();
        let rows: Vec<_> = (0..100).map(|at| (key(at), Some(value(at)))).collect();
        tree.apply(rows.clone(), b"1").unwrap();
        for at in 0..8 {
            tree.apply([(key(at), None)], b"2").unwrap();
        }
        tree.merge(|| false).unwrap();
        assert_eq!(tree.manifest.runs.len(), 2, "the oldest run stays alone");
        let kept = rows.into_iter().skip(8);
        let kept: Vec<_> = kept.map(|(key, value)| (key, value.unwrap())).collect();
        assert_eq!(tree.load().unwrap().rows, kept);
    }

    #[test]
    fn what_a_crash_left_over_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let mut tree = RowTree::open(temp.path()).unwrap();
        tree.apply([(key(1), Some(value(1)))], b"1").unwrap();
        let chunk = tree.db.get(chunk_key(0, 0)).unwrap().unwrap();
        for (run, place) in [(1, 0), (1, 1), (7, 0)] {
            tree.db.insert(chunk_key(run, place), &chunk).unwrap();
        }
        drop(tree);
        let tree = RowTree::open(temp.path()).unwrap();
        assert_eq!(chunks(&tree), 1);
        assert_eq!(tree.load().unwrap().rows, [(key(1), value(1))]);
    }
}
