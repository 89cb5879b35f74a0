//! What a resource must fulfil whatever else there is.
//!
//! Owns the rules between the fields of one resource. Never repeats what a word's type proves.

mod action;
mod balance;
mod connections;
mod headers;
mod listener;
mod matching;
mod outlier;
mod retry;
mod subset;
mod tls;

use std::collections::HashSet;
use std::hash::Hash;

use crate::compiled::UpstreamHttp;
use crate::decode::Finding;
use crate::fault::suggest;
use crate::host::{Authority, normalize_host, split_host};
use crate::path::{EscapedSlashes, normalize_path};
use crate::resource::{
    ClusterSpec, DefaultsSpec, Expectation, ProbeSpec, Resource, RouteSpec, Spec, VirtualHostSpec,
};
use crate::tree::Place;
use crate::units::{Size, Time};
use crate::words::DEFAULT_NAMESPACE;

/// Probes closer together are a load, not a check.
const PROBE_EVERY_MIN_MS: u128 = 50;
/// A service to probe has a name of so many bytes at most.
const SERVICE_BYTES_MAX: usize = 256;
/// The bounds of a request head.
const HEAD_SIZE_MIN: Size = Size(1 << 10);
const HEAD_SIZE_MAX: Size = Size(1 << 20);

/// All faults of `resource`.
pub(super) fn check(resource: &Resource) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    match &resource.spec {
        Spec::Defaults(spec) => {
            let name = (
                resource.metadata.namespace.as_str(),
                resource.metadata.name.as_str(),
            );
            let is_default = name == (DEFAULT_NAMESPACE, DEFAULT_NAMESPACE);
            findings.refuse_if(!is_default, "name", || {
                "there is one Defaults only; leave out its name and namespace".into()
            });
            findings.refuse_if(resource.metadata.nodes.is_some(), "nodes", || {
                "Defaults are mesh-wide; leave `nodes` out".into()
            });
            check_defaults(spec, &mut findings);
        }
        Spec::Cluster(spec) => check_cluster(spec, &mut findings),
        Spec::VirtualHost(spec) => check_virtual_host(spec, &mut findings),
        Spec::Listener(spec) => listener::check(spec, &mut findings),
    }
    findings.0
}

struct Findings(Vec<Finding>);

impl Findings {
    /// Records a fault whose text is `fault; remedy`.
    fn refuse_if(&mut self, wrong: bool, path: impl Into<String>, text: impl FnOnce() -> String) {
        if wrong {
            self.0.push(Finding {
                path: path.into(),
                text: text(),
                place: Place::default(),
            });
        }
    }

    fn refuse_zero_time(&mut self, path: impl Into<String>, time: Option<Time>) {
        self.refuse_if(time.is_some_and(|time| time.0.is_zero()), path, || {
            "no time at all; give more than 0s".into()
        });
    }

    fn refuse_zero(&mut self, path: impl Into<String>, number: Option<u32>) {
        self.refuse_if(number == Some(0), path, || {
            "it is 0; give at least 1".into()
        });
    }

    fn refuse_percent(&mut self, path: impl Into<String>, percent: Option<u8>) {
        self.refuse_if(percent.is_some_and(|percent| percent > 100), path, || {
            "it is more than 100 percent; give 0 to 100".into()
        });
    }

    fn refuse_repeats<T: Hash + Eq + ToString>(
        &mut self,
        path: &str,
        items: impl IntoIterator<Item = T>,
    ) {
        let mut seen = HashSet::new();
        for (index, item) in items.into_iter().enumerate() {
            let text = item.to_string();
            self.refuse_if(!seen.insert(item), format!("{path}[{index}]"), || {
                format!("`{text}` is given twice; keep one of them")
            });
        }
    }
}

