//! Not more often than so: for answers to strangers and for log lines about them.
//!
//! Owns one token bucket. Never waits; what is over the rate is refused.

use std::time::{Duration, Instant};

/// A token bucket: `burst` at once, one more each `every`.
#[derive(Debug)]
pub(crate) struct Throttle {
    every: Duration,
    burst: u32,
    tokens: u32,
    filled: Instant,
    refused: u64,
}

impl Throttle {
    pub(crate) fn new(burst: u32, every: Duration, now: Instant) -> Self {
        Self {
            every,
            burst,
            tokens: burst,
            filled: now,
            refused: 0,
        }
    }

    /// Takes a token. `Some(n)`: go on, and `n` were refused since the last time.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u64> {
        let gained = now.duration_since(self.filled).as_nanos() / self.every.as_nanos().max(1);
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if gained > 0 {
            self.tokens = self.tokens.saturating_add(gained).min(self.burst);
            self.filled = now;
        }
        if self.tokens == 0 {
            self.refused += 1;
            return None;
        }
        self.tokens -= 1;
        Some(std::mem::take(&mut self.refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut throttle = Throttle::new(2, second, start);
        assert_eq!(throttle.pass(start), Some(0));
        assert_eq!(throttle.pass(start), Some(0));
        assert_eq!(throttle.pass(start), None);
        assert_eq!(throttle.pass(start + second / 2), None);
        assert_eq!(
            throttle.pass(start + second),
            Some(2),
            "two were refused in between"
        );
        assert_eq!(throttle.pass(start + second), None);
        assert_eq!(throttle.pass(start + 100 * second), Some(1));
        assert_eq!(
            throttle.pass(start + 100 * second),
            Some(0),
            "no more than the burst is saved"
        );
        assert_eq!(throttle.pass(start + 100 * second), None);
    }
}
