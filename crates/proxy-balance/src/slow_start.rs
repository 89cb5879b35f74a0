//! Slow start: an endpoint that is new or healthy again gets its share little by little.
//!
//! Owns Envoy's formula. Never knows the time: ages are arguments.

use std::time::Duration;

use proxy_config::compiled::SlowStart;

/// The whole weight, as factors are given.
pub(crate) const WHOLE: u32 = 1 << 16;

/// What an endpoint of this age gets of its weight, in parts of [`WHOLE`]: at least the smallest
/// share, then (age / window)^(1 / aggression), all of it from the end of the window.
pub(crate) fn factor(slow_start: &SlowStart, age: Duration) -> u32 {
    if age >= slow_start.window {
        return WHOLE;
    }
    let time = age.as_secs_f64() / slow_start.window.as_secs_f64();
    let grown = time.powf(1.0 / f64::from(slow_start.aggression.max(1)));
    let least = f64::from(slow_start.min_weight_percent) / 100.0;
    let share = grown.max(least) * f64::from(WHOLE);
    // Between 0 and the whole by then.
    (share as u32).clamp(1, WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_from_the_least_to_the_whole() {
        let linear = SlowStart {
            window: Duration::from_secs(100),
            aggression: 1,
            min_weight_percent: 10,
        };
        let percent = |slow_start: &SlowStart, age: u64| {
            let factor = factor(slow_start, Duration::from_secs(age));
            (f64::from(factor) * 100.0 / f64::from(WHOLE)).round()
        };
        for (age, expected) in [(0, 10.0), (5, 10.0), (10, 10.0), (50, 50.0), (99, 99.0)] {
            assert_eq!(percent(&linear, age), expected, "{age}");
        }
        assert_eq!(
            (percent(&linear, 100), percent(&linear, 101)),
            (100.0, 100.0)
        );
        let steep = SlowStart {
            aggression: 2,
            ..linear
        };
        assert_eq!((percent(&steep, 0), percent(&steep, 25)), (10.0, 50.0));
    }
}
