//! One try of a request at one endpoint: connect, send, wait for the response head, relay.
//!
//! Owns the connection of the try and what its end means for the request. Whether there is another
//! try is `exchange`'s.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{Method, Request, Uri, Version};
use proxy_config::compiled::{Cluster, Labels, UpstreamHttp};
use tokio::time::Instant;

use super::affinity::Affinity;
use super::answer::Reason;
use super::edits::Edits;
use super::ends::{Asked, FromClient, HeadEnd, Sent, ToClient};
use super::exchange::Retries;
use super::flow::{End, Flow, Late, ReuseUpstream, Sending};
use super::headers::{Additions, ConnectionOption, request_map, write_request};
use super::record::Record;
use super::retry::Failure;
use super::upgrade::Switch;
use super::upload::{Standing, Upload};
use crate::deadline::{Timer, earlier};
use crate::http1::{Framing, RequestHead, ResponseHead};
use crate::listener::Slot;
use crate::proxy_protocol::Ends;
use crate::upstream::{
    Agreed, ConnectFault, Connection, Limit, Place, Seen, Upstream, Wanted, connect, place,
};
use crate::worker::Worker;

/// What does not change between the tries of one request.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) worker: &'a Worker,
    pub(super) slot: &'a Slot,
    /// What is sent; the client's own unless the config changes headers.
    pub(super) head: &'a RequestHead,
    pub(super) edits: Edits<'a>,
    pub(super) affinity: Affinity,
    /// Which of the cluster's endpoints; `None`: any.
    pub(super) subset: Option<&'a Labels>,
    pub(super) additions: Additions<'a>,
    pub(super) standing: &'a Standing,
    /// Whose request it is, for upstreams that are told.
    pub(super) between: Ends,
    /// What the client asks for its connection.
    pub(super) asked: ConnectionOption,
    /// Whether the client waits for 100 Continue.
    pub(super) expects_continue: bool,
    /// The route's time.
    pub(super) timeout: Option<Duration>,
    pub(super) per_try_timeout: Option<Duration>,
    /// `None`: as long as it likes.
    pub(super) stream_idle_timeout: Option<Duration>,
    /// When the request is over, whatever goes on.
    pub(super) ends: Option<Instant>,
}

