//! One client's connection of HTTP/2: its streams, and its end.
//!
//! Owns the limits on what a client may do to a connection as a whole: streams at a time, windows,
//! resets, idling. The connection and its streams are one task: a task for each stream would have
//! to be woken and switched to, and what several of them send would not go out together. Never
//! looks into a request (that is `stream`).

mod head;
mod stream;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, Connection};
use h2::{Reason, RecvStream};
use http::Request;
use proxy_config::compiled::Defaults;
use tokio::time::Instant;

use super::connection::{DRAIN_IDLE, LINGER};
use crate::deadline::{Timer, earlier};
use crate::listener::Slot;
use crate::proxy_protocol::Ends;
use crate::wire::Stream;
use crate::worker::Worker;

/// What a client that speaks HTTP/2 from the start sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client may have so many streams at a time (Envoy's practice at the edge).
const STREAMS_MAX: u32 = 100;
/// Streams that a client gave up may still be on their way out. With so many in all it opens and
/// resets them faster than they end, and the connection is closed.
const STREAMS_KEPT_MAX: usize = 4 * STREAMS_MAX as usize;
/// A stream's body may be ahead of its upstream by so much. It bounds what one upload holds here.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// All bodies of a connection together. Smaller than all streams' windows, so a client that sends
/// many bodies to a slow upstream waits with all of them (Envoy's practice at the edge).
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// A stream may have so much waiting to be written, however large a window the client gives.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// The crate `h2` answers a larger header list by itself, without a reason; up to there, what is
/// larger than allowed is answered by us, with one.
const HEAD_ROOM: u32 = 2;
/// After so many streams it matters how many of them were reset soon (Envoy's
/// `premature_reset_total_stream_count`).
const RESETS_MIN: u32 = 500;
/// A stream that is reset within this time was opened for nothing.
const SOON: Duration = Duration::from_secs(1);

/// What a client speaks, by the first bytes that it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
    /// Too few bytes to tell.
    Unclear,
}

impl Speaks {
    pub(super) fn of(first: &[u8]) -> Self {
        let count = first.len().min(PREFACE.len());
        if first[..count] != PREFACE[..count] {
            Self::Http1
        } else if count < PREFACE.len() {
            Self::Unclear
        } else {
            Self::Http2
        }
    }
}

/// A client's connection, as its streams know it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) worker: Rc<Worker>,
    pub(super) slot: Rc<Slot>,
    pub(super) ends: Ends,
    /// Its address as text, without the port.
    pub(super) text: String,
    /// Whether it came by TLS.
    pub(super) is_tls: bool,
    standing: Standing,
    /// Those of streams that ended, for the next ones.
    timers: RefCell<Vec<Timer>>,
}

/// Where a connection stands.
#[derive(Debug)]
struct Standing {
    /// Since when there has been no stream, if there is none.
    idle_since: Cell<Option<Instant>>,
    served: Cell<bool>,
    /// Something waits to be written.
    unsent: Cell<bool>,
}

impl Peer {
    /// One whose connection was accepted then.
    pub(super) fn new(
        (worker, slot): (Rc<Worker>, Rc<Slot>),
        (ends, text, is_tls): (Ends, String, bool),
        accepted: Instant,
    ) -> Self {
        Self {
            worker,
            slot,
            ends,
            text,
            is_tls,
            standing: Standing {
                idle_since: Cell::new(Some(accepted)),
                served: Cell::new(false),
                unsent: Cell::new(false),
            },
            timers: RefCell::default(),
        }
    }

    /// When it will have been idle for too long.
    fn idle_limit(&self) -> Option<Instant> {
        let since = self.standing.idle_since.get()?;
        let routing = self.worker.routing();
        let defaults = &routing.config.defaults;
        let idle = if self.standing.unsent.get() {
            defaults.stream_idle_timeout
        } else if self.standing.served.get() {
            defaults.idle_timeout
        } else {
            defaults.head_timeout
        };
        let drained = self.slot.drain_began();
        let drained = drained.map(|began| began.max(since) + DRAIN_IDLE);
        earlier(Some(since + idle), drained)
    }

    fn take_timer(&self, now: Instant) -> Timer {
        let spare = self.timers.borrow_mut().pop();
        spare.unwrap_or_else(|| Timer::new(now))
    }

    fn put_timer(&self, timer: Timer) {
        let mut timers = self.timers.borrow_mut();
        if timers.len() < STREAMS_MAX as usize {
            timers.push(timer);
        }
    }
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It was answered, or it was not the client that broke it off.
    Ended,
    /// The client reset it.
    Reset { soon: bool },
    /// The listener does not speak HTTP any more.
    Unserved,
}

