//! One client's connection: its requests, one after the other, and its end.
//!
//! Owns keep-alive, the limits on waiting for a request, and lingering at the end, so that the last
//! answer arrives. Never lets a connection go on whose next request could be misread.

mod ending;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use proxy_config::compiled::{AccessLog, Defaults, Protocol};
use rand::RngExt as _;
use tokio::time::{Instant, sleep_until};

use super::answer::{Reason, write_answer};
use super::attempt::Client;
use super::ends::Received;
use super::exchange::{Outcome, Scene, asked_connection, exchange, flag_of};
use super::forwarded::new_request_id;
use super::headers::ConnectionOption;
use super::http2::Speaks;
use super::record::{Record, log};
use super::upload::{Standing, Upload};
use crate::counters::Active;
use crate::deadline::{Timer, earlier};
use crate::http1::{
    Framing, HeadLimits, LineEnds, RequestHead, ResponseHead, parse_request, request_framing,
    take_head,
};
use crate::listener::Slot;
use crate::proxy_protocol::Ends;
use crate::wire::{Amount, Reader, Stream, Writer, whole};
use crate::worker::{Routing, Worker};

/// While a listener drains, a connection that is idle for so long is closed; one with requests ends
/// with its next answer.
pub(super) const DRAIN_IDLE: Duration = Duration::from_secs(1);
/// After the last answer the client gets so long to stop sending and read it.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// A connection without a request for so long gives back the room that a request takes.
const PARK_AFTER: Duration = Duration::from_secs(1);

/// A client's connection.
struct Downstream {
    worker: Rc<Worker>,
    slot: Rc<Slot>,
    reader: Reader,
    writer: Writer,
    is_tls: bool,
    timer: Timer,
    peer: SocketAddr,
    peer_text: String,
    /// Room for heads, used again for each request.
    head: RequestHead,
    answer: ResponseHead,
}

/// What comes after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Request,
    /// Streams: the client speaks HTTP/2.
    Streams,
    /// Nothing, for a while; the last one ended then.
    Rest(Instant),
    /// The connection ends; everything that the client sent was read.
    Close,
    /// The connection ends, and the client may still be sending.
    Linger,
    /// The connection ends so that the client notices that its answer is not whole.
    Reset,
}

/// What arrived.
enum Arrival {
    Head(Instant),
    /// The preface of HTTP/2, which is still to be read.
    Preface,
    /// Nothing, for a while.
    Nothing,
    Refused(Reason),
    /// The connection ends without a word.
    End,
}

/// A connection, and since when it waits for what comes next.
struct Waiting {
    stream: Stream,
    since: Instant,
    /// Whether there was a request before.
    served: bool,
}

/// Serves a connection to its end. Only while there are requests does it take the room that they
/// need: most connections are idle most of the time.
pub(crate) async fn serve(worker: Rc<Worker>, slot: Rc<Slot>, stream: Stream, peer: SocketAddr) {
    let accepted = Instant::now();
    let serving = slot.serving();
    let counters = serving.counters(slot.worker);
    counters.connections.increment();
    let _active = Active::count(&counters.connections_active);
    let mut waiting = Waiting {
        stream,
        since: accepted,
        served: false,
    };
    loop {
        let from = (worker.clone(), slot.clone(), peer);
        match Box::pin(attend(from, waiting, accepted)).await {
            Some(idle) => waiting = idle,
            None => return,
        }
        let _resting = Active::count(&counters.connections_resting);
        rest(&worker, &slot, &waiting).await;
    }
}

/// Waits until something comes, a drain begins, or the time is over: whoever attends to the connection
/// then sees which.
async fn rest(worker: &Worker, slot: &Slot, idle: &Waiting) {
    if slot.is_draining() {
        return;
    }
    let limit = idle.since + worker.routing().config.defaults.idle_timeout;
    tokio::select! {
        biased;
        () = idle.stream.stirs() => {}
        () = slot.drain.notified() => {}
        () = sleep_until(limit) => {}
    }
}

