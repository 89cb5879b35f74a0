//! The proxy's metrics, named after Envoy's.
//!
//! Owns names, help texts and labels. Reads the workers' counters when it is asked and adds them.

mod outlier;
mod tls;
mod udp;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_health::{Health, HealthView};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use proxy_config::compiled::CompiledConfig;
use tokio::runtime::RuntimeMetrics;

use crate::access_log::LogQueue;
use crate::certificates::Certificates;
use crate::counters::{BUCKETS_MICROS, ClusterCounters, Counter, Histogram, ListenerCounters};
use crate::flags::Flag;
use crate::refusal::Refusal;
use crate::upstream::ClusterShared;

/// What is measured: everything that the workers count, as far as it is still in the config.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) config: Arc<CompiledConfig>,
    pub(crate) health: Arc<HealthView>,
    /// By name.
    pub(crate) listeners: BTreeMap<String, Arc<[ListenerCounters]>>,
    /// By the clusters' keys.
    pub(crate) clusters: Arc<BTreeMap<Arc<str>, Arc<ClusterShared>>>,
}

/// The proxy's metrics. Cheap to clone; all clones tell the same.
#[derive(Debug, Clone)]
pub struct ProxyMetrics {
    sources: Arc<Mutex<Sources>>,
    log: LogQueue,
    /// By the number of the worker.
    workers: Arc<[RuntimeMetrics]>,
    certificates: Arc<Certificates>,
}

impl ProxyMetrics {
    pub(crate) fn new(
        log: LogQueue,
        workers: Arc<[RuntimeMetrics]>,
        certificates: Arc<Certificates>,
    ) -> Self {
        Self {
            sources: Arc::default(),
            log,
            workers,
            certificates,
        }
    }

    /// For how long each worker has been at work.
    pub(crate) fn busy(&self) -> impl Iterator<Item = Duration> {
        // A worker's runtime has one thread.
        self.workers
            .iter()
            .map(|worker| worker.worker_total_busy_duration(0))
    }

    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    /// Only control work locks this; no worker does.
    pub(crate) fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for ProxyMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sources = self.sources();
        encode_listeners(&mut encoder, &sources)?;
        encode_clusters(&mut encoder, &sources)?;
        tls::encode(&mut encoder, &sources, &self.certificates)?;
        udp::encode(&mut encoder, &sources)?;
        let help = "Time that a worker was at work, not waiting for anything to do";
        let mut metric =
            encoder.encode_descriptor("worker_busy_seconds", help, None, MetricType::Counter)?;
        for (worker, busy) in self.busy().enumerate() {
            let labels = [("worker", worker)];
            let mut one = metric.encode_family(&labels)?;
            one.encode_counter::<NoLabelSet, _, u64>(&busy.as_secs_f64(), None)?;
        }
        let dropped = self.log.dropped();
        let help = "Access log lines lost because the output did not keep up";
        let mut metric =
            encoder.encode_descriptor("access_log_dropped", help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&dropped, None)
    }
}

type Labels<'a> = [(&'static str, &'a str); 2];

/// A counter of a listener: name, help, and where it is.
type Of<T> = (&'static str, &'static str, fn(&T) -> &Counter);

const LISTENER_COUNTERS: &[Of<ListenerCounters>] = &[
    ("http_downstream_cx", "Connections accepted", |c| {
        &c.connections
    }),
    ("http_downstream_rq", "Requests received", |c| &c.requests),
    (
        "http_rq_redirect",
        "Requests that a route redirected",
        |c| &c.redirects,
    ),
    (
        "http_rq_direct_response",
        "Requests that a route answered itself",
        |c| &c.direct_responses,
    ),
    ("http_downstream_cx_rx_bytes", "Body bytes received", |c| {
        &c.bytes_received
    }),
    ("http_downstream_cx_tx_bytes", "Bytes sent", |c| {
        &c.bytes_sent
    }),
];

