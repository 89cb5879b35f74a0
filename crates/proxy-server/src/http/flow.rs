//! The flow between a client's connection and an upstream's, both ways at once.
//!
//! Owns the bytes of one try from the request that is sent to the end of the response. What an end
//! means for the request is `attempt`'s.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use http::{StatusCode, Version};
use tokio::time::Instant;

use super::attempt::{Client, Job};
use super::exchange::Retries;
use super::headers::{Closing, ConnectionOption, takes_trailers, write_interim, write_response};
use super::record::{Record, class_of};
use super::relay::{HeadEnd, Outgoing, RelayFault, read_head, relay};
use super::retry::Failure;
use super::upload::{UploadFault, Waiting};
use crate::flags::Flag;
use crate::http1::{BodyFault, Framing, HeadFault, ResponseHead, wants_close};
use crate::upstream::Upstream;
use crate::wire::Reader;

/// How the flow between the connections ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
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

/// Whether the upstream's connection can serve another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReuseUpstream {
    Yes,
    No,
}

/// Whose time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    Route,
    Try,
    Client,
}

/// The upload, which goes on beside whatever else is awaited.
pub(super) struct Sending<'a, U> {
    upload: Pin<&'a mut U>,
    /// The upstream takes no more; it may still answer.
    stopped: bool,
}

impl<'a, U> Sending<'a, U> {
    pub(super) fn new(upload: Pin<&'a mut U>) -> Self {
        Self {
            upload,
            stopped: false,
        }
    }
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
pub(super) struct Flow<'f, 'c, 'r, 'l> {
    pub(super) job: &'f Job<'f>,
    pub(super) client: &'f mut Client<'c>,
    pub(super) upstream: &'f Rc<Upstream>,
    pub(super) endpoint: usize,
    pub(super) reader: &'f mut Reader,
    pub(super) retries: &'f mut Retries<'r>,
    pub(super) record: &'f mut Record<'l>,
}

impl Flow<'_, '_, '_, '_> {
    /// Runs one try that began then.
    pub(super) async fn run<U>(&mut self, sending: &mut Sending<'_, U>, began: Instant) -> End
    where
        U: Future<Output = UploadFault>,
    {
        let incoming = match self.response_head(sending, began).await {
            Ok(framing) => framing,
            Err(end) => return end,
        };
        // A client that is slow to send is not the endpoint's fault.
        let arrived = self.job.standing.finished.get();
        let asked = arrived.map_or(began, |arrived| arrived.max(began));
        self.upstream.answered(self.endpoint, asked);
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
                let unasked = HeadFault::Malformed("an upgrade nobody asked for");
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
        let outgoing = self.begin_response(incoming);
        let answer = &*self.client.answer;
        let reusable = answer.version == Version::HTTP_11
            && incoming != Framing::UntilClose
            && !is_doubtful(answer)
            && !wants_close(&answer.headers);
        let progress = &job.standing.progress;
        let client = &mut *self.client.writer;
        let relaying = relay(self.reader, incoming, client, outgoing, progress);
        let work = sending.beside(relaying);
        let limit = || job.relay_limit();
        match self.client.timer.until(limit, work).await {
            Ok(Ok(Ok(()))) if job.standing.finished.get().is_none() => {
                // The client still sends what nobody reads.
                self.record.connection = ConnectionOption::Close;
                End::Whole(ReuseUpstream::No)
            }
            Ok(Ok(Ok(()))) if reusable => End::Whole(ReuseUpstream::Yes),
            Ok(Ok(Ok(()))) => End::Whole(ReuseUpstream::No),
            Ok(Ok(Err(RelayFault::Upstream))) => {
                self.upstream.counters().resets_received.increment();
                let details = "the upstream broke off its answer";
                self.cut(Flag::UpstreamTermination, details)
            }
            Ok(Ok(Err(RelayFault::Client)) | Err(_)) => {
                self.upstream.counters().resets_sent.increment();
                self.cut(Flag::DownstreamTermination, "the client went away")
            }
            Err(_) => {
                self.upstream.counters().timeouts.increment();
                if job.route_limit().is_some_and(|at| at <= Instant::now()) {
                    let details = "the route's time was over mid-answer";
                    self.cut(Flag::UpstreamTimeout, details)
                } else {
                    self.cut(Flag::StreamIdleTimeout, "the answer stood still")
                }
            }
        }
    }

    /// Makes the response head ready for the client; how the body follows it.
    fn begin_response(&mut self, incoming: Framing) -> Outgoing {
        let job = self.job;
        let framing = match incoming {
            Framing::UntilClose | Framing::Chunked if job.head.version == Version::HTTP_10 => {
                Framing::UntilClose
            }
            Framing::UntilClose => Framing::Chunked,
            framing => framing,
        };
        let connection = job.connection(framing);
        self.record.status = self.client.answer.status.as_u16();
        self.record.connection = connection;
        let closing = Closing {
            framing,
            connection,
            clock: &mut job.worker.clock(),
        };
        if let Some(cookie) = &job.affinity.cookie {
            let headers = &mut self.client.answer.headers;
            headers.append(http::header::SET_COOKIE, cookie.clone());
        }
        let out = &mut self.client.writer.pending;
        write_response(out, &job.head.method, self.client.answer, closing);
        Outgoing {
            framing,
            trailers: takes_trailers(&job.head.headers),
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

fn bad_upload(fault: BodyFault) -> End {
    match fault {
        BodyFault::Malformed(details) => End::BadUpload(details),
        BodyFault::Truncated => End::Gone,
    }
}
