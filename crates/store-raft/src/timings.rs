//! How long members wait for each other.
//!
//! Owns the defaults and their reasons. Never reads a clock.

use std::time::Duration;

/// The times of elections and requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Between a leader's heartbeats, and the deadline of each.
    pub heartbeat: Duration,
    /// The least time without a leader's call, after its lease, before a follower stands.
    pub election_min: Duration,
    /// The greatest such time, and the lease itself: how long after a leader's call a follower
    /// supports no other, and how long a leader without a quorum's answers accepts proposals.
    pub election_max: Duration,
    /// How long a proposal or a linearizable read may take before the caller gets an error.
    pub request: Duration,
}

impl Default for Timings {
    /// 100 ms heartbeats and 400 to 800 ms elections.
    ///
    /// A follower stands 1.2 to 1.6 s after the last call of a leader that vanished with its host,
    /// so a successor writes within 2 s; a leader whose process died is succeeded in a fraction of
    /// that (see `pulse`). Twelve heartbeats in a row must be late before anybody stands, more than
    /// the scheduling delays of three busy nodes on two cores, and eight answers before a leader
    /// stops to accept proposals, more than an ordinary stall of a disk.
    ///
    /// Requests get 5 s, as in etcd: several elections.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(800),
            request: Duration::from_secs(5),
        }
    }
}
