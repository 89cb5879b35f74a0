//! How busy this node's proxy workers are.
//!
//! Owns the sampling, and how seldom a change is told. Never touches a worker: it reads the time
//! that their runtimes count anyway.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::parts::Parts;

/// The load is that of the last second.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// A change is told when it is so large: everybody hears of each.
const TOLD_STEP_PERCENT: u8 = 5;

/// Measures for as long as this node runs.
pub(crate) async fn measure(parts: Arc<Parts>) {
    let (mut before, mut at) = (parts.proxy.busy(), Instant::now());
    loop {
        tokio::time::sleep(SAMPLE_EVERY).await;
        let (busy, now) = (parts.proxy.busy(), Instant::now());
        let load = percent(&before, &busy, now - at);
        (before, at) = (busy, now);
        parts.load_percent.store(load, Ordering::Relaxed);
        if is_news(parts.load_told.load(Ordering::Relaxed), load) {
            parts.load_told.store(load, Ordering::Relaxed);
            parts.publish();
        }
    }
}

/// The share of the workers' time between two readings that they were at work.
fn percent(before: &[Duration], after: &[Duration], passed: Duration) -> u8 {
    let worked = before.iter().zip(after);
    let worked: Duration = worked
        .map(|(before, after)| after.saturating_sub(*before))
        .sum();
    let whole = passed.as_secs_f64() * after.len() as f64;
    if whole <= 0.0 {
        return 0;
    }
    // A worker's last turn may have begun before the first reading.
    (worked.as_secs_f64() / whole * 100.0)
        .round()
        .clamp(0.0, 100.0) as u8
}

fn is_news(told: u8, load: u8) -> bool {
    told.abs_diff(load) >= TOLD_STEP_PERCENT || (load == 0 && told != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_the_share_of_all_workers_time() {
        let ms = |all: &[u64]| -> Vec<Duration> {
            all.iter().map(|ms| Duration::from_millis(*ms)).collect()
        };
        for (before, after, passed, load) in [
            (&[0, 0][..], &[500, 0][..], 1000, 25),
            (&[100, 900], &[1100, 1900], 1000, 100),
            (&[7, 7], &[7, 7], 1000, 0),
            // More than there was: a turn that began before.
            (&[0], &[3000], 1000, 100),
            (&[0], &[10], 0, 0),
            (&[], &[], 1000, 0),
        ] {
            let passed = Duration::from_millis(passed);
            assert_eq!(percent(&ms(before), &ms(after), passed), load, "{after:?}");
        }
    }

    #[test]
    fn small_changes_are_not_told() {
        assert!(!is_news(20, 24) && !is_news(20, 16) && !is_news(0, 0));
        assert!(is_news(20, 25) && is_news(20, 15) && is_news(3, 0));
    }
}
