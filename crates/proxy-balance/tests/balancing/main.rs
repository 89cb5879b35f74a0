//! How choices are distributed, and which endpoints can be chosen at all.

mod hashing;
mod levels;
mod outliers;
mod subsets;
mod time;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_health::{Health, HealthView};
use proptest::prelude::*;
use proxy_balance::{Ask, Balancer, Eligible, Fitness};
use proxy_config::compiled::{Balance, Cluster, Endpoint, Labels, Limits, ResourceName, Source};
use rand::SeedableRng;
use rand::rngs::StdRng;

const ALL: [Balance; 7] = [
    Balance::RoundRobin,
    Balance::Random,
    Balance::LeastRequest,
    Balance::PeakEwma,
    Balance::RingHash,
    Balance::Maglev,
    Balance::IpHash,
];

fn avoiding(avoid: &[usize]) -> Ask<'_> {
    Ask { key: None, avoid }
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from((
        [10, 0, 0, 1],
        1000 + u16::try_from(index).expect("few endpoints"),
    ))
}

fn cluster(balance: Balance, weights: &[u32]) -> Cluster {
    let endpoint = |(index, &weight)| Endpoint {
        socket: None,
        address: address(index),
        weight,
        zone: None,
        priority: 0,
        labels: Labels::default(),
        hostname: None,
        source: Source::Config,
    };
    Cluster {
        name: ResourceName {
            namespace: "default".into(),
            name: "web".into(),
        },
        key: "default/web".into(),
        endpoints: weights.iter().enumerate().map(endpoint).collect(),
        origins: Box::default(),
        balance,
        probe: None,
        tls: None,
        limits: Limits {
            connections: 1,
            pending: 1,
            retries: 1,
            retry_budget: 20,
        },
        connect_timeout: Duration::from_secs(1),
        proxy_protocol: None,
        idle_timeout: Duration::from_secs(1),
        connections: Default::default(),
        panic_threshold: 50,
        minimum_ring_size: 1024,
        hash_balance_factor: None,
        slow_start: None,
        subsets: None,
        outlier: None,
        prefer_zone: false,
        http: Default::default(),
        overprovisioning_factor: 140,
        headers: proxy_config::HeaderChanges::default(),
    }
}

/// A view that calls these endpoints unhealthy, and the others healthy or nothing.
fn view(unhealthy: &[usize], known: usize) -> HealthView {
    let verdict = |index| match () {
        () if unhealthy.contains(&index) => Some(Health::Unhealthy),
        () if index % 2 == 0 => Some(Health::Healthy),
        () => None,
    };
    let verdicts: BTreeMap<SocketAddr, Health> = (0..known)
        .filter_map(|index| Some((address(index), verdict(index)?)))
        .collect();
    HealthView {
        version: 1,
        clusters: BTreeMap::from([(Arc::from("default/web"), verdicts)]),
    }
}

fn among(cluster: &Cluster, view: &HealthView, zone: Option<&str>) -> Eligible {
    Eligible::new(cluster, &Fitness::new(cluster, view, |_| false), zone)
}

fn eligible(cluster: &Cluster) -> Eligible {
    among(cluster, &HealthView::default(), None)
}

/// How often each endpoint is picked of an idle cluster.
fn shares(balance: Balance, weights: &[u32], picks: usize) -> Vec<usize> {
    let cluster = cluster(balance, weights);
    let (mut balancer, mut rng) = (Balancer::new(&cluster, 7), StdRng::seed_from_u64(11));
    let eligible = eligible(&cluster);
    let mut counts = vec![0; weights.len()];
    for _ in 0..picks {
        let index = balancer
            .pick(&eligible, &|_| 0, &mut rng, Ask::default())
            .expect("all are eligible");
        counts[index] += 1;
    }
    counts
}

/// Whether `counts` could come from drawing in proportion to `weights`: within five standard
/// deviations each.
fn in_proportion(counts: &[usize], weights: &[u32]) -> bool {
    let picks = counts.iter().sum::<usize>() as f64;
    let total = f64::from(weights.iter().sum::<u32>());
    counts.iter().zip(weights).all(|(&count, &weight)| {
        let share = f64::from(weight) / total;
        let deviation = (picks * share * (1.0 - share)).sqrt();
        (count as f64 - picks * share).abs() <= 5.0 * deviation
    })
}

