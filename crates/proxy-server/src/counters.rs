//! Counters of the request path.
//!
//! Owns how they are counted without a lock: each worker has its own, which it alone writes; a
//! scrape reads and adds them up. Never names a metric (that is `metrics`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::accept::HandshakeFailure;
use crate::flags::Flag;
use crate::passthrough::Inspected;
use crate::refusal::Refusal;

/// A number that one thread changes and any thread reads. Because there is one writer, a change is
/// a plain load and store, not a locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(count), Ordering::Relaxed);
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }

    /// For those that go down again.
    pub(crate) fn decrement(&self) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_sub(1), Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the latency buckets in microseconds (Envoy's, without its longest).
pub(crate) const BUCKETS_MICROS: [u64; 13] = [
    500, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// How long things took.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One more than there are bounds: the last one takes everything above.
    pub(crate) buckets: [Counter; BUCKETS_MICROS.len() + 1],
    pub(crate) sum_micros: Counter,
}

impl Histogram {
    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BUCKETS_MICROS.iter().position(|bound| micros <= *bound);
        self.buckets[at.unwrap_or(BUCKETS_MICROS.len())].increment();
        self.sum_micros.add(micros);
    }
}

/// What one worker counted at one listener.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct ListenerCounters {
    pub(crate) connections: Counter,
    pub(crate) connections_active: Counter,
    /// Of those, the ones that wait for a request for long.
    pub(crate) connections_resting: Counter,
    pub(crate) requests: Counter,
    pub(crate) requests_active: Counter,
    /// Answered with another URL, as the route says.
    pub(crate) redirects: Counter,
    /// Answered from the config, as the route says.
    pub(crate) direct_responses: Counter,
    /// By the hundreds digit, from 1xx.
    pub(crate) responses: [Counter; 5],
    pub(crate) bytes_received: Counter,
    pub(crate) bytes_sent: Counter,
    /// Connections that did not begin with the PROXY protocol as they should.
    pub(crate) proxy_protocol_refused: Counter,
    /// What the first messages of TLS told that is passed on, by [`Inspected::index`].
    pub(crate) inspected: [Counter; Inspected::ALL.len()],
    pub(crate) udp: UdpCounters,
    /// TLS connections that came about.
    pub(crate) handshakes: Counter,
    /// Those of them that went on from an earlier one.
    pub(crate) handshakes_resumed: Counter,
    /// By [`HandshakeFailure::index`].
    pub(crate) handshake_failures: [Counter; HandshakeFailure::COUNT],
    /// By [`Flag::index`].
    pub(crate) flags: [Counter; Flag::ALL.len()],
    /// By [`Refusal::index`].
    pub(crate) refused: [Counter; Refusal::ALL.len()],
    pub(crate) time: Histogram,
}

/// What one worker counted of datagrams at one listener; its sessions are connections.
#[derive(Debug, Default)]
pub(crate) struct UdpCounters {
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    /// Those that no session could be had for, or that a client did not take.
    pub(crate) dropped: Counter,
    /// Sessions that fell silent.
    pub(crate) idle: Counter,
}

/// What one worker counted at one cluster.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct ClusterCounters {
    pub(crate) connections: Counter,
    pub(crate) connections_active: Counter,
    pub(crate) connect_failures: Counter,
    pub(crate) connect_timeouts: Counter,
    /// Connections that were made and came to nothing in the TLS handshake.
    pub(crate) tls_failures: Counter,
    pub(crate) connection_overflows: Counter,
    pub(crate) requests: Counter,
    pub(crate) requests_active: Counter,
    pub(crate) pending_overflows: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) per_try_timeouts: Counter,
    pub(crate) retries: Counter,
    pub(crate) retry_successes: Counter,
    pub(crate) retry_overflows: Counter,
    pub(crate) retry_limits_exceeded: Counter,
    pub(crate) resets_received: Counter,
    pub(crate) resets_sent: Counter,
    pub(crate) none_healthy: Counter,
    /// Copies of requests that were sent here, and that were not.
    pub(crate) mirrors: Counter,
    pub(crate) mirror_overflows: Counter,
    /// Datagrams that could not be sent at once.
    pub(crate) datagrams_dropped: Counter,
    /// By the hundreds digit, from 1xx.
    pub(crate) responses: [Counter; 5],
    pub(crate) time: Histogram,
}

/// Counts down again when something is over.
#[derive(Debug)]
pub(crate) struct Active<'a>(&'a Counter);

impl<'a> Active<'a> {
    pub(crate) fn count(counter: &'a Counter) -> Self {
        counter.increment();
        Self(counter)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_first_bucket_that_holds_them() {
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 10_000_000, 10_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = histogram.buckets.iter().map(Counter::read).collect();
        assert_eq!(counts[..2], [2, 1]);
        assert_eq!(counts[BUCKETS_MICROS.len() - 1..], [1, 1]);
        assert_eq!(histogram.sum_micros.read(), 20_001_002);
    }

    #[test]
    fn what_is_active_counts_down_again() {
        let counter = Counter::default();
        let active = Active::count(&counter);
        assert_eq!(counter.read(), 1);
        drop(active);
        assert_eq!(counter.read(), 0);
    }
}
