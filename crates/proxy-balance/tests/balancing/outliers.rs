//! Who is ejected, for how long, and how many at most.

use std::time::Instant;

use proxy_balance::{OutlierKind, Outliers, Tally};
use proxy_config::compiled::{FailurePercentage, Outlier, SuccessRate};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> Outlier {
    Outlier {
        consecutive_5xx: 5,
        consecutive_gateway_failure: 0,
        split_local_origin: false,
        consecutive_local_origin_failure: 5,
        success_rate: None,
        failure_percentage: None,
        interval: 10 * SECOND,
        base_ejection_time: 30 * SECOND,
        max_ejection_time: 300 * SECOND,
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 10,
    }
}

fn outliers(count: usize) -> Outliers {
    let mut outliers = Outliers::default();
    outliers.follow((0..count).map(address));
    outliers
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(1)
}

const IN_A_ROW: OutlierKind = OutlierKind::Consecutive5xx;

fn ejected(outliers: &Outliers) -> Vec<SocketAddr> {
    outliers.ejections().map(|(address, _)| address).collect()
}

/// The share of successes of each endpoint, of 100 requests.
fn tallies(percents: &[u64]) -> Vec<(SocketAddr, Tally)> {
    let tally = |(index, successes): (usize, &u64)| {
        let tally = Tally {
            requests: 100,
            successes: *successes,
        };
        (address(index), tally)
    };
    percents.iter().enumerate().map(tally).collect()
}

#[test]
fn one_may_always_be_ejected_and_more_only_up_to_the_percentage() {
    for (count, percent, most) in [
        (1, 10, 1),
        (3, 10, 1),
        (3, 0, 1),
        (20, 10, 2),
        (29, 10, 2),
        (4, 50, 2),
        (4, 100, 4),
    ] {
        let (mut outliers, now) = (outliers(count), Instant::now());
        let policy = Outlier {
            max_ejection_percent: percent,
            ..policy()
        };
        for index in 0..count {
            let found = (address(index), IN_A_ROW);
            assert_eq!(
                outliers.eject(&policy, found, now, &mut rng()),
                index < most
            );
        }
        assert_eq!(ejected(&outliers).len(), most, "{count} {percent}");
        assert_eq!(outliers.overflows(), (count - most) as u64);
        assert_eq!(outliers.enforced()[IN_A_ROW.index()], most as u64);
    }
}

#[test]
fn each_ejection_in_short_order_lasts_longer_up_to_the_longest() {
    let (mut outliers, mut now, policy) = (outliers(5), Instant::now(), policy());
    let mut last = |outliers: &mut Outliers| {
        assert!(outliers.eject(&policy, (address(0), IN_A_ROW), now, &mut rng()));
        let until = outliers.ejection(address(0)).unwrap().until;
        let lasts = until - now;
        let short_before = until.checked_sub(SECOND).unwrap();
        assert!(!outliers.sweep(&policy, &[], short_before, &mut rng()));
        assert!(outliers.sweep(&policy, &[], until, &mut rng()));
        assert_eq!(outliers.ejection(address(0)), None);
        now = until;
        lasts.as_secs()
    };
    for expected in [30, 60, 90] {
        assert_eq!(last(&mut outliers), expected);
    }
    // Two intervals in place, and two of the three are forgotten.
    for _ in 0..2 {
        outliers.sweep(&policy, &[], Instant::now(), &mut rng());
    }
    assert_eq!(last(&mut outliers), 60);
    for _ in 0..20 {
        last(&mut outliers);
    }
    assert_eq!(last(&mut outliers), 300);
}

#[test]
fn returns_are_spread_by_the_jitter() {
    let policy = Outlier {
        max_ejection_time_jitter: 10 * SECOND,
        max_ejection_percent: 100,
        ..policy()
    };
    let (mut outliers, now, mut rng) = (outliers(50), Instant::now(), rng());
    for index in 0..50 {
        assert!(outliers.eject(&policy, (address(index), IN_A_ROW), now, &mut rng));
    }
    let lasts: Vec<Duration> = outliers.ejections().map(|(_, e)| e.until - now).collect();
    let (least, most) = (lasts.iter().min().unwrap(), lasts.iter().max().unwrap());
    assert!(
        *least >= 30 * SECOND && *most <= 40 * SECOND,
        "{least:?} {most:?}"
    );
    assert!(*most - *least > 5 * SECOND, "{least:?} {most:?}");
}

