//! One try of a request at one endpoint: connect, send, wait for the response head, relay.
//!
//! Owns what happens between the two connections, both ways at once. Whether there is another try
//! is `exchange`'s.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{StatusCode, Version};
use tokio::time::Instant;

use super::answer::Reason;
use super::exchange::Retries;
use super::headers::{
    Additions, Closing, ConnectionOption, takes_trailers, write_interim, write_request,
    write_response,
};
use super::record::{Record, class_of};
use super::relay::{HeadEnd, Outgoing, RelayFault, read_head, relay};
use super::retry::Failure;
use super::upload::{Standing, Upload, UploadFault, Waiting};
use crate::deadline::{Timer, earlier};
use crate::flags::Flag;
use crate::http1::{Framing, RequestHead, ResponseHead, wants_close};
use crate::listener::Slot;
use crate::upstream::{ConnectFault, Connection, Limit, Upstream, Wanted, connect};
use crate::wire::{Reader, Writer};
use crate::worker::Worker;

/// What does not change between the tries of one request.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) worker: &'a Worker,
    pub(super) slot: &'a Slot,
    pub(super) head: &'a RequestHead,
    pub(super) additions: Additions<'a>,
    pub(super) standing: &'a Standing,
    /// What the client asks for its connection.
    pub(super) asked: ConnectionOption,
    /// Whether the client waits for 100 Continue.
    pub(super) expects_continue: bool,
    /// The route's time.
    pub(super) timeout: Option<Duration>,
    pub(super) per_try_timeout: Option<Duration>,
    pub(super) stream_idle_timeout: Duration,
}

impl Job<'_> {
    /// When the route's time is over; not before the request has arrived whole.
    pub(super) fn route_limit(&self) -> Option<Instant> {
        Some(self.standing.finished.get()? + self.timeout?)
    }

    fn try_limit(&self, began: Instant) -> Option<Instant> {
        Some(self.standing.finished.get()?.max(began) + self.per_try_timeout?)
    }

    fn idle_limit(&self) -> Instant {
        self.standing.progress.limit(self.stream_idle_timeout)
    }

    fn head_limit(&self, began: Instant) -> Option<Instant> {
        let hard = earlier(self.route_limit(), self.try_limit(began));
        earlier(hard, Some(self.idle_limit()))
    }

    fn relay_limit(&self) -> Option<Instant> {
        earlier(self.route_limit(), Some(self.idle_limit()))
    }

    /// Whether the connection to the client stays after a response in this framing.
    fn connection(&self, framing: Framing) -> ConnectionOption {
        let ends = framing == Framing::UntilClose
            || self.standing.finished.get().is_none()
            || self.slot.is_draining();
        if ends {
            ConnectionOption::Close
        } else {
            self.asked
        }
    }
}

/// The client's side of a try.
#[derive(Debug)]
pub(super) struct Client<'a> {
    pub(super) writer: &'a mut Writer,
    pub(super) timer: &'a mut Timer,
    /// Room for the upstream's head.
    pub(super) answer: &'a mut ResponseHead,
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// A response was relayed, whole or not.
    Answered(ConnectionOption),
    /// No response was begun; another try may be made. If not, this is the reason.
    Failed(Failure, Reason),
    /// An idle connection turned out to be closed; nothing was lost.
    Stale(Failure, Reason),
    /// Another try was already claimed because of the status.
    Again,
    /// No response was begun and none will be but this one.
    Refused(Reason),
    /// The client is gone.
    Gone,
}

/// One try at the endpoint of this number.
pub(super) async fn attempt(
    job: &Job<'_>,
    client: &mut Client<'_>,
    upload: &mut Upload<'_>,
    (upstream, endpoint): (&Rc<Upstream>, usize),
    retries: &mut Retries<'_>,
    record: &mut Record,
) -> Tried {
    let pool = &upstream.endpoints[endpoint];
    let _in_use = pool.enter();
    let limit = Limit(job.route_limit());
    let opened = connect(upstream, endpoint, Wanted::Any, client.timer, limit).await;
    let mut connection = match opened {
        Ok(connection) => connection,
        Err(fault) => return connect_failed(&fault),
    };
    if job.expects_continue && !job.standing.invited.replace(true) && upload.is_untouched() {
        // Pending bytes go out with the flush; a client that takes no 25 bytes is gone.
        let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
        client.writer.pending.extend_from_slice(go_on);
        if client.writer.flush().await.is_err() {
            return Tried::Gone;
        }
    }
    let began = if record.tries > 1 {
        Instant::now()
    } else {
        record.started
    };
    job.standing.progress.restart(began);
    let written_before = connection.writer.written;
    write_request(&mut connection.writer.pending, job.head, &job.additions);
    upstream.counters().requests.increment();

    let end = {
        let Connection { reader, writer, .. } = &mut connection;
        let mut sending = Sending {
            upload: pin!(upload.run(writer)),
            stopped: false,
        };
        let mut flow = Flow {
            job,
            client,
            upstream,
            reader,
            retries,
            record,
        };
        flow.run(&mut sending, began).await
    };
    let unsent = connection.writer.written == written_before;
    let reused = connection.reused;
    let now = Instant::now();
    record.ended = Some(now);
    if end == End::Whole(ReuseUpstream::Yes) && connection.reader.buffer.is_empty() {
        upstream.release(pool, connection, now);
    } else {
        drop(connection);
        upstream.wake_one();
    }
    judge(job, end, (unsent, reused), upstream).unwrap_or(Tried::Answered(record.connection))
}

