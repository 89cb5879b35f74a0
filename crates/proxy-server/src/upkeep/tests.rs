//! When members of clusters are worked out, how often, and who waits for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use mesh_health::Health;
use model::ConfigRevision;
use proxy_config::compiled::Target;
use proxy_config::{ConfigSet, compile, parse_documents};
use tokio::time::timeout;

use super::*;
use crate::upstream::Upstream;

const PATIENCE: Duration = Duration::from_secs(10);

const HASHED: &str = "{kind: Cluster, name: web, balance: maglev, panic_threshold: 0,
  probe: {tcp: true}, endpoints: ['10.0.0.1:1', '10.0.0.2:1']}";

fn config(text: &str) -> Arc<CompiledConfig> {
    let documents = parse_documents("test", text).unwrap();
    let set: ConfigSet = documents.into_iter().collect();
    let target = Target {
        node: "n1".parse().unwrap(),
        labels: BTreeMap::new(),
        proxy_ip: [127, 0, 0, 1].into(),
    };
    compile(&set, &target, None, ConfigRevision(1)).config
}

fn shared(config: &CompiledConfig) -> Arc<Clusters> {
    let shared = |cluster: &Arc<Cluster>| (cluster.key.clone(), Arc::new(ClusterShared::new(1)));
    Arc::new(config.clusters.values().map(shared).collect())
}

fn unhealthy(config: &CompiledConfig, index: usize) -> Arc<HealthView> {
    let clusters = config.clusters.values().map(|cluster| {
        let verdict = (cluster.endpoints[index].address, Health::Unhealthy);
        (cluster.key.clone(), [verdict].into())
    });
    Arc::new(HealthView {
        version: 1,
        clusters: clusters.collect(),
    })
}

/// Work that tells when it begins, and goes on when it is let.
struct Gate {
    begun: mpsc::Receiver<String>,
    go_on: mpsc::Sender<()>,
    made: Arc<AtomicUsize>,
}

fn gated(moved: channel::Sender<News>) -> (Upkeep, Gate) {
    let (begins, begun) = mpsc::channel();
    let (go_on, gate) = mpsc::channel::<()>();
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let work = move |cluster: &Cluster, fitness: &Fitness, zone: Option<&str>| {
        begins.send(cluster.name.to_string()).unwrap();
        gate.recv_timeout(PATIENCE).unwrap();
        count.fetch_add(1, Ordering::Relaxed);
        Groups::new(cluster, fitness, zone)
    };
    let upkeep = Upkeep::with(moved, Box::new(work)).unwrap();
    let gate = Gate { begun, go_on, made };
    (upkeep, gate)
}

impl Gate {
    fn begun(&self) -> String {
        self.begun.recv_timeout(PATIENCE).unwrap()
    }

    fn let_one_pass(&self) {
        self.go_on.send(()).unwrap();
    }
}

fn chosen(upstream: &Upstream) -> Vec<usize> {
    assert!(upstream.follow().is_none(), "its endpoints stay");
    upstream.eligible_now()
}

