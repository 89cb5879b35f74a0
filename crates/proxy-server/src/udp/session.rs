//! One client's datagrams to one endpoint, and what comes back.
//!
//! Owns the socket towards the endpoint, which nobody else can send to: answers of others are not
//! taken. Ends when nothing moved for the listener's idle time, or when the endpoint is not there.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use proxy_config::compiled::{AccessLog, Protocol};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{ARRIVED, BATCH, Front};
use crate::access_log::Line;
use crate::clock::timestamp;
use crate::counters::Active;
use crate::deadline::{Progress, Timer, earlier};
use crate::flags::Flag;
use crate::upstream::{Datagrams, Endpoint, Seen, Upstream};

/// While the listener drains, a session that is silent for so long is over.
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// What is waited for: answers, and that the other host says that nobody is there.
const WANTED: Interest = Interest::READABLE.add(Interest::ERROR);

#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: SocketAddr,
    datagrams: Datagrams,
    upstream: Rc<Upstream>,
    /// The place of the endpoint, and itself: places change with the config.
    number: usize,
    endpoint: Rc<Endpoint>,
    began: Instant,
    progress: Progress,
    /// Why it is over, once it is: the flag, if there is one.
    over: RefCell<Option<Option<Flag>>>,
    ended: Notify,
    answered: Cell<bool>,
    /// Datagrams and bytes, from the client and to it.
    received: Cell<(u64, u64)>,
    sent: Cell<(u64, u64)>,
}

impl Session {
    pub(super) fn new(
        client: SocketAddr,
        (upstream, number): (&Rc<Upstream>, usize),
        datagrams: Datagrams,
    ) -> Rc<Self> {
        let began = Instant::now();
        Rc::new(Self {
            client,
            datagrams,
            upstream: upstream.clone(),
            number,
            endpoint: upstream.endpoints[number].clone(),
            began,
            progress: Progress::new(began),
            over: RefCell::default(),
            ended: Notify::new(),
            answered: Cell::new(false),
            received: Cell::default(),
            sent: Cell::default(),
        })
    }

    /// Whether more can be sent on it.
    pub(super) fn is_usable(&self) -> bool {
        self.over.borrow().is_none() && self.endpoint.may_be_chosen()
    }

    /// Ends it in good order.
    pub(super) fn end(&self) {
        self.end_with(None);
    }

    fn end_with(&self, flag: Option<Flag>) {
        self.over.borrow_mut().get_or_insert(flag);
        self.ended.notify_one();
    }

    /// Sends a datagram of the client. Not so: the session is over, and another one may take it.
    pub(super) fn send(&self, datagram: &[u8]) -> bool {
        self.progress.mark();
        // The runtime's own way would wait until it heard that there is room.
        match SockRef::from(&self.datagrams.socket).send(datagram) {
            Ok(_) => {
                let (count, bytes) = self.received.get();
                self.received
                    .set((count + 1, bytes + datagram.len() as u64));
                true
            }
            Err(error) if is_refusal(&error) => {
                self.refused();
                false
            }
            // There is no room now, or it is too large for the way: it is lost.
            Err(_) => {
                self.upstream.counters().datagrams_dropped.increment();
                true
            }
        }
    }

    /// The endpoint's host said that nobody is there.
    fn refused(&self) {
        self.upstream.counters().connect_failures.increment();
        let since = || self.began.elapsed();
        self.upstream.failed(self.number, Seen::Local, since);
        self.end_with(Some(Flag::UpstreamConnectFailure));
    }

