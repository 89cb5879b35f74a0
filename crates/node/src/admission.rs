//! Whether a change of the config may be committed: the judge that the store asks.
//!
//! Owns what a command would make of the committed config; the cost of a check follows the change.
//! Never writes; never looks at keys outside the config.

use bytes::Bytes;
use model::{CONFIG_PREFIX, ENDPOINT_PREFIX, Version};
use proxy_config::{Change, ConfigSet, Fault, check_registration, newer_than};
use store_mvcc::{Command, DeleteOp, Image, KeyRange, Op, PutOp, TxnOp};
use store_server::{Admission, Refusal};

use crate::committed::Committed;

/// So many faults are told in one refusal; their number is told too.
const FAULTS_TOLD_MAX: usize = 20;

/// Admits config changes by linking and compiling what they would result in.
#[derive(Debug, Default)]
pub(crate) struct ConfigAdmission {
    committed: Committed,
}

impl ConfigAdmission {
    pub(crate) fn new(committed: Committed) -> Self {
        Self { committed }
    }
}

impl Admission for ConfigAdmission {
    fn admit(&self, image: &Image, command: &Command) -> Result<(), Refusal> {
        check_versions(image, command)?;
        check_registrations(command)?;
        let mut newest = self.committed.at_least(image);
        let base = newest.set.clone();
        let results = match command {
            Command::Put(put) => vec![put_into(base, put)?],
            Command::Delete(delete) => vec![delete_from(base, image, delete)],
            Command::Txn(txn) => {
                let success = after(&base, image, &txn.success)?;
                let failure = after(&base, image, &txn.failure)?;
                success.into_iter().chain(failure).collect()
            }
            _ => Vec::new(),
        };
        // Of two that are in each other's way the one that changes is to blame, so the comparison is
        // with what is committed, not with whatever this judge saw last (nothing, at its start).
        for result in results {
            let checked = newest.checked.next(&result);
            newest.expected = Some(checked.map_err(|faults| told(&faults))?);
        }
        Ok(())
    }
}

/// Refuses what not every node knows: in what is written, at the mesh's version; and before a
/// downgrade in all that there is, at the version that it goes to.
fn check_versions(image: &Image, command: &Command) -> Result<(), Refusal> {
    let mesh = image.cluster_version();
    let mut faults = Vec::new();
    let mut look = |mesh: Version, key: &[u8], value: &[u8]| {
        if is_config(key) {
            faults.extend(newer_than(mesh, &String::from_utf8_lossy(key), value));
        }
    };
    match command {
        Command::Put(put) => look(mesh, &put.key, &put.value),
        Command::Txn(txn) => {
            for op in txn.success.iter().chain(&txn.failure) {
                if let Op::Put(put) = op {
                    look(mesh, &put.key, &put.value);
                }
            }
        }
        Command::SetClusterVersion(op) => {
            for row in image.live(&KeyRange::prefix(CONFIG_PREFIX)) {
                look(op.version, &row.key, &row.value);
            }
        }
        _ => {}
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(told(&faults))
    }
}

/// Refuses a registered endpoint that nobody could use, in whichever branch it is written.
fn check_registrations(command: &Command) -> Result<(), Refusal> {
    let mut faults = Vec::new();
    match command {
        Command::Put(put) => faults.extend(registration_fault(put)),
        Command::Txn(txn) => collect_registration_faults(txn, &mut faults),
        _ => {}
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(told(&faults))
    }
}

fn collect_registration_faults(txn: &TxnOp, faults: &mut Vec<Fault>) {
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Put(put) => faults.extend(registration_fault(put)),
            Op::Txn(nested) => collect_registration_faults(nested, faults),
            Op::Range(_) | Op::Delete(_) => {}
        }
    }
}

fn registration_fault(put: &PutOp) -> Option<Fault> {
    let written = put.key.starts_with(ENDPOINT_PREFIX.as_bytes()) && !put.ignore_value;
    written
        .then(|| check_registration(&put.key, &put.value))
        .flatten()
}

/// What `ops` make of `base`; `None` if they leave the config alone.
fn after(base: &ConfigSet, image: &Image, ops: &[Op]) -> Result<Option<ConfigSet>, Refusal> {
    let mut set = base.clone();
    let mut touched = false;
    for op in ops {
        match op {
            Op::Put(put) if is_config(&put.key) => {
                set = put_into(set, put)?;
                touched = true;
            }
            Op::Delete(delete) if delete.range.intersects_prefix(CONFIG_PREFIX.as_bytes()) => {
                set = delete_from(set, image, delete);
                touched = true;
            }
            Op::Txn(nested) if writes_config(nested) => {
                return Err(refusal(
                    "a transaction inside a transaction writes config; write it in the outer one",
                ));
            }
            Op::Range(_) | Op::Put(_) | Op::Delete(_) | Op::Txn(_) => {}
        }
    }
    Ok(touched.then_some(set))
}

fn put_into(mut set: ConfigSet, put: &PutOp) -> Result<ConfigSet, Refusal> {
    if is_config(&put.key) && put.lease != 0 {
        let key = String::from_utf8_lossy(&put.key);
        return Err(refusal(&format!(
            "{key}: config cannot have a lease; write it without one"
        )));
    }
    if is_config(&put.key) && !put.ignore_value {
        set.apply([Change {
            key: &put.key,
            value: Some(&put.value),
            mod_revision: 0,
        }]);
    }
    Ok(set)
}

