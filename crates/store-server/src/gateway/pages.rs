//! etcd's HTTP pages: its version, its health in three forms, the metrics.
//!
//! Owns their paths, parameters and texts. A check asks the same parts that answer clients. Never
//! changes anything.

use std::sync::Arc;

use serde_json::json;
use store_api::errors;
use store_api::etcdserverpb::maintenance_server::Maintenance;
use store_api::etcdserverpb::{AlarmRequest, AlarmType};
use store_raft::{Role, Store};
use tokio::sync::Semaphore;
use tonic::Request;
use tonic::body::Body;
use tonic::codegen::http::{self, Method, Response, StatusCode};

use super::fault;
use crate::limits::{Limits, METRICS_AT_ONCE_MAX};
use crate::maintenance::{API_VERSION, MaintenanceService};
use crate::patience::Patience;
use crate::reads::Reads;

/// Writes all metrics of the node in OpenMetrics' text. Called where blocking is allowed.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Version,
    Metrics,
    Health,
    /// The checks of `/livez`, `/readyz`, or one of them.
    Checks(&'static [Check]),
}

/// What `/livez` and `/readyz` look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

const PAGES: &[(&str, Page)] = &[
    ("/version", Page::Version),
    ("/metrics", Page::Metrics),
    ("/health", Page::Health),
    ("/livez", Page::Checks(&[Check::SerializableRead])),
    (
        "/livez/serializable_read",
        Page::Checks(&[Check::SerializableRead]),
    ),
    (
        "/readyz",
        Page::Checks(&[
            Check::DataCorruption,
            Check::SerializableRead,
            Check::LinearizableRead,
            Check::NonLearner,
        ]),
    ),
    (
        "/readyz/data_corruption",
        Page::Checks(&[Check::DataCorruption]),
    ),
    (
        "/readyz/serializable_read",
        Page::Checks(&[Check::SerializableRead]),
    ),
    (
        "/readyz/linearizable_read",
        Page::Checks(&[Check::LinearizableRead]),
    ),
    ("/readyz/non_learner", Page::Checks(&[Check::NonLearner])),
];

impl Page {
    /// The page at `path`.
    pub(super) fn at(path: &str) -> Option<Self> {
        let found = PAGES.iter().find(|(at, _)| *at == path);
        found.map(|(_, page)| *page)
    }
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }
}

/// The pages of one node.
pub(crate) struct Pages {
    store: Store,
    reads: Reads,
    maintenance: MaintenanceService,
    limits: Limits,
    metrics: MetricsText,
    metrics_turn: Semaphore,
}

impl Pages {
    pub(crate) fn new(
        store: Store,
        reads: Reads,
        maintenance: MaintenanceService,
        limits: Limits,
        metrics: MetricsText,
    ) -> Self {
        Self {
            store,
            reads,
            maintenance,
            limits,
            metrics,
            metrics_turn: Semaphore::new(METRICS_AT_ONCE_MAX),
        }
    }

    /// Answers a request for `page`.
    pub(super) async fn answer(&self, page: Page, request: http::Request<Body>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return fault::method_not_allowed("GET, HEAD");
        }
        let query = Query(request.uri().query().unwrap_or_default());
        match page {
            Page::Version => {
                let versions = json!({
                    "etcdserver": API_VERSION, "etcdcluster": API_VERSION, "storage": API_VERSION,
                });
                text(StatusCode::OK, JSON, format!("{versions}\n"))
            }
            Page::Metrics => self.metrics().await,
            Page::Health => self.health(query).await,
            Page::Checks(checks) => self.checks(checks, query).await,
        }
    }

    async fn metrics(&self) -> Response<Body> {
        let Ok(_turn) = self.metrics_turn.acquire().await else {
            // The semaphore is never closed.
            return text(StatusCode::SERVICE_UNAVAILABLE, TEXT, String::new());
        };
        let metrics = self.metrics.clone();
        match tokio::task::spawn_blocking(move || metrics()).await {
            Ok(metrics) => text(StatusCode::OK, OPEN_METRICS, metrics),
            Err(fault) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                format!("the metrics cannot be written: {fault}\n"),
            ),
        }
    }

    async fn health(&self, query: Query<'_>) -> Response<Body> {
        let (status, health, reason) = match self.sick(query).await {
            None => (StatusCode::OK, "true", String::new()),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, "false", reason),
        };
        let body = json!({ "health": health, "reason": reason });
        text(status, JSON, format!("{body}\n"))
    }

    /// Why this node, or with it the mesh, is not healthy.
    async fn sick(&self, query: Query<'_>) -> Option<String> {
        let serializable = query.values("serializable").next() == Some("true");
        for alarm in self.alarms().await {
            let name = alarm.as_str_name();
            if !query.values("exclude").any(|excluded| excluded == name) {
                return Some(format!("ALARM {name}"));
            }
        }
        if !serializable && self.store.status().leader.is_none() {
            return Some("RAFT NO LEADER".to_owned());
        }
        let check = match serializable {
            true => Check::SerializableRead,
            false => Check::LinearizableRead,
        };
        let fault = self.check(check).await.err()?;
        Some(format!("RANGE ERROR:{fault}"))
    }

    async fn checks(&self, checks: &[Check], query: Query<'_>) -> Response<Body> {
        let (mut report, mut all_well) = (String::new(), true);
        for &check in checks {
            let name = check.name();
            if query.values("exclude").any(|excluded| excluded == name) {
                continue;
            }
            match self.check(check).await {
                Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
                Err(fault) => {
                    report.push_str(&format!("[-]{name} failed: {fault}\n"));
                    all_well = false;
                }
            }
        }
        if !all_well {
            return text(StatusCode::SERVICE_UNAVAILABLE, TEXT, report);
        }
        if query.values("verbose").next().is_none() {
            report.clear();
        }
        text(StatusCode::OK, TEXT, report + "ok\n")
    }

    async fn check(&self, check: Check) -> Result<(), String> {
        match check {
            Check::DataCorruption if self.alarms().await.contains(&AlarmType::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Check::SerializableRead if self.store.status().role == Role::Stopped => {
                Err(errors::stopped().message().to_owned())
            }
            Check::NonLearner if self.store.status().role == Role::Learner => {
                Err("not supported for learner".to_owned())
            }
            Check::LinearizableRead => {
                let read = self.reads.linearizable(Patience::own(&self.limits)).await;
                read.map(drop).map_err(|status| status.message().to_owned())
            }
            Check::DataCorruption | Check::SerializableRead | Check::NonLearner => Ok(()),
        }
    }

    async fn alarms(&self) -> Vec<AlarmType> {
        // The zero request lists all.
        let listed = self
            .maintenance
            .alarm(Request::new(AlarmRequest::default()))
            .await;
        let listed = listed.map(|listed| listed.into_inner().alarms);
        listed
            .unwrap_or_default()
            .iter()
            .map(|member| member.alarm())
            .collect()
    }
}

/// The parameters of a page.
#[derive(Debug, Clone, Copy)]
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// All values of a parameter; one without a value has an empty one.
    fn values(self, name: &str) -> impl Iterator<Item = &'a str> {
        let pairs = self.0.split('&');
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs
            .filter(move |(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    fault::whole(status, kind, body.into())
}