#[tokio::test]
async fn while_a_table_is_made_the_one_before_serves_and_what_changes_meanwhile_is_one_more() {
    let (moved, mut news) = channel::channel(News::default());
    let (upkeep, gate) = gated(moved);
    let config = config(HASHED);
    let clusters = shared(&config);
    gate.let_one_pass();
    let adopting = timeout(PATIENCE, upkeep.adopt(&config, &clusters));
    adopting.await.expect("it is made");
    assert_eq!(gate.begun(), "web");
    let upstream = Upstream::new(clusters["default/web"].clone(), 0, None).unwrap();
    assert_eq!(chosen(&upstream), [0, 1]);
    news.borrow_and_update();

    upkeep.set_health(unhealthy(&config, 0));
    assert_eq!(gate.begun(), "web");
    // It is under way, and many more changes come.
    for round in 0..1000 {
        assert_eq!(chosen(&upstream), [0, 1]);
        upkeep.set_health(unhealthy(&config, round % 2));
    }
    gate.let_one_pass();
    timeout(PATIENCE, news.changed()).await.unwrap().unwrap();
    assert_eq!(chosen(&upstream), [1]);
    gate.begun();
    gate.let_one_pass();
    timeout(PATIENCE, news.changed()).await.unwrap().unwrap();
    assert_eq!(chosen(&upstream), [0]);
    // Nothing is left to do: the same config again waits for nothing.
    let adopting = timeout(PATIENCE, upkeep.adopt(&config, &clusters));
    adopting.await.expect("nothing is to be made");
    assert_eq!(gate.made.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_health_that_changes_back_before_its_table_is_begun_costs_nothing() {
    let (moved, mut news) = channel::channel(News::default());
    let (upkeep, gate) = gated(moved);
    let other = HASHED.replace("name: web", "name: api");
    let config = config(&format!("{HASHED}\n---\n{other}"));
    let clusters = shared(&config);
    gate.let_one_pass();
    gate.let_one_pass();
    let adopting = timeout(PATIENCE, upkeep.adopt(&config, &clusters));
    adopting.await.expect("both are made");
    let (_, _) = (gate.begun(), gate.begun());
    news.borrow_and_update();

    upkeep.set_health(unhealthy(&config, 0));
    gate.begun();
    // The other one waits for its turn, and by then nothing speaks against anybody.
    upkeep.set_health(Arc::default());
    gate.let_one_pass();
    gate.begun();
    gate.let_one_pass();
    timeout(PATIENCE, news.changed()).await.unwrap().unwrap();
    let adopting = timeout(PATIENCE, upkeep.adopt(&config, &clusters));
    adopting.await.expect("nothing is to be made");
    assert_eq!(gate.made.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_panic_ends_the_work_on_one_cluster_alone() {
    let (moved, _news) = channel::channel(News::default());
    let work = |cluster: &Cluster, fitness: &Fitness, zone: Option<&str>| {
        assert_ne!(cluster.name.to_string(), "bad", "this one cannot be made");
        Groups::new(cluster, fitness, zone)
    };
    let upkeep = Upkeep::with(moved, Box::new(work)).unwrap();
    let bad = HASHED.replace("name: web", "name: bad");
    let config = config(&format!("{HASHED}\n---\n{bad}"));
    let clusters = shared(&config);
    let adopting = timeout(PATIENCE, upkeep.adopt(&config, &clusters));
    adopting.await.expect("it goes on");
    assert!(Upstream::new(clusters["default/web"].clone(), 0, None).is_some());
    assert!(Upstream::new(clusters["default/bad"].clone(), 0, None).is_none());
}

#[test]
fn the_thread_ends_with_the_last_worker() {
    let (moved, worker) = channel::channel(News::default());
    let upkeep = Upkeep::start(moved).unwrap();
    let orders = Arc::downgrade(&upkeep.orders);
    drop(worker);
    drop(upkeep);
    let deadline = Instant::now() + PATIENCE;
    while orders.upgrade().is_some() {
        assert!(Instant::now() < deadline, "it never ends");
        thread::yield_now();
    }
}

/// A verdict on the first endpoint.
fn verdict(config: &CompiledConfig, health: Health) -> Arc<HealthView> {
    let mut view = HealthView::clone(&unhealthy(config, 0));
    let verdicts = view.clusters.values_mut().flat_map(BTreeMap::values_mut);
    verdicts.for_each(|verdict| *verdict = health);
    Arc::new(view)
}

#[tokio::test]
async fn who_fails_in_a_row_is_ejected_until_probes_see_it_recover() {
    let (moved, mut news) = channel::channel(News::default());
    let upkeep = Upkeep::start(moved).unwrap();
    let config = config(&HASHED.replace("maglev", "maglev, outlier: {}"));
    let clusters = shared(&config);
    let adopting = timeout(PATIENCE, upkeep.adopt(&config, &clusters));
    adopting.await.expect("it is made");
    let shared = clusters["default/web"].clone();
    let upstream = Upstream::new(shared.clone(), 0, None).unwrap();
    news.borrow_and_update();
    for status in [503, 503, 503, 503, 200, 500, 500, 500, 500, 500] {
        assert_eq!(chosen(&upstream), [0, 1]);
        upstream.answered(0, status, tokio::time::Instant::now());
    }
    timeout(PATIENCE, news.changed()).await.unwrap().unwrap();
    assert_eq!(chosen(&upstream), [1]);
    assert_eq!(shared.ejections.read().active.len(), 1);
    // Its probes see it fail, and then recover.
    upkeep.set_health(verdict(&config, Health::Unhealthy));
    let adopting = timeout(PATIENCE, upkeep.adopt(&config, &clusters));
    adopting.await.expect("nothing is to be made");
    upkeep.set_health(verdict(&config, Health::Healthy));
    timeout(PATIENCE, news.changed()).await.unwrap().unwrap();
    assert_eq!(chosen(&upstream), [0, 1]);
    assert_eq!(shared.ejections.read().active, []);
}