    /// Passes answers on until it is over.
    pub(super) async fn run(self: Rc<Self>, front: &Front) {
        let serving = front.slot.serving();
        let counters = serving.counters(front.slot.worker);
        let upstream = self.upstream.counters();
        counters.connections.increment();
        upstream.requests.increment();
        let _active = Active::count(&counters.connections_active);
        let _in_use = (
            Active::count(&upstream.requests_active),
            self.endpoint.enter(),
        );
        let tidy = Tidy(&self, front);
        let mut timer = Timer::new(self.began);
        let limit = || {
            let serving = front.slot.serving();
            let Protocol::Udp(listener) = &serving.listener.protocol else {
                return Some(self.began);
            };
            let idle = listener.idle_timeout.map(|idle| self.progress.limit(idle));
            // Nobody says that a session is over: while the listener drains, silence does sooner.
            let drained = front.slot.drain_began().map(|began| {
                let rests = self.progress.limit(DRAIN_IDLE);
                rests.max(began + DRAIN_IDLE)
            });
            earlier(idle, drained)
        };
        while self.over.borrow().is_none() {
            let stirs = async {
                tokio::select! {
                    ready = self.datagrams.socket.ready(WANTED) => {
                        if ready.is_ok_and(|ready| ready.is_error()) {
                            self.hear_error();
                        }
                        self.pass_answers(front);
                    }
                    () = self.ended.notified() => {}
                    () = front.slot.drain.notified() => {}
                }
                tokio::task::yield_now().await;
            };
            if timer.until(limit, stirs).await.is_err() {
                counters.udp.idle.increment();
                self.end();
            }
        }
        let flag = self.over.take().flatten();
        if let Some(flag) = flag {
            counters.flags[flag.index()].increment();
        }
        counters.time.record(self.began.elapsed());
        drop(tidy);
        if front.worker.routing().config.defaults.access_log == AccessLog::Json {
            front.worker.log.write(self.line(&serving.label, flag));
        }
    }

    /// Takes what the system heard of an earlier datagram: that nobody is there, perhaps.
    fn hear_error(&self) {
        let socket = &self.datagrams.socket;
        if let Ok(Some(error)) = socket.take_error()
            && is_refusal(&error)
        {
            self.refused();
        }
        // It was heard; the next one will be told anew.
        let _ = socket.try_io(Interest::ERROR, || -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        });
    }

    fn pass_answers(&self, front: &Front) {
        ARRIVED.with_borrow_mut(|room| {
            for _ in 0..BATCH {
                match self.datagrams.socket.try_recv(room) {
                    Ok(count) => {
                        self.progress.mark();
                        if !self.answered.replace(true) {
                            self.upstream.answered(self.number, 200, self.began);
                        }
                        if front.answer(self.client, &room[..count]) {
                            let (datagrams, bytes) = self.sent.get();
                            self.sent.set((datagrams + 1, bytes + count as u64));
                        }
                    }
                    Err(error) if is_refusal(&error) => return self.refused(),
                    Err(_) => return,
                }
            }
        });
    }

    fn line(&self, listener: &str, flag: Option<Flag>) -> Line {
        let (wall, took) = (SystemTime::now(), self.began.elapsed());
        let mut line = Line::new(&timestamp(wall.checked_sub(took).unwrap_or(wall)));
        line.text("listener", listener);
        line.text("protocol", "UDP");
        line.text("flags", flag.map_or("-", Flag::short));
        let [(received, received_bytes), (sent, sent_bytes)] =
            [self.received.get(), self.sent.get()];
        line.number("datagrams_received", received);
        line.number("datagrams_sent", sent);
        line.number("bytes_received", received_bytes);
        line.number("bytes_sent", sent_bytes);
        line.millis("duration_ms", took);
        line.text("peer", &self.client.to_string());
        line.text("cluster", &self.upstream.cluster.name.to_string());
        line.text("upstream", &self.endpoint.label);
        line
    }
}

/// Forgets a session however it ends.
struct Tidy<'a>(&'a Rc<Session>, &'a Front);

impl Drop for Tidy<'_> {
    fn drop(&mut self) {
        self.1.forget(self.0);
        self.0.upstream.wake_one();
    }
}

/// Whether the other host said that nobody is there, which the system tells with a later call.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}
