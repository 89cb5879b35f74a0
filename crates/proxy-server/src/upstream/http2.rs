//! Connections of HTTP/2 to one endpoint, each of which carries many requests at a time.
//!
//! Owns how many streams a connection gets before another one is opened, and when one gets no more
//! of them: told to go away, ended, or unused for too long. Never looks into a stream.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use proxy_config::compiled::{ConnectionKeepalive, UpstreamHttp};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::Upstream;
use super::connect::{ConnectFault, Limit, Wanted, connect};
use super::limits::Permit;
use super::pool::{Connection, Life, OpenConnection};
use crate::deadline::{Timer, earlier};
use crate::wire::{Alpn, Stream, whole};

/// A connection gets so many streams at a time, or as many as the other side takes if that is less.
const STREAMS_MAX: usize = 100;
/// A stream's body may be ahead of its client by so much.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// All bodies of a connection together: as much as all its streams may have, so that a client that
/// does not read stops its own stream and no other.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_MAX as u32;
/// A stream may have so much waiting to be written, however large a window the other side gives.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Stands for "not told yet" where the other side's number of streams is asked for: no peer can say
/// this one.
const UNTOLD: usize = usize::MAX - 1;
/// A response head may have so many bytes.
const HEAD_BYTES_MAX: u32 = 64 * 1024;

/// This worker's connections of HTTP/2 to an endpoint.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: RefCell<Vec<Rc<Open>>>,
    /// Those on their way.
    opening: Cell<usize>,
    /// Requests that wait for them.
    waiting: Cell<usize>,
    /// A stream ended, or a connection came or failed.
    changed: Rc<Notify>,
}

/// A connection. It ends when the last of these is dropped.
#[derive(Debug)]
struct Open {
    send: RefCell<SendRequest<Bytes>>,
    streams: Cell<usize>,
    served: Cell<bool>,
    life: Cell<Life>,
    idle_since: Cell<Instant>,
    changed: Rc<Notify>,
    /// The other side told what it takes, or never will.
    told: Rc<Notify>,
}

impl Open {
    fn is_usable(&self) -> bool {
        // Neither ended nor told to go away. Nobody waits for what this may answer.
        let mut cx = Context::from_waker(Waker::noop());
        !matches!(
            self.send.borrow_mut().poll_ready(&mut cx),
            Poll::Ready(Err(_))
        )
    }

    /// Until the other side told how many streams it takes, one is tried: more could wait for it
    /// in vain.
    fn has_room(&self) -> bool {
        let room = match self.send.borrow().current_max_send_streams() {
            UNTOLD => 1,
            told => told.min(STREAMS_MAX),
        };
        self.streams.get() < room
    }

    fn is_untold(&self) -> bool {
        self.send.borrow().current_max_send_streams() == UNTOLD
    }
}

/// A place for one stream on a connection.
#[derive(Debug)]
pub(crate) struct Place {
    open: Rc<Open>,
    /// Whether the connection served a request before: if so, the other side may have just closed
    /// it.
    pub(crate) reused: bool,
}

impl Place {
    /// One more; and whether the connection may have yet another one.
    fn new(open: &Rc<Open>) -> (Self, bool) {
        open.streams.set(open.streams.get() + 1);
        let mut life = open.life.get();
        let goes_on = life.begins();
        open.life.set(life);
        let place = Self {
            reused: open.served.replace(true),
            open: open.clone(),
        };
        (place, goes_on)
    }

    /// Whether other protocols can be spoken on streams (RFC 8441), once the other side told.
    pub(crate) async fn takes_protocols(&self) -> bool {
        while self.open.is_untold() && self.open.is_usable() {
            self.open.told.notified().await;
        }
        let send = self.open.send.borrow();
        send.is_extended_connect_protocol_enabled()
    }

    /// What begins the stream.
    pub(crate) fn send(&self) -> SendRequest<Bytes> {
        self.open.send.borrow().clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.open.streams.get() - 1;
        self.open.streams.set(left);
        if left == 0 {
            self.open.idle_since.set(Instant::now());
        }
        self.open.changed.notify_one();
    }
}