/// Serves a connection until it ends, or waits for long: then what is left of it.
async fn attend(
    (worker, slot, peer): (Rc<Worker>, Rc<Slot>, SocketAddr),
    Waiting {
        stream,
        since,
        served,
    }: Waiting,
    accepted: Instant,
) -> Option<Waiting> {
    // A drain wakes this task, wherever it waits; it need not be asked each time.
    let mut drain = pin!(slot.drain.notified());
    poll_fn(|cx| {
        let _ = drain.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
    let is_tls = stream.is_tls();
    let (reader, writer) = stream.split();
    let mut downstream = Downstream {
        worker,
        slot: slot.clone(),
        reader,
        writer,
        is_tls,
        timer: Timer::new(Instant::now()),
        peer,
        peer_text: peer.ip().to_canonical().to_string(),
        head: RequestHead::default(),
        answer: ResponseHead::default(),
    };
    match downstream.serve(since, served).await {
        Next::Rest(since) => Some(Waiting {
            stream: whole(downstream.reader, downstream.writer),
            since,
            served: true,
        }),
        last => {
            downstream.end(last, accepted).await;
            None
        }
    }
}

impl Downstream {
    async fn serve(&mut self, mut idle_since: Instant, mut served: bool) -> Next {
        loop {
            let routing = self.worker.routing();
            let started = match self
                .arrival(&routing.config.defaults, idle_since, served)
                .await
            {
                Arrival::Head(started) => started,
                Arrival::Preface => return Next::Streams,
                Arrival::Nothing => return Next::Rest(idle_since),
                Arrival::End => return Next::Close,
                Arrival::Refused(reason) => {
                    self.refuse(reason).await;
                    return Next::Linger;
                }
            };
            // The newest config decides, whatever it was when the connection was made.
            let routing = self.worker.routing();
            let (next, ended) = self.request(&routing, started).await;
            if next != Next::Request {
                return next;
            }
            idle_since = ended;
            served = true;
        }
    }

    /// Waits for the next request head, and parses it.
    async fn arrival(&mut self, defaults: &Defaults, since: Instant, served: bool) -> Arrival {
        let limits = HeadLimits {
            bytes_max: defaults.max_head_bytes,
            line_ends: LineEnds::Strict,
        };
        let mut scanned = 0;
        let mut first_byte = None;
        let rests_from = Instant::now() + PARK_AFTER;
        loop {
            let speaks = if served {
                Speaks::Http1
            } else {
                Speaks::of(&self.reader.buffer)
            };
            let taken = match speaks {
                Speaks::Http1 => take_head(&mut self.reader.buffer, &mut scanned, limits),
                Speaks::Unclear => Ok(None),
                Speaks::Http2 => return Arrival::Preface,
            };
            match taken {
                Ok(Some(bytes)) => return self.parsed(&bytes),
                Ok(None) if first_byte.is_none() && !self.reader.buffer.is_empty() => {
                    first_byte = Some(Instant::now());
                }
                Ok(None) => {}
                Err(fault) => return Arrival::Refused(Reason::Head(fault)),
            }
            let slot = &self.slot;
            let idle = if served {
                defaults.idle_timeout
            } else {
                defaults.head_timeout
            };
            let limit = || match first_byte {
                Some(first) => Some(first + defaults.head_timeout),
                None => {
                    let drained = slot
                        .drain_began()
                        .map(|began| began.max(since) + DRAIN_IDLE);
                    earlier(Some(since + idle), drained)
                }
            };
            // Where little is left to wait for, it is waited for here.
            let may_rest = served && first_byte.is_none() && !slot.is_draining();
            let rest = (may_rest && rests_from < since + idle).then_some(rests_from);
            let fill = self.reader.fill(Amount::Little);
            match self.timer.until(|| earlier(limit(), rest), fill).await {
                Ok(Ok(0) | Err(_)) => return Arrival::End,
                Ok(Ok(_)) => {}
                Err(_) if rest.is_some_and(|rest| limit().is_none_or(|limit| rest < limit)) => {
                    return Arrival::Nothing;
                }
                Err(_) if first_byte.is_none() => return Arrival::End,
                Err(_) => return Arrival::Refused(Reason::RequestTimeout),
            }
        }
    }

    fn parsed(&mut self, bytes: &Bytes) -> Arrival {
        match parse_request(bytes, &mut self.head) {
            Ok(()) => Arrival::Head(Instant::now()),
            Err(fault) => {
                self.head.headers.clear();
                Arrival::Refused(Reason::Head(fault))
            }
        }
    }

    /// The ends of the connection; the one here is only asked for where somebody is told.
    fn ends(&self, is_told: bool, bound: SocketAddr) -> Ends {
        let local = match is_told {
            true => self.reader.local_end(bound),
            false => bound,
        };
        Ends {
            client: self.peer,
            local,
        }
    }

    /// Handles the request whose head was parsed; what comes next, and when it ended.
    async fn request(&mut self, routing: &Routing, started: Instant) -> (Next, Instant) {
        let slot = self.slot.clone();
        let serving = slot.serving();
        let Protocol::Http(http) = &serving.listener.protocol else {
            // The listener became another one; its old clients come again.
            return (Next::Close, started);
        };
        let ends = self.ends(routing.introduces, serving.address);
        let counters = serving.counters(slot.worker);
        counters.requests.increment();
        let _active = Active::count(&counters.requests_active);
        let written_before = self.writer.written;
        let mut record = Record::new(started);

        let checked = request_framing(&self.head);
        let framing = *checked.as_ref().unwrap_or(&Framing::Empty);
        let standing = Standing::new(framing, started);
        let mut upload = Upload::new(Received::new(&mut self.reader, framing), &standing);
        let mut client = Client {
            to: &mut self.writer,
            timer: &mut self.timer,
            answer: &mut self.answer,
        };
        let outcome = match checked {
            Err(fault) => Outcome::Answer(Reason::Head(fault)),
            Ok(_) => {
                let scene = Scene {
                    worker: &self.worker,
                    slot: &slot,
                    routing,
                    head: &self.head,
                    peer: &self.peer_text,
                    ends,
                    is_tls: self.is_tls,
                    framing,
                    standing: &standing,
                };
                exchange(&scene, http, &mut client, &mut upload, &mut record).await
            }
        };
        let received = checked.is_ok() && upload.body.discard_rest();
        record.received = standing.received.get();
        if let Some((flag, details)) = flag_of(outcome) {
            record.blame(flag, details);
        }
        let next = match outcome {
            Outcome::Answered => ending::after(&record, received),
            Outcome::Gone => Next::Close,
            Outcome::Answer(reason) => self.answer(reason, received, &mut record).await,
            Outcome::Own => self.answer_own(received, &mut record).await,
        };
        record.sent = self.writer.written - written_before;
        let ended = match (outcome, record.ended) {
            (Outcome::Answered, Some(ended)) => ended,
            _ => Instant::now(),
        };
        record.count(counters, ended);
        if routing.config.defaults.access_log == AccessLog::Json {
            log(
                &self.worker,
                &self.slot,
                self.peer,
                (&self.head, &record, ended),
            );
        }
        // The heads share the bytes of the buffers that they came in; those can be used again now.
        self.head.headers.clear();
        self.head.target = Bytes::new();
        self.answer.headers.clear();
        self.answer.reason = Bytes::new();
        (next, ended)
    }

    /// Sends an answer of our own; what comes next.
    async fn answer(&mut self, reason: Reason, received: bool, record: &mut Record<'_>) -> Next {
        let refusal = reason.refusal();
        if let Some(refusal) = refusal {
            let serving = self.slot.serving();
            serving.counters(self.slot.worker).refused[refusal.index()].increment();
        }
        // Behind a CONNECT that failed comes perhaps what is no request.
        let is_plain = refusal.is_none() && self.head.method != Method::CONNECT;
        let connection = self.connection_after(is_plain && received);
        if record.request_id.is_empty() {
            // What is refused this early has none of its own.
            record.request_id = new_request_id(self.worker.rng().random());
        }
        record.status = reason.status().as_u16();
        record.connection = connection;
        {
            let mut clock = self.worker.clock();
            write_answer(
                &mut self.writer.pending,
                reason,
                &self.head.method,
                &record.request_id,
                (connection, clock.date()),
                &record.changes,
            );
        }
        self.send_own(connection).await
    }

    /// Sends what the route answers by itself; what comes next.
    async fn answer_own(&mut self, received: bool, record: &mut Record<'_>) -> Next {
        let connection = self.connection_after(received);
        record.connection = connection;
        if let Some(own) = &record.own {
            record.status = own.status();
            let mut clock = self.worker.clock();
            let end = (connection, clock.date());
            let out = &mut self.writer.pending;
            own.write(
                out,
                &self.head.method,
                &record.request_id,
                end,
                &record.changes,
            );
        }
        self.send_own(connection).await
    }

    /// What the client is told about its connection by an answer of our own.
    fn connection_after(&self, stays: bool) -> ConnectionOption {
        if stays && !self.slot.is_draining() {
            asked_connection(&self.head)
        } else {
            ConnectionOption::Close
        }
    }

    /// Sends an answer of our own that is pending.
    async fn send_own(&mut self, connection: ConnectionOption) -> Next {
        let limit = Instant::now() + LINGER;
        let flushed = self.timer.until(|| Some(limit), self.writer.flush()).await;
        match (flushed, connection) {
            (Ok(Ok(())), ConnectionOption::Close) => Next::Linger,
            (Ok(Ok(())), _) => Next::Request,
            _ => Next::Close,
        }
    }

    /// Answers what is no request.
    async fn refuse(&mut self, reason: Reason) {
        let serving = self.slot.serving();
        let counters = serving.counters(self.slot.worker);
        counters.requests.increment();
        let written_before = self.writer.written;
        let mut record = Record::new(Instant::now());
        record.blame(reason.flag(), reason.details());
        self.head = RequestHead::default();
        self.answer(reason, false, &mut record).await;
        record.sent = self.writer.written - written_before;
        let now = Instant::now();
        record.count(counters, now);
        if self.worker.routing().config.defaults.access_log == AccessLog::Json {
            log(
                &self.worker,
                &self.slot,
                self.peer,
                (&self.head, &record, now),
            );
        }
    }
}
