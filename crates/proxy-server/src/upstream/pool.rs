//! Connections to one endpoint: those in use are counted, idle ones wait to be used again.
//!
//! Owns the idle stack (last in, first out, so that what is not needed grows old and goes). Never
//! connects.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proxy_balance::Ewma;
use proxy_config::compiled::{self, Connections};
use tokio::time::Instant;

use super::http2::Streams;
use super::limits::Permit;
use crate::counters::Counter;
use crate::wire::{Reader, Writer};

/// A worker keeps at most so many idle connections to one endpoint; one more is closed instead.
const IDLE_MAX: usize = 512;
/// A connection that is for one client alone waits for its next request for so long: nobody tells when
/// that client has left.
const INTRODUCED_IDLE: Duration = Duration::from_secs(10);

/// An upstream address with this worker's connections to it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// The path of the Unix socket, if it is one.
    pub(crate) socket: Option<Arc<str>>,
    /// The address as text, for the access log.
    pub(crate) label: Box<str>,
    active: Cell<u32>,
    /// How long its answers take.
    pub(super) ewma: Cell<Ewma>,
    /// Since when it may be chosen, if it may.
    pub(super) eligible_since: Cell<Option<Instant>>,
    /// The oldest first.
    idle: RefCell<Vec<Idle>>,
    /// Where HTTP/2 is spoken to it.
    pub(super) streams: Streams,
    /// Where it is agreed on: the last time it was HTTP/1.1.
    pub(super) speaks_http1: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection to an endpoint.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// Whether it served a request before: if so, the other side may have just closed it.
    pub(crate) reused: bool,
    /// The client that it was introduced as, if the cluster wants to know: it is for that one alone.
    pub(super) introduced: Option<SocketAddr>,
    pub(super) life: Life,
    /// Counts it for the node and for this worker until it is closed.
    pub(super) _permit: Permit,
    pub(super) _active: OpenConnection,
}

impl Connection {
    /// Closes it while nothing flows.
    pub(super) fn give_up(self) {
        self.say_end();
    }

    fn say_end(&self) {
        self.writer.say_end();
    }
}

/// How long a connection may be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    /// Requests that it may still carry, if there is a limit.
    requests: Option<u32>,
    /// When it is too old, if ever.
    until: Option<Instant>,
}

impl Life {
    /// That of a connection which is made now.
    pub(super) fn new(connections: &Connections) -> Self {
        let most = connections.max_duration;
        Self {
            requests: connections.max_requests,
            until: most.and_then(|most| Instant::now().checked_add(most)),
        }
    }

    /// Takes in that a request ended on it. Whether it may be used once more.
    pub(super) fn goes_on(&mut self, now: Instant) -> bool {
        self.requests = self.requests.map(|left| left.saturating_sub(1));
        self.requests != Some(0) && !self.is_old(now)
    }

    /// Takes in that a request begins on it, beside others. Whether one more may.
    pub(super) fn begins(&mut self) -> bool {
        self.requests = self.requests.map(|left| left.saturating_sub(1));
        self.requests != Some(0)
    }

    pub(super) fn is_old(self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// The clock is read only where there is a limit.
    pub(super) fn is_over(self) -> bool {
        self.until.is_some() && self.is_old(Instant::now())
    }
}

/// Counts an open connection.
#[derive(Debug)]
pub(super) struct OpenConnection {
    shared: Arc<super::ClusterShared>,
    worker: usize,
}

impl OpenConnection {
    pub(super) fn new(shared: Arc<super::ClusterShared>, worker: usize) -> Self {
        let open = Self { shared, worker };
        open.counter().increment();
        open
    }

    fn counter(&self) -> &Counter {
        &self.shared.workers[self.worker].connections_active
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.counter().decrement();
    }
}

/// Counts a request as active at its endpoint, which is what least_request looks at.
#[derive(Debug)]
pub(crate) struct InUse(Rc<Endpoint>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Endpoint {
    pub(crate) fn new(endpoint: &compiled::Endpoint, ewma: Ewma) -> Self {
        Self {
            address: endpoint.address,
            socket: endpoint.socket.clone(),
            label: endpoint.label().into(),
            active: Cell::new(0),
            ewma: Cell::new(ewma),
            eligible_since: Cell::new(None),
            idle: RefCell::new(Vec::new()),
            streams: Streams::default(),
            speaks_http1: Cell::new(false),
        }
    }

    /// This worker's requests and connections at it right now.
    pub(crate) fn active(&self) -> u32 {
        self.active.get()
    }

    /// Whether the balancer may choose it, as far as is known now.
    pub(crate) fn may_be_chosen(&self) -> bool {
        self.eligible_since.get().is_some()
    }

    /// Counts one more until the result is dropped.
    pub(crate) fn enter(self: &Rc<Self>) -> InUse {
        self.active.set(self.active.get() + 1);
        InUse(self.clone())
    }

    /// The idle connection that was used last, if one is still good; one that was introduced as a
    /// client, for that client.
    pub(crate) fn take(&self, introduced: Option<SocketAddr>) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let mut connection = match introduced {
                None => idle.pop()?.connection,
                Some(_) => {
                    let is_its = |one: &Idle| one.connection.introduced == introduced;
                    let at = idle.iter().rposition(is_its)?;
                    idle.remove(at).connection
                }
            };
            if !connection.life.is_over() && connection.reader.is_quiet() {
                connection.reused = true;
                return Some(connection);
            }
            connection.give_up();
        }
    }

    /// Keeps a connection for later.
    pub(super) fn put(&self, mut connection: Connection, now: Instant) {
        connection.reader.shrink();
        let mut idle = self.idle.borrow_mut();
        if connection.introduced.is_some() && idle.len() >= IDLE_MAX {
            // The client of the oldest has most likely left.
            idle.remove(0);
        }
        if idle.len() < IDLE_MAX {
            idle.push(Idle {
                connection,
                since: now,
            });
        } else {
            connection.give_up();
        }
    }

    /// Closes the idle connections that are unused for longer than `limit`, are too old, or were closed by the other side.
    pub(super) fn sweep(&self, now: Instant, limit: Duration) {
        let mut idle = self.idle.borrow_mut();
        if !idle.is_empty() {
            idle.retain(|Idle { connection, since }| {
                let limit = match connection.introduced {
                    None => limit,
                    Some(_) => limit.min(INTRODUCED_IDLE),
                };
                let young = now - *since < limit && !connection.life.is_old(now);
                let stays = young && connection.reader.is_quiet();
                if !stays {
                    connection.say_end();
                }
                stays
            });
        }
        self.streams.sweep(now, limit);
    }

    /// Closes all idle connections.
    pub(crate) fn clear(&self) {
        for idle in self.idle.borrow_mut().drain(..) {
            idle.connection.give_up();
        }
        self.streams.clear();
    }

    /// Closes one idle connection, the oldest; whether there was one.
    pub(super) fn close_oldest(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            return self.streams.close_idle();
        }
        idle.remove(0).connection.give_up();
        true
    }
}
