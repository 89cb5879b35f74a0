//! Times and their percentiles, and the time of processes.
//!
//! Owns every sample: runs are short, so nothing is approximated.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

/// The durations that one measurement took.
#[derive(Default)]
pub(crate) struct Durations(Vec<Duration>);

impl Durations {
    pub(crate) fn add(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    pub(crate) fn absorb(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// p50, p99, p99.9 and the largest, in milliseconds, by the nearest rank; null without samples.
    pub(crate) fn percentiles(mut self) -> Value {
        self.0.sort_unstable();
        let at = |share: f64| {
            let rank = (share * self.0.len() as f64).ceil() as usize;
            let sample = self.0.get(rank.max(1) - 1)?;
            Some((sample.as_secs_f64() * 1e6).round() / 1e3)
        };
        json!({
            "p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999), "max_ms": at(1.0),
        })
    }
}

/// User and system time of each process, from `/proc`.
pub(crate) fn cpu_seconds(pids: &[u32]) -> anyhow::Result<Vec<f64>> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    pids.iter()
        .map(|pid| {
            let path = format!("/proc/{pid}/stat");
            let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
            let after_name = stat.rsplit(')').next().with_context(|| path.clone())?;
            let fields: Vec<_> = after_name.split_whitespace().collect();
            let time = |at: usize| anyhow::Ok(fields.get(at).context("a field")?.parse::<f64>()?);
            anyhow::Ok((time(11)? + time(12)?) / ticks)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut durations = Durations::default();
        for millis in (1..=200).rev() {
            durations.add(Duration::from_millis(millis));
        }
        let found = durations.percentiles();
        assert_eq!(
            found,
            json!({ "p50_ms": 100.0, "p99_ms": 198.0, "p999_ms": 200.0, "max_ms": 200.0 })
        );
    }

    #[test]
    fn nothing_measured_is_null() {
        let found = Durations::default().percentiles();
        assert_eq!(found["p99_ms"], Value::Null);
    }
}
