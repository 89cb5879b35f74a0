//! Balancers that look a key up: shares by weight, and how little moves.

use proxy_balance::hash;

use super::*;

const KEYS: usize = 20_000;

fn key(number: usize) -> u64 {
    hash(&number.to_le_bytes(), 0)
}

/// Where each of the keys goes.
fn homes(cluster: &Cluster, view: &HealthView) -> Vec<usize> {
    let eligible = among(cluster, view, None);
    let (mut balancer, mut rng) = (Balancer::new(cluster, 0), StdRng::seed_from_u64(0));
    let home = |number| {
        let ask = Ask {
            key: Some(key(number)),
            avoid: &[],
        };
        balancer.pick(&eligible, &|_| 0, &mut rng, ask)
    };
    let homes: Option<Vec<usize>> = (0..KEYS).map(home).collect();
    homes.expect("somebody is eligible")
}

fn healthy(cluster: &Cluster) -> Vec<usize> {
    homes(cluster, &HealthView::default())
}

/// The share of each endpoint, relative to what its weight promises.
fn relative(homes: &[usize], weights: &[u32]) -> Vec<f64> {
    let total = f64::from(weights.iter().sum::<u32>());
    let share = |(index, weight): (usize, &u32)| {
        let got = homes.iter().filter(|home| **home == index).count() as f64;
        got / homes.len() as f64 * total / f64::from(*weight)
    };
    weights.iter().enumerate().map(share).collect()
}

/// The share of keys whose address is another one.
fn moved(before: (&Cluster, &[usize]), after: (&Cluster, &[usize])) -> f64 {
    let address = |(cluster, homes): (&Cluster, &[usize]), at: usize| {
        let endpoint: &Endpoint = &cluster.endpoints[homes[at]];
        endpoint.address
    };
    let moved = (0..KEYS).filter(|at| address(before, *at) != address(after, *at));
    moved.count() as f64 / KEYS as f64
}

/// The cluster without its endpoint at `index`.
fn without(cluster: &Cluster, index: usize) -> Cluster {
    let rest = cluster.endpoints.iter().enumerate();
    let rest = rest.filter(|(at, _)| *at != index).map(|(_, e)| e.clone());
    Cluster {
        endpoints: rest.collect(),
        ..self::cluster(cluster.balance, &[])
    }
}

#[test]
fn shares_follow_the_weights() {
    let mixed = [1, 2, 3, 4, 1, 1, 5, 8];
    for (balance, weights, tolerance) in [
        // A ring of 1024 to 2048 points is uneven; Envoy's is just so. The rest is the draw of keys.
        (Balance::RingHash, &[1; 10][..], 0.35),
        (Balance::RingHash, &mixed, 0.35),
        (Balance::Maglev, &[1; 10], 0.1),
        (Balance::Maglev, &mixed, 0.15),
        (Balance::IpHash, &mixed, 0.15),
    ] {
        let shares = relative(&healthy(&cluster(balance, weights)), weights);
        let even = shares.iter().all(|share| (share - 1.0).abs() < tolerance);
        assert!(even, "{balance:?} {weights:?} {shares:?}");
    }
    let mut fine = cluster(Balance::RingHash, &[1; 10]);
    fine.minimum_ring_size = 65_536;
    let shares = relative(&healthy(&fine), &[1; 10]);
    let even = shares.iter().all(|share| (share - 1.0).abs() < 0.1);
    assert!(even, "a larger ring is more even: {shares:?}");
}

#[test]
fn only_the_keys_of_an_unhealthy_endpoint_move() {
    for balance in [Balance::RingHash, Balance::Maglev] {
        let cluster = cluster(balance, &[1, 2, 1, 1, 3, 1, 1, 1]);
        let before = healthy(&cluster);
        for down in 0..8 {
            let after = homes(&cluster, &view(&[down], 8));
            let mut spread = [0; 8];
            for (before, after) in before.iter().zip(&after) {
                if *before == down {
                    spread[*after] += 1;
                } else {
                    assert_eq!(before, after, "{balance:?}: {down} is down");
                }
            }
            assert_eq!(spread[down], 0);
            let takers = spread.iter().filter(|count| **count > 0).count();
            assert!(takers >= 6, "its keys spread: {balance:?} {spread:?}");
        }
    }
}

#[test]
fn few_keys_move_when_the_config_takes_an_endpoint_away_or_adds_one() {
    for (balance, others_moved) in [
        // Nothing but the keys of the one that leaves, for 128 points each are kept.
        (Balance::RingHash, 0.0),
        // Maglev's price: its paper measures a few percent.
        (Balance::Maglev, 0.03),
    ] {
        let large = cluster(balance, &[1; 10]);
        let all = healthy(&large);
        for gone in 0..10 {
            let small = without(&large, gone);
            let homes = healthy(&small);
            let its_own = all.iter().filter(|home| **home == gone).count() as f64 / KEYS as f64;
            let moved = moved((&large, &all), (&small, &homes));
            assert!(moved >= its_own);
            assert!(
                moved <= its_own + others_moved,
                "{balance:?}: {moved} moved, {its_own} had to"
            );
        }
    }
}