/// How the flow between the connections ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The response came through.
    Whole(ReuseUpstream),
    /// The response was begun and broke off.
    Cut,
    /// There was no response head.
    NoHead(HeadEnd),
    /// A limit passed before there was one.
    Late(Late),
    /// The response is not relayed, for another try was claimed.
    Again,
    /// The client's body is no body.
    BadUpload(&'static str),
    /// The client is gone, and no response was begun.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReuseUpstream {
    Yes,
    No,
}

/// Whose time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    Route,
    Try,
    Client,
}

fn connect_failed(fault: &ConnectFault) -> Tried {
    let reason = match fault {
        ConnectFault::Failed(error) => {
            tracing::debug!(%error, "connecting to an upstream failed");
            Reason::ConnectFailed
        }
        ConnectFault::TimedOut => Reason::ConnectTimedOut,
        ConnectFault::Overflow => return Tried::Refused(Reason::Overflow),
        ConnectFault::Late => return Tried::Refused(Reason::ResponseTimeout),
    };
    Tried::Failed(Failure::Unsent, reason)
}

/// What an end means for the request; `None`: it is answered.
fn judge(
    job: &Job<'_>,
    end: End,
    (unsent, reused): (bool, bool),
    upstream: &Upstream,
) -> Option<Tried> {
    let counters = upstream.counters();
    Some(match end {
        End::Whole(_) => return None,
        End::Cut => return None,
        End::Again => Tried::Again,
        End::NoHead(HeadEnd::Reset) => {
            counters.resets_received.increment();
            let failure = if unsent {
                Failure::Unsent
            } else {
                Failure::Reset
            };
            if reused && job.standing.kept.get() {
                Tried::Stale(failure, Reason::Terminated)
            } else {
                Tried::Failed(failure, Reason::Terminated)
            }
        }
        End::NoHead(HeadEnd::Malformed(fault)) => {
            tracing::debug!(%fault, "an upstream's answer is malformed");
            Tried::Failed(Failure::Reset, Reason::UpstreamProtocol)
        }
        End::Late(Late::Route) => {
            counters.timeouts.increment();
            Tried::Refused(Reason::ResponseTimeout)
        }
        End::Late(Late::Try) => {
            counters.per_try_timeouts.increment();
            Tried::Failed(Failure::TimedOut, Reason::ResponseTimeout)
        }
        End::Late(Late::Client) => Tried::Refused(Reason::RequestTimeout),
        End::BadUpload(details) => Tried::Refused(Reason::Body(details)),
        End::Gone => {
            counters.resets_sent.increment();
            Tried::Gone
        }
    })
}

/// The upload, which goes on beside whatever else is awaited.
struct Sending<'a, U> {
    upload: Pin<&'a mut U>,
    /// The upstream takes no more; it may still answer.
    stopped: bool,
}

impl<U: Future<Output = UploadFault>> Sending<'_, U> {
    /// Waits for `work` while the upload goes on. Ends early if the client is at fault.
    async fn beside<W: Future>(&mut self, work: W) -> Result<W::Output, UploadFault> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if !self.stopped
                && let Poll::Ready(fault) = self.upload.as_mut().poll(cx)
            {
                match fault {
                    UploadFault::Upstream => self.stopped = true,
                    fault => return Poll::Ready(Err(fault)),
                }
            }
            work.as_mut().poll(cx).map(Ok)
        })
        .await
    }
}

/// One try's flow in both directions, once there is a connection.
struct Flow<'f, 'c, 'r> {
    job: &'f Job<'f>,
    client: &'f mut Client<'c>,
    upstream: &'f Rc<Upstream>,
    reader: &'f mut Reader,
    retries: &'f mut Retries<'r>,
    record: &'f mut Record,
}

