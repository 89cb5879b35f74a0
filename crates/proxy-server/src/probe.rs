//! Active health checks: this node's share of them, and what they find.
//!
//! Owns one timer task for each endpoint that this node probes, and the reports that come of it.
//! Never chooses which endpoints are its share and never merges what others find (`mesh-health`
//! does both); never runs on a worker's runtime.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use mesh_health::{EndpointKey, Observation, REPORT_FRESH_MAX, Report, Threshold, Verdict};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use proxy_config::compiled::Probe;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

mod callers;
mod observe;

pub use observe::ProbeFault;

use callers::Callers;

/// Probes under way at one time; more wait for their turn, so that a large share cannot take the
/// process's file descriptors.
pub const PROBES_IN_FLIGHT_MAX: usize = 256;

/// The first probe of an endpoint comes at random within this time (or one period, if shorter), so
/// that a new config does not send all probes at once.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// A period is shortened at random by up to one so-manyth, so that probers drift apart. Never
/// lengthened: an endpoint's death is found within the promised time.
const JITTER: u32 = 10;

/// While its probes run, a cluster's report gets a new stamp so often, and with it a new age.
const STAMP_EVERY: Duration = Duration::from_secs(5);

/// A report is fresh for three rounds of probes, but at least for three stamps.
const FRESH_ROUNDS: u32 = 3;

/// What this node found, by cluster (`namespace/name`): one report for each cluster of which it has
/// any verdict.
pub type Reports = BTreeMap<Arc<str>, Report>;

/// Runs this node's share of the probes. Dropping it ends them.
#[derive(Debug)]
pub struct Prober {
    running: BTreeMap<EndpointKey, Running>,
    tasks: JoinSet<()>,
    desk: Arc<Desk>,
}

#[derive(Debug)]
struct Running {
    probe: Probe,
    /// Set before the task is aborted: what it finds after that is not wanted.
    ended: Arc<AtomicBool>,
    task: AbortHandle,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: OutcomeLabel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum OutcomeLabel {
    Success,
    Failure,
}

/// What all tasks share.
#[derive(Debug)]
struct Desk {
    reports: watch::Sender<Arc<Reports>>,
    permits: Semaphore,
    callers: Callers,
    started: Instant,
    probes: Family<Outcome, Counter>,
    transitions: Counter,
}

impl Default for Prober {
    fn default() -> Self {
        Self::new()
    }
}

impl Prober {
    /// A prober without any share.
    pub fn new() -> Self {
        let desk = Desk {
            reports: watch::channel(Arc::default()).0,
            permits: Semaphore::new(PROBES_IN_FLIGHT_MAX),
            callers: Callers::default(),
            started: Instant::now(),
            probes: Family::default(),
            transitions: Counter::default(),
        };
        Self {
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            desk: Arc::new(desk),
        }
    }

    /// Makes `share` all that this node probes. A probe that stays the same runs on; one that
    /// changed begins anew from the old verdict; verdicts on other endpoints leave the reports at
    /// once. Must be called within the runtime that shall probe.
    pub fn assign(&mut self, share: BTreeMap<EndpointKey, Probe>) {
        self.running.retain(|endpoint, running| {
            let stays = share.get(endpoint) == Some(&running.probe);
            if !stays {
                running.end();
            }
            stays
        });
        self.desk.keep(&share);
        self.begin(share);
    }

    /// Makes `share` all that this node probes of one cluster, at the cost of that cluster. Else as
    /// [`Prober::assign`].
    pub fn assign_cluster(&mut self, cluster: &Arc<str>, share: BTreeMap<EndpointKey, Probe>) {
        let gone: Vec<EndpointKey> = of_cluster(&self.running, cluster)
            .filter(|(endpoint, running)| share.get(endpoint) != Some(&running.probe))
            .map(|(endpoint, _)| endpoint.clone())
            .collect();
        for endpoint in gone {
            if let Some(running) = self.running.remove(&endpoint) {
                running.end();
            }
        }
        self.desk.keep_cluster(cluster, &share);
        self.begin(share);
    }

    /// Begins with those that are not probed yet.
    fn begin(&mut self, share: BTreeMap<EndpointKey, Probe>) {
        while self.tasks.try_join_next().is_some() {}
        for (endpoint, probe) in share {
            if let Entry::Vacant(vacant) = self.running.entry(endpoint) {
                let ended = Arc::new(AtomicBool::new(false));
                let watched = Watched {
                    endpoint: vacant.key().clone(),
                    probe: probe.clone(),
                    ended: Arc::clone(&ended),
                    desk: Arc::clone(&self.desk),
                };
                let task = self.tasks.spawn(watched.run_on());
                vacant.insert(Running { probe, ended, task });
            }
        }
    }

    /// What this node found; changes with every verdict, and now and then with a new stamp while
    /// nothing else changes.
    pub fn reports(&self) -> watch::Receiver<Arc<Reports>> {
        self.desk.reports.subscribe()
    }

    /// Adds the metrics to `registry`, below `skein_probe_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("skein_probe");
        let probes = self.desk.probes.clone();
        registry.register("probes", "Probes that this node made, by outcome", probes);
        let transitions = self.desk.transitions.clone();
        registry.register(
            "transitions",
            "Changes of this node's verdicts",
            transitions,
        );
    }
}

