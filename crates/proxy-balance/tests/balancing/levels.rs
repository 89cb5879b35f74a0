//! Priorities and zones: who gets requests while the first choice is not healthy enough.

use super::*;

/// Four endpoints of each of these priorities.
fn priorities(balance: Balance, priorities: &[u32]) -> Cluster {
    let mut cluster = cluster(balance, &vec![1; priorities.len() * 4]);
    for (index, endpoint) in cluster.endpoints.iter_mut().enumerate() {
        endpoint.priority = priorities[index / 4];
    }
    cluster
}

/// Of how many of 10,000 requests each group of four gets, in percent.
fn groups(cluster: &Cluster, unhealthy: &[usize], zone: Option<&str>, keyed: bool) -> Vec<f64> {
    let endpoints = cluster.endpoints.len();
    let eligible = among(cluster, &view(unhealthy, endpoints), zone);
    let (mut balancer, mut rng) = (Balancer::new(cluster, 1), StdRng::seed_from_u64(2));
    let mut counts = vec![0.0; endpoints / 4];
    for number in 0..10_000_u64 {
        let ask = Ask {
            key: keyed.then(|| proxy_balance::hash(&number.to_le_bytes(), 0)),
            avoid: &[],
        };
        let pick = balancer.pick(&eligible, &|_| 0, &mut rng, ask);
        counts[pick.expect("somebody is eligible") / 4] += 0.01;
    }
    counts
}

fn near(found: &[f64], expected: &[f64]) {
    let mut pairs = found.iter().zip(expected);
    assert!(
        pairs.all(|(found, expected)| (found - expected).abs() < 2.0),
        "{found:?} should be {expected:?}"
    );
}

#[test]
fn a_priority_overflows_when_it_is_not_healthy_enough() {
    for balance in ALL {
        let keyed = matches!(balance, Balance::RingHash | Balance::Maglev);
        // The numbers have gaps, and the first ones are not first in the list.
        let cluster = priorities(balance, &[7, 2]);
        let groups = |unhealthy: &[usize]| groups(&cluster, unhealthy, None, keyed);
        near(&groups(&[]), &[0.0, 100.0]);
        near(&groups(&[4]), &[0.0, 100.0]);
        near(&groups(&[4, 5]), &[30.0, 70.0]);
        near(&groups(&[4, 5, 6]), &[65.0, 35.0]);
        near(&groups(&[4, 5, 6, 7]), &[100.0, 0.0]);
        near(&groups(&[0, 1, 2, 3]), &[0.0, 100.0]);
    }
}

#[test]
fn a_key_that_does_not_overflow_stays() {
    let cluster = priorities(Balance::RingHash, &[0, 1]);
    let home = |unhealthy: &[usize], number: u64| {
        let eligible = among(&cluster, &view(unhealthy, 8), None);
        let ask = Ask {
            key: Some(proxy_balance::hash(&number.to_le_bytes(), 0)),
            avoid: &[],
        };
        let mut rng = StdRng::seed_from_u64(0);
        Balancer::new(&cluster, 0).pick(&eligible, &|_| 0, &mut rng, ask)
    };
    for number in 0..300 {
        let (before, after) = (home(&[], number), home(&[0, 1], number));
        let before = before.expect("all are healthy");
        let stays = after == Some(before);
        let overflows = after >= Some(4);
        assert!(stays || overflows || before < 2, "{before:?} {after:?}");
    }
}

#[test]
fn only_a_mesh_of_levels_that_bears_too_little_panics() {
    let cluster = priorities(Balance::Random, &[0, 1]);
    let all: Vec<usize> = (0..8).collect();
    let eligible = |unhealthy: &[usize]| among(&cluster, &view(unhealthy, 8), None);
    // 35 and 100 percent: enough.
    let enough = eligible(&[0, 1, 2]);
    assert!(!enough.is_panic());
    assert_eq!(enough.indices().collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    // 35 and 35 percent.
    let scarce = eligible(&[0, 1, 2, 4, 5, 6]);
    assert!(scarce.is_panic());
    assert_eq!(scarce.indices().collect::<Vec<_>>(), all);
}

#[test]
fn the_own_zone_comes_first_while_it_is_healthy_enough() {
    let mut cluster = priorities(Balance::LeastRequest, &[0, 0]);
    for (index, endpoint) in cluster.endpoints.iter_mut().enumerate() {
        endpoint.zone = Some(["a", "b"][index / 4].into());
    }
    let of = |cluster: &Cluster, unhealthy: &[usize], zone| groups(cluster, unhealthy, zone, false);
    near(&of(&cluster, &[], Some("b")), &[50.0, 50.0]);
    cluster.prefer_zone = true;
    near(&of(&cluster, &[], Some("b")), &[0.0, 100.0]);
    near(&of(&cluster, &[], Some("a")), &[100.0, 0.0]);
    near(&of(&cluster, &[4, 5], Some("b")), &[30.0, 70.0]);
    near(&of(&cluster, &[4, 5, 6, 7], Some("b")), &[100.0, 0.0]);
    // Nobody is near: all are alike.
    near(&of(&cluster, &[], Some("c")), &[50.0, 50.0]);
    near(&of(&cluster, &[], None), &[50.0, 50.0]);
}

#[test]
fn a_retry_leaves_a_level_where_everybody_was_tried() {
    let cluster = priorities(Balance::RoundRobin, &[0, 1]);
    let (mut balancer, mut rng) = (Balancer::new(&cluster, 0), StdRng::seed_from_u64(0));
    let eligible = eligible(&cluster);
    let pick = balancer.pick(&eligible, &|_| 0, &mut rng, avoiding(&[0, 1, 2, 3]));
    assert!(pick >= Some(4), "{pick:?}");
}