const LISTENER_GAUGES: &[Of<ListenerCounters>] = &[
    ("http_downstream_cx_active", "Connections open", |c| {
        &c.connections_active
    }),
    (
        "http_downstream_cx_resting",
        "Connections open that have waited for a request for more than a second",
        |c| &c.connections_resting,
    ),
    ("http_downstream_rq_active", "Requests under way", |c| {
        &c.requests_active
    }),
];

const CLUSTER_COUNTERS: &[Of<ClusterCounters>] = &[
    ("cluster_upstream_cx", "Connections made or tried", |c| {
        &c.connections
    }),
    (
        "cluster_upstream_cx_connect_fail",
        "Connections that failed",
        |c| &c.connect_failures,
    ),
    (
        "cluster_upstream_cx_connect_timeout",
        "Connections that took too long",
        |c| &c.connect_timeouts,
    ),
    (
        "cluster_ssl_connection_error",
        "Connections that were made, and came to nothing in the TLS handshake",
        |c| &c.tls_failures,
    ),
    (
        "cluster_upstream_cx_overflow",
        "Times the limit of connections was met",
        |c| &c.connection_overflows,
    ),
    ("cluster_upstream_rq", "Requests sent", |c| &c.requests),
    (
        "cluster_upstream_rq_pending_overflow",
        "Requests refused at the limit of waiting ones",
        |c| &c.pending_overflows,
    ),
    (
        "cluster_upstream_rq_timeout",
        "Requests whose time was over",
        |c| &c.timeouts,
    ),
    (
        "cluster_upstream_rq_per_try_timeout",
        "Tries whose time was over",
        |c| &c.per_try_timeouts,
    ),
    ("cluster_upstream_rq_retry", "Retries", |c| &c.retries),
    (
        "cluster_upstream_rq_retry_success",
        "Retried requests that were answered",
        |c| &c.retry_successes,
    ),
    (
        "cluster_upstream_rq_retry_overflow",
        "Retries that the budget forbade",
        |c| &c.retry_overflows,
    ),
    (
        "cluster_upstream_rq_retry_limit_exceeded",
        "Requests that had no retries left",
        |c| &c.retry_limits_exceeded,
    ),
    (
        "cluster_upstream_rq_rx_reset",
        "Responses that the upstream broke off",
        |c| &c.resets_received,
    ),
    (
        "cluster_upstream_rq_tx_reset",
        "Requests that we broke off",
        |c| &c.resets_sent,
    ),
    (
        "cluster_upstream_cx_none_healthy",
        "Requests without a usable endpoint",
        |c| &c.none_healthy,
    ),
    (
        "cluster_upstream_rq_mirror",
        "Copies of requests that were sent here",
        |c| &c.mirrors,
    ),
    (
        "cluster_upstream_rq_mirror_overflow",
        "Copies of requests that were not sent: too many, or too large",
        |c| &c.mirror_overflows,
    ),
];

const CLUSTER_GAUGES: &[Of<ClusterCounters>] = &[
    ("cluster_upstream_cx_active", "Connections open", |c| {
        &c.connections_active
    }),
    ("cluster_upstream_rq_active", "Requests under way", |c| {
        &c.requests_active
    }),
];