#[test]
fn who_succeeds_much_less_often_than_the_others_is_ejected() {
    let policy = Outlier {
        success_rate: Some(SuccessRate {
            minimum_hosts: 5,
            request_volume: 100,
            stdev_factor: 1900,
        }),
        max_ejection_percent: 100,
        ..policy()
    };
    let judged = |percents: &[u64]| {
        let mut outliers = outliers(percents.len());
        outliers.sweep(&policy, &tallies(percents), Instant::now(), &mut rng());
        ejected(&outliers)
    };
    assert_eq!(judged(&[100, 100, 100, 100, 100, 60]), [address(5)]);
    assert_eq!(judged(&[60, 60, 60, 60, 60, 60]), [], "all are alike");
    assert_eq!(judged(&[100, 100, 100, 60]), [], "too few of them");
    let mut few_requests = tallies(&[100, 100, 100, 100, 60]);
    few_requests[0].1.requests = 99;
    let mut outliers = outliers(5);
    assert!(!outliers.sweep(&policy, &few_requests, Instant::now(), &mut rng()));
}

#[test]
fn who_fails_too_often_is_ejected_whatever_the_others_do() {
    let policy = Outlier {
        failure_percentage: Some(FailurePercentage {
            threshold: 85,
            minimum_hosts: 2,
            request_volume: 50,
        }),
        max_ejection_percent: 100,
        ..policy()
    };
    let mut outliers = outliers(4);
    let now = Instant::now();
    assert!(outliers.sweep(&policy, &tallies(&[15, 16, 0, 100]), now, &mut rng()));
    assert_eq!(ejected(&outliers), [address(0), address(2)]);
    assert!(outliers.release(address(0)) && !outliers.release(address(0)));
    assert_eq!(ejected(&outliers), [address(2)]);
}

#[test]
fn what_is_known_stays_with_the_endpoints_that_stay() {
    let (mut outliers, now) = (outliers(3), Instant::now());
    assert!(outliers.eject(&policy(), (address(1), IN_A_ROW), now, &mut rng()));
    outliers.follow((1..5).map(address));
    assert_eq!(ejected(&outliers), [address(1)]);
    outliers.follow((2..5).map(address));
    assert_eq!(ejected(&outliers), []);
    assert!(
        !outliers.eject(&policy(), (address(0), IN_A_ROW), now, &mut rng()),
        "not there"
    );
    assert!(outliers.eject(&policy(), (address(2), IN_A_ROW), now, &mut rng()));
}

proptest! {
    /// Whatever happens: never more than may be, never longer than may be, and all return.
    #[test]
    fn ejections_are_bounded_in_number_and_time(
        count in 1..30_usize,
        percent in 0..=100_u8,
        events in prop::collection::vec((0..30_usize, 0..5_usize, 0..40_u64, any::<bool>()), 1..60),
        seed in any::<u64>(),
    ) {
        let policy = Outlier { max_ejection_percent: percent, max_ejection_time_jitter: SECOND, ..policy() };
        let (mut outliers, mut now) = (outliers(count), Instant::now());
        let mut rng = StdRng::seed_from_u64(seed);
        let most = (count * usize::from(percent) / 100).max(1);
        for (index, kind, seconds, sweeps) in events {
            now += Duration::from_secs(seconds);
            let address = address(index % count);
            let before = outliers.ejection(address);
            if sweeps {
                outliers.sweep(&policy, &[], now, &mut rng);
            } else if outliers.eject(&policy, (address, OutlierKind::ALL[kind]), now, &mut rng) {
                prop_assert_eq!(before, None);
                let lasts = outliers.ejection(address).unwrap().until - now;
                prop_assert!(lasts >= policy.base_ejection_time);
                prop_assert!(lasts <= policy.max_ejection_time + SECOND);
            }
            prop_assert!(outliers.ejections().count() <= most);
        }
        outliers.sweep(&policy, &[], now + policy.max_ejection_time + SECOND, &mut rng);
        prop_assert_eq!(outliers.ejections().count(), 0);
    }
}
