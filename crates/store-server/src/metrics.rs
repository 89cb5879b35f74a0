//! The store's metrics, under etcd's names where they mean the same: dashboards and alerts that
//! were made for etcd go on.
//!
//! Owns names and helps. Reads what the parts know anyway when somebody asks; a request costs
//! nothing for it but the relaxed counters that those parts have.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use store_raft::{Role, Store, SyncTimes};

use crate::limits::Limits;
use crate::watch::WatchHub;

/// Reads one store.
pub(crate) struct StoreCollector {
    pub(crate) store: Store,
    pub(crate) hub: Arc<WatchHub>,
    pub(crate) limits: Limits,
}

/// A metric's name, help and value.
type Figure = (&'static str, &'static str, u64);

impl fmt::Debug for StoreCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreCollector")
    }
}

impl Collector for StoreCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counters = self.store.counters();
        for (name, help, value) in self.server().into_iter().chain(self.image()) {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        // The format adds `_total` to the name of a counter.
        let totals: [Figure; 2] = [
            (
                "etcd_server_leader_changes_seen",
                "The number of leader changes seen",
                counters.leader_changes,
            ),
            (
                "etcd_server_proposals_failed",
                "Proposals without a known outcome, or not proposed",
                counters.failed,
            ),
        ];
        for (name, help, value) in totals {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        let syncs = Syncs(self.store.sync_times());
        let name = "etcd_disk_wal_fsync_duration_seconds";
        let help = "How long making the log durable takes";
        syncs.encode(encoder.encode_descriptor(name, help, None, syncs.metric_type())?)
    }
}

impl StoreCollector {
    fn server(&self) -> [Figure; 7] {
        let status = self.store.status();
        let is = |role| u64::from(status.role == role);
        [
            (
                "etcd_server_has_leader",
                "Whether or not a leader exists. 1 is existence, 0 is not",
                u64::from(status.leader.is_some()),
            ),
            (
                "etcd_server_is_leader",
                "Whether or not this member is a leader. 1 if is, 0 otherwise",
                is(Role::Leader),
            ),
            (
                "etcd_server_is_learner",
                "Whether or not this member is a learner. 1 if is, 0 otherwise",
                is(Role::Learner),
            ),
            (
                "etcd_server_proposals_committed_total",
                "The last entry of the log that is committed",
                status.committed,
            ),
            (
                "etcd_server_proposals_applied_total",
                "The last entry of the log that is applied",
                status.applied,
            ),
            (
                "etcd_server_proposals_pending",
                "Proposals that wait or are under way on this member",
                self.store.pending_proposals() as u64,
            ),
            (
                "etcd_server_quota_backend_bytes",
                "What the store may hold, in bytes",
                self.limits.quota_bytes,
            ),
        ]
    }

    fn image(&self) -> [Figure; 6] {
        let image = self.store.image();
        let revision = |revision: i64| u64::try_from(revision).unwrap_or(0);
        [
            (
                "etcd_mvcc_db_total_size_in_bytes",
                "Current rows and history in memory, in bytes",
                image.resident_bytes(),
            ),
            (
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Current rows in memory, in bytes",
                image.live_bytes(),
            ),
            (
                "etcd_debugging_mvcc_keys_total",
                "Total number of keys",
                image.len() as u64,
            ),
            (
                "etcd_debugging_mvcc_current_revision",
                "The newest revision",
                revision(image.revision()),
            ),
            (
                "etcd_debugging_mvcc_compact_revision",
                "The oldest revision that can be read; 0 if all can",
                revision(image.compact_revision()),
            ),
            (
                "etcd_debugging_mvcc_watcher_total",
                "Total number of watchers",
                self.hub.open_watchers() as u64,
            ),
        ]
    }
}

struct Syncs(SyncTimes);

impl EncodeMetric for Syncs {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let times = &self.0;
        let buckets = times.buckets();
        encoder.encode_histogram::<NoLabelSet>(times.seconds(), times.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
