//! What the balancer is told of time, health and zone.

use std::collections::BTreeMap;

use mesh_health::{Health, HealthView};
use model::ConfigRevision;
use proxy_balance::{Fitness, Groups};
use proxy_config::compiled::{Cluster, Endpoint, Target};
use proxy_config::{ConfigSet, compile, parse_documents};
use rand::SeedableRng as _;

use super::super::{ClusterShared, Members};
use super::*;

fn cluster(fields: &str) -> Arc<Cluster> {
    let text = format!("{{kind: Cluster, name: web, {fields}}}");
    let set: ConfigSet = parse_documents("test", &text)
        .unwrap()
        .into_iter()
        .collect();
    let target = Target {
        node: "n1".parse().unwrap(),
        labels: BTreeMap::new(),
        proxy_ip: [127, 0, 0, 1].into(),
    };
    let compiled = compile(&set, &target, None, ConfigRevision(1));
    let mut clusters = compiled.config.clusters.values();
    clusters.next().unwrap().clone()
}

fn publish(shared: &ClusterShared, cluster: &Arc<Cluster>, view: &HealthView, zone: Option<&str>) {
    let fitness = Fitness::new(cluster, view, |_| false);
    shared.members.publish(Arc::new(Members {
        origin: cluster.clone(),
        cluster: cluster.clone(),
        groups: Groups::new(cluster, &fitness, zone),
        marks: Arc::default(),
    }));
}

fn upstream(cluster: &Arc<Cluster>, zone: Option<&str>) -> Upstream {
    let shared = Arc::new(ClusterShared::new(1));
    publish(&shared, cluster, &HealthView::default(), zone);
    Upstream::new(shared, 0, None).unwrap()
}

fn set_health(upstream: &Upstream, view: &HealthView) {
    publish(&upstream.shared, &upstream.cluster, view, None);
    assert!(upstream.follow().is_none(), "its endpoints stay");
}

fn unhealthy(cluster: &Cluster, index: usize) -> HealthView {
    let verdict = (cluster.endpoints[index].address, Health::Unhealthy);
    HealthView {
        version: 1,
        clusters: [(cluster.key.clone(), [verdict].into())].into(),
    }
}

/// How many of 1,000 requests each endpoint gets.
fn counts(upstream: &Upstream) -> Vec<usize> {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut counts = vec![0; upstream.endpoints.len()];
    for _ in 0..1000 {
        let pick = upstream.pick(&mut rng, Groups::WHOLE, Ask::default());
        counts[pick.unwrap()] += 1;
    }
    counts
}

const TWO: &str = "endpoints: ['10.0.0.1:1', '10.0.0.2:1'], panic_threshold: 0";

#[test]
fn who_returns_starts_slowly() {
    let slow = "balance: round_robin, slow_start: {window: 30s}";
    let cluster = cluster(&format!("{TWO}, {slow}"));
    let upstream = upstream(&cluster, None);
    // At the start all are young, and share evenly.
    assert_eq!(counts(&upstream), [500, 500]);
    let long_ago = Instant::now().checked_sub(Duration::from_secs(60));
    for endpoint in &upstream.endpoints {
        endpoint.eligible_since.set(long_ago);
    }
    upstream.note_eligible(Instant::now());
    assert_eq!(counts(&upstream), [500, 500]);
    set_health(&upstream, &unhealthy(&cluster, 1));
    assert_eq!(counts(&upstream), [1000, 0]);
    set_health(&upstream, &HealthView::default());
    let counts = counts(&upstream);
    // A tenth of the weight, or a little more if this thread had to wait.
    assert!((80..=250).contains(&counts[1]), "{counts:?}");
}

#[test]
fn who_stays_over_a_change_of_config_is_not_new() {
    let slow = "balance: round_robin, slow_start: {window: 30s}";
    let one = cluster(&format!("endpoints: ['10.0.0.1:1'], {slow}"));
    let before = upstream(&one, None);
    let long_ago = Instant::now().checked_sub(Duration::from_secs(60));
    before.endpoints[0].eligible_since.set(long_ago);
    before.answered(0, 200, Instant::now());
    let two = cluster(&format!("{TWO}, {slow}"));
    publish(&before.shared, &two, &HealthView::default(), None);
    // Until the config comes that they are of, it goes on as it is.
    assert!(before.follow().is_none());
    assert_eq!(counts(&before), [1000]);
    let after = Upstream::new(before.shared.clone(), 0, Some(&before)).unwrap();
    let counts = counts(&after);
    assert!((80..=250).contains(&counts[1]), "{counts:?}");
}

#[test]
fn who_stays_while_others_are_found_is_not_new() {
    let slow = "balance: round_robin, slow_start: {window: 30s}";
    let one = cluster(&format!("endpoints: ['10.0.0.1:1'], service: web, {slow}"));
    let before = upstream(&one, None);
    let long_ago = Instant::now().checked_sub(Duration::from_secs(60));
    before.endpoints[0].eligible_since.set(long_ago);
    let another = Endpoint {
        address: "10.0.0.2:1".parse().unwrap(),
        ..one.endpoints[0].clone()
    };
    let with = one.with_found(|_| Some(std::slice::from_ref(&another)));
    let fitness = Fitness::new(&with, &HealthView::default(), |_| false);
    before.shared.members.publish(Arc::new(Members {
        origin: one,
        cluster: with.clone(),
        groups: Groups::new(&with, &fitness, None),
        marks: Arc::default(),
    }));
    let after = before.follow().expect("it has another endpoint");
    assert!(after.follow().is_none(), "that was all");
    let counts = counts(&after);
    assert!((80..=250).contains(&counts[1]), "{counts:?}");
}

#[test]
fn what_answers_late_or_not_at_all_is_avoided_under_peak_ewma() {
    let cluster = cluster(&format!("{TWO}, balance: peak_ewma"));
    let upstream = upstream(&cluster, None);
    let now = Instant::now();
    upstream.answered(1, 200, now);
    upstream.answered(0, 200, now.checked_sub(Duration::from_secs(1)).unwrap());
    assert_eq!(counts(&upstream), [0, 1000]);
    upstream.failed(1, Seen::Broken, || Duration::from_secs(9));
    assert_eq!(counts(&upstream), [1000, 0]);
}

#[test]
fn the_zone_of_the_node_comes_first() {
    let cluster = cluster(
        "endpoints: [{address: '10.0.0.1:1', zone: a}, {address: '10.0.0.2:1', zone: b}], \
         prefer_zone: true",
    );
    assert_eq!(counts(&upstream(&cluster, Some("b"))), [0, 1000]);
    assert_eq!(counts(&upstream(&cluster, Some("a"))), [1000, 0]);
}