impl Flow<'_, '_, '_> {
    async fn run<U>(&mut self, sending: &mut Sending<'_, U>, began: Instant) -> End
    where
        U: Future<Output = UploadFault>,
    {
        let incoming = match self.response_head(sending, began).await {
            Ok(framing) => framing,
            Err(end) => return end,
        };
        let status = self.client.answer.status;
        if let Some(class) = class_of(status.as_u16()) {
            self.upstream.counters().responses[class].increment();
        }
        if self
            .retries
            .claim(Failure::Status(status), self.job.standing)
        {
            return End::Again;
        }
        self.relay(sending, incoming).await
    }

    /// Reads the final response head; interim ones go to the client at once.
    async fn response_head<U>(
        &mut self,
        sending: &mut Sending<'_, U>,
        began: Instant,
    ) -> Result<Framing, End>
    where
        U: Future<Output = UploadFault>,
    {
        let job = self.job;
        loop {
            let reading = read_head(self.reader, &job.head.method, self.client.answer);
            let work = sending.beside(reading);
            let limit = || job.head_limit(began);
            let framing = match self.client.timer.until(limit, work).await {
                Ok(Ok(Ok(framing))) => framing,
                Ok(Ok(Err(end))) => return Err(End::NoHead(end)),
                Ok(Err(UploadFault::Client(fault))) => return Err(bad_upload(fault)),
                Ok(Err(_)) => return Err(End::Gone),
                Err(_) => return Err(End::Late(self.whose_time(began))),
            };
            let answer = &*self.client.answer;
            if !answer.status.is_informational() {
                return Ok(framing);
            }
            if answer.status == StatusCode::SWITCHING_PROTOCOLS {
                // We never ask for an upgrade.
                let unasked = crate::http1::HeadFault::Malformed("an upgrade nobody asked for");
                return Err(End::NoHead(HeadEnd::Malformed(unasked)));
            }
            // Ours was sent already, if the client waits for it.
            if answer.status != StatusCode::CONTINUE && job.head.version == Version::HTTP_11 {
                write_interim(&mut self.client.writer.pending, answer);
                let flush = self.client.writer.flush();
                match self.client.timer.until(|| job.relay_limit(), flush).await {
                    Ok(Ok(())) => {}
                    _ => return Err(End::Gone),
                }
            }
        }
    }

    fn whose_time(&self, began: Instant) -> Late {
        let now = Instant::now();
        let passed = |limit: Option<Instant>| limit.is_some_and(|limit| limit <= now);
        let standing = self.job.standing;
        if passed(self.job.route_limit()) {
            Late::Route
        } else if passed(self.job.try_limit(began)) {
            Late::Try
        } else if standing.finished.get().is_none() && standing.waiting.get() == Waiting::Client {
            Late::Client
        } else {
            Late::Route
        }
    }

    async fn relay<U>(&mut self, sending: &mut Sending<'_, U>, incoming: Framing) -> End
    where
        U: Future<Output = UploadFault>,
    {
        let job = self.job;
        let answer = &*self.client.answer;
        let framing = match incoming {
            Framing::UntilClose | Framing::Chunked if job.head.version == Version::HTTP_10 => {
                Framing::UntilClose
            }
            Framing::UntilClose => Framing::Chunked,
            framing => framing,
        };
        let outgoing = Outgoing {
            framing,
            trailers: takes_trailers(&job.head.headers),
        };
        let connection = job.connection(framing);
        self.record.status = answer.status.as_u16();
        self.record.connection = connection;
        let reusable = answer.version == Version::HTTP_11
            && incoming != Framing::UntilClose
            && !is_doubtful(answer)
            && !wants_close(&answer.headers);
        {
            let mut clock = job.worker.clock();
            let closing = Closing {
                framing,
                connection,
                date: clock.date(),
            };
            let out = &mut self.client.writer.pending;
            write_response(out, &job.head.method, answer, &closing);
        }
        let progress = &job.standing.progress;
        let relaying = relay(
            self.reader,
            incoming,
            self.client.writer,
            outgoing,
            progress,
        );
        let work = sending.beside(relaying);
        let limit = || job.relay_limit();
        match self.client.timer.until(limit, work).await {
            Ok(Ok(Ok(()))) if reusable && job.standing.finished.get().is_some() => {
                End::Whole(ReuseUpstream::Yes)
            }
            Ok(Ok(Ok(()))) => {
                // The client still sends what nobody reads.
                if job.standing.finished.get().is_none() {
                    self.record.connection = ConnectionOption::Close;
                }
                End::Whole(ReuseUpstream::No)
            }
            Ok(Ok(Err(RelayFault::Upstream))) => {
                self.upstream.counters().resets_received.increment();
                self.cut(
                    Flag::UpstreamTermination,
                    "the upstream broke off its answer",
                )
            }
            Ok(Ok(Err(RelayFault::Client)) | Err(_)) => {
                self.upstream.counters().resets_sent.increment();
                self.cut(Flag::DownstreamTermination, "the client went away")
            }
            Err(_) => {
                let late = job.route_limit().is_some_and(|at| at <= Instant::now());
                self.upstream.counters().timeouts.increment();
                if late {
                    self.cut(
                        Flag::UpstreamTimeout,
                        "the route's time was over mid-answer",
                    )
                } else {
                    self.cut(Flag::StreamIdleTimeout, "the answer stood still")
                }
            }
        }
    }

    fn cut(&mut self, flag: Flag, details: &'static str) -> End {
        self.record.blame(flag, details);
        self.record.broken_off = true;
        self.record.connection = ConnectionOption::Close;
        End::Cut
    }
}

/// Both framings at once: chunks count, but who else saw this answer may have thought otherwise.
fn is_doubtful(answer: &ResponseHead) -> bool {
    use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
    answer.headers.contains_key(TRANSFER_ENCODING) && answer.headers.contains_key(CONTENT_LENGTH)
}

fn bad_upload(fault: crate::http1::BodyFault) -> End {
    match fault {
        crate::http1::BodyFault::Malformed(details) => End::BadUpload(details),
        crate::http1::BodyFault::Truncated => End::Gone,
    }
}