impl Streams {
    /// A place on a connection that is there.
    fn place(&self) -> Option<Place> {
        let mut open = self.open.borrow_mut();
        open.retain(|open| open.is_usable() && !open.life.get().is_over());
        let at = open.iter().position(|open| open.has_room())?;
        let (place, goes_on) = Place::new(&open[at]);
        if !goes_on {
            // It ends when its streams have.
            open.remove(at);
        }
        Some(place)
    }

    /// Whether those on their way, each for so many requests more, will have room for one.
    fn will_have_room(&self, each: usize) -> bool {
        let open = self.open.borrow();
        let untold = open.iter().filter(|open| open.is_untold()).count();
        self.waiting.get() < (self.opening.get() + untold) * each
    }

    /// Gives no more streams to those that have had none for so long, or that ended.
    pub(super) fn sweep(&self, now: Instant, limit: Duration) {
        let keeps = |open: &Rc<Open>| {
            let rests = open.streams.get() == 0 && now - open.idle_since.get() >= limit;
            !rests && open.is_usable() && !open.life.get().is_old(now)
        };
        self.open.borrow_mut().retain(keeps);
    }

    /// Gives no more streams to any; those under way end in good order.
    pub(super) fn clear(&self) {
        self.open.borrow_mut().clear();
    }

    /// Closes one that has no stream; whether there was one.
    pub(super) fn close_idle(&self) -> bool {
        let mut open = self.open.borrow_mut();
        let idle = open.iter().position(|open| open.streams.get() == 0);
        idle.map(|at| open.remove(at)).is_some()
    }
}

/// Counts up until it is dropped.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn new(number: &'a Cell<usize>) -> Self {
        number.set(number.get() + 1);
        Self(number)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Wakes all who wait when it is dropped, even if whoever worked for them gave up.
struct Told<'a>(&'a Notify);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

/// What a request can be sent on.
#[derive(Debug)]
pub(crate) enum Agreed {
    /// The endpoint does not speak HTTP/2; only where that is to be agreed on.
    Http1(Connection),
    Http2(Place),
}

/// A place for a stream to the endpoint of this number: on a connection that is there, on one that
/// is on its way, or on a new one.
pub(crate) async fn place(
    upstream: &Upstream,
    endpoint: usize,
    timer: &mut Timer,
    limit: Limit,
) -> Result<Agreed, ConnectFault> {
    let known = &upstream.endpoints[endpoint];
    let streams = &known.streams;
    let most = upstream.cluster.connections.max_requests;
    // Whoever opens it takes the first place.
    let each = most.map_or(STREAMS_MAX, |most| STREAMS_MAX.min(most as usize - 1));
    let patience = Instant::now() + upstream.cluster.connect_timeout;
    let due = earlier(limit.0, Some(patience));
    loop {
        if known.speaks_http1.get() {
            let connection = connect(upstream, endpoint, Wanted::Any(None), timer, limit).await?;
            return agree(upstream, endpoint, connection, timer, limit).await;
        }
        if let Some(place) = streams.place() {
            return Ok(Agreed::Http2(place));
        }
        // At the limit of connections, a stream that ends makes room as well.
        let full = || {
            upstream
                .shared
                .connection(&upstream.cluster.limits)
                .is_none()
        };
        let waits = streams.will_have_room(each) || (!streams.open.borrow().is_empty() && full());
        if !waits {
            // Whoever waits for it has its place there, or must open one.
            let _told = Told(&streams.changed);
            let _opening = Counted::new(&streams.opening);
            let connection = connect(upstream, endpoint, Wanted::Fresh(None), timer, limit).await?;
            return agree(upstream, endpoint, connection, timer, limit).await;
        }
        let Some(_pending) = upstream.shared.pending(&upstream.cluster.limits) else {
            upstream.counters().pending_overflows.increment();
            return Err(ConnectFault::Overflow);
        };
        let _waiting = Counted::new(&streams.waiting);
        if timer
            .until(|| due, streams.changed.notified())
            .await
            .is_err()
        {
            let late = limit.0.is_some_and(|at| at <= patience);
            return Err(if late {
                ConnectFault::Late
            } else {
                ConnectFault::Overflow
            });
        }
    }
}

