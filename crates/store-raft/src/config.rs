//! What a store is started with, and what becomes of it in openraft's settings.
//!
//! Owns the numbers that are not openraft's defaults, with the reasons.

use std::time::Duration;

use model::Version;
use openraft::{Config, SnapshotPolicy};
use store_disk::{DataDir, WalOptions};
use tls::Dialer;

use crate::timings::Timings;

/// Sending and installing a snapshot may take so long; silence in between is found much sooner.
const INSTALL_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The most entries in one message to a follower. Bytes usually end it earlier.
const MESSAGE_ENTRIES: u64 = 256;

/// When a node writes a snapshot, and how much of the log it keeps behind it.
///
/// Once there are two snapshots, the log is also kept from the older one on, whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// A snapshot is written after so many entries,
    pub every_entries: u64,
    /// or so many bytes of proposals.
    pub every_bytes: u64,
    /// Entries kept for followers that are a little behind: they need no snapshot.
    pub keep_entries: u64,
    /// No more of them than so many bytes.
    pub keep_bytes: u64,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self {
            every_entries: 10_000,
            every_bytes: 256 * 1024 * 1024,
            keep_entries: 5_000,
            keep_bytes: 64 * 1024 * 1024,
        }
    }
}

/// How often the members compare their states, unless told otherwise: often enough that damage is
/// found long before it gets into all backups, and seldom enough to cost nothing.
pub const COMPARE_EVERY: Duration = Duration::from_secs(600);

/// What a store needs to start.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The node's data directory, locked.
    pub data: DataDir,
    /// How long members wait for each other.
    pub timings: Timings,
    /// When snapshots are written.
    pub snapshots: SnapshotLimits,
    /// How the log is kept.
    pub wal: WalOptions,
    /// Which version this node is, to the other members.
    pub version: Version,
    /// How the other members are called; `None`: in plain text.
    pub peer_tls: Option<Dialer>,
    /// How often the members compare their states while this one leads; `None`: never.
    pub compare_every: Option<Duration>,
}

impl StoreConfig {
    /// Defaults for everything else.
    pub fn new(data: DataDir) -> Self {
        Self {
            data,
            timings: Timings::default(),
            snapshots: SnapshotLimits::default(),
            wal: WalOptions::default(),
            version: Version::THIS,
            peer_tls: None,
            compare_every: Some(COMPARE_EVERY),
        }
    }

    /// The settings for openraft.
    pub(crate) fn raft(&self) -> Config {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let lease = millis(self.timings.election_max);
        Config {
            cluster_name: "skein".to_owned(),
            heartbeat_interval: millis(self.timings.heartbeat),
            election_timeout_min: millis(self.timings.election_min),
            election_timeout_max: lease,
            install_snapshot_timeout: millis(INSTALL_SNAPSHOT_TIMEOUT),
            max_payload_entries: MESSAGE_ENTRIES,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshots.every_entries),
            max_in_snapshot_log_to_keep: self.snapshots.keep_entries,
            // A node that returns must not raise the term of a mesh that works.
            enable_pre_vote: Some(true),
            // A restarted leader asks for votes like everybody else.
            enable_leader_restore: Some(false),
            // A leader that lost its quorum stays quiet now and then, so that those who still
            // hear each other can elect another. The shortest that openraft allows.
            quorum_loss_probe_interval: Some(2 * lease),
            ..Config::default()
        }
    }
}