fn encode_listeners(encoder: &mut DescriptorEncoder<'_>, sources: &Sources) -> fmt::Result {
    let each = || sources.listeners.iter().map(|(name, c)| (&**name, &**c));
    for (name, help, counter) in LISTENER_COUNTERS {
        encode_each(
            encoder,
            (name, help, MetricType::Counter),
            "listener",
            each(),
            counter,
        )?;
    }
    for (name, help, counter) in LISTENER_GAUGES {
        encode_each(
            encoder,
            (name, help, MetricType::Gauge),
            "listener",
            each(),
            counter,
        )?;
    }
    let mut metric = encoder.encode_descriptor(
        "http_downstream_rq_xx",
        "Responses by class of status",
        None,
        MetricType::Counter,
    )?;
    for (listener, workers) in each() {
        for (class, label) in CLASSES.iter().enumerate() {
            let count = total(workers, |c| &c.responses[class]);
            let labels: Labels<'_> = [("listener", listener), ("response_code_class", label)];
            encode_counter(&mut metric, &labels, count)?;
        }
    }
    let mut metric = encoder.encode_descriptor(
        "http_downstream_rq_flags",
        "Requests and connections by Envoy response flag",
        None,
        MetricType::Counter,
    )?;
    for (listener, workers) in each() {
        for flag in Flag::ALL {
            let count = total(workers, |c| &c.flags[flag.index()]);
            if count > 0 {
                let labels: Labels<'_> = [("listener", listener), ("flag", flag.short())];
                encode_counter(&mut metric, &labels, count)?;
            }
        }
    }
    encode_refused(encoder, sources)?;
    let help = "Time from a request's head to the end of its response";
    let mut metric = encoder.encode_descriptor(
        "http_downstream_rq_time_seconds",
        help,
        None,
        MetricType::Histogram,
    )?;
    for (listener, workers) in each() {
        encode_histogram(&mut metric, [("listener", listener)], workers, |c| &c.time)?;
    }
    Ok(())
}

/// What came to a listener and was no request that can be served.
fn encode_refused(encoder: &mut DescriptorEncoder<'_>, sources: &Sources) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(
        "http_downstream_rq_refused",
        "Requests that are no HTTP, or doubtful, by what is wrong with them",
        None,
        MetricType::Counter,
    )?;
    for (listener, workers) in &sources.listeners {
        for refusal in Refusal::ALL {
            let count = total(workers, |c| &c.refused[refusal.index()]);
            if count > 0 {
                let labels: Labels<'_> = [("listener", listener), ("reason", refusal.label())];
                encode_counter(&mut metric, &labels, count)?;
            }
        }
    }
    Ok(())
}

fn encode_clusters(encoder: &mut DescriptorEncoder<'_>, sources: &Sources) -> fmt::Result {
    let each = || {
        let clusters = sources.clusters.iter();
        clusters.map(|(key, shared)| (&**key, &*shared.workers))
    };
    for (name, help, counter) in CLUSTER_COUNTERS {
        encode_each(
            encoder,
            (name, help, MetricType::Counter),
            "cluster",
            each(),
            counter,
        )?;
    }
    for (name, help, counter) in CLUSTER_GAUGES {
        encode_each(
            encoder,
            (name, help, MetricType::Gauge),
            "cluster",
            each(),
            counter,
        )?;
    }
    let mut metric = encoder.encode_descriptor(
        "cluster_upstream_rq_xx",
        "Upstream responses by class of status",
        None,
        MetricType::Counter,
    )?;
    for (cluster, workers) in each() {
        for (class, label) in CLASSES.iter().enumerate() {
            let count = total(workers, |c| &c.responses[class]);
            let labels: Labels<'_> = [("cluster", cluster), ("response_code_class", label)];
            encode_counter(&mut metric, &labels, count)?;
        }
    }
    let help = "Time of requests to this cluster, retries included";
    let mut metric = encoder.encode_descriptor(
        "cluster_upstream_rq_time_seconds",
        help,
        None,
        MetricType::Histogram,
    )?;
    for (cluster, workers) in each() {
        encode_histogram(&mut metric, [("cluster", cluster)], workers, |c| &c.time)?;
    }
    encode_node_gauges(encoder, sources)
}

/// What is known per cluster for the whole node.
fn encode_node_gauges(encoder: &mut DescriptorEncoder<'_>, sources: &Sources) -> fmt::Result {
    let pending = "cluster_upstream_rq_pending_active";
    let mut metric = encoder.encode_descriptor(
        pending,
        "Requests that wait for a connection",
        None,
        MetricType::Gauge,
    )?;
    for (key, shared) in &*sources.clusters {
        let [_, waiting, _] = shared.in_use();
        encode_gauge(&mut metric, &[("cluster", &**key)], u64::from(waiting))?;
    }
    outlier::encode(encoder, sources)?;
    for (name, help, healthy_only) in [
        ("cluster_membership_endpoints", "Endpoints", false),
        (
            "cluster_membership_healthy",
            "Endpoints that nobody calls unhealthy",
            true,
        ),
    ] {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (key, shared) in &*sources.clusters {
            let Some(members) = shared.members.newest() else {
                continue;
            };
            let cluster = &members.cluster;
            let counted = cluster.endpoints.iter().filter(|endpoint| {
                let health = sources.health.health(key, endpoint.address);
                !healthy_only || health != Health::Unhealthy
            });
            let labels = [("cluster", &**key)];
            encode_gauge(&mut metric, &labels, counted.count() as u64)?;
        }
    }
    Ok(())
}

