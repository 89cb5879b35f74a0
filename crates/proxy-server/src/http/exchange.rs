//! One request from its head to its end: route, try, try again.
//!
//! Owns the order of things and the retries of one request. The bytes of a try are `attempt`'s.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Version, header};
use proxy_balance::Ask;
use proxy_config::compiled::{
    BackOff, Defaults, HttpListener, PathChange, RetryPolicy, Route, Split,
};
use rand::RngExt as _;
use smallvec::SmallVec;
use tokio::time::{Instant, sleep};

use super::affinity::{Affinity, Subject};
use super::answer::Reason;
use super::attempt::{Client, Job, Tried, attempt, unless_gone};
use super::edits::Edits;
use super::ends::{FromClient, ToClient};
use super::forwarded::{incoming_request_id, new_request_id};
use super::grpc;
use super::headers::{Additions, ConnectionOption};
use super::mirror::{Kept, copy};
use super::own::Own;
use super::record::Record;
use super::retry::{
    Failure, Replayable, back_off, failure_of, is_idempotent, retry_after, wants_retry,
};
use super::routed::{Way, rewritten, route};
use super::target::Target;
use super::upgrade::{Switching, Wish};
use super::upload::{Standing, Upload};
use crate::counters::Active;
use crate::deadline::{Timer, earlier};
use crate::flags::Flag;
use crate::http1::{Framing, RequestHead, ResponseHead, wants_close, wants_keep_alive};
use crate::listener::Slot;
use crate::proxy_protocol::Ends;
use crate::upstream::{Permit, Upstream};
use crate::worker::{Routing, Worker};

/// So many idle connections in a row may turn out to be closed before that counts as a failure.
const STALE_MAX: u32 = 3;

/// What a request's handling needs of the connection that it came on.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) slot: &'a Rc<Slot>,
    pub(super) routing: &'a Routing,
    pub(super) head: &'a RequestHead,
    pub(super) peer: &'a str,
    pub(super) ends: Ends,
    /// Whether the client came by TLS.
    pub(super) is_tls: bool,
    pub(super) framing: Framing,
    pub(super) standing: &'a Standing,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A response was sent, whole or not.
    Answered,
    /// None was begun: Skein answers.
    Answer(Reason),
    /// The route answers by itself, with what the record holds.
    Own,
    /// The client is gone.
    Gone,
}

/// Finds the route of a request and gets it answered.
pub(super) async fn exchange<'l, C: ToClient, B: FromClient>(
    scene: &Scene<'_>,
    http: &'l HttpListener,
    client: &mut Client<'_, C>,
    upload: &mut Upload<'_, B>,
    record: &mut Record<'l>,
) -> Outcome {
    let Scene { head, worker, .. } = *scene;
    record.request_id = match incoming_request_id(&head.headers) {
        Some(id) => id.to_owned(),
        None => new_request_id(worker.rng().random()),
    };
    let defaults = &scene.routing.config.defaults;
    let target = match Target::of(head, defaults.escaped_slashes, scene.is_tls) {
        Ok(target) => target,
        Err(fault) => return Outcome::Answer(Reason::Head(fault)),
    };
    let Some(route) = route(http, head, &target) else {
        return Outcome::Answer(Reason::NoRoute);
    };
    record.route = Some(route);
    let request_id = std::mem::take(&mut record.request_id);
    let edits = Edits {
        listener: &http.headers,
        route,
        cluster: None,
        head,
        target: &target,
        subject: Subject {
            headers: &head.headers,
            query: target.query,
            peer: scene.peer,
            trusted_hops: defaults.trusted_hops,
        },
        started: record.started,
        request_id: &request_id,
    };
    let outcome = follow(scene, route, edits, (client, upload), record).await;
    let own = match outcome {
        Outcome::Answered | Outcome::Gone => None,
        Outcome::Answer(reason) => Some(reason.status().as_u16()),
        Outcome::Own => record.own.as_ref().map(Own::status),
    };
    if let Some(status) = own {
        let cluster = record.upstream.as_ref().map(|upstream| &*upstream.cluster);
        record.changes = Edits { cluster, ..edits }.own(status);
    }
    record.request_id = request_id;
    outcome
}

