//! Subsets by label: who is in which, and where requests go whose subset is empty.

use proxy_balance::Groups;
use proxy_config::compiled::{SubsetFallback, Subsets};

use super::*;

/// Endpoints of these versions and stages, divided by version, and by both.
fn divided(balance: Balance, labels: &[(&str, &str)], fallback: SubsetFallback) -> Cluster {
    let mut cluster = cluster(balance, &vec![1; labels.len()]);
    for (endpoint, (version, stage)) in cluster.endpoints.iter_mut().zip(labels) {
        endpoint.labels = Labels::new([("version", *version), ("stage", *stage)]);
    }
    cluster.subsets = Some(Subsets {
        keys: [
            ["version".into()].into(),
            ["stage".into(), "version".into()].into(),
        ]
        .into(),
        fallback,
    });
    cluster
}

const FIVE: &[(&str, &str)] = &[
    ("v1", "prod"),
    ("v1", "prod"),
    ("v1", "test"),
    ("v2", "prod"),
    ("v2", "test"),
];

fn groups(cluster: &Cluster, unhealthy: &[usize]) -> Groups {
    let view = view(unhealthy, cluster.endpoints.len());
    Groups::new(cluster, &Fitness::new(cluster, &view, |_| false), None)
}

/// Who gets requests that want these labels.
fn used(groups: &Groups, labels: &[(&str, &str)]) -> Vec<usize> {
    let wanted = Labels::new(labels.iter().copied());
    let Some(number) = groups.number(Some(&wanted)) else {
        return Vec::new();
    };
    groups
        .group(number)
        .expect("it has a number")
        .indices()
        .collect()
}

#[test]
fn each_combination_of_values_is_a_subset() {
    let cluster = divided(Balance::Random, FIVE, SubsetFallback::None);
    let groups = groups(&cluster, &[]);
    for (labels, expected) in [
        (&[("version", "v1")][..], &[0, 1, 2][..]),
        (&[("version", "v2")], &[3, 4]),
        (&[("version", "v1"), ("stage", "prod")], &[0, 1]),
        (&[("stage", "test"), ("version", "v2")], &[4]),
        (&[("version", "v3")], &[]),
        // No list of keys has this alone.
        (&[("stage", "prod")], &[]),
    ] {
        assert_eq!(used(&groups, labels), expected, "{labels:?}");
    }
    assert_eq!(groups.number(None), Some(Groups::WHOLE));
    assert_eq!(groups.group(Groups::WHOLE).unwrap().len(), 5);
}

#[test]
fn who_has_not_all_labels_is_in_no_subset_of_them() {
    let mut cluster = divided(Balance::Random, FIVE, SubsetFallback::None);
    cluster.endpoints[0].labels = Labels::new([("version", "v1")]);
    cluster.endpoints[1].labels = Labels::default();
    let groups = groups(&cluster, &[]);
    assert_eq!(used(&groups, &[("version", "v1")]), [0, 2]);
    assert!(used(&groups, &[("version", "v1"), ("stage", "prod")]).is_empty());
}

#[test]
fn an_empty_subset_falls_back_as_it_is_said() {
    let v1 = Labels::new([("version", "v1"), ("stage", "test")]);
    for (fallback, expected) in [
        (SubsetFallback::None, &[][..]),
        (SubsetFallback::Any, &[0, 1, 2, 3, 4]),
        (SubsetFallback::Default(v1), &[2]),
        (SubsetFallback::Default(Labels::new([("x", "y")])), &[]),
    ] {
        let cluster = divided(Balance::Random, FIVE, fallback.clone());
        let groups = groups(&cluster, &[]);
        assert_eq!(
            used(&groups, &[("version", "v3")]),
            expected,
            "{fallback:?}"
        );
        assert_eq!(
            used(&groups, &[("version", "v2")]),
            [3, 4],
            "it is not empty"
        );
    }
}

#[test]
fn health_and_panic_are_each_subsets_own_and_numbers_stay() {
    let cluster = divided(Balance::Random, FIVE, SubsetFallback::Any);
    let (healthy, sick) = (groups(&cluster, &[]), groups(&cluster, &[0, 3, 4]));
    // One of three is not healthy; of the two others nobody is, so both are used.
    assert_eq!(used(&sick, &[("version", "v1")]), [1, 2]);
    assert_eq!(used(&sick, &[("version", "v2")]), [3, 4]);
    for labels in [[("version", "v1")], [("version", "v2")]] {
        let labels = Labels::new(labels);
        assert_eq!(sick.number(Some(&labels)), healthy.number(Some(&labels)));
    }
    let view = view(&[0, 3, 4], 5);
    let fitness = Fitness::new(&cluster, &view, |_| false);
    assert!(sick.hold(&fitness) && !healthy.hold(&fitness));
}

#[test]
fn within_a_subset_the_balancer_is_the_clusters() {
    for balance in ALL {
        let cluster = divided(balance, FIVE, SubsetFallback::None);
        let groups = groups(&cluster, &[]);
        let number = groups
            .number(Some(&Labels::new([("version", "v1")])))
            .unwrap();
        let (mut balancer, mut rng) = (Balancer::new(&cluster, 3), StdRng::seed_from_u64(4));
        let mut counts = [0_usize; 5];
        for _ in 0..3000 {
            let group = groups.group(number).unwrap();
            let pick = balancer.pick(group, &|_| 0, &mut rng, Ask::default());
            counts[pick.expect("three are eligible")] += 1;
        }
        assert_eq!(counts[3..], [0, 0], "{balance:?}");
        let even = counts[..3].iter().all(|count| (600..1400).contains(count));
        assert!(even, "{balance:?} {counts:?}");
    }
}

/// Labels of endpoints that register themselves are not known when the config is checked.
#[test]
fn so_many_subsets_as_a_cluster_bears_and_no_more() {
    for (balance, most) in [(Balance::Random, 1024), (Balance::Maglev, 64)] {
        let names: Vec<String> = (0..most + 3).map(|n| format!("v{n}")).collect();
        let labels: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "prod")).collect();
        let mut cluster = divided(balance, &labels, SubsetFallback::Any);
        cluster.subsets.as_mut().unwrap().keys = [["version".into()].into()].into();
        let groups = groups(&cluster, &[]);
        // The whole, and the subsets.
        assert_eq!(groups.iter().count(), 1 + most);
        assert_eq!(used(&groups, &[("version", "v0")]), [0]);
        let beyond = format!("v{most}");
        assert_eq!(used(&groups, &[("version", &beyond)]).len(), most + 3);
    }
}
