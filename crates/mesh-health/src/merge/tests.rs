//! The rule of the merge, by example and by property.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::EndpointKey;
use crate::Verdict::{Healthy, Unhealthy};

const CLUSTER: &str = "default/api";
const OWN: NodeId = NodeId(100);
const FRESH: Duration = Duration::from_secs(15);

fn address(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

fn report(verdicts: impl IntoIterator<Item = (u16, Verdict)>) -> Report {
    let verdicts = verdicts
        .into_iter()
        .map(|(port, verdict)| (address(port), verdict))
        .collect();
    Report {
        stamp: 1,
        fresh_for: FRESH,
        verdicts,
    }
}

/// Endpoint 1, probed by `live` (at most three nodes).
fn assignment(live: impl IntoIterator<Item = u64>) -> Assignment {
    let live: BTreeSet<NodeId> = live.into_iter().map(NodeId).collect();
    Assignment::new(
        &live,
        [EndpointKey {
            cluster: CLUSTER.into(),
            address: address(1),
        }],
    )
}

/// What this node, which does not probe, thinks of endpoint 1 after `opinions` of nodes 1, 2, ...
fn judge(live: &[u64], opinions: &[(u64, Verdict, u64)]) -> Health {
    let reports: Vec<_> = opinions
        .iter()
        .map(|(_, verdict, _)| report([(1, *verdict)]))
        .collect();
    let received: Vec<_> = opinions
        .iter()
        .zip(&reports)
        .map(|((node, _, age), report)| Received {
            node: NodeId(*node),
            cluster: CLUSTER,
            report,
            age: Duration::from_secs(*age),
        })
        .collect();
    let evidence = Evidence {
        own: OWN,
        own_reports: &BTreeMap::new(),
        received: &received,
    };
    merge(
        &evidence,
        &assignment(live.iter().copied()),
        &HealthView::default(),
    )
    .health(CLUSTER, address(1))
}

#[test]
fn a_majority_of_those_with_an_opinion_decides() {
    let live = [1, 2, 3];
    assert_eq!(judge(&live, &[]), Health::Unknown);
    assert_eq!(
        judge(&live, &[(1, Unhealthy, 0)]),
        Health::Unhealthy,
        "1 of 1"
    );
    assert_eq!(
        judge(&live, &[(1, Unhealthy, 0), (2, Healthy, 0)]),
        Health::Healthy,
        "1 of 2"
    );
    assert_eq!(
        judge(&live, &[(1, Unhealthy, 0), (2, Unhealthy, 0)]),
        Health::Unhealthy,
        "2 of 2"
    );
    let two_of_three = [(1, Unhealthy, 0), (2, Healthy, 0), (3, Unhealthy, 0)];
    assert_eq!(judge(&live, &two_of_three), Health::Unhealthy);
}

#[test]
fn stale_reports_dead_nodes_and_strangers_count_for_nothing() {
    let stale = FRESH.as_secs() + 1;
    assert_eq!(judge(&[1, 2, 3], &[(1, Unhealthy, stale)]), Health::Unknown);
    assert_eq!(
        judge(&[1, 2, 3], &[(1, Unhealthy, FRESH.as_secs())]),
        Health::Unhealthy
    );
    assert_eq!(
        judge(&[2, 3], &[(1, Unhealthy, 0)]),
        Health::Unknown,
        "dead"
    );
    assert_eq!(
        judge(&[1, 2, 3], &[(7, Unhealthy, 0)]),
        Health::Unknown,
        "not a prober"
    );
    assert_eq!(
        judge(
            &[1, 2, 3],
            &[
                (1, Unhealthy, stale),
                (2, Unhealthy, stale),
                (3, Healthy, 0)
            ]
        ),
        Health::Healthy
    );
}

#[test]
fn own_evidence_overrides_all_others() {
    let others = report([(1, Unhealthy)]);
    let received: Vec<_> = (1..=2)
        .map(|node| Received {
            node: NodeId(node),
            cluster: CLUSTER,
            report: &others,
            age: Duration::ZERO,
        })
        .collect();
    let own_reports = BTreeMap::from([(CLUSTER.into(), report([(1, Healthy)]))]);
    let evidence = Evidence {
        own: OWN,
        own_reports: &own_reports,
        received: &received,
    };
    let view = merge(
        &evidence,
        &assignment([1, 2, OWN.0]),
        &HealthView::default(),
    );
    assert_eq!(view.health(CLUSTER, address(1)), Health::Healthy);
}

#[test]
fn endpoints_outside_the_assignment_are_not_in_the_view() {
    let other = report([(1, Healthy), (2, Unhealthy)]);
    let received = [Received {
        node: NodeId(1),
        cluster: CLUSTER,
        report: &other,
        age: Duration::ZERO,
    }];
    let evidence = Evidence {
        own: OWN,
        own_reports: &BTreeMap::new(),
        received: &received,
    };
    let view = merge(&evidence, &assignment([1]), &HealthView::default());
    assert_eq!(view.clusters[CLUSTER].len(), 1);
    assert_eq!(view.health(CLUSTER, address(2)), Health::Unknown);
}

const NODES: u64 = 5;
const PORTS: u16 = 4;

/// A node's word on some endpoints, with an age around the limit of freshness.
fn words() -> impl Strategy<Value = Vec<(u64, Report, u64)>> {
    let verdict = prop_oneof![Just(Healthy), Just(Unhealthy)];
    let verdicts = prop::collection::btree_map(1..=PORTS, verdict, 0..=usize::from(PORTS));
    prop::collection::vec((1..=NODES, verdicts.prop_map(report), 0u64..20), 0..10)
}

fn received(words: &[(u64, Report, u64)]) -> Vec<Received<'_>> {
    words
        .iter()
        .map(|(node, report, age)| Received {
            node: NodeId(*node),
            cluster: CLUSTER,
            report,
            age: Duration::from_secs(*age),
        })
        .collect()
}