const CLASSES: [&str; 5] = ["1", "2", "3", "4", "5"];

fn total<T>(workers: &[T], counter: impl Fn(&T) -> &Counter) -> u64 {
    let counts = workers.iter().map(|worker| counter(worker).read());
    counts.fold(0, u64::wrapping_add)
}

fn encode_each<'a, T: 'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    label: &'static str,
    each: impl Iterator<Item = (&'a str, &'a [T])>,
    counter: &fn(&T) -> &Counter,
) -> fmt::Result {
    let is_counter = matches!(kind, MetricType::Counter);
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (value, workers) in each {
        let labels = [(label, value)];
        if is_counter {
            encode_counter(&mut metric, &labels, total(workers, counter))?;
        } else {
            encode_gauge(&mut metric, &labels, total(workers, counter))?;
        }
    }
    Ok(())
}

type Metric<'a> = prometheus_client::encoding::MetricEncoder<'a>;

fn encode_counter(
    metric: &mut Metric<'_>,
    labels: &impl EncodeLabelSet,
    count: u64,
) -> fmt::Result {
    let mut one = metric.encode_family(labels)?;
    one.encode_counter::<NoLabelSet, _, u64>(&count, None)
}

fn encode_gauge(metric: &mut Metric<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    metric.encode_family(labels)?.encode_gauge(&value)
}

fn encode_histogram<T>(
    metric: &mut Metric<'_>,
    labels: [(&'static str, &str); 1],
    workers: &[T],
    histogram: impl Fn(&T) -> &Histogram,
) -> fmt::Result {
    let bounds = BUCKETS_MICROS.iter().map(|micros| *micros as f64 / 1e6);
    let buckets: Vec<(f64, u64)> = bounds
        .chain([f64::INFINITY])
        .enumerate()
        .map(|(at, bound)| {
            (
                bound,
                total(workers, |worker| &histogram(worker).buckets[at]),
            )
        })
        .collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let sum = total(workers, |worker| &histogram(worker).sum_micros);
    metric
        .encode_family(&labels)?
        .encode_histogram::<NoLabelSet>(sum as f64 / 1e6, count, &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_added_up() {
        let metrics = ProxyMetrics::new(
            LogQueue::start(Box::new(std::io::sink())).unwrap(),
            Arc::default(),
            Arc::new(Certificates::start(Duration::from_secs(3600)).unwrap()),
        );
        let workers: Arc<[ListenerCounters]> = (0..2).map(|_| Default::default()).collect();
        for worker in &*workers {
            worker.requests.add(3);
            worker.responses[1].increment();
            worker.flags[Flag::NoRoute.index()].increment();
            worker.refused[Refusal::Version.index()].increment();
            worker.time.record(Duration::from_millis(2));
        }
        let name = "edge".to_owned();
        metrics.sources().listeners.insert(name, workers);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for expected in [
            "http_downstream_rq_total{listener=\"edge\"} 6\n",
            "http_downstream_rq_xx_total{listener=\"edge\",response_code_class=\"2\"} 2\n",
            "http_downstream_rq_flags_total{listener=\"edge\",flag=\"NR\"} 2\n",
            "http_downstream_rq_refused_total{listener=\"edge\",reason=\"version\"} 2\n",
            "http_downstream_rq_time_seconds_sum{listener=\"edge\"} 0.004\n",
            "http_downstream_rq_time_seconds_bucket{le=\"0.005\",listener=\"edge\"} 2\n",
            "access_log_dropped_total 0\n",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }
}
