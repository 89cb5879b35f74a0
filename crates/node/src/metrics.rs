//! The metrics of the node as a whole: config, store, membership.
//!
//! Owns their names. Reads the parts when scraped; nothing is counted here.

use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use store_raft::Role;
use telemetry::Registry;

use crate::parts::Parts;

/// Adds the node's metrics to `registry`.
pub(crate) fn register(parts: &Arc<Parts>, registry: &mut Registry) {
    registry.register_collector(Box::new(NodeCollector(Arc::downgrade(parts))));
}

struct NodeCollector(Weak<Parts>);

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(parts) = self.0.upgrade() else {
            return Ok(());
        };
        let raft = parts.store.status();
        let image = parts.store.image();
        let in_force = parts.in_force.borrow().clone();
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let flag = i64::from;
        let members = raft.voters.len() + raft.learners.len();
        let gauges = [
            (
                "skein_config_revision",
                "The config revision in force on this node",
                number(in_force.compiled.config.config_revision.0),
            ),
            (
                "skein_config_revision_committed",
                "The config revision of this node's newest image of the store",
                number(image.config_revision().0),
            ),
            (
                "skein_config_refused",
                "Faults of resources that keep their previous version on this node",
                number(in_force.compiled.refused.len() as u64),
            ),
            (
                "skein_store_revision",
                "The store's revision on this node",
                image.revision(),
            ),
            (
                "skein_store_keys",
                "Keys in the store",
                number(image.len() as u64),
            ),
            (
                "skein_store_resident_bytes",
                "Bytes of keys, values and history held in memory",
                number(image.resident_bytes()),
            ),
            (
                "skein_raft_is_leader",
                "1 on the leader",
                flag(raft.role == Role::Leader),
            ),
            (
                "skein_raft_has_quorum",
                "1 while writes can be expected to work",
                flag(raft.quorum),
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
            (
                "skein_raft_members",
                "Voters and learners",
                number(members as u64),
            ),
            (
                "skein_task_faults",
                "Tasks of this node that ended and should not have",
                number(parts.tasks.faults().len() as u64),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