impl Running {
    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

/// The probes of one cluster.
fn of_cluster<'a>(
    running: &'a BTreeMap<EndpointKey, Running>,
    cluster: &'a Arc<str>,
) -> impl Iterator<Item = (&'a EndpointKey, &'a Running)> {
    let first = EndpointKey {
        cluster: Arc::clone(cluster),
        address: (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    running
        .range(first..)
        .take_while(move |(endpoint, _)| endpoint.cluster == *cluster)
}

impl Desk {
    /// Drops the verdicts on all endpoints of a cluster but those of `share`.
    fn keep_cluster(&self, cluster: &Arc<str>, share: &BTreeMap<EndpointKey, Probe>) {
        let keeps = |address: &SocketAddr| {
            share.contains_key(&EndpointKey {
                cluster: Arc::clone(cluster),
                address: *address,
            })
        };
        self.reports.send_if_modified(|reports| {
            let Some(report) = reports.get(cluster) else {
                return false;
            };
            if report.verdicts.keys().all(keeps) {
                return false;
            }
            let reports = Arc::make_mut(reports);
            if let Some(report) = reports.get_mut(cluster) {
                report.verdicts.retain(|address, _| keeps(address));
                if report.verdicts.is_empty() {
                    reports.remove(cluster);
                }
            }
            true
        });
    }

    /// Drops the verdicts on all endpoints but those of `share`.
    fn keep(&self, share: &BTreeMap<EndpointKey, Probe>) {
        self.reports.send_if_modified(|reports| {
            let keeps = |cluster: &Arc<str>, address| {
                share.contains_key(&EndpointKey {
                    cluster: Arc::clone(cluster),
                    address,
                })
            };
            let stale = reports.iter().any(|(cluster, report)| {
                report
                    .verdicts
                    .keys()
                    .any(|address| !keeps(cluster, *address))
            });
            if stale {
                Arc::make_mut(reports).retain(|cluster, report| {
                    report
                        .verdicts
                        .retain(|address, _| keeps(cluster, *address));
                    !report.verdicts.is_empty()
                });
            }
            stale
        });
    }

    fn verdict(&self, endpoint: &EndpointKey) -> Option<Verdict> {
        self.reports
            .borrow()
            .get(&endpoint.cluster)?
            .verdicts
            .get(&endpoint.address)
            .copied()
    }

    /// Writes `verdict` into the report of its cluster, with a stamp of now.
    fn file(&self, watched: &Watched, verdict: Verdict) {
        let EndpointKey { cluster, address } = &watched.endpoint;
        let stamp = self.started.elapsed().as_secs() / STAMP_EVERY.as_secs();
        self.reports.send_if_modified(|reports| {
            // Both this and `keep` hold the channel's lock: nothing is filed after it was dropped.
            if watched.ended.load(Ordering::Relaxed) {
                return false;
            }
            let same = |report: &Report| {
                report.stamp == stamp && report.verdicts.get(address) == Some(&verdict)
            };
            if reports.get(cluster).is_some_and(same) {
                return false;
            }
            let report = Arc::make_mut(reports)
                .entry(Arc::clone(cluster))
                .or_insert_with(|| Report {
                    stamp,
                    fresh_for: Duration::ZERO,
                    verdicts: BTreeMap::new(),
                });
            report.stamp = stamp;
            report.fresh_for = fresh_for(&watched.probe);
            report.verdicts.insert(*address, verdict);
            true
        });
    }
}

/// Whole seconds, as reports have them.
fn fresh_for(probe: &Probe) -> Duration {
    let rounds = (probe.every.saturating_add(probe.timeout)).saturating_mul(FRESH_ROUNDS);
    let rounded_up = Duration::from_secs(rounds.as_secs().saturating_add(1));
    rounded_up.clamp(STAMP_EVERY * 3, REPORT_FRESH_MAX)
}

/// One endpoint's task.
#[derive(Debug)]
struct Watched {
    endpoint: EndpointKey,
    probe: Probe,
    ended: Arc<AtomicBool>,
    desk: Arc<Desk>,
}

impl Watched {
    /// Probes until aborted. A panic ends a round, not the watch: nobody would see this endpoint
    /// die. The next round begins at random as the first did, thus not in a hot loop.
    async fn run_on(self) {
        loop {
            let run = AssertUnwindSafe(self.run()).catch_unwind();
            if run.await.is_err() {
                let EndpointKey { cluster, address } = &self.endpoint;
                tracing::error!(%cluster, %address, "a probe panicked; it begins anew");
            }
        }
    }

    async fn run(&self) {
        let Probe {
            every,
            unhealthy_after,
            healthy_after,
            ..
        } = self.probe;
        let inherited = self.desk.verdict(&self.endpoint);
        let mut threshold = Threshold::new(unhealthy_after, healthy_after, inherited);
        tokio::time::sleep(every.min(FIRST_WITHIN).mul_f32(rand::random())).await;
        loop {
            let begun = Instant::now();
            self.probe_once(&mut threshold).await;
            let jitter = (every / JITTER).mul_f32(rand::random());
            tokio::time::sleep_until(begun + every.saturating_sub(jitter)).await;
        }
    }

    async fn probe_once(&self, threshold: &mut Threshold) {
        // The semaphore is never closed; without a permit there would be no probe, only no limit.
        let permit = self.desk.permits.acquire().await;
        let result = observe::observe(self.endpoint.address, &self.probe, &self.desk.callers).await;
        drop(permit);
        let (observation, outcome) = match result {
            Ok(()) => (Observation::Success, OutcomeLabel::Success),
            Err(_) => (Observation::Failure, OutcomeLabel::Failure),
        };
        self.desk.probes.get_or_create(&Outcome { outcome }).inc();
        if let Some(verdict) = threshold.observe(observation) {
            self.desk.transitions.inc();
            let EndpointKey { cluster, address } = &self.endpoint;
            match result {
                Ok(()) => tracing::info!(%cluster, %address, ?verdict, "probe"),
                Err(fault) => tracing::warn!(%cluster, %address, ?verdict, %fault, "probe"),
            }
        }
        if let Some(verdict) = threshold.verdict() {
            self.desk.file(self, verdict);
        }
    }
}

#[cfg(test)]
mod tests;