/// Requests that each stay for `stay` further ones; the busy counts at the end.
fn load(balance: Balance, weights: &[u32], stay: usize, requests: usize) -> Vec<u32> {
    let cluster = cluster(balance, weights);
    let (mut balancer, mut rng) = (Balancer::new(&cluster, 3), StdRng::seed_from_u64(5));
    let eligible = eligible(&cluster);
    let mut active = vec![0_u32; weights.len()];
    let mut open = std::collections::VecDeque::new();
    for _ in 0..requests {
        let busy = |index: usize| active[index];
        let index = balancer
            .pick(&eligible, &busy, &mut rng, Ask::default())
            .expect("all are eligible");
        active[index] += 1;
        open.push_back(index);
        if open.len() > stay {
            active[open.pop_front().expect("it is not empty")] -= 1;
        }
    }
    active
}

#[test]
fn random_draws_in_proportion_to_the_weights() {
    for weights in [&[1, 1, 1][..], &[1, 2, 3, 4], &[100, 1], &[7]] {
        let counts = shares(Balance::Random, weights, 20_000);
        assert!(in_proportion(&counts, weights), "{weights:?} {counts:?}");
    }
}

#[test]
fn an_idle_cluster_shares_by_weight_under_least_request() {
    let counts = shares(Balance::LeastRequest, &[1; 5], 20_000);
    assert!(in_proportion(&counts, &[1; 5]), "{counts:?}");
    assert_eq!(shares(Balance::LeastRequest, &[9, 1], 1000), [900, 100]);
}

#[test]
fn of_two_equal_endpoints_the_less_busy_one_is_always_taken() {
    let cluster = cluster(Balance::LeastRequest, &[1, 1]);
    let (mut balancer, mut rng) = (Balancer::new(&cluster, 0), StdRng::seed_from_u64(0));
    let eligible = eligible(&cluster);
    for _ in 0..200 {
        // The two that are drawn are distinct, so the idle one is among them.
        let busy = |index| if index == 0 { 9 } else { 8 };
        assert_eq!(
            balancer.pick(&eligible, &busy, &mut rng, Ask::default()),
            Some(1)
        );
    }
}

#[test]
fn least_request_evens_out_load() {
    let even = load(Balance::LeastRequest, &[1; 10], 200, 20_000);
    let (least, most) = (
        even.iter().min().expect("ten"),
        even.iter().max().expect("ten"),
    );
    assert!(
        most - least <= 8,
        "two choices keep the spread small: {even:?}"
    );

    let weighted = load(Balance::LeastRequest, &[1, 3], 100, 20_000);
    let ratio = f64::from(weighted[1]) / f64::from(weighted[0]);
    assert!(
        (1.5..3.5).contains(&ratio),
        "the heavier one carries more: {weighted:?}"
    );
}

#[test]
fn a_busy_endpoint_waits_longer_for_its_turn() {
    let cluster = cluster(Balance::LeastRequest, &[2, 1]);
    let (mut balancer, mut rng) = (Balancer::new(&cluster, 0), StdRng::seed_from_u64(0));
    let eligible = eligible(&cluster);
    let busy = |index| if index == 0 { 19 } else { 0 };
    let picks = (0..1100).map(|_| balancer.pick(&eligible, &busy, &mut rng, Ask::default()));
    let to_busy = picks.filter(|pick| *pick == Some(0)).count();
    assert!((90..=110).contains(&to_busy), "2/20 against 1/1: {to_busy}");
}

#[test]
fn round_robin_of_equals_visits_all_before_any_again() {
    let cluster = cluster(Balance::RoundRobin, &[1; 6]);
    let (mut balancer, mut rng) = (Balancer::new(&cluster, 99), StdRng::seed_from_u64(0));
    let eligible = eligible(&cluster);
    let mut pick = || {
        balancer
            .pick(&eligible, &|_| 0, &mut rng, Ask::default())
            .expect("all are eligible")
    };
    let first: Vec<usize> = (0..6).map(|_| pick()).collect();
    let mut sorted = first.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 1, 2, 3, 4, 5]);
    assert_eq!((0..6).map(|_| pick()).collect::<Vec<_>>(), first);
}

#[test]
fn workers_with_different_seeds_do_not_move_in_step() {
    let cluster = cluster(Balance::RoundRobin, &[1; 8]);
    let first = |seed| {
        let mut rng = StdRng::seed_from_u64(0);
        Balancer::new(&cluster, seed).pick(&eligible(&cluster), &|_| 0, &mut rng, Ask::default())
    };
    let mut firsts: Vec<_> = (0..64).map(first).collect();
    assert_eq!(first(5), firsts[5], "the same seed chooses alike");
    firsts.sort_unstable();
    firsts.dedup();
    assert!(firsts.len() >= 6, "{firsts:?}");
}

