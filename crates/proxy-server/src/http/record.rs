//! What is remembered of one request until it is over: for the access log and the metrics.
//!
//! Owns the log line. Never decides anything.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::SystemTime;

use proxy_config::compiled::{HeaderChange, Route};
use tokio::time::Instant;

use super::forwarded::client_address;
use super::headers::ConnectionOption;
use super::own::{Own, counted};
use crate::access_log::Line;
use crate::clock::timestamp;
use crate::flags::Flag;
use crate::http1::RequestHead;
use crate::listener::Slot;
use crate::upstream::{Endpoint, Upstream};
use crate::worker::Worker;

/// One request's story.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) started: Instant,
    /// When the response was over.
    pub(super) ended: Option<Instant>,
    /// 0: no response was begun.
    pub(super) status: u16,
    /// Of a call of gRPC.
    pub(super) grpc_status: Option<u16>,
    pub(super) flag: Option<Flag>,
    /// A phrase on what went wrong.
    pub(super) details: &'static str,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// What the client was told about its connection.
    pub(super) connection: ConnectionOption,
    /// The response ended before its end.
    pub(super) broken_off: bool,
    pub(super) route: Option<&'a Route>,
    pub(super) upstream: Option<Rc<Upstream>>,
    pub(super) endpoint: Option<Rc<Endpoint>>,
    pub(super) tries: u32,
    pub(super) request_id: String,
    /// What the route answers by itself.
    pub(super) own: Option<Own<'a>>,
    /// What the config changes of the headers of an answer of our own.
    pub(super) changes: Vec<HeaderChange>,
}

impl Record<'_> {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            ended: None,
            status: 0,
            grpc_status: None,
            flag: None,
            details: "",
            received: 0,
            sent: 0,
            connection: ConnectionOption::Close,
            broken_off: false,
            route: None,
            upstream: None,
            endpoint: None,
            tries: 0,
            request_id: String::new(),
            own: None,
            changes: Vec::new(),
        }
    }

    /// Notes why it went wrong; the first reason stands.
    pub(super) fn blame(&mut self, flag: Flag, details: &'static str) {
        if self.flag.is_none() {
            self.flag = Some(flag);
            self.details = details;
        }
    }

    /// Counts it, now that it is over.
    pub(super) fn count(&self, counters: &crate::counters::ListenerCounters, now: Instant) {
        let took = now - self.started;
        counters.time.record(took);
        if let Some(class) = class_of(self.status) {
            counters.responses[class].increment();
        }
        if let Some(counter) = self
            .route
            .and_then(|route| counted(counters, &route.action))
        {
            counter.increment();
        }
        if let Some(flag) = self.flag {
            counters.flags[flag.index()].increment();
        }
        counters.bytes_received.add(self.received);
        counters.bytes_sent.add(self.sent);
        if let Some(upstream) = &self.upstream {
            upstream.counters().time.record(took);
        }
    }

    /// The line of the access log.
    fn line(&self, head: &RequestHead, from: &From<'_>, now: Instant) -> Line {
        let took = now - self.started;
        let wall = SystemTime::now();
        let mut line = Line::new(&timestamp(wall.checked_sub(took).unwrap_or(wall)));
        line.text("listener", from.listener);
        line.text("method", head.method.as_str());
        line.text("host", header(head, "host"));
        line.text("path", head.target());
        line.text(
            "protocol",
            match head.version {
                http::Version::HTTP_10 => "HTTP/1.0",
                http::Version::HTTP_2 => "HTTP/2",
                _ => "HTTP/1.1",
            },
        );
        line.number("status", u64::from(self.status));
        if let Some(code) = self.grpc_status {
            line.number("grpc_status", u64::from(code));
        }
        line.text("flags", self.flag.map_or("-", Flag::short));
        if !self.details.is_empty() {
            line.text("details", self.details);
        }
        line.number("bytes_received", self.received);
        line.number("bytes_sent", self.sent);
        line.millis("duration_ms", took);
        line.text("client", from.client);
        line.text("peer", from.peer);
        if let Some(route) = self.route {
            line.text("virtual_host", &route.virtual_host.to_string());
            line.number("route", route.index as u64);
            if let Some(action) = route.action.word() {
                line.text("action", action);
            }
        }
        if let Some(upstream) = &self.upstream {
            line.text("cluster", &upstream.cluster.name.to_string());
        }
        if let Some(endpoint) = &self.endpoint {
            line.text("upstream", &endpoint.label);
            line.number("tries", u64::from(self.tries));
        }
        line.text("user_agent", header(head, "user-agent"));
        line.text("request_id", &self.request_id);
        line
    }
}

/// Writes a request of `peer` that ended then to the access log.
pub(super) fn log(
    worker: &Worker,
    slot: &Slot,
    peer: SocketAddr,
    (head, record, now): (&RequestHead, &Record<'_>, Instant),
) {
    let trusted_hops = worker.routing().config.defaults.trusted_hops;
    let client = client_address(&head.headers, peer.ip(), trusted_hops);
    let from = From {
        listener: &slot.serving().label,
        client: &client.to_canonical().to_string(),
        peer: &peer.to_string(),
    };
    worker.log.write(record.line(head, &from, now));
}

/// Where a request came from.
#[derive(Debug)]
struct From<'a> {
    listener: &'a str,
    /// Whom it is from, through trusted proxies.
    client: &'a str,
    /// The other end of the connection.
    peer: &'a str,
}

/// The index of a status among the classes from 1xx.
pub(super) fn class_of(status: u16) -> Option<usize> {
    (100..600)
        .contains(&status)
        .then(|| usize::from(status / 100) - 1)
}

fn header<'a>(head: &'a RequestHead, name: &str) -> &'a str {
    let value = head.headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or("")
}