/// Does with a request what its route says.
async fn follow<'l, C: ToClient, B: FromClient>(
    scene: &Scene<'_>,
    route: &'l Arc<Route>,
    edits: Edits<'_>,
    (client, upload): (&mut Client<'_, C>, &mut Upload<'_, B>),
    record: &mut Record<'l>,
) -> Outcome {
    let (head, target) = (scene.head, edits.target);
    let defaults = &scene.routing.config.defaults;
    let switch = match Wish::of(head, route) {
        Wish::None => None,
        Wish::Granted(switch) => Some(switch),
        Wish::Refused(reason) => return Outcome::Answer(reason),
    };
    let split = match Way::of(route, scene, (defaults, target)) {
        Way::Forward(split) => split,
        Way::Own(own) => {
            record.own = Some(own);
            return Outcome::Own;
        }
        Way::Fault(reason) => return Outcome::Answer(reason),
    };
    let Some(upstream) = &choose(scene, split) else {
        return Outcome::Answer(Reason::NoCluster);
    };
    record.upstream = Some(upstream.clone());
    let Ok(sent) = rewritten(target, &route.rewrite, &head.headers) else {
        return Outcome::Answer(Reason::Rewrite);
    };
    let edits = Edits {
        cluster: Some(&upstream.cluster),
        ..edits
    };
    let edited = edits.request();
    let mut job = job(scene, defaults, &edits, (edited.as_ref(), &sent));
    if let Some(switch) = switch {
        let rng = &mut *scene.worker.rng();
        job.additions.switching = Some(Switching::new(switch, head.version, rng));
    }
    // What is gone over to cannot be copied.
    let mirrors = !route.mirror.is_empty() && switch.is_none();
    let mut retries = Retries::new(&route.retry, upstream, is_idempotent(&head.method));
    if mirrors && scene.framing == Framing::Empty {
        copy(scene, route, (&edits, &sent), Some(&Kept::default()));
    }
    let outcome = run(&job, client, upload, &mut retries, record).await;
    if mirrors && scene.framing != Framing::Empty {
        copy(scene, route, (&edits, &sent), upload.kept().as_ref());
    }
    outcome
}

/// The cluster for this request, by the route's weights.
fn choose(scene: &Scene<'_>, to: &Split) -> Option<Rc<Upstream>> {
    let draw = match &*to.targets {
        [_] => 0,
        _ => scene.worker.rng().random_range(0..to.total.max(1)),
    };
    scene.routing.upstream(to.choose(draw))
}

/// What all tries of a request have in common: the head and the target that are sent, if not those
/// that came.
pub(super) fn job<'a>(
    scene: &'a Scene<'a>,
    defaults: &Defaults,
    edits: &Edits<'a>,
    (edited, sent): (Option<&'a RequestHead>, &'a Target<'a>),
) -> Job<'a> {
    let (head, route) = (scene.head, edits.route);
    let expects = head.headers.get(header::EXPECT);
    let rng = &mut *scene.worker.rng();
    let deadline = deadline(head, route, edits.started);
    Job {
        worker: scene.worker,
        slot: scene.slot,
        between: scene.ends,
        head: edited.unwrap_or(head),
        affinity: match edits.cluster {
            Some(cluster) => Affinity::of(cluster, &route.hash, &edits.subject, rng),
            None => Affinity::default(),
        },
        subset: route.subset.as_ref(),
        edits: *edits,
        additions: Additions {
            target: sent,
            original: (route.rewrite.path != PathChange::Keep).then_some(edits.target),
            framing: scene.framing,
            peer: scene.peer,
            scheme: if scene.is_tls { "https" } else { "http" },
            trusted: defaults.trusted_hops > 0,
            request_id: edits.request_id,
            switching: None,
        },
        standing: scene.standing,
        asked: asked_connection(head),
        expects_continue: scene.framing != Framing::Empty
            && head.version != Version::HTTP_10
            && expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")),
        timeout: route.timeout.filter(|_| deadline.is_none()),
        per_try_timeout: route.retry.per_try_timeout,
        stream_idle_timeout: Some(route.idle_timeout.unwrap_or(defaults.stream_idle_timeout))
            .filter(|idle| !idle.is_zero()),
        ends: earlier(
            route.max_stream_duration.map(|most| edits.started + most),
            deadline,
        ),
    }
}

