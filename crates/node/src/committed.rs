//! The committed config, parsed and linked once for all who need it on this node: the judge of
//! changes, dry runs, and who brings it into force.
//!
//! Owns the way from image to image, at the cost of what changed. Never compiles for a node and
//! never judges.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{CONFIG_PREFIX, ConfigRevision};
use proxy_config::{Change, Checked, ConfigSet};
use store_mvcc::{Image, KeyRange};

/// The newest committed config that anybody here asked for. A clone is another handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Committed {
    newest: Arc<Mutex<Newest>>,
}

/// The config of one image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Newest {
    /// The image's config revision.
    pub(crate) config_revision: ConfigRevision,
    /// The image's revision; 0: nothing was read yet, or what was is not to be trusted.
    revision: i64,
    /// Its resources.
    pub(crate) set: ConfigSet,
    /// What was last found consistent: `set`, unless that is not.
    pub(crate) checked: Checked,
    /// What the change that was admitted last leads to. Most often it is what comes next, and then
    /// neither parsed nor linked again.
    pub(crate) expected: Option<Checked>,
}

impl Committed {
    /// Begins with what this node ran before: what of it is still committed is shared.
    pub(crate) fn known(checked: Option<Checked>) -> Self {
        let checked = checked.unwrap_or_default();
        let newest = Newest {
            set: checked.resources().clone(),
            checked,
            ..Newest::default()
        };
        Self {
            newest: Arc::new(Mutex::new(newest)),
        }
    }

