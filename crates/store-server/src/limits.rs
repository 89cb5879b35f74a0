//! How much and how long: the limits of the client port and the peer port.
//!
//! Owns the numbers. What happens at each is said beside it.

use std::ops::RangeInclusive;
use std::time::Duration;

use store_mvcc::TXN_OPS_MAX;

/// What [`Limits::request_bytes`] may be set to.
pub const REQUEST_BYTES: RangeInclusive<usize> = 1024..=8 << 20;
/// What [`Limits::txn_ops`] may be set to.
pub const TXN_OPS: RangeInclusive<usize> = 1..=100_000;
/// What [`Limits::quota_bytes`] may be set to: below, nothing useful fits.
pub const QUOTA_BYTES: RangeInclusive<u64> = 1 << 20..=u64::MAX;

/// What is read of a message beyond the largest request, in bytes: room for a request somewhat too
/// large to be told so in etcd's words. Larger ones end with the transport's error.
pub(crate) const REQUEST_SLACK: usize = 5 << 19;
/// The largest JSON object that is read from a client, in bytes, whatever
/// [`Limits::request_bytes`] is: a request of 4 MiB with its keys and values in base64. Larger ones
/// get etcd's "request is too large"; gRPC takes them.
pub(crate) const JSON_BYTES_MAX: usize = 6 << 20;
/// The time for the body of a JSON request to arrive. Later ones get "deadline exceeded". A stream
/// of requests has no end to wait for.
pub(crate) const JSON_BODY_WAIT: Duration = Duration::from_secs(30);
/// From so many bytes on, nothing else waits while JSON is read or written.
pub(crate) const JSON_ASIDE_BYTES: usize = 128 << 10;
/// Snapshots that clients take away from one node at one time: each keeps an old state in memory and
/// a thread busy. One more gets "too many requests".
pub(crate) const SNAPSHOTS_MAX: usize = 4;
/// A client that takes nothing of its snapshot for so long has lost it: its stream ends.
pub(crate) const SNAPSHOT_STALL: Duration = Duration::from_secs(30);
/// Pages of metrics that are put together at one time; more wait.
pub(crate) const METRICS_AT_ONCE_MAX: usize = 2;
/// The largest request between nodes on the `Forward` service, in bytes: more than the largest
/// proposal that Raft takes. Larger ones are refused by the transport.
pub(crate) const FORWARD_BYTES_MAX: usize = 16 << 20;
/// The largest answer that is taken from the leader, in bytes: a transaction may read a lot.
pub(crate) const FORWARD_ANSWER_MAX: usize = 512 << 20;
/// A message of relayed proposals, or of their answers, takes no more of them once it has so many
/// bytes,
pub(crate) const RELAY_MESSAGE_BYTES: usize = 1 << 20;
/// or, of proposals, so many: the rest goes into the next message.
pub(crate) const RELAY_MESSAGE_PROPOSALS: usize = 1_024;
/// Config changes that wait for their turn in the serial lane. One more gets "too many requests".
pub(crate) const LANE_WAITING_MAX: usize = 256;
/// How often one config change is admitted anew because the config moved under it. After that it
/// gets "too many requests".
pub(crate) const ADMISSIONS_MAX: usize = 8;
/// The longest text of a refusal, in bytes: it travels in an HTTP/2 header, which peers limit to
/// 16 KiB. The rest is cut off.
pub(crate) const REFUSAL_TEXT_MAX: usize = 4096;

/// Leases that wait together to be kept alive through one node, while an earlier proposal is under
/// way. More get "too many requests". (A proposal of so many has 1 MiB.)
pub(crate) const KEEP_ALIVES_MAX: usize = 128 * 1024;

/// The longest time between two proposals of keep-alives through one node: a proposal costs all
/// members the same, whether it keeps one lease or a thousand. Far below the shortest lease.
pub(crate) const KEEP_ALIVES_EVERY: Duration = Duration::from_millis(500);

/// That time is no longer than this part of the shortest lease that was kept alive the last time.
pub(crate) const KEEP_ALIVES_PART: u32 = 20;

/// What a test or an operator may want otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest request of a client, in bytes. Larger ones get etcd's "request is too large".
    pub request_bytes: usize,
    /// The most operations of one list of a client's transaction. Larger ones get etcd's "too many
    /// operations".
    pub txn_ops: usize,
    /// The most that current rows and history may take, in bytes. From there on only what makes room
    /// is accepted; the rest gets etcd's "database space exceeded".
    pub quota_bytes: u64,
    /// How much history is kept.
    pub history: HistoryLimits,
    /// How long a write or a linearizable read may take on this node, the search for a leader
    /// included. As in etcd: 5 s plus two election timeouts.
    pub request_deadline: Duration,
    /// How long a write or a linearizable read waits for a leader, unless its caller waits less:
    /// longer than an election takes, and shorter than most callers wait. Then it is turned away,
    /// surely undone, and may be tried at another node.
    pub leader_wait: Duration,
    /// How often a watcher that asked for it and had no event is told that it misses nothing.
    pub watch_progress_every: Duration,
    /// The least time to live that a lease is granted, in seconds: shorter ones are raised to it.
    /// As in etcd: longer than an election takes, so that there is time for a keep-alive.
    pub lease_ttl_min: i64,
    /// How long a token counts that is not used.
    pub auth_token_ttl: Duration,
    /// How long a member must have been dead, by the leader's own sight, before it is removed;
    /// `None`: never by itself.
    pub remove_dead_after: Option<Duration>,
}

/// How long a token counts after it was last used, as in etcd.
pub const AUTH_TOKEN_TTL: Duration = Duration::from_secs(300);

/// A member that is dead for so long is removed, unless told otherwise: a machine that was repaired
/// after a weekend is still a member, and one that is replaced under its name never waits for this.
pub const REMOVE_DEAD_AFTER: Duration = Duration::from_secs(72 * 3600);

/// How much history is kept: revisions that can be read, and watched from. What no limit wants
/// kept is compacted; of two that differ, the bytes win.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimits {
    /// As long as this.
    pub keep: Duration,
    /// At least so many revisions, however old.
    pub min_revisions: u64,
    /// At most so many bytes, however young. Less, when the current rows leave less of the quota.
    pub max_bytes: u64,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(3_600),
            min_revisions: 10_000,
            max_bytes: 256 << 20,
        }
    }
}

impl Default for Limits {
    /// etcd's, but for the history, of which etcd keeps all.
    fn default() -> Self {
        Self {
            request_bytes: 1536 * 1024,
            txn_ops: TXN_OPS_MAX,
            quota_bytes: 2 << 30,
            history: HistoryLimits::default(),
            request_deadline: Duration::from_secs(7),
            leader_wait: Duration::from_secs(4),
            watch_progress_every: Duration::from_secs(600),
            lease_ttl_min: 2,
            auth_token_ttl: AUTH_TOKEN_TTL,
            remove_dead_after: Some(REMOVE_DEAD_AFTER),
        }
    }
}