/// When the caller of gRPC does not wait any longer, if it says so: no later than the route lets it.
fn deadline(head: &RequestHead, route: &Route, started: Instant) -> Option<Instant> {
    if !grpc::is_call(head) {
        return None;
    }
    let asked = grpc::timeout(&head.headers)?;
    let most = route.grpc_timeout_max.or(route.timeout);
    let allowed = most.filter(|most| !most.is_zero());
    started.checked_add(allowed.map_or(asked, |most| asked.min(most)))
}

/// What the client asks for its connection.
pub(super) fn asked_connection(head: &RequestHead) -> ConnectionOption {
    if head.version != Version::HTTP_10 {
        if wants_close(&head.headers) {
            ConnectionOption::Close
        } else {
            ConnectionOption::Kept
        }
    } else if wants_keep_alive(&head.headers) {
        ConnectionOption::KeptOld
    } else {
        ConnectionOption::Close
    }
}

/// Tries until there is an answer.
pub(super) async fn run<C: ToClient, B: FromClient>(
    job: &Job<'_>,
    client: &mut Client<'_, C>,
    upload: &mut Upload<'_, B>,
    retries: &mut Retries<'_>,
    record: &mut Record<'_>,
) -> Outcome {
    let upstream = retries.upstream;
    let counters = upstream.counters();
    let _active = Active::count(&counters.requests_active);
    let Some(group) = upstream.group(job.subset) else {
        counters.none_healthy.increment();
        return Outcome::Answer(Reason::NoHealthyUpstream);
    };
    let mut failed: SmallVec<[usize; 4]> = SmallVec::new();
    let mut stale = 0;
    loop {
        let ask = Ask {
            key: job.affinity.key,
            avoid: &failed,
        };
        let picked = upstream.pick(&mut job.worker.rng(), group, ask);
        let Some(endpoint) = picked else {
            counters.none_healthy.increment();
            return Outcome::Answer(Reason::NoHealthyUpstream);
        };
        record.endpoint = Some(upstream.endpoints[endpoint].clone());
        record.tries += 1;
        let target = (upstream, endpoint);
        let tried = attempt(job, client, upload, target, retries, record).await;
        let (failure, reason) = match tried {
            Tried::Answered(_) => {
                retries.succeeded();
                return Outcome::Answered;
            }
            Tried::Refused(reason) => return Outcome::Answer(reason),
            Tried::Gone => return Outcome::Gone,
            Tried::Again => {
                failed.push(endpoint);
                let pause = pause(job, client.timer, retries);
                match unless_gone(client.to, &mut upload.body, pause).await {
                    None => return Outcome::Gone,
                    Some(false) => return Outcome::Answer(Reason::ResponseTimeout),
                    Some(true) => continue,
                }
            }
            Tried::Stale(failure, reason) => {
                stale += 1;
                if stale <= STALE_MAX && retries.is_safe(failure, job.standing) {
                    continue;
                }
                (failure, reason)
            }
            Tried::Failed(failure, reason) => (failure, reason),
        };
        if !retries.claim(failure, job.standing) {
            return Outcome::Answer(reason);
        }
        failed.push(endpoint);
        // What was not sent can go elsewhere at once.
        let elsewhere = failed.len() < upstream.endpoints.len();
        let unsent = matches!(failure, Failure::Unsent | Failure::Refused);
        if unsent && elsewhere {
            continue;
        }
        let pause = pause(job, client.timer, retries);
        match unless_gone(client.to, &mut upload.body, pause).await {
            None => return Outcome::Gone,
            Some(false) => return Outcome::Answer(Reason::ResponseTimeout),
            Some(true) => {}
        }
    }
}