fn check_defaults(spec: &DefaultsSpec, findings: &mut Findings) {
    if let Some(retry) = &spec.retry {
        retry::check(retry, "retry", findings);
    }
    findings.refuse_zero_time("connect_timeout", spec.connect_timeout);
    findings.refuse_zero_time("head_timeout", spec.head_timeout);
    findings.refuse_zero_time("idle_timeout", spec.idle_timeout);
    findings.refuse_zero_time("stream_idle_timeout", spec.stream_idle_timeout);
    let fits = |size: Size| (HEAD_SIZE_MIN..=HEAD_SIZE_MAX).contains(&size);
    findings.refuse_if(
        spec.max_head_size.is_some_and(|size| !fits(size)),
        "max_head_size",
        || format!("out of bounds; give {HEAD_SIZE_MIN} to {HEAD_SIZE_MAX}"),
    );
}

fn check_cluster(spec: &ClusterSpec, findings: &mut Findings) {
    let empty = spec.endpoints.is_empty() && spec.service.is_none();
    findings.refuse_if(empty, "endpoints", || {
        "there is no endpoint; give at least one ip:port, or a `service`".into()
    });
    findings.refuse_repeats("endpoints", spec.endpoints.iter().map(|e| e.address()));
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        findings.refuse_zero(
            format!("endpoints[{index}].weight"),
            Some(endpoint.weight()),
        );
    }
    if let Some(probe) = &spec.probe {
        check_probe(probe, findings);
    }
    findings.refuse_zero("limits.connections", spec.limits.connections);
    findings.refuse_percent("limits.retry_budget", spec.limits.retry_budget);
    findings.refuse_zero_time("connect_timeout", spec.connect_timeout);
    findings.refuse_zero_time("idle_timeout", spec.idle_timeout);
    findings.refuse_percent("panic_threshold", spec.panic_threshold);
    let shared = spec.proxy_protocol.is_some() && spec.http != UpstreamHttp::H1;
    findings.refuse_if(shared, "proxy_protocol", || {
        "an HTTP/2 connection carries requests of many clients, and the header names one; use `http: h1`"
            .into()
    });
    headers::check(&spec.headers, "headers", findings);
    balance::check_cluster(spec, findings);
    connections::check(&spec.connections, spec.http, findings);
    subset::check_cluster(spec, findings);
    if let Some(spec) = &spec.outlier {
        outlier::check(spec, findings);
    }
    let is_open = spec.http == UpstreamHttp::Auto && spec.tls.is_none();
    findings.refuse_if(is_open, "http", || {
        "which HTTP is spoken is agreed on in the TLS handshake; add `tls`, or give h1 or h2".into()
    });
    if let Some(tls) = &spec.tls {
        tls::check_cluster(tls, findings);
        let nameless = tls.sni.is_none() && tls.subject_alt_names.is_empty();
        let has_socket = spec
            .endpoints
            .iter()
            .any(|e| e.address().socket().is_some());
        findings.refuse_if(nameless && has_socket, "tls.sni", || {
            "a Unix socket has no name that a certificate could be for; give one".into()
        });
    }
}

fn check_probe(probe: &ProbeSpec, findings: &mut Findings) {
    let asked = [
        probe.http.is_some(),
        probe.grpc.is_some(),
        probe.tcp.is_some(),
    ];
    let is_one = asked.iter().filter(|asked| **asked).count() == 1;
    findings.refuse_if(!is_one || probe.tcp == Some(false), "probe", || {
        "a probe asks one thing; give `http: /path`, `grpc: service` or `tcp: true`".into()
    });
    let no_service = |service: &String| {
        service.len() > SERVICE_BYTES_MAX || !service.bytes().all(|byte| byte.is_ascii_graphic())
    };
    findings.refuse_if(
        probe.grpc.as_ref().is_some_and(no_service),
        "probe.grpc",
        || "not the name of a service; give one like `package.Service`, or `\"\"`".into(),
    );
    let bad_host = |host: &String| probe.tcp.is_some() || normalize_host(host).is_err();
    findings.refuse_if(
        probe.host.as_ref().is_some_and(bad_host),
        "probe.host",
        || {
            "not a host for a probe; give a host name along with `http` or `grpc`, or leave it out"
                .into()
        },
    );
    let hasty = |time: Time| time.0.as_millis() < PROBE_EVERY_MIN_MS;
    findings.refuse_if(probe.every.is_some_and(hasty), "probe.every", || {
        format!("too often; give at least {PROBE_EVERY_MIN_MS}ms")
    });
    findings.refuse_zero_time("probe.timeout", probe.timeout);
    findings.refuse_zero("probe.unhealthy_after", probe.unhealthy_after);
    findings.refuse_zero("probe.healthy_after", probe.healthy_after);
}