#[test]
fn the_order_of_the_config_does_not_matter() {
    for balance in [Balance::RingHash, Balance::Maglev] {
        let one = cluster(balance, &[1, 2, 3, 4, 5]);
        let mut other = cluster(balance, &[1, 2, 3, 4, 5]);
        other.endpoints.reverse();
        let homes = (healthy(&one), healthy(&other));
        assert_eq!(moved((&one, &homes.0), (&other, &homes.1)), 0.0);
    }
}

#[test]
fn workers_and_nodes_agree_on_a_key() {
    for balance in [Balance::RingHash, Balance::Maglev, Balance::IpHash] {
        let cluster = cluster(balance, &[1, 2, 3]);
        let eligible = eligible(&cluster);
        let pick = |seed: u64, number| {
            let ask = Ask {
                key: Some(key(number)),
                avoid: &[],
            };
            let mut rng = StdRng::seed_from_u64(seed);
            Balancer::new(&cluster, seed).pick(&eligible, &|_| 9, &mut rng, ask)
        };
        for number in 0..200 {
            assert_eq!(pick(1, number), pick(2, number), "{balance:?}");
        }
    }
}

#[test]
fn who_has_no_key_is_drawn_at_random() {
    for balance in [Balance::RingHash, Balance::Maglev, Balance::IpHash] {
        let weights = [1, 1, 1, 3];
        let counts = shares(balance, &weights, 20_000);
        for (count, weight) in counts.iter().zip(weights) {
            let promised = 20_000.0 * f64::from(weight) / 6.0;
            let ratio = *count as f64 / promised;
            assert!((0.65..1.35).contains(&ratio), "{balance:?} {counts:?}");
        }
    }
}

#[test]
fn retries_of_a_key_go_elsewhere_and_agree_on_where() {
    for balance in [Balance::RingHash, Balance::Maglev] {
        let cluster = cluster(balance, &[1; 6]);
        let eligible = eligible(&cluster);
        let (mut balancer, mut rng) = (Balancer::new(&cluster, 0), StdRng::seed_from_u64(0));
        let mut seconds = [0; 6];
        for number in 0..600 {
            let mut pick = |avoid: &[usize]| {
                let key = Some(key(number));
                let pick = balancer.pick(&eligible, &|_| 0, &mut rng, Ask { key, avoid });
                pick.expect("six are eligible")
            };
            let first = pick(&[]);
            let second = pick(&[first]);
            assert_eq!(pick(&[first]), second);
            let third = pick(&[first, second]);
            assert!(first != second && third != first && third != second);
            assert_eq!(pick(&[0, 1, 2, 3, 4, 5]), first, "if all are to be avoided");
            seconds[second] += 1;
        }
        assert!(seconds.iter().all(|count| *count > 40), "{seconds:?}");
    }
}

#[test]
fn extreme_weights_neither_swell_a_ring_nor_leave_anybody_out() {
    for balance in [Balance::RingHash, Balance::Maglev] {
        let cluster = cluster(balance, &[u32::MAX, 1, u32::MAX]);
        let homes = healthy(&cluster);
        let shares: Vec<usize> = (0..3)
            .map(|index| homes.iter().filter(|home| **home == index).count())
            .collect();
        assert!(shares[1] < KEYS / 100, "{shares:?}");
        assert!(shares[0].min(shares[2]) > KEYS * 9 / 20, "{shares:?}");
    }
}

/// How busy each of six is, once requests of these keys are all in flight.
fn busy(cluster: &Cluster, keys: impl Iterator<Item = usize>) -> Vec<u32> {
    let eligible = eligible(cluster);
    let (mut balancer, mut rng) = (Balancer::new(cluster, 0), StdRng::seed_from_u64(0));
    let mut active = vec![0_u32; cluster.endpoints.len()];
    for number in keys {
        let ask = Ask {
            key: Some(key(number)),
            avoid: &[],
        };
        let busy = |index: usize| active[index];
        let pick = balancer.pick(&eligible, &busy, &mut rng, ask);
        active[pick.expect("six are eligible")] += 1;
    }
    active
}

#[test]
fn a_bound_keeps_one_hot_key_from_overrunning_its_home() {
    for balance in [Balance::RingHash, Balance::Maglev, Balance::IpHash] {
        let weights = [1, 1, 1, 1, 1, 5];
        let mut cluster = cluster(balance, &weights);
        let hot = || std::iter::repeat_n(7, 600);
        let unbound = busy(&cluster, hot());
        assert_eq!(unbound.iter().max(), Some(&600), "one home: {unbound:?}");
        cluster.hash_balance_factor = Some(150);
        let bound = busy(&cluster, hot());
        for (count, weight) in bound.iter().zip(weights) {
            assert!(*count <= 90 * weight + 1, "{balance:?} {bound:?}");
        }
        let home = unbound.iter().position(|count| *count == 600).unwrap();
        let filled = bound[home] >= 90 * weights[home] - 1;
        assert!(filled, "the home takes what it may: {home} {bound:?}");
    }
}

#[test]
fn under_a_bound_that_is_not_met_keys_stay_at_home() {
    for balance in [Balance::RingHash, Balance::Maglev] {
        let mut cluster = cluster(balance, &[1; 6]);
        let unbound = busy(&cluster, 0..3000);
        cluster.hash_balance_factor = Some(10_000);
        assert_eq!(busy(&cluster, 0..3000), unbound);
        cluster.hash_balance_factor = Some(100);
        let even = busy(&cluster, 0..3000);
        assert_eq!(even, [500; 6], "nobody above the mean: {balance:?}");
    }
}