/// Waits before the next try; false when the route's time is over before.
async fn pause(job: &Job<'_>, timer: &mut Timer, retries: &Retries<'_>) -> bool {
    let (least, pauses, retry) = match retries.after {
        // Up to a half longer, so that not all come at the same instant (as in Envoy).
        Some(after) => (after, BackOff::constant(after / 2), 1),
        None => (Duration::ZERO, retries.policy.back_off, retries.made),
    };
    let pause = least + back_off(pauses, retry, &mut *job.worker.rng());
    let limit = || job.route_limit();
    timer.until(limit, sleep(pause)).await.is_ok()
}

/// The retries of one request.
#[derive(Debug)]
pub(super) struct Retries<'a> {
    policy: &'a RetryPolicy,
    upstream: &'a Rc<Upstream>,
    idempotent: bool,
    made: u32,
    /// How long the last answer asks to wait.
    after: Option<Duration>,
    /// A place in the cluster's budget, from the decision to the end of the try.
    permit: Option<Permit>,
}

impl<'a> Retries<'a> {
    pub(super) fn new(
        policy: &'a RetryPolicy,
        upstream: &'a Rc<Upstream>,
        idempotent: bool,
    ) -> Self {
        Self {
            policy,
            upstream,
            idempotent,
            made: 0,
            after: None,
            permit: None,
        }
    }

    /// Whether sending the request again, after an idle connection turned out to be closed, does
    /// no harm. Where retries are off, what may have been sent is not sent again even then.
    fn is_safe(&self, failure: Failure, standing: &Standing) -> bool {
        let repeatable = self.idempotent && self.policy.times > 0;
        standing.kept.get() && (failure == Failure::Unsent || repeatable)
    }

    /// As [`Retries::claim`], after an answer. It is relayed if it asks to wait for longer than there
    /// is time.
    pub(super) fn claim_answer(&mut self, answer: &ResponseHead, job: &Job<'_>) -> bool {
        let Some(failure) = failure_of(self.policy, answer) else {
            return false;
        };
        let after = retry_after(self.policy, answer);
        let late = after.is_some_and(|after| {
            let limit = job.route_limit();
            limit.is_some_and(|limit| Instant::now() + after >= limit)
        });
        let claimed = !late && self.claim(failure, job.standing);
        self.after = after.filter(|_| claimed);
        claimed
    }

    /// Decides for another try: the policy wants it, it is safe, tries are left and the budget has
    /// room. Counts it as begun.
    pub(super) fn claim(&mut self, failure: Failure, standing: &Standing) -> bool {
        let request = Replayable {
            idempotent: self.idempotent,
            body_kept: standing.kept.get(),
        };
        if !wants_retry(self.policy, failure, request) {
            return false;
        }
        let counters = self.upstream.counters();
        if self.made >= self.policy.times {
            counters.retry_limits_exceeded.increment();
            return false;
        }
        self.after = None;
        self.permit = None;
        self.permit = self.upstream.shared.retry(&self.upstream.cluster.limits);
        if self.permit.is_none() {
            counters.retry_overflows.increment();
            return false;
        }
        self.made += 1;
        counters.retries.increment();
        true
    }

    /// Gives the place in the budget back, for what goes on for long.
    pub(super) fn release(&mut self) {
        self.permit = None;
    }

    fn succeeded(&mut self) {
        if self.made > 0 {
            self.upstream.counters().retry_successes.increment();
        }
        self.permit = None;
    }
}

/// What a request that Skein answers is flagged with.
pub(super) fn flag_of(outcome: Outcome) -> Option<(Flag, &'static str)> {
    match outcome {
        Outcome::Answered | Outcome::Own => None,
        Outcome::Answer(reason) => Some((reason.flag(), reason.details())),
        Outcome::Gone => Some((Flag::DownstreamTermination, "the client went away")),
    }
}