fn delete_from(mut set: ConfigSet, image: &Image, delete: &DeleteOp) -> ConfigSet {
    let config = KeyRange::prefix(CONFIG_PREFIX);
    if !delete.range.intersects(&config) {
        return set;
    }
    let gone: Vec<Bytes> = image
        .live(&config)
        .filter(|row| delete.range.contains(&row.key))
        .map(|row| row.key.clone())
        .collect();
    set.apply(gone.iter().map(|key| Change {
        key,
        value: None,
        mod_revision: 0,
    }));
    set
}

fn is_config(key: &[u8]) -> bool {
    key.starts_with(CONFIG_PREFIX.as_bytes())
}

fn writes_config(txn: &TxnOp) -> bool {
    txn.writes_below(CONFIG_PREFIX.as_bytes())
}

fn told(faults: &[Fault]) -> Refusal {
    let mut lines: Vec<String> = faults
        .iter()
        .take(FAULTS_TOLD_MAX)
        .map(ToString::to_string)
        .collect();
    if faults.len() > FAULTS_TOLD_MAX {
        lines.push(format!(
            "and {} more faults",
            faults.len() - FAULTS_TOLD_MAX
        ));
    }
    refusal(&lines.join("\n"))
}

fn refusal(message: &str) -> Refusal {
    Refusal {
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use store_mvcc::{Machine, Proposal};

    use super::*;

    fn put(kind: &str, name: &str, fields: &str) -> Command {
        let key = format!("/skein/config/default/{kind}/{name}");
        let value = format!(
            r#"{{"schema":1,"kind":"{kind}","namespace":"default","name":"{name}",{fields}}}"#
        );
        Command::Put(PutOp::new(key, value))
    }

    fn listener(name: &str) -> Command {
        put("Listener", name, r#""bind":":8080","protocol":"http""#)
    }

    fn apply(machine: &mut Machine, command: Command) {
        let outcome = machine.apply(&Proposal {
            config_guard: Some(machine.image().config_revision()),
            ..Proposal::new(command)
        });
        outcome.result.expect("applied");
    }

    /// The judge of a new leader, or of a first dry run, has seen nothing of what is committed.
    #[test]
    fn a_judge_that_is_new_blames_the_change_and_not_what_was_there() {
        let mut machine = Machine::new();
        apply(&mut machine, listener("web"));
        let judge = ConfigAdmission::default();
        // By name alone, `web` would be the later of the two, and so the one to blame.
        let refused = judge.admit(&machine.image(), &listener("two")).unwrap_err();
        assert!(
            refused.message.starts_with("Listener/two: bind: "),
            "{}",
            refused.message
        );
    }

    #[test]
    fn a_registration_may_have_a_lease_and_must_be_readable_in_every_branch() {
        let image = Machine::new().image();
        let judge = ConfigAdmission::default();
        let put = |key: &'static str, value: &'static str| PutOp {
            lease: 7,
            ..PutOp::new(key, value)
        };
        let good = put("/skein/endpoints/default/web/1", "10.0.0.1:80");
        judge.admit(&image, &Command::Put(good.clone())).unwrap();
        let bad = put("/skein/endpoints/default/web/2", "nowhere");
        let nested = TxnOp {
            failure: vec![Op::Put(bad.clone())],
            ..TxnOp::default()
        };
        let nested = TxnOp {
            success: vec![Op::Put(good), Op::Txn(Box::new(nested))],
            ..TxnOp::default()
        };
        for command in [Command::Put(bad), Command::Txn(nested)] {
            let refused = judge.admit(&image, &command).unwrap_err().message;
            assert!(
                refused
                    .starts_with("endpoint web/2: \"nowhere\" is not an address to connect to; "),
                "{refused}"
            );
        }
        let stray = put("/skein/endpoints/web", "10.0.0.1:80");
        let refused = judge
            .admit(&image, &Command::Put(stray))
            .unwrap_err()
            .message;
        assert!(
            refused.contains("/skein/endpoints/NAMESPACE/SERVICE/ID"),
            "{refused}"
        );
        // The value that is there stays, with another lease.
        let kept = PutOp {
            ignore_value: true,
            ..put("/skein/endpoints/default/web/2", "")
        };
        judge.admit(&image, &Command::Put(kept)).unwrap();
        let config = put("/skein/config/default/Cluster/web", "{}");
        let refused = judge
            .admit(&image, &Command::Put(config))
            .unwrap_err()
            .message;
        assert!(refused.contains("cannot have a lease"), "{refused}");
    }

    #[test]
    fn each_branch_of_a_transaction_is_judged_by_itself() {
        let mut machine = Machine::new();
        apply(&mut machine, listener("web"));
        let delete = Op::Delete(DeleteOp::new(KeyRange::key(
            "/skein/config/default/Listener/web",
        )));
        let Command::Put(two) = listener("two") else {
            unreachable!("it is a put")
        };
        let two = Op::Put(two);
        let txn = |success: &[Op], failure: &[Op]| {
            Command::Txn(TxnOp {
                compares: Vec::new(),
                success: success.to_vec(),
                failure: failure.to_vec(),
            })
        };
        let judge = ConfigAdmission::default();
        let image = machine.image();
        let moved = [delete.clone(), two.clone()];
        judge
            .admit(&image, &txn(&moved, std::slice::from_ref(&delete)))
            .unwrap();
        // The second branch starts from what is committed, where the port is taken.
        let refused = judge.admit(&image, &txn(&moved, &[two])).unwrap_err();
        assert!(
            refused.message.starts_with("Listener/two: bind: "),
            "{}",
            refused.message
        );
    }
}