fn check_virtual_host(spec: &VirtualHostSpec, findings: &mut Findings) {
    findings.refuse_if(
        spec.listeners.as_ref().is_some_and(Vec::is_empty),
        "listeners",
        || "the list is empty; leave it out for every http listener".into(),
    );
    findings.refuse_repeats("listeners", spec.listeners.iter().flatten());
    findings.refuse_if(spec.domains.is_empty(), "domains", || {
        "there is no domain; give at least one, \"*\" for all".into()
    });
    findings.refuse_repeats("domains", &spec.domains);
    headers::check(&spec.headers, "headers", findings);
    findings.refuse_if(spec.routes.is_empty(), "routes", || {
        "there is no route; give at least one".into()
    });
    for (index, route) in spec.routes.iter().enumerate() {
        check_route(route, &format!("routes[{index}]"), findings);
    }
    for (index, expectation) in spec.expect.iter().enumerate() {
        check_expectation(
            expectation,
            &spec.domains,
            &format!("expect[{index}]"),
            findings,
        );
    }
}

fn check_route(route: &RouteSpec, path: &str, findings: &mut Findings) {
    action::check(route, path, findings);
    matching::check(&route.matches, &format!("{path}.match"), findings);
    if let Some(retry) = &route.retry {
        retry::check(retry, &format!("{path}.retry"), findings);
    }
    let limit = route.max_stream_duration;
    findings.refuse_zero_time(format!("{path}.max_stream_duration"), limit);
    headers::check(&route.headers, &format!("{path}.headers"), findings);
    balance::check_hash(&route.hash, &format!("{path}.hash"), findings);
    subset::check_route(route, path, findings);
}

fn check_expectation(
    expectation: &Expectation,
    domains: &[Authority],
    path: &str,
    findings: &mut Findings,
) {
    let said = usize::from(expectation.to.is_some())
        + usize::from(expectation.status.is_some())
        + usize::from(expectation.redirect.is_some());
    findings.refuse_if(said != 1, path, || {
        "an expectation says one thing; give `to: <cluster>`, `status: 404` or `redirect: <url>`"
            .into()
    });
    findings.refuse_if(
        expectation
            .status
            .is_some_and(|status| !(200..=599).contains(&status)),
        format!("{path}.status"),
        || "not the status of an answer; give 200 to 599".into(),
    );
    let requested = expectation.get.split('?').next().unwrap_or_default();
    if let Err(fault) = normalize_path(requested, EscapedSlashes::Keep) {
        findings.refuse_if(true, format!("{path}.get"), || {
            format!("{requested:?} is not a path: {fault}; write it as /like/this")
        });
    }
    let Some(host) = &expectation.host else {
        return;
    };
    let served = split_host(host)
        .is_ok_and(|(host, port)| domains.iter().any(|one| one.matches(&host, port)));
    let domains: Vec<_> = domains.iter().map(ToString::to_string).collect();
    let known: Vec<_> = domains.iter().map(String::as_str).collect();
    findings.refuse_if(!served, format!("{path}.host"), || {
        format!("`{host}` is none of the domains; {}", suggest(host, &known))
    });
}