/// What a connection's streams came to.
#[derive(Debug, Default)]
struct Toll {
    streams: u32,
    /// Those that the client opened for nothing.
    wasted: u32,
    leaving: bool,
}

impl Toll {
    fn count(&mut self, fate: Fate) {
        self.streams += 1;
        match fate {
            Fate::Ended => {}
            Fate::Reset { soon } => self.wasted += u32::from(soon),
            Fate::Unserved => self.leaving = true,
        }
    }

    /// Whether the client opens streams only to reset them (CVE-2023-44487).
    fn is_abuse(&self) -> bool {
        self.wasted >= RESETS_MIN && self.wasted > self.streams / 2
    }
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The other side ended it, or it broke.
    Closed,
    /// The client does what only an attack does.
    Abuse,
}

/// Serves a connection whose client speaks HTTP/2, to its end.
pub(super) async fn serve(peer: Rc<Peer>, io: Stream, timer: &mut Timer) {
    let routing = peer.worker.routing();
    let opening = builder(&routing.config.defaults).handshake(io);
    drop(routing);
    let Ok(Ok(mut connection)) = timer.until(|| peer.idle_limit(), opening).await else {
        return;
    };
    let mut streams = FuturesUnordered::new();
    let mut toll = Toll::default();
    let turns = poll_fn(|cx| {
        let start = |(request, respond)| stream::serve(peer.clone(), request, respond);
        turn(cx, &peer, &mut connection, (&mut streams, start), &mut toll)
    });
    match timer.until(|| peer.idle_limit(), turns).await {
        Ok(End::Closed) => {}
        Ok(End::Abuse) => {
            tracing::info!(peer = %peer.ends.client, streams = toll.streams, resets = toll.wasted,
                "a client opens streams only to reset them; its connection is closed");
            close(&mut connection, Reason::ENHANCE_YOUR_CALM, timer).await;
        }
        Err(_) => close(&mut connection, Reason::NO_ERROR, timer).await,
    }
    // What still runs finds its stream broken, and is logged as that.
    drop(connection);
    let limit = Instant::now() + LINGER;
    let rest = async { while streams.next().await.is_some() {} };
    let _ = timer.until(|| Some(limit), rest).await;
}

fn builder(defaults: &Defaults) -> Builder {
    let head_bytes = u32::try_from(defaults.max_head_bytes).unwrap_or(u32::MAX);
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(head_bytes.saturating_mul(HEAD_ROOM));
    builder
}

/// Lets the connection and its streams go on as far as they can.
fn turn<S>(
    cx: &mut Context<'_>,
    peer: &Peer,
    connection: &mut Connection<Stream, Bytes>,
    (streams, start): (&mut FuturesUnordered<S>, impl Fn(Arrived) -> S),
    toll: &mut Toll,
) -> Poll<End>
where
    S: Future<Output = Fate>,
{
    loop {
        // First the streams, so that what they have to send goes out with what follows.
        while let Poll::Ready(Some(fate)) = streams.poll_next_unpin(cx) {
            toll.count(fate);
        }
        if toll.is_abuse() || streams.len() > STREAMS_KEPT_MAX {
            return Poll::Ready(End::Abuse);
        }
        if peer.slot.is_draining() || toll.leaving {
            // Twice is as good as once.
            connection.graceful_shutdown();
        }
        let before = streams.len();
        while let Poll::Ready(arrived) = connection.poll_accept(cx) {
            match arrived {
                Some(Ok(arrived)) => streams.push(start(arrived)),
                Some(Err(error)) => {
                    tracing::debug!(%error, peer = %peer.ends.client, "a connection of HTTP/2 broke");
                    return Poll::Ready(End::Closed);
                }
                None => return Poll::Ready(End::Closed),
            }
        }
        if streams.len() == before {
            break;
        }
    }
    let standing = &peer.standing;
    standing.unsent.set(connection.has_streams());
    if streams.is_empty() {
        let since = standing.idle_since.get().unwrap_or_else(Instant::now);
        standing.idle_since.set(Some(since));
    } else {
        standing.served.set(true);
        standing.idle_since.set(None);
    }
    Poll::Pending
}

/// A request, and where its answer goes.
type Arrived = (Request<RecvStream>, h2::server::SendResponse<Bytes>);

/// Says why, and ends the connection.
async fn close(connection: &mut Connection<Stream, Bytes>, why: Reason, timer: &mut Timer) {
    connection.abrupt_shutdown(why);
    let limit = Instant::now() + LINGER;
    let closed = poll_fn(|cx| connection.poll_closed(cx));
    let _ = timer.until(|| Some(limit), closed).await;
}
