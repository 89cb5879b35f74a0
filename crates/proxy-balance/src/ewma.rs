//! How long an endpoint takes to answer: a moving average that believes bad news at once.
//!
//! Owns the arithmetic of "peak EWMA" (Finagle's `PeakEwma`, also linkerd's). Never measures.

use std::time::{Duration, Instant};

/// What happened so long ago counts 1/e (linkerd's).
const DECAY: Duration = Duration::from_secs(10);
/// What is thought of an endpoint that nobody measured, where nothing better is known (linkerd's).
const UNMEASURED: Duration = Duration::from_millis(30);
/// No estimate falls below this: at zero, requests in flight would not count any more.
const FLOOR: Duration = Duration::from_micros(100);
/// A try that got no response head counts as one of at least this time: what refuses at once would
/// else look like the quickest of all.
const PENALTY: Duration = Duration::from_secs(1);

/// The estimate of one endpoint's time to the response head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ewma {
    seconds: f64,
    at: Instant,
    measured: bool,
}

impl Ewma {
    /// That of a new endpoint, among others of its cluster: as slow as the mean of those that were
    /// measured. A new one that seemed to be quick would be overrun.
    pub fn new<'a>(others: impl IntoIterator<Item = &'a Self>, now: Instant) -> Self {
        let measured = others.into_iter().filter(|other| other.measured);
        let (sum, count) = measured.fold((0.0, 0_u32), |(sum, count), other| {
            (sum + other.seconds, count + 1)
        });
        let seconds = if count == 0 {
            UNMEASURED.as_secs_f64()
        } else {
            sum / f64::from(count)
        };
        Self {
            seconds,
            at: now,
            measured: false,
        }
    }

    /// Takes in that an answer began after `took`. What is slower than the estimate becomes it.
    pub fn observe(&mut self, took: Duration, now: Instant) {
        let took = took.as_secs_f64();
        let old = self.weight_of_old(now);
        self.seconds = if took >= self.seconds || !self.measured {
            took
        } else {
            self.seconds * old + took * (1.0 - old)
        };
        self.at = now;
        self.measured = true;
    }

    /// Takes in that no answer began, and that this was known after `took`.
    pub fn fail(&mut self, took: Duration, now: Instant) {
        self.observe(took.max(PENALTY), now);
    }

    /// The estimate in seconds. It decays while the endpoint is idle, so that one which was slow
    /// is tried again; not while requests are in flight, or one that hangs would look ever better.
    pub fn seconds(&self, now: Instant, idle: bool) -> f64 {
        let seconds = if idle {
            self.seconds * self.weight_of_old(now)
        } else {
            self.seconds
        };
        seconds.max(FLOOR.as_secs_f64())
    }

    fn weight_of_old(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at);
        (-elapsed.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn near(ewma: &Ewma, now: Instant, idle: bool, millis: f64) {
        let seconds = ewma.seconds(now, idle);
        assert!((seconds * 1e3 - millis).abs() < 0.01, "{seconds} {millis}");
    }

    #[test]
    fn peaks_are_believed_at_once_and_forgotten_slowly() {
        let start = Instant::now();
        let mut ewma = Ewma::new([], start);
        near(&ewma, start, false, 30.0);
        ewma.observe(5 * MS, start);
        near(&ewma, start, false, 5.0);
        ewma.observe(100 * MS, start);
        near(&ewma, start, false, 100.0);
        let later = start + DECAY;
        ewma.observe(5 * MS, later);
        let e = std::f64::consts::E;
        near(&ewma, later, false, 100.0 / e + 5.0 * (1.0 - 1.0 / e));
    }

    #[test]
    fn it_decays_while_idle_only_and_never_to_nothing() {
        let start = Instant::now();
        let mut ewma = Ewma::new([], start);
        ewma.observe(100 * MS, start);
        let later = start + DECAY;
        near(&ewma, later, true, 100.0 / std::f64::consts::E);
        near(&ewma, later, false, 100.0);
        near(&ewma, start + 100 * DECAY, true, 0.1);
    }

    #[test]
    fn who_is_new_is_thought_to_be_like_the_others() {
        let start = Instant::now();
        let measured = |millis: u32| {
            let mut ewma = Ewma::new([], start);
            ewma.observe(millis * MS, start);
            ewma
        };
        let others = [measured(200), measured(100), Ewma::new([], start)];
        near(&Ewma::new(&others, start), start, true, 150.0);
    }

    #[test]
    fn failing_fast_does_not_pay() {
        let start = Instant::now();
        let mut ewma = Ewma::new([], start);
        ewma.fail(MS, start);
        near(&ewma, start, false, 1000.0);
        ewma.fail(3000 * MS, start);
        near(&ewma, start, false, 3000.0);
    }
}
