//! The metrics of the node as a whole: config, store, membership.
//!
//! Owns their names. Reads the parts when scraped; nothing is counted here.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use store_raft::{Role, Store};
use telemetry::Registry;

use crate::parts::Parts;
use crate::process::ProcessCollector;

/// Adds the node's metrics to `registry`.
pub(crate) fn register(parts: &Arc<Parts>, registry: &mut Registry) {
    registry.register_collector(Box::new(NodeCollector(Arc::downgrade(parts))));
    registry.register_collector(Box::new(ProcessCollector {
        started: parts.started,
    }));
}

struct NodeCollector(Weak<Parts>);

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

/// A metric's name, help and value.
type Figure = (&'static str, &'static str, i64);

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(parts) = self.0.upgrade() else {
            return Ok(());
        };
        let mut figures = Vec::from(config(&parts));
        figures.push(load(&parts));
        figures.extend(registrations(&parts));
        if parts.options.snapshots.is_some() {
            figures.extend(snapshots(&parts));
        }
        if let Some(open) = parts.store() {
            figures.extend(store(&open));
            figures.extend(raft(&open));
            figures.extend(soundness(&open));
        }
        for (name, help, value) in figures {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

fn config(parts: &Parts) -> [Figure; 4] {
    let in_force = parts.in_force.borrow().clone();
    let refused = in_force.compiled.refused.len();
    let (revision, faults) = ("skein_config_revision", parts.tasks.faults().len());
    let help = "The config revision in force on this node";
    [
        (
            revision,
            help,
            number(in_force.compiled.config.config_revision.0),
        ),
        (
            "skein_config_refused",
            "Faults of resources in an older version",
            count(refused),
        ),
        (
            "skein_task_faults",
            "Tasks that ended and should not have",
            count(faults),
        ),
        (
            "skein_store_fault",
            "1 when this node's store has stopped, or cannot be opened",
            i64::from(parts.store_stopped().is_some()),
        ),
    ]
}

fn load(parts: &Parts) -> Figure {
    let help = "The share of the proxy workers' time that was used in the last second";
    let percent = parts.load_percent.load(Ordering::Relaxed);
    ("skein_load_percent", help, i64::from(percent))
}

fn registrations(parts: &Parts) -> [Figure; 2] {
    let (good, bad) = parts.registrations.count();
    [
        (
            "skein_endpoints_registered",
            "Registered endpoints that this node knows",
            count(good),
        ),
        (
            "skein_endpoints_refused",
            "Keys of registered endpoints that cannot be read, and are not used",
            count(bad),
        ),
    ]
}

fn snapshots(parts: &Parts) -> [Figure; 2] {
    let tally = &parts.snapshots;
    [
        (
            "skein_snapshot_saved_unix_seconds",
            "When the last scheduled snapshot was saved; 0 for none since the start",
            tally.saved_unix.load(Ordering::Relaxed),
        ),
        (
            "skein_snapshot_failures",
            "Scheduled snapshots that were not saved, since the start",
            tally.failures.load(Ordering::Relaxed),
        ),
    ]
}

fn store(store: &Store) -> [Figure; 4] {
    let image = store.image();
    let resident = number(image.resident_bytes());
    [
        (
            "skein_config_revision_committed",
            "That of the store's newest image",
            number(image.config_revision().0),
        ),
        (
            "skein_store_revision",
            "The store's revision on this node",
            image.revision(),
        ),
        ("skein_store_keys", "Keys in the store", count(image.len())),
        (
            "skein_store_resident_bytes",
            "Bytes of keys, values and history in memory",
            resident,
        ),
    ]
}

fn raft(store: &Store) -> [Figure; 6] {
    let raft = store.status();
    let leads = i64::from(raft.role == Role::Leader);
    let members = raft.voters.len() + raft.learners.len();
    [
        ("skein_raft_is_leader", "1 on the leader", leads),
        (
            "skein_raft_has_quorum",
            "1 while writes should work",
            i64::from(raft.quorum),
        ),
        ("skein_raft_term", "The Raft term", number(raft.term)),
        (
            "skein_raft_last_log_index",
            "The last entry in the log",
            number(raft.last_log),
        ),
        (
            "skein_raft_applied_index",
            "The last entry applied",
            number(raft.applied),
        ),
        ("skein_raft_members", "Voters and learners", count(members)),
    ]
}

fn soundness(store: &Store) -> [Figure; 4] {
    let known = store.soundness();
    let known = known.borrow();
    [
        (
            "skein_store_damaged",
            "1 while this node's state differs from the one that a majority has, and answers nothing",
            i64::from(known.damage.is_some()),
        ),
        (
            "skein_store_undecided",
            "1 while members' states differ and no majority agrees",
            i64::from(known.undecided.is_some()),
        ),
        (
            "skein_store_heals",
            "How often this node got another's state in place of its own, since the start",
            number(known.heals),
        ),
        (
            "skein_store_agreed_unix_seconds",
            "When this node's state was last found to be that of a majority; 0 for never yet",
            number(known.agreed_unix),
        ),
    ]
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
