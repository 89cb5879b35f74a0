//! The flow between a client's connection and an upstream's, both ways at once.
//!
//! Owns the bytes of one try from the request that is sent to the end of the response. What an end
//! means for the request is `attempt`'s.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{StatusCode, Version};
use tokio::time::Instant;

use super::attempt::{Client, Job};
use super::edits::Answered;
use super::ends::{FromUpstream, HeadEnd, ToClient};
use super::exchange::Retries;
use super::grpc;
use super::headers::{Closing, ConnectionOption};
use super::record::{Record, class_of};
use super::relay::{RelayFault, relay};
use super::upload::{UploadFault, Waiting};
use crate::flags::Flag;
use crate::http1::{BodyFault, Framing, HeadFault, ResponseHead, wants_close};
use crate::upstream::Upstream;

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
    /// The upstream goes over to what the client asked for.
    Switch,
    /// It does not, and its answer would say the contrary.
    Declined,
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
    /// Waits for `work` while the upload goes on. Ends early if the client is at fault, or gone as
    /// `gone` tells.
    async fn beside<W: Future>(
        &mut self,
        work: W,
        mut gone: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Result<W::Output, UploadFault> {
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
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            gone(cx).map(|()| Err(UploadFault::ClientGone))
        })
        .await
    }
}

/// One try's flow in both directions, once there is a connection.
pub(super) struct Flow<'f, 'c, 'r, 'l, C, A> {
    pub(super) job: &'f Job<'f>,
    pub(super) client: &'f mut Client<'c, C>,
    pub(super) upstream: &'f Rc<Upstream>,
    pub(super) endpoint: usize,
    /// What comes from the endpoint.
    pub(super) from: &'f mut A,
    pub(super) retries: &'f mut Retries<'r>,
    pub(super) record: &'f mut Record<'l>,
}

impl<'f, 'c, 'r, 'l, C> Flow<'f, 'c, 'r, 'l, C, ()> {
    /// The flow from where the response comes from.
    pub(super) fn with<A>(self, from: &'f mut A) -> Flow<'f, 'c, 'r, 'l, C, A> {
        Flow {
            job: self.job,
            client: self.client,
            upstream: self.upstream,
            endpoint: self.endpoint,
            from,
            retries: self.retries,
            record: self.record,
        }
    }
}

impl<C: ToClient, A: FromUpstream> Flow<'_, '_, '_, '_, C, A> {
    /// Runs one try that began then; how and when it ended.
    pub(super) async fn run<U>(
        &mut self,
        sending: &mut Sending<'_, U>,
        began: Instant,
    ) -> (End, Instant)
    where
        U: Future<Output = UploadFault>,
    {
        let end = self.flow(sending, began).await;
        let now = Instant::now();
        self.record.ended = Some(now);
        (end, now)
    }

    async fn flow<U>(&mut self, sending: &mut Sending<'_, U>, began: Instant) -> End
    where
        U: Future<Output = UploadFault>,
    {
        let incoming = match self.response_head(sending, began).await {
            Ok(framing) => framing,
            Err(End::Switch) => {
                self.answered(began);
                return End::Switch;
            }
            Err(end) => return end,
        };
        self.answered(began);
        if self.retries.claim_answer(self.client.answer, self.job) {
            return End::Again;
        }
        self.relay(sending, incoming).await
    }

    /// Notes that the endpoint answered to a try that began then.
    fn answered(&self, began: Instant) {
        // A client that is slow to send is not the endpoint's fault.
        let arrived = self.job.standing.finished.get();
        let asked = arrived.map_or(began, |arrived| arrived.max(began));
        let status = self.client.answer.status;
        self.upstream
            .answered(self.endpoint, status.as_u16(), asked);
        if let Some(class) = class_of(status.as_u16()) {
            self.upstream.counters().responses[class].increment();
        }
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
            let Client { to, timer, answer } = &mut *self.client;
            let reading = self.from.head(&job.head.method, answer);
            let work = sending.beside(reading, |cx| to.poll_gone(cx));
            let limit = || job.head_limit(began);
            let framing = match timer.until(limit, work).await {
                Ok(Ok(Ok(framing))) => framing,
                Ok(Ok(Err(end))) => return Err(End::NoHead(end)),
                Ok(Err(UploadFault::Client(fault))) => return Err(bad_upload(fault)),
                Ok(Err(_)) => return Err(End::Gone),
                Err(_) => return Err(End::Late(self.whose_time(began))),
            };
            let answer = &*self.client.answer;
            if let Some(switching) = &job.additions.switching
                && let Some(end) = switching.end(answer, job)
            {
                return Err(end);
            }
            if !answer.status.is_informational() {
                return Ok(framing);
            }
            if answer.status == StatusCode::SWITCHING_PROTOCOLS {
                let unasked = HeadFault::Malformed("an upgrade nobody asked for");
                return Err(End::NoHead(HeadEnd::Malformed(unasked)));
            }
            // Ours was sent already, if the client waits for it.
            if answer.status != StatusCode::CONTINUE && job.head.version != Version::HTTP_10 {
                let Client { to, timer, answer } = &mut *self.client;
                let sent = to.interim(answer);
                match timer.until(|| job.relay_limit(), sent).await {
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
        let reusable = answer.version == Version::HTTP_11
            && incoming != Framing::UntilClose
            && !is_doubtful(answer)
            && !wants_close(&answer.headers);
        let (framing, connection) = self.outgoing(incoming);
        let relayed = {
            let Client { to, timer, answer } = &mut *self.client;
            let mut client = {
                let closing = Closing {
                    framing,
                    connection,
                    clock: &mut job.worker.clock(),
                };
                to.begin(job.head, answer, closing)
            };
            let mut body = self.from.body(incoming);
            let relaying = relay(&mut body, &mut client, &job.standing.progress);
            let work = sending.beside(relaying, |_| Poll::Pending);
            timer.until(|| job.relay_limit(), work).await
        };
        if let Ok(Ok(Ok(Some(status)))) = relayed {
            self.record.grpc_status = Some(status);
        }
        match relayed {
            Ok(Ok(Ok(_))) if job.standing.finished.get().is_none() => {
                // The client still sends what nobody reads.
                self.record.connection = ConnectionOption::Close;
                End::Whole(ReuseUpstream::No)
            }
            Ok(Ok(Ok(_))) if reusable => End::Whole(ReuseUpstream::Yes),
            Ok(Ok(Ok(_))) => End::Whole(ReuseUpstream::No),
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

    /// How the response goes to the client, whose body comes framed like that.
    fn outgoing(&mut self, incoming: Framing) -> (Framing, ConnectionOption) {
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
        if grpc::is_call(job.head) {
            self.record.grpc_status = grpc::status(&self.client.answer.headers);
        }
        self.dress();
        (framing, connection)
    }

    /// Makes the changes of the answer's headers that the config asks for.
    pub(super) fn dress(&mut self) {
        let job = self.job;
        if let Some(cookie) = &job.affinity.cookie {
            let headers = &mut self.client.answer.headers;
            headers.append(http::header::SET_COOKIE, cookie.clone());
        }
        let answered = Answered {
            status: self.record.status,
            endpoint: &self.upstream.endpoints[self.endpoint].label,
        };
        job.edits
            .response(&mut self.client.answer.headers, answered);
    }

    pub(super) fn cut(&mut self, flag: Flag, details: &'static str) -> End {
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