fn everything() -> Assignment {
    let live = (1..=NODES).map(NodeId).collect();
    let endpoints = (1..=PORTS).map(|port| EndpointKey {
        cluster: CLUSTER.into(),
        address: address(port),
    });
    Assignment::new(&live, endpoints)
}

proptest! {
    #[test]
    fn order_does_not_matter(
        (words, shuffled) in words()
            .prop_flat_map(|words| (Just(words.clone()), Just(words).prop_shuffle())),
    ) {
        let own_reports = BTreeMap::new();
        let of = |words: &[(u64, Report, u64)]| {
            let received = received(words);
            let evidence = Evidence { own: OWN, own_reports: &own_reports, received: &received };
            merge(&evidence, &everything(), &HealthView::default())
        };
        prop_assert_eq!(of(&words), of(&shuffled));
    }

    #[test]
    fn merging_again_changes_nothing(words in words(), own in words()) {
        let received = received(&words);
        let own_reports: BTreeMap<Arc<str>, Report> =
            own.into_iter().take(1).map(|(_, report, _)| (CLUSTER.into(), report)).collect();
        let evidence = Evidence { own: OWN, own_reports: &own_reports, received: &received };
        let once = merge(&evidence, &everything(), &HealthView::default());
        let twice = merge(&evidence, &everything(), &once);
        prop_assert_eq!(&once, &twice);
        prop_assert_eq!(once.version, u64::from(!once.clusters.is_empty()));
    }

    #[test]
    fn one_lying_prober_of_three_flips_nothing(
        truth in prop_oneof![Just(Healthy), Just(Unhealthy)],
        lie in prop_oneof![Just(None), Just(Some(Healthy)), Just(Some(Unhealthy))],
        liar in any::<prop::sample::Index>(),
    ) {
        let assignment = everything();
        let probers = assignment.probers(CLUSTER, address(1));
        let liar = probers[liar.index(probers.len())];
        let words: Vec<_> = probers
            .iter()
            .filter_map(|node| {
                let word = if *node == liar { lie } else { Some(truth) };
                word.map(|verdict| (node.0, report([(1, verdict)]), 0))
            })
            .collect();
        let received = received(&words);
        let evidence = Evidence { own: OWN, own_reports: &BTreeMap::new(), received: &received };
        let view = merge(&evidence, &assignment, &HealthView::default());
        prop_assert_eq!(view.health(CLUSTER, address(1)), Health::from(truth));
    }

    #[test]
    fn an_endpoint_that_nobody_judges_is_absent(words in words()) {
        let received = received(&words);
        let evidence = Evidence { own: OWN, own_reports: &BTreeMap::new(), received: &received };
        let view = merge(&evidence, &everything(), &HealthView::default());
        for port in 1..=PORTS {
            let told = words.iter().any(|(_, report, age)| {
                *age <= FRESH.as_secs() && report.verdicts.contains_key(&address(port))
            });
            if !told {
                prop_assert_eq!(view.health(CLUSTER, address(port)), Health::Unknown);
            }
        }
    }
}