impl Job<'_> {
    /// When the route's time is over; but for its limit of all, not before the request has arrived
    /// whole.
    pub(super) fn route_limit(&self) -> Option<Instant> {
        let timed = match (self.standing.finished.get(), self.timeout) {
            (Some(finished), Some(timeout)) => Some(finished + timeout),
            _ => None,
        };
        earlier(timed, self.ends)
    }

    /// When a try that began then has no time left, if tries have a limit.
    pub(super) fn try_limit(&self, began: Instant) -> Option<Instant> {
        Some(self.standing.finished.get()?.max(began) + self.per_try_timeout?)
    }

    pub(super) fn idle_limit(&self) -> Option<Instant> {
        let idle = self.stream_idle_timeout?;
        Some(self.standing.progress.limit(idle))
    }

    /// Until when a try that began then may wait for its response head.
    pub(super) fn head_limit(&self, began: Instant) -> Option<Instant> {
        let hard = earlier(self.route_limit(), self.try_limit(began));
        earlier(hard, self.idle_limit())
    }

    /// Until when a response may flow.
    pub(super) fn relay_limit(&self) -> Option<Instant> {
        earlier(self.route_limit(), self.idle_limit())
    }

    /// Whether the connection to the client stays after a response in this framing.
    pub(super) fn connection(&self, framing: Framing) -> ConnectionOption {
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
pub(super) struct Client<'a, C> {
    pub(super) to: &'a mut C,
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
pub(super) async fn attempt<C: ToClient, B: FromClient>(
    job: &Job<'_>,
    client: &mut Client<'_, C>,
    upload: &mut Upload<'_, B>,
    (upstream, endpoint): (&Rc<Upstream>, usize),
    retries: &mut Retries<'_>,
    record: &mut Record<'_>,
) -> Tried {
    let _in_use = upstream.endpoints[endpoint].enter();
    let opening = open(job, client.timer, upstream, endpoint);
    let opened = match unless_gone(client.to, &mut upload.body, opening).await {
        None => return Tried::Gone,
        Some(Ok(opened)) => opened,
        Some(Err(fault)) => {
            let tried = connect_failed(&fault);
            if matches!(tried, Tried::Failed(..)) {
                upstream.failed(endpoint, Seen::Local, Duration::default);
            }
            return tried;
        }
    };
    if job.expects_continue && !job.standing.invited.replace(true) && upload.is_untouched() {
        let go_on = client.to.go_on();
        let told = client.timer.until(|| job.relay_limit(), go_on).await;
        if !matches!(told, Ok(Ok(()))) {
            // It does not even take so few bytes.
            return Tried::Gone;
        }
    }
    let began = if record.tries > 1 {
        Instant::now()
    } else {
        record.started
    };
    job.standing.progress.restart(began);
    job.standing.delivered.set(false);
    upstream.counters().requests.increment();
    let flow = Flow {
        job,
        client,
        upstream,
        endpoint,
        from: &mut (),
        retries,
        record,
    };
    let (end, before) = match opened {
        Opened::Http1(connection) => over_http1(flow, upload, connection, began).await,
        Opened::Bytes(connection) => Box::pin(over_bytes(flow, upload, connection, began)).await,
        // Apart, so that exchanges of HTTP/1.1 have no room for it.
        Opened::Http2(place) => Box::pin(over_http2(flow, upload, place, began)).await,
    };
    let now = record.ended.unwrap_or(began);
    let tried = judge(job, end, before, upstream);
    if let Some(seen) = tried.and_then(fault_of) {
        upstream.failed(endpoint, seen, || now - began);
    }
    tried.unwrap_or(Tried::Answered(record.connection))
}

/// Waits for `work`, unless the client leaves meanwhile.
pub(super) async fn unless_gone<W: Future>(
    to: &mut impl ToClient,
    from: &mut impl FromClient,
    work: W,
) -> Option<W::Output> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        let is_gone = to.poll_gone(cx).is_ready() || from.poll_gone(cx).is_ready();
        if is_gone {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Where a try can send its request.
#[derive(Debug)]
enum Opened {
    Http1(Connection),
    Http2(Place),
    /// No HTTP is spoken there.
    Bytes(Connection),
}

async fn open(
    job: &Job<'_>,
    timer: &mut Timer,
    upstream: &Upstream,
    endpoint: usize,
) -> Result<Opened, ConnectFault> {
    let limit = Limit(job.route_limit());
    if job.additions.switches_to(Switch::Connect) {
        return connect(
            upstream,
            endpoint,
            Wanted::Fresh(Some(&job.between)),
            timer,
            limit,
        )
        .await
        .map(Opened::Bytes);
    }
    match upstream.cluster.http {
        UpstreamHttp::H1 => connect(
            upstream,
            endpoint,
            Wanted::Any(Some(&job.between)),
            timer,
            limit,
        )
        .await
        .map(Opened::Http1),
        UpstreamHttp::H2 | UpstreamHttp::Auto => {
            let place = Box::pin(place(upstream, endpoint, timer, limit)).await?;
            Ok(match place {
                Agreed::Http1(connection) => Opened::Http1(connection),
                Agreed::Http2(place) => Opened::Http2(place),
            })
        }
    }
}

/// What there was of a try's connection before its end.
#[derive(Debug, Clone, Copy)]
struct Before {
    /// Nothing was sent on it.
    unsent: bool,
    /// It had served another request.
    reused: bool,
}

async fn over_http1<C: ToClient, B: FromClient>(
    flow: Flow<'_, '_, '_, '_, C, ()>,
    upload: &mut Upload<'_, B>,
    mut connection: Connection,
    began: Instant,
) -> (End, Before) {
    let (job, upstream, endpoint) = (flow.job, flow.upstream, flow.endpoint);
    let written_before = connection.writer.written;
    write_request(&mut connection.writer.pending, job.head, &job.additions);
    let Connection { reader, writer, .. } = &mut connection;
    let mut sent = Sent::new(writer, job.additions.framing);
    let mut flow = flow.with(reader);
    let (mut end, now) = {
        let upload = pin!(upload.run(&mut sent));
        flow.run(&mut Sending::new(upload), began).await
    };
    if end == End::Switch
        && let Some(switching) = &job.additions.switching
    {
        // Apart, so that other exchanges have no room for it.
        end = Box::pin(flow.switched(switching, &mut upload.body, &mut sent)).await;
    }
    let before = Before {
        unsent: connection.writer.written == written_before,
        reused: connection.reused,
    };
    let is_clean = job.standing.delivered.get() && connection.reader.buffer.is_empty();
    if end == End::Whole(ReuseUpstream::Yes) && is_clean {
        upstream.release(&upstream.endpoints[endpoint], connection, now);
    } else {
        drop(connection);
        upstream.wake_one();
    }
    (end, before)
}

async fn over_http2<C: ToClient, B: FromClient>(
    flow: Flow<'_, '_, '_, '_, C, ()>,
    upload: &mut Upload<'_, B>,
    place: Place,
    began: Instant,
) -> (End, Before) {
    let job = flow.job;
    let before = Before {
        unsent: true,
        reused: place.reused,
    };
    if job.additions.switching.is_some() {
        let told = place.takes_protocols();
        match flow
            .client
            .timer
            .until(|| job.head_limit(began), told)
            .await
        {
            // A body would be taken for the first bytes of the other protocol.
            Ok(true) if job.additions.framing == Framing::Empty => {}
            Ok(_) => return (End::Declined, before),
            Err(_) => return (End::Late(Late::Route), before),
        }
    }
    let Some(request) = request(job, &flow.upstream.cluster) else {
        let details = "the request target has a character that no URI has";
        return (End::BadUpload(details), before);
    };
    let switching = job.additions.switching.as_ref();
    let whole = job.additions.framing == Framing::Empty && switching.is_none();
    let mut sent = 0;
    let asked = Asked::new(place.send(), request, whole, &mut sent);
    let Ok((mut asked, mut body)) = asked else {
        return (End::NoHead(HeadEnd::Unsent), before);
    };
    if switching.is_some() {
        body.hold();
    }
    let mut flow = flow.with(&mut asked);
    let (mut end, _) = {
        let upload = pin!(upload.run(&mut body));
        flow.run(&mut Sending::new(upload), began).await
    };
    if end == End::Switch
        && let Some(switching) = switching
    {
        end = Box::pin(flow.switched(switching, &mut upload.body, &mut body)).await;
    }
    (end, before)
}

/// A client's bytes to an endpoint, as they are.
async fn over_bytes<C: ToClient, B: FromClient>(
    flow: Flow<'_, '_, '_, '_, C, ()>,
    upload: &mut Upload<'_, B>,
    mut connection: Connection,
    began: Instant,
) -> (End, Before) {
    let (job, upstream) = (flow.job, flow.upstream);
    upstream.answered(flow.endpoint, 200, began);
    let Connection { reader, writer, .. } = &mut connection;
    let end = match &job.additions.switching {
        Some(switching) => {
            let mut sent = Sent::new(writer, Framing::UntilClose);
            let mut flow = flow.with(reader);
            flow.switched(switching, &mut upload.body, &mut sent).await
        }
        None => End::Declined,
    };
    drop(connection);
    upstream.wake_one();
    let before = Before {
        unsent: true,
        reused: false,
    };
    (end, before)
}

/// The request as an upstream gets it that speaks HTTP/2. Its scheme is that of the connection.
fn request(job: &Job<'_>, cluster: &Cluster) -> Option<Request<()>> {
    let target = job.additions.target;
    let path = [&*target.path, target.query].concat();
    let uri = Uri::builder()
        .scheme(if cluster.tls.is_some() {
            "https"
        } else {
            "http"
        })
        .authority(target.host)
        .path_and_query(path);
    let mut request = Request::new(());
    *request.method_mut() = job.head.method.clone();
    *request.uri_mut() = uri.build().ok()?;
    *request.version_mut() = Version::HTTP_2;
    if let Some(switching) = &job.additions.switching {
        // RFC 8441, 4.
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(switching.protocol()?);
    }
    *request.headers_mut() = request_map(job.head, &job.additions);
    Some(request)
}

/// What a try without an answer says about its endpoint.
fn fault_of(tried: Tried) -> Option<Seen> {
    match tried {
        Tried::Failed(Failure::TimedOut, _) | Tried::Refused(Reason::ResponseTimeout) => {
            Some(Seen::Local)
        }
        Tried::Failed(..) => Some(Seen::Broken),
        _ => None,
    }
}

fn connect_failed(fault: &ConnectFault) -> Tried {
    let reason = match fault {
        ConnectFault::Failed(error) => {
            tracing::debug!(%error, "connecting to an upstream failed");
            Reason::ConnectFailed
        }
        ConnectFault::Tls(class) => Reason::ConnectTls(*class),
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
    Before { unsent, reused }: Before,
    upstream: &Upstream,
) -> Option<Tried> {
    let counters = upstream.counters();
    Some(match end {
        End::Whole(_) => return None,
        End::Cut => return None,
        End::Again => Tried::Again,
        End::Switch | End::Declined => Tried::Refused(Reason::UpgradeDeclined),
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
        // The connection goes away in good order: another one will do.
        End::NoHead(HeadEnd::Unsent) if reused => {
            Tried::Stale(Failure::Unsent, Reason::UpstreamRefused)
        }
        End::NoHead(HeadEnd::Unsent) => Tried::Failed(Failure::Unsent, Reason::UpstreamRefused),
        End::NoHead(HeadEnd::Refused) => Tried::Failed(Failure::Refused, Reason::UpstreamRefused),
        End::NoHead(HeadEnd::StreamReset) => {
            counters.resets_received.increment();
            Tried::Failed(Failure::Reset, Reason::Terminated)
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