    /// The config of `image`, or of a newer one that somebody has asked for.
    pub(crate) fn at_least(&self, image: &Image) -> MutexGuard<'_, Newest> {
        let mut newest = self.lock();
        newest.follow(image);
        newest
    }

    /// Reads all of it again the next time: the images that it came from may have been wrong, or
    /// another mesh's.
    pub(crate) fn distrust(&self) {
        let mut newest = self.lock();
        (newest.revision, newest.config_revision) = Default::default();
    }

    fn lock(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newest {
    fn follow(&mut self, image: &Image) {
        if image.revision() < self.revision {
            return;
        }
        if image.config_revision() != self.config_revision || self.revision == 0 {
            self.read(image);
            self.link();
        }
        self.config_revision = image.config_revision();
        self.revision = image.revision();
    }

    /// Reads what changed, or all of it if the history in between was compacted.
    fn read(&mut self, image: &Image) {
        let nothing = ConfigSet::default();
        let known = self.expected.as_ref().map_or(&nothing, Checked::resources);
        match image.changes_since(self.revision + 1) {
            Ok(changes) if self.revision > 0 => {
                let rows = changes.flat_map(|changes| changes.rows.iter());
                let rows = rows.map(|changed| &changed.row);
                let config = rows.filter(|row| row.key.starts_with(CONFIG_PREFIX.as_bytes()));
                let changes = config.map(|row| Change {
                    key: &row.key,
                    value: (!row.is_tombstone()).then_some(&row.value[..]),
                    mod_revision: row.mod_revision,
                });
                self.set.apply_knowing(changes, known);
            }
            _ => {
                let config = KeyRange::prefix(CONFIG_PREFIX);
                let rows = image.live(&config);
                let rows = rows.map(|row| (row.key.clone(), row.value.clone(), row.mod_revision));
                self.set = self.set.replaced(rows);
            }
        }
    }

    fn link(&mut self) {
        let expected = self.expected.take();
        let expected = expected.filter(|expected| expected.is(&self.set));
        let next = expected.as_ref().unwrap_or(&self.checked).next(&self.set);
        if let Ok(next) = next {
            self.checked = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use proxy_config::compiled::Target;
    use proxy_config::{Resource, ResourceId, compile};
    use store_mvcc::{Command, Machine, Proposal, PutOp};
    use store_server::Admission;

    use super::*;
    use crate::admission::ConfigAdmission;

    const KEY: &str = "/skein/config/default/Cluster/a";

    fn cluster(port: u16) -> Command {
        let common = r#""schema":1,"kind":"Cluster","namespace":"default","name":"a""#;
        let value = format!(r#"{{{common},"endpoints":["10.0.0.1:{port}"]}}"#);
        Command::Put(PutOp::new(KEY, value))
    }

    fn apply(machine: &mut Machine, command: Command) {
        let outcome = machine.apply(&Proposal {
            config_guard: Some(machine.image().config_revision()),
            ..Proposal::new(command)
        });
        outcome.result.expect("applied");
    }

    fn resource(set: &ConfigSet) -> Arc<Resource> {
        let id = ResourceId::from_key(KEY).unwrap();
        set.resource(&id).expect("it is there").clone()
    }

    fn target() -> Target {
        Target {
            node: "n1".parse().unwrap(),
            labels: Default::default(),
            proxy_ip: [127, 0, 0, 1].into(),
        }
    }

    #[test]
    fn what_was_admitted_is_neither_parsed_nor_linked_again() {
        let (committed, mut machine) = (Committed::default(), Machine::new());
        let judge = ConfigAdmission::new(committed.clone());
        judge.admit(&machine.image(), &cluster(80)).unwrap();
        let expected = committed.lock().expected.clone().unwrap();
        apply(&mut machine, cluster(80));
        let newest = committed.at_least(&machine.image()).clone();
        assert!(Arc::ptr_eq(
            &resource(expected.resources()),
            &resource(&newest.set)
        ));
        assert!(newest.checked.is(&newest.set) && newest.expected.is_none());
        let compiled = |checked: &Checked| {
            let config = checked
                .compile(&target(), None, newest.config_revision)
                .config;
            config.clusters.values().next().expect("compiled").clone()
        };
        assert!(Arc::ptr_eq(
            &compiled(&expected),
            &compiled(&newest.checked)
        ));
    }

    #[test]
    fn what_was_admitted_and_came_otherwise_does_not_count() {
        let (committed, mut machine) = (Committed::default(), Machine::new());
        let judge = ConfigAdmission::new(committed.clone());
        judge.admit(&machine.image(), &cluster(80)).unwrap();
        apply(&mut machine, cluster(81));
        let newest = committed.at_least(&machine.image()).clone();
        let config = newest
            .checked
            .compile(&target(), None, newest.config_revision);
        let cluster = config.config.clusters.values().next().unwrap().clone();
        assert_eq!(cluster.endpoints[0].address.port(), 81);
    }

    #[test]
    fn what_ran_before_goes_on_as_it_is() {
        let mut machine = Machine::new();
        apply(&mut machine, cluster(80));
        let image = machine.image();
        let Command::Put(put) = cluster(80) else {
            unreachable!("it is a put")
        };
        let disk = ConfigSet::from_pairs([(put.key, put.value, 0)]);
        let ran = compile(&disk, &target(), None, image.config_revision());
        let committed = Committed::known(ran.checked());
        let newest = committed.at_least(&image).clone();
        let runs = newest
            .checked
            .compile(&target(), Some(&ran), newest.config_revision);
        for (before, now) in ran
            .config
            .clusters
            .values()
            .zip(runs.config.clusters.values())
        {
            assert!(Arc::ptr_eq(before, now));
        }
        assert_eq!(runs.config.clusters.len(), 1);
        assert!(Arc::ptr_eq(&resource(&disk), &resource(&newest.set)));
    }

    #[test]
    fn an_older_image_changes_nothing_unless_the_newer_one_was_wrong() {
        let (committed, mut machine) = (Committed::default(), Machine::new());
        apply(&mut machine, cluster(80));
        let older = machine.image();
        apply(&mut machine, cluster(81));
        let newer = committed.at_least(&machine.image()).config_revision;
        assert_eq!(committed.at_least(&older).config_revision, newer);
        committed.distrust();
        assert_eq!(
            committed.at_least(&older).config_revision,
            older.config_revision()
        );
    }
}
