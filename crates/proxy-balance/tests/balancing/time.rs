//! Balancers that look at time: slow start and peak EWMA.

use proxy_balance::Load;
use proxy_config::compiled::SlowStart;

use super::*;

/// Endpoints as told.
#[derive(Default)]
struct Told {
    active: Vec<u32>,
    seconds: Vec<f64>,
    ages: Vec<u64>,
}

impl Load for Told {
    fn active(&self, index: usize) -> u32 {
        self.active.get(index).copied().unwrap_or_default()
    }

    fn response_time(&self, index: usize) -> f64 {
        self.seconds.get(index).copied().unwrap_or(0.01)
    }

    fn age(&self, index: usize) -> Duration {
        let age = self.ages.get(index).copied();
        age.map_or(Duration::MAX, Duration::from_secs)
    }

    fn youngest(&self) -> Duration {
        let ages = (0..self.ages.len()).map(|index| self.age(index));
        ages.min().unwrap_or(Duration::MAX)
    }
}

fn counts(cluster: &Cluster, load: &Told, picks: usize) -> Vec<usize> {
    let (mut balancer, mut rng) = (Balancer::new(cluster, 4), StdRng::seed_from_u64(4));
    let eligible = eligible(cluster);
    let mut counts = vec![0; cluster.endpoints.len()];
    for _ in 0..picks {
        let pick = balancer.pick(&eligible, load, &mut rng, Ask::default());
        counts[pick.expect("all are eligible")] += 1;
    }
    counts
}

#[test]
fn a_young_endpoint_gets_the_share_of_its_age() {
    for balance in [Balance::RoundRobin, Balance::LeastRequest] {
        for (age, weights, expected) in [
            (0, [1, 1], [910, 90]),
            (50, [1, 1], [667, 333]),
            (100, [1, 1], [500, 500]),
            (0, [1, 10], [500, 500]),
        ] {
            let mut cluster = cluster(balance, &weights);
            let load = Told {
                ages: vec![1000, age],
                ..Told::default()
            };
            cluster.slow_start = Some(SlowStart {
                window: Duration::from_secs(100),
                aggression: 1,
                min_weight_percent: 10,
            });
            let counts = counts(&cluster, &load, 1000);
            let near = counts.iter().zip(expected);
            // Without turns, least request is a matter of chance.
            let tolerance = if age == 100 { 80 } else { 5 };
            let mut near = near.map(|(found, expected)| found.abs_diff(expected));
            assert!(
                near.all(|off| off <= tolerance),
                "{balance:?} {age} {counts:?}"
            );
        }
    }
}

#[test]
fn without_slow_start_the_young_get_all() {
    let cluster = cluster(Balance::RoundRobin, &[1, 1]);
    let load = Told {
        ages: vec![1000, 0],
        ..Told::default()
    };
    assert_eq!(counts(&cluster, &load, 1000), [500, 500]);
}

#[test]
fn the_endpoint_that_answers_sooner_is_taken() {
    let cluster = cluster(Balance::PeakEwma, &[1, 1]);
    let mut load = Told {
        seconds: vec![0.020, 0.010],
        ..Told::default()
    };
    assert_eq!(counts(&cluster, &load, 100), [0, 100]);
    // With three requests in flight it costs 40 ms; with one, 20.
    load.active = vec![0, 3];
    assert_eq!(counts(&cluster, &load, 100), [100, 0]);
}

#[test]
fn alike_and_idle_endpoints_share_by_weight_under_peak_ewma() {
    for weights in [&[1, 1, 1, 1][..], &[1, 2, 3, 4], &[9, 1]] {
        let cluster = cluster(Balance::PeakEwma, weights);
        let counts = counts(&cluster, &Told::default(), 20_000);
        assert!(in_proportion(&counts, weights), "{weights:?} {counts:?}");
    }
}

#[test]
fn busyness_counts_relative_to_the_weight_under_peak_ewma() {
    let loads = load(Balance::PeakEwma, &[1, 1, 1, 3], 300, 20_000);
    let light = f64::from(loads[..3].iter().sum::<u32>()) / 3.0;
    let ratio = f64::from(loads[3]) / light;
    assert!((2.0..4.0).contains(&ratio), "{loads:?}");
}

/// A cluster in which each endpoint answers after a time of its own, at a steady rate of requests.
#[test]
fn a_slow_endpoint_gets_a_small_share_and_no_herd_follows_a_new_one() {
    use std::time::Instant;

    use proxy_balance::Ewma;

    struct Simulated {
        active: Vec<u32>,
        ewma: Vec<Ewma>,
        now: Instant,
    }
    impl Load for Simulated {
        fn active(&self, index: usize) -> u32 {
            self.active[index]
        }

        fn response_time(&self, index: usize) -> f64 {
            self.ewma[index].seconds(self.now, self.active[index] == 0)
        }
    }

    let cluster = cluster(Balance::PeakEwma, &[1; 5]);
    let eligible = eligible(&cluster);
    let (mut balancer, mut rng) = (Balancer::new(&cluster, 0), StdRng::seed_from_u64(0));
    let start = Instant::now();
    let took = |index: usize| Duration::from_millis(if index == 0 { 500 } else { 50 });
    let mut state = Simulated {
        active: vec![0; 5],
        ewma: vec![Ewma::new([], start); 5],
        now: start,
    };
    let mut open: Vec<(Instant, usize)> = Vec::new();
    let (mut counts, mut busiest) = ([0; 5], 0);
    for step in 0..20_000_u32 {
        state.now = start + Duration::from_millis(5) * step;
        let now = state.now;
        open.retain(|(end, index)| {
            if *end <= now {
                state.active[*index] -= 1;
                state.ewma[*index].observe(took(*index), now);
            }
            *end > now
        });
        if step == 10_000 {
            // The last one is replaced by a new one.
            let others: Vec<Ewma> = state.ewma[..4].to_vec();
            state.ewma[4] = Ewma::new(&others, now);
        }
        let pick = balancer.pick(&eligible, &state, &mut rng, Ask::default());
        let pick = pick.expect("five are eligible");
        state.active[pick] += 1;
        open.push((now + took(pick), pick));
        counts[pick] += 1;
        busiest = busiest.max(state.active[4]);
    }
    // Ten requests are in flight if the quick ones take all: 2.5 for each.
    assert!(counts[0] < 20_000 / 20, "{counts:?}");
    assert!(counts[0] > 0, "it is tried again: {counts:?}");
    assert!(busiest <= 10, "{busiest}");
    let quick = &counts[1..];
    let (least, most) = (quick.iter().min(), quick.iter().max());
    assert!(most.copied() < least.map(|least| least * 2), "{counts:?}");
}