#[test]
fn round_robin_is_smooth() {
    let cluster = cluster(Balance::RoundRobin, &[1, 1, 4, 1, 1]);
    for seed in 0..200 {
        let (mut balancer, mut rng) = (Balancer::new(&cluster, seed), StdRng::seed_from_u64(0));
        let eligible = eligible(&cluster);
        let mut pick = || balancer.pick(&eligible, &|_| 0, &mut rng, Ask::default());
        let picks: Vec<bool> = (0..80).map(|_| pick() == Some(2)).collect();
        let longest = picks
            .chunk_by(|one, next| one == next)
            .map(<[_]>::len)
            .max();
        assert!(
            longest <= Some(2),
            "half of the turns, and never three in a row: {picks:?}"
        );
    }
}

#[test]
fn flapping_health_does_not_favour_anybody() {
    let cluster = cluster(Balance::RoundRobin, &[1; 5]);
    let (mut balancer, mut rng) = (Balancer::new(&cluster, 1), StdRng::seed_from_u64(1));
    let mut counts = [0_usize; 5];
    for round in 0..5000 {
        // Endpoint 4 comes and goes with every request.
        let unhealthy: &[usize] = if round % 2 == 0 { &[4] } else { &[] };
        let eligible = among(&cluster, &view(unhealthy, 5), None);
        let pick = balancer
            .pick(&eligible, &|_| 0, &mut rng, Ask::default())
            .expect("some are eligible");
        counts[pick] += 1;
    }
    let steady = &counts[..4];
    let (least, most) = (
        steady.iter().min().expect("four"),
        steady.iter().max().expect("four"),
    );
    assert!(most - least <= 50, "{counts:?}");
}

#[test]
fn an_endpoint_that_returns_gets_its_share_and_no_burst() {
    let cluster = cluster(Balance::RoundRobin, &[1, 1]);
    let (mut balancer, mut rng) = (Balancer::new(&cluster, 1), StdRng::seed_from_u64(1));
    let alone = among(&cluster, &view(&[1], 2), None);
    for _ in 0..1000 {
        assert_eq!(
            balancer.pick(&alone, &|_| 0, &mut rng, Ask::default()),
            Some(0)
        );
    }
    let both = eligible(&cluster);
    let picks = (0..10).filter_map(|_| balancer.pick(&both, &|_| 0, &mut rng, Ask::default()));
    assert_eq!(picks.sum::<usize>(), 5);
}

#[test]
fn below_the_threshold_all_are_used() {
    let mut cluster = cluster(Balance::Random, &[1; 4]);
    let chosen = |cluster: &Cluster, unhealthy: &[usize]| {
        let eligible = among(cluster, &view(unhealthy, 4), None);
        (eligible.indices().collect::<Vec<_>>(), eligible.is_panic())
    };
    assert_eq!(chosen(&cluster, &[]), (vec![0, 1, 2, 3], false));
    assert_eq!(
        chosen(&cluster, &[0, 3]),
        (vec![1, 2], false),
        "at the threshold is not below"
    );
    assert_eq!(chosen(&cluster, &[0, 1, 3]), (vec![0, 1, 2, 3], true));
    cluster.panic_threshold = 0;
    assert_eq!(chosen(&cluster, &[0, 1, 3]), (vec![2], false));
    assert_eq!(chosen(&cluster, &[0, 1, 2, 3]), (vec![], false));
    cluster.panic_threshold = 100;
    assert_eq!(chosen(&cluster, &[0]), (vec![0, 1, 2, 3], true));
}

#[test]
fn of_nothing_nothing_is_picked() {
    for balance in ALL {
        let mut cluster = cluster(balance, &[1, 2]);
        cluster.panic_threshold = 0;
        let mut rng = StdRng::seed_from_u64(0);
        let none = among(&cluster, &view(&[0, 1], 2), None);
        assert!(none.is_empty());
        assert_eq!(
            Balancer::new(&cluster, 0).pick(&none, &|_| 0, &mut rng, avoiding(&[0])),
            None
        );
    }
}

#[test]
fn the_shares_of_the_rest_stay_in_proportion_when_one_is_avoided() {
    let cluster = cluster(Balance::Random, &[5, 1, 3]);
    let (mut balancer, mut rng) = (Balancer::new(&cluster, 7), StdRng::seed_from_u64(11));
    let eligible = eligible(&cluster);
    let mut counts = [0; 3];
    for _ in 0..20_000 {
        counts[balancer
            .pick(&eligible, &|_| 0, &mut rng, avoiding(&[0]))
            .expect("two are left")] += 1;
    }
    assert_eq!(counts[0], 0);
    assert!(in_proportion(&counts[1..], &[1, 3]), "{counts:?}");
}

fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(1), 4 => 1..20_u32, 1 => Just(u32::MAX)]
}

proptest! {
    #[test]
    fn every_full_round_has_each_endpoint_weight_times(
        weights in prop::collection::vec(1..12_u32, 1..8),
        seed: u64,
        skipped in 0..50_usize,
    ) {
        let cluster = cluster(Balance::RoundRobin, &weights);
        let (mut balancer, mut rng) = (Balancer::new(&cluster, seed), StdRng::seed_from_u64(0));
        let eligible = eligible(&cluster);
        let mut pick = || balancer.pick(&eligible, &|_| 0, &mut rng, Ask::default()).expect("not empty");
        for _ in 0..skipped {
            pick();
        }
        let mut counts = vec![0; weights.len()];
        for _ in 0..weights.iter().sum::<u32>() {
            counts[pick()] += 1;
        }
        prop_assert_eq!(counts, weights);
    }
}

/// One round of choices: who is unhealthy, who is to be avoided, how busy all are, and a key.
type Round = (Vec<usize>, Vec<usize>, Vec<u32>, Option<u64>);

fn round() -> impl Strategy<Value = Round> {
    (
        prop::collection::vec(0..12_usize, 0..8),
        prop::collection::vec(0..12_usize, 0..4),
        prop::collection::vec(0..50_u32, 12),
        prop::option::of(any::<u64>()),
    )
}

/// Weight, priority and zone of some endpoints.
fn endpoints() -> impl Strategy<Value = Vec<(u32, u32, usize)>> {
    prop::collection::vec((weight(), 0..3_u32, 0..2_usize), 1..12)
}

fn described(balance: Balance, endpoints: &[(u32, u32, usize)], threshold: u8) -> Cluster {
    let weights: Vec<u32> = endpoints.iter().map(|(weight, ..)| *weight).collect();
    let mut cluster = cluster(balance, &weights);
    cluster.panic_threshold = threshold;
    for (endpoint, (_, priority, zone)) in cluster.endpoints.iter_mut().zip(endpoints) {
        endpoint.priority = *priority;
        endpoint.zone = Some(["a", "b"][*zone].into());
    }
    cluster
}

/// Who is chosen is eligible, and to be avoided only if everybody is.
fn check(cluster: &Cluster, rounds: &[Round], seed: u64) -> Result<(), TestCaseError> {
    let (mut balancer, mut rng) = (Balancer::new(cluster, seed), StdRng::seed_from_u64(seed));
    let count = cluster.endpoints.len();
    for (unhealthy, avoid, active, key) in rounds {
        let view = view(unhealthy, count);
        let eligible = among(cluster, &view, Some("a"));
        let allowed: Vec<usize> = eligible.indices().collect();
        prop_assert_eq!(allowed.len(), eligible.len());
        let fit = (0..count).filter(|index| !unhealthy.contains(index));
        prop_assert!(fit.clone().all(|index| allowed.contains(&index)));
        prop_assert!(eligible.is_panic() || fit.count() == allowed.len());
        for _ in 0..5 {
            let ask = Ask { key: *key, avoid };
            let pick = balancer.pick(&eligible, &|index: usize| active[index], &mut rng, ask);
            prop_assert_eq!(pick.is_none(), allowed.is_empty());
            let Some(pick) = pick else { continue };
            prop_assert!(allowed.contains(&pick));
            let others = allowed.iter().any(|index| !avoid.contains(index));
            prop_assert!(
                !others || !avoid.contains(&pick),
                "{} of {:?}",
                pick,
                allowed
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn only_eligible_endpoints_are_picked_and_avoided_ones_only_as_the_last(
        balance in prop::sample::select(ALL[..4].to_vec()),
        endpoints in endpoints(),
        threshold in prop::sample::select(vec![0, 50, 100]),
        prefer_zone: bool,
        rounds in prop::collection::vec(round(), 1..20),
        seed: u64,
    ) {
        let mut cluster = described(balance, &endpoints, threshold);
        cluster.prefer_zone = prefer_zone;
        check(&cluster, &rounds, seed)?;
    }
}

proptest! {
    // Each round fills tables.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn tables_lead_to_eligible_endpoints_only(
        balance in prop::sample::select(ALL[4..].to_vec()),
        endpoints in endpoints(),
        threshold in prop::sample::select(vec![0, 50, 100]),
        prefer_zone: bool,
        rounds in prop::collection::vec(round(), 1..4),
        seed: u64,
    ) {
        let mut cluster = described(balance, &endpoints, threshold);
        cluster.prefer_zone = prefer_zone;
        check(&cluster, &rounds, seed)?;
    }
}
