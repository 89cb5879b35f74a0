//! From single observations to a verdict: so many equal ones in a row.
//!
//! Owns the counting for one endpoint on one node. Never probes, never knows the time.

use std::num::NonZeroU32;

/// What one probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// The endpoint answered as expected, in time.
    Success,
    /// It did not.
    Failure,
}

/// One node's opinion of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It may get traffic.
    Healthy,
    /// It must not.
    Unhealthy,
}

/// Turns observations into a verdict.
///
/// An endpoint without a verdict becomes healthy by its first success (as Envoy does, so that a new
/// node need not wait) but unhealthy only after the full run of failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Threshold {
    unhealthy_after: NonZeroU32,
    healthy_after: NonZeroU32,
    verdict: Option<Verdict>,
    /// Observations in a row that speak against the verdict.
    against: u32,
}

impl Threshold {
    /// Begins from `verdict`, which a former prober of the same endpoint may have left. A count of
    /// 0 is taken as 1.
    pub fn new(unhealthy_after: u32, healthy_after: u32, verdict: Option<Verdict>) -> Self {
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self {
            unhealthy_after: at_least_one(unhealthy_after),
            healthy_after: at_least_one(healthy_after),
            verdict,
            against: 0,
        }
    }

    /// The verdict so far.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Counts one observation; the new verdict if it changed.
    pub fn observe(&mut self, observation: Observation) -> Option<Verdict> {
        let (towards, needed) = match (observation, self.verdict) {
            (Observation::Success, None) => (Verdict::Healthy, NonZeroU32::MIN),
            (Observation::Success, _) => (Verdict::Healthy, self.healthy_after),
            (Observation::Failure, _) => (Verdict::Unhealthy, self.unhealthy_after),
        };
        if self.verdict == Some(towards) {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.against < needed.get() {
            return None;
        }
        self.against = 0;
        self.verdict = Some(towards);
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::Observation::{Failure, Success};
    use super::*;

    #[test]
    fn only_an_unbroken_run_changes_the_verdict() {
        let mut threshold = Threshold::new(3, 2, None);
        assert_eq!(
            threshold.observe(Success),
            Some(Verdict::Healthy),
            "the first success counts"
        );
        for observation in [Failure, Failure, Success, Failure, Failure] {
            assert_eq!(threshold.observe(observation), None);
        }
        assert_eq!(threshold.observe(Failure), Some(Verdict::Unhealthy));
        assert_eq!(threshold.observe(Failure), None, "told once");
        assert_eq!(threshold.observe(Success), None);
        assert_eq!(threshold.observe(Failure), None);
        assert_eq!(threshold.observe(Success), None);
        assert_eq!(threshold.observe(Success), Some(Verdict::Healthy));
    }

    #[test]
    fn an_unknown_endpoint_needs_all_failures() {
        let mut threshold = Threshold::new(2, 5, None);
        assert_eq!(threshold.observe(Failure), None);
        assert_eq!(threshold.verdict(), None);
        assert_eq!(threshold.observe(Failure), Some(Verdict::Unhealthy));
    }

    #[test]
    fn an_inherited_verdict_needs_the_full_run_to_change() {
        let mut threshold = Threshold::new(1, 2, Some(Verdict::Unhealthy));
        assert_eq!(threshold.observe(Success), None);
        assert_eq!(threshold.observe(Success), Some(Verdict::Healthy));
    }

    #[test]
    fn a_count_of_zero_is_one() {
        let mut threshold = Threshold::new(0, 0, Some(Verdict::Healthy));
        assert_eq!(threshold.observe(Failure), Some(Verdict::Unhealthy));
        assert_eq!(threshold.observe(Success), Some(Verdict::Healthy));
    }
}
