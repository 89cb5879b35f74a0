//! How much and how long: the limits of the client port and the peer port.
//!
//! Owns the numbers. What happens at each is said beside it.

use std::time::Duration;

/// The largest request of a client, in bytes, as in etcd. Larger ones get etcd's "request is too
/// large".
pub(crate) const REQUEST_BYTES_MAX: usize = 1536 * 1024;
/// The largest message that is read from a client at all, in bytes: room for a request somewhat
/// too large to be told so in etcd's words. Larger ones end with the transport's error.
pub(crate) const REQUEST_DECODED_MAX: usize = 4 << 20;
/// The largest JSON object that is read from a client, in bytes: a request of
/// [`REQUEST_DECODED_MAX`] with its keys and values in base64. Larger ones get etcd's "request is
/// too large".
pub(crate) const JSON_BYTES_MAX: usize = 6 << 20;
/// The time for the body of a JSON request to arrive. Later ones get "deadline exceeded". A stream
/// of requests has no end to wait for.
pub(crate) const JSON_BODY_WAIT: Duration = Duration::from_secs(30);
/// From so many bytes on, JSON is read and written on a thread where that may take its time.
pub(crate) const JSON_BLOCKING_BYTES: usize = 128 << 10;
/// Pages of metrics that are put together at one time; more wait.
pub(crate) const METRICS_AT_ONCE_MAX: usize = 2;
/// The largest request between nodes on the `Forward` service, in bytes: more than the largest
/// proposal that Raft takes. Larger ones are refused by the transport.
pub(crate) const FORWARD_BYTES_MAX: usize = 4 << 20;
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

/// Times that a test or an operator may want otherwise.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a write or a linearizable read may take on this node, the search for a leader
    /// included. As in etcd: 5 s plus two election timeouts.
    pub request_deadline: Duration,
    /// How long a write or a linearizable read waits for a leader, unless its caller waits less:
    /// longer than an election takes, and shorter than most callers wait. Then it is turned away,
    /// surely undone, and may be tried at another node.
    pub leader_wait: Duration,
    /// How often a watcher that asked for it and had no event is told that it misses nothing.
    pub watch_progress_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_deadline: Duration::from_secs(7),
            leader_wait: Duration::from_secs(4),
            watch_progress_every: Duration::from_secs(600),
        }
    }
}
