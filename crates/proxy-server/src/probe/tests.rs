//! The prober against real listeners.

use std::net::SocketAddr;

use proxy_config::compiled::ProbeKind;
use tokio::net::TcpListener;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn tcp(unhealthy_after: u32) -> Probe {
    Probe {
        tls: None,
        socket: None,
        proxy_protocol: None,
        kind: ProbeKind::Tcp,
        every: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        unhealthy_after,
        healthy_after: 2,
    }
}

fn key(cluster: &str, address: SocketAddr) -> EndpointKey {
    EndpointKey {
        cluster: cluster.into(),
        address,
    }
}

async fn listen(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn until(
    reports: &mut watch::Receiver<Arc<Reports>>,
    what: &str,
    holds: impl Fn(&Reports) -> bool,
) -> Arc<Reports> {
    match tokio::time::timeout(PATIENCE, reports.wait_for(|reports| holds(reports))).await {
        Ok(found) => Arc::clone(&found.unwrap()),
        Err(_) => panic!("{what}: did not happen"),
    }
}

fn verdict(reports: &Reports, cluster: &str, address: SocketAddr) -> Option<Verdict> {
    reports
        .get(cluster)
        .and_then(|report| report.verdicts.get(&address).copied())
}

#[tokio::test]
async fn an_endpoint_that_dies_and_returns_is_seen_to() {
    let (listener, address) = listen("127.0.0.1:0").await;
    let mut prober = Prober::new();
    let mut reports = prober.reports();
    prober.assign(BTreeMap::from([(key("default/a", address), tcp(3))]));
    let is = |wanted| move |reports: &Reports| verdict(reports, "default/a", address) == wanted;
    let first = until(&mut reports, "healthy", is(Some(Verdict::Healthy))).await;
    assert_eq!(
        first["default/a"].fresh_for,
        Duration::from_secs(16),
        "three rounds"
    );
    drop(listener);
    until(&mut reports, "unhealthy", is(Some(Verdict::Unhealthy))).await;
    assert_eq!(prober.desk.transitions.get(), 2);
    let failures = Outcome {
        outcome: OutcomeLabel::Failure,
    };
    assert!(prober.desk.probes.get_or_create(&failures).get() >= 3);
    let (_listener, _) = listen(&address.to_string()).await;
    until(&mut reports, "healthy again", is(Some(Verdict::Healthy))).await;
}

#[tokio::test]
async fn verdicts_outside_the_share_are_dropped_and_the_others_kept() {
    let (_a, a) = listen("127.0.0.1:0").await;
    let (_b, b) = listen("127.0.0.1:0").await;
    let mut prober = Prober::new();
    let mut reports = prober.reports();
    let both = [(key("default/a", a), tcp(1)), (key("default/b", b), tcp(1))];
    prober.assign(BTreeMap::from(both.clone()));
    until(&mut reports, "both", |reports| reports.len() == 2).await;
    prober.assign(BTreeMap::from([both[0].clone()]));
    let rest = prober.reports().borrow().clone();
    assert_eq!(
        rest.keys().map(|cluster| &**cluster).collect::<Vec<_>>(),
        ["default/a"]
    );
    prober.assign(BTreeMap::new());
    assert!(prober.reports().borrow().is_empty());
    assert!(prober.running.is_empty());
}

#[tokio::test]
async fn a_probe_that_panics_begins_anew() {
    let (_listener, address) = listen("127.0.0.1:0").await;
    let mut prober = Prober::new();
    // No clock reaches the next round: the task panics when it looks for it.
    let endless = Probe {
        every: Duration::MAX,
        ..tcp(1)
    };
    prober.assign(BTreeMap::from([(key("default/a", address), endless)]));
    let success = Outcome {
        outcome: OutcomeLabel::Success,
    };
    let again = async {
        while prober.desk.probes.get_or_create(&success).get() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again)
        .await
        .expect("probed again after the panic");
}

#[tokio::test]
async fn a_changed_probe_begins_from_the_old_verdict() {
    let (listener, address) = listen("127.0.0.1:0").await;
    let mut prober = Prober::new();
    let mut reports = prober.reports();
    prober.assign(BTreeMap::from([(key("default/a", address), tcp(1))]));
    drop(listener);
    let is =
        |wanted| move |reports: &Reports| verdict(reports, "default/a", address) == Some(wanted);
    until(&mut reports, "unhealthy", is(Verdict::Unhealthy)).await;
    let (_listener, _) = listen(&address.to_string()).await;
    // One success would be enough for an endpoint without a verdict; this one needs very many.
    let patient = Probe {
        healthy_after: u32::MAX,
        ..tcp(1)
    };
    let before = prober.desk.transitions.get();
    prober.assign(BTreeMap::from([(
        key("default/a", address),
        patient.clone(),
    )]));
    let success = Outcome {
        outcome: OutcomeLabel::Success,
    };
    let successes = || prober.desk.probes.get_or_create(&success).get();
    let base = successes();
    let deadline = Instant::now() + PATIENCE;
    while successes() < base + 3 {
        assert!(Instant::now() < deadline, "no probe succeeded");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(is(Verdict::Unhealthy)(&prober.reports().borrow()));
    // The same assignment again disturbs nothing.
    let task = prober.running[&key("default/a", address)].task.id();
    prober.assign(BTreeMap::from([(key("default/a", address), patient)]));
    assert_eq!(prober.running[&key("default/a", address)].task.id(), task);
    assert!(prober.desk.transitions.get() <= before + 1);
}

#[tokio::test]
async fn a_quiet_report_gets_a_new_stamp() {
    let (_listener, address) = listen("127.0.0.1:0").await;
    let mut prober = Prober::new();
    // As if it ran for a while: the next stamp is due soon.
    let desk = Arc::get_mut(&mut prober.desk).unwrap();
    desk.started = desk
        .started
        .checked_sub(STAMP_EVERY * 2 - Duration::from_millis(200))
        .unwrap();
    let mut reports = prober.reports();
    prober.assign(BTreeMap::from([(key("default/a", address), tcp(1))]));
    let stamp = |reports: &Reports| reports.get("default/a").map(|report| report.stamp);
    let last = until(&mut reports, "the stamp", |reports| {
        stamp(reports) == Some(2)
    })
    .await;
    assert_eq!(verdict(&last, "default/a", address), Some(Verdict::Healthy));
}

#[test]
fn seldom_probes_make_reports_that_last() {
    let seldom = Probe {
        every: Duration::from_secs(60),
        ..tcp(1)
    };
    assert_eq!(fresh_for(&seldom), Duration::from_secs(196));
    let quick = Probe {
        timeout: Duration::from_secs(1),
        ..tcp(1)
    };
    assert_eq!(fresh_for(&quick), STAMP_EVERY * 3);
    let never = Probe {
        every: Duration::MAX,
        ..tcp(1)
    };
    assert_eq!(fresh_for(&never), REPORT_FRESH_MAX);
}

#[tokio::test]
async fn one_cluster_is_assigned_anew_and_the_others_go_on() {
    let (_a, first) = listen("127.0.0.1:0").await;
    let (_b, second) = listen("127.0.0.1:0").await;
    let mut prober = Prober::new();
    let mut reports = prober.reports();
    let [a, b, c] = ["default/a", "default/b", "default/c"];
    let share = [key(a, first), key(b, first), key(c, first)];
    prober.assign(share.into_iter().map(|key| (key, tcp(1))).collect());
    let all = |reports: &Reports| reports.len() == 3;
    until(&mut reports, "all are probed", all).await;
    let task = |prober: &Prober, cluster| prober.running[&key(cluster, first)].task.id();
    let before = [task(&prober, a), task(&prober, c)];
    prober.assign_cluster(&b.into(), [(key(b, second), tcp(1))].into());
    assert_eq!(verdict(&reports.borrow(), b, first), None, "at once");
    let moved = |reports: &Reports| verdict(reports, b, second).is_some();
    until(&mut reports, "the other one is probed", moved).await;
    assert_eq!([task(&prober, a), task(&prober, c)], before);
    assert_eq!(prober.running.len(), 3);
    prober.assign_cluster(&b.into(), BTreeMap::new());
    assert!(!reports.borrow().contains_key(b));
    assert_eq!(reports.borrow().len(), 2);
    // The same again changes nothing.
    prober.assign_cluster(&a.into(), [(key(a, first), tcp(1))].into());
    assert_eq!([task(&prober, a), task(&prober, c)], before);
}
