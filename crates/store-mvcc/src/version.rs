//! The version that a mesh agrees on.
//!
//! Owns which steps it can take. Never judges whether the members can take it: whoever proposes
//! the step knows what they run.

use crate::{AgreedVersion, CommandError, Image, SetVersionOp};

impl Image {
    /// Takes the step that `op` asks for. A step that is repeated does nothing.
    ///
    /// # Errors
    /// The step does not begin at the current version: somebody else was faster.
    pub(crate) fn set_version(&mut self, op: SetVersionOp) -> Result<(), CommandError> {
        let now = self.cluster_version();
        let held = self.meta.version.is_some_and(|agreed| agreed.downgrade);
        let can = match (held, op.downgrade) {
            (false, false) => op.version >= now,
            (false, true) => now.before() == Some(op.version),
            (true, _) => op.version == now,
        };
        if !can {
            return Err(CommandError::VersionMoved { now });
        }
        self.meta.version = Some(AgreedVersion {
            version: op.version,
            downgrade: op.downgrade,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::Version;

    use super::*;
    use crate::{Command, Machine, Proposal};

    fn version(minor: u16) -> Version {
        Version { major: 0, minor }
    }

    fn step(machine: &mut Machine, minor: u16, downgrade: bool) -> bool {
        let op = SetVersionOp {
            version: version(minor),
            downgrade,
        };
        let before = machine.image();
        let outcome = machine.apply(&Proposal::new(Command::SetClusterVersion(op)));
        assert_eq!(outcome.revision, before.revision(), "no key changed");
        if outcome.result.is_err() {
            assert_eq!(machine.image(), before);
        }
        outcome.result.is_ok()
    }

    #[test]
    fn it_goes_up_and_not_down() {
        let mut machine = Machine::new();
        assert_eq!(machine.image().meta().version, None);
        assert_eq!(machine.image().cluster_version(), Version::FIRST);
        assert!(step(&mut machine, 1, false));
        assert!(step(&mut machine, 3, false));
        assert!(step(&mut machine, 3, false), "a repeated step");
        assert!(!step(&mut machine, 2, false));
        assert_eq!(machine.image().cluster_version(), version(3));
    }

    #[test]
    fn a_downgrade_is_one_step_and_holds() {
        let mut machine = Machine::new();
        assert!(step(&mut machine, 3, false));
        assert!(!step(&mut machine, 1, true), "two at once");
        assert!(step(&mut machine, 2, true));
        assert!(step(&mut machine, 2, true), "a repeated step");
        assert!(
            !step(&mut machine, 3, false),
            "a rise that was proposed before"
        );
        assert!(!step(&mut machine, 1, true), "one downgrade at a time");
        assert!(step(&mut machine, 2, false), "it ends");
        assert!(step(&mut machine, 3, false));
    }

    #[test]
    fn it_survives_a_rebuild() {
        let mut machine = Machine::new();
        assert!(step(&mut machine, 2, false));
        assert!(step(&mut machine, 1, true));
        let image = machine.image();
        let rebuilt = Image::from_rows(image.meta(), image.rows().cloned(), []).unwrap();
        assert_eq!(rebuilt, image);
    }
}
