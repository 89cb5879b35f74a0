//! Stands in for the crate of this name, into whose histograms openraft counts batch sizes.
//!
//! The published one builds the bucket tables of all its 16 widths at the first count: 26 MB that
//! stay resident, more than all the rest of an idle node. Skein reads none of these statistics, so
//! this one owns a bucket per power of two and nothing else. Only what openraft calls is here.

use std::fmt;
use std::marker::PhantomData;

/// Buckets: one for 0, one for each bit length of a `u64`.
const BUCKETS: usize = 65;

/// Counts of values by their bit length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    /// The published crate keeps a `T` beside each slot of a sliding window; openraft has none.
    slot: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// A histogram that counted nothing.
    pub const fn new() -> Self {
        Self {
            counts: [0; BUCKETS],
            slot: PhantomData,
        }
    }

    /// Counts `value`.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts `value` `n` times.
    pub fn record_n(&mut self, value: u64, n: u64) {
        let bucket = BUCKETS - 1 - value.leading_zeros() as usize;
        self.counts[bucket] = self.counts[bucket].saturating_add(n);
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The largest value of the bucket in which the fraction `p` (0 to 1) of all values is reached;
    /// 0 if nothing was counted.
    pub fn percentile(&self, p: f64) -> u64 {
        let wanted = (self.total() as f64 * p).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return u64::MAX.checked_shr(64 - bucket as u32).unwrap_or(0);
            }
        }
        0
    }

    /// The usual percentiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.10),
            p50: self.percentile(0.50),
            p90: self.percentile(0.90),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

/// Percentiles of a [`Histogram`], each as the upper end of its bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it: p99_9 is the 99.9th percentile.
pub struct PercentileStats {
    /// How many values were counted.
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            samples,
            p50,
            p90,
            p99,
            p99_9,
            ..
        } = self;
        write!(f, "n={samples} p50={p50} p90={p90} p99={p99} p99.9={p99_9}")
    }
}

/// Several histograms under their names, as lines of percentiles.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    named: Vec<(String, Histogram)>,
}

impl AsciiChart {
    /// An empty chart.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a histogram.
    #[must_use]
    #[allow(clippy::should_implement_trait)] // openraft calls it so.
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.named.push((name.into(), histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.named.iter();
        lines.try_for_each(|(name, counts)| writeln!(f, "{name}: {}", counts.percentile_stats()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_upper_ends_of_their_buckets() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile(0.5), 0);
        histogram.record_n(0, 10);
        histogram.record_n(5, 80);
        histogram.record_n(u64::MAX, 10);
        assert_eq!(histogram.total(), 100);
        assert_eq!(histogram.percentile(0.1), 0);
        assert_eq!(histogram.percentile(0.5), 7);
        assert_eq!(histogram.percentile(1.0), u64::MAX);
    }
}