/// Takes the first place on a connection, unless the endpoint agreed to HTTP/1.1.
async fn agree(
    upstream: &Upstream,
    endpoint: usize,
    connection: Connection,
    timer: &mut Timer,
    limit: Limit,
) -> Result<Agreed, ConnectFault> {
    let known = &upstream.endpoints[endpoint];
    let is_old = upstream.cluster.http == UpstreamHttp::Auto
        && connection.reader.alpn() != Some(Alpn::Http2);
    known.speaks_http1.set(is_old);
    if is_old {
        return Ok(Agreed::Http1(connection));
    }
    begin(upstream, &known.streams, connection, timer, limit)
        .await
        .map(Agreed::Http2)
}

/// Begins HTTP/2 on a connection, and takes its first place.
async fn begin(
    upstream: &Upstream,
    streams: &Streams,
    connection: Connection,
    timer: &mut Timer,
    limit: Limit,
) -> Result<Place, ConnectFault> {
    let Connection {
        reader,
        writer,
        _permit,
        _active,
        life,
        ..
    } = connection;
    let handshake = builder().handshake(whole(reader, writer));
    let (send, driver) = match timer.until(|| limit.0, handshake).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            let error = error.into_io();
            return Err(ConnectFault::Failed(
                error.unwrap_or_else(|| std::io::ErrorKind::InvalidData.into()),
            ));
        }
        Err(_) => return Err(ConnectFault::Late),
    };
    let (changed, told) = (streams.changed.clone(), Rc::<Notify>::default());
    let news = (changed.clone(), told.clone());
    let keepalive = upstream.cluster.connections.keepalive;
    spawn_local(drive(driver, keepalive, news, (_permit, _active)));
    let open = Rc::new(Open {
        send: RefCell::new(send),
        streams: Cell::new(0),
        served: Cell::new(false),
        life: Cell::new(life),
        idle_since: Cell::new(Instant::now()),
        changed,
        told,
    });
    let (place, goes_on) = Place::new(&open);
    if goes_on {
        streams.open.borrow_mut().push(open);
    }
    Ok(place)
}

/// Lets a connection go on to its end.
async fn drive(
    mut connection: h2::client::Connection<Stream, Bytes>,
    keepalive: Option<ConnectionKeepalive>,
    (changed, told): (Rc<Notify>, Rc<Notify>),
    _counted: (Permit, OpenConnection),
) {
    let pings = connection.ping_pong();
    let silent = async {
        match (pings, keepalive) {
            (Some(pings), Some(keepalive)) => silence(pings, keepalive).await,
            _ => pending().await,
        }
    };
    let mut untold = true;
    let ended = poll_fn(|cx| {
        let ended = Pin::new(&mut connection).poll(cx);
        if untold && connection.max_concurrent_send_streams() != UNTOLD {
            untold = false;
            changed.notify_waiters();
            told.notify_waiters();
        }
        ended
    });
    tokio::select! {
        biased;
        ended = ended => if let Err(error) = ended {
            tracing::debug!(%error, "a connection of HTTP/2 to an upstream broke");
        },
        () = silent => {
            tracing::debug!("an upstream does not answer to PING; its connection is closed");
        }
    }
    // What is on it hears that it broke.
    drop(connection);
    changed.notify_waiters();
    told.notify_waiters();
}

/// Asks the other side again and again whether it is still there, until it does not answer in time.
async fn silence(mut pings: PingPong, keepalive: ConnectionKeepalive) {
    loop {
        sleep(keepalive.interval).await;
        let answered = pings.ping(Ping::opaque());
        match timeout(keepalive.timeout, answered).await {
            Ok(Ok(_)) => {}
            // The connection broke, and tells so itself.
            Ok(Err(_)) => return pending().await,
            Err(_) => return,
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(UNTOLD)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX);
    builder
}
