//! Copies of requests that go to another cluster beside the first.
//!
//! Owns their number and what is copied: the head as it would go there, and a body that was kept
//! whole. A copy is a task of its own that nobody waits for; its answer is read and dropped. Never
//! delays, changes or fails the request itself, and never writes to the access log.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use proxy_config::compiled::{HeaderChanges, Mirror, Percent, RetryOn, RetryPolicy, Route};
use rand::RngExt as _;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::affinity::Subject;
use super::attempt::{Client, Job};
use super::edits::Edits;
use super::ends::{FromClient, Sink, Source, ToClient};
use super::exchange::{Retries, Scene, job, run};
use super::headers::Closing;
use super::record::Record;
use super::target::Target;
use super::upgrade::Switch;
use super::upload::{Standing, Upload};
use crate::deadline::Timer;
use crate::http1::{BodyFault, Framing, RequestHead, ResponseHead, Step};
use crate::listener::Slot;
use crate::proxy_protocol::Ends;
use crate::upstream::Upstream;
use crate::worker::{Routing, Worker};

/// A worker has at most so many copies under way; no more are begun then.
const COPIES_MAX: usize = 128;
/// The time of a copy whose route has no limit.
const TIME_MAX: Duration = Duration::from_secs(15);
/// A copy that fails is not sent again.
const ONCE: RetryPolicy = RetryPolicy {
    when: RetryOn::NONE,
    times: 0,
    ..RetryPolicy::BUILT_IN
};

/// A body that was kept whole.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
}

/// A copy in the making.
struct Copy {
    worker: Rc<Worker>,
    slot: Rc<Slot>,
    routing: Rc<Routing>,
    upstream: Rc<Upstream>,
    route: Arc<Route>,
    head: RequestHead,
    framing: Framing,
    host: String,
    path: String,
    query: String,
    peer: String,
    ends: Ends,
    is_tls: bool,
    request_id: String,
    body: Kept,
}

/// Sends copies of a request to where its route says. `body` is none where it was not kept.
pub(super) fn copy(
    scene: &Scene<'_>,
    route: &Arc<Route>,
    (edits, sent): (&Edits<'_>, &Target<'_>),
    body: Option<&Kept>,
) {
    for mirror in &route.mirror {
        let draw = scene.worker.rng().random_range(0..Percent::WHOLE);
        let Some(upstream) = scene.routing.upstream(&mirror.cluster) else {
            continue;
        };
        if !mirror.takes(draw) {
            continue;
        }
        let counters = upstream.counters();
        let room = scene.worker.mirrors.get() < COPIES_MAX;
        let Some(body) = body.filter(|_| room) else {
            counters.mirror_overflows.increment();
            continue;
        };
        counters.mirrors.increment();
        let edits = Edits {
            cluster: Some(&mirror.cluster),
            ..*edits
        };
        let copy = Copy {
            worker: scene.worker.clone(),
            slot: scene.slot.clone(),
            routing: scene.worker.routing(),
            upstream,
            route: route.clone(),
            head: edits.request().unwrap_or_else(|| scene.head.clone()),
            framing: scene.framing,
            host: host(mirror, sent),
            path: sent.path.clone().into_owned(),
            query: sent.query.to_owned(),
            peer: scene.peer.to_owned(),
            ends: scene.ends,
            is_tls: scene.is_tls,
            request_id: edits.request_id.to_owned(),
            body: body.clone(),
        };
        scene.worker.mirrors.set(scene.worker.mirrors.get() + 1);
        let place = Place(scene.worker.clone());
        spawn_local(async move {
            let _place = place;
            copy.send().await;
        });
    }
}

fn host(mirror: &Mirror, sent: &Target<'_>) -> String {
    mirror.host(sent.host).into_owned()
}

/// A place among the copies under way.
struct Place(Rc<Worker>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.mirrors.set(self.0.mirrors.get() - 1);
    }
}

impl Copy {
    async fn send(self) {
        let now = Instant::now();
        let standing = Standing::new(self.framing, now);
        let scene = Scene {
            worker: &self.worker,
            slot: &self.slot,
            routing: &self.routing,
            head: &self.head,
            peer: &self.peer,
            ends: self.ends,
            is_tls: self.is_tls,
            framing: self.framing,
            standing: &standing,
        };
        let target = Target {
            host: &self.host,
            path: self.path.as_str().into(),
            query: &self.query,
        };
        let defaults = &self.routing.config.defaults;
        // The head has its changes; those of an answer that nobody gets are not made.
        let unchanged = HeaderChanges::default();
        let edits = Edits {
            listener: &unchanged,
            route: &self.route,
            cluster: Some(&self.upstream.cluster),
            head: &self.head,
            target: &target,
            subject: Subject {
                headers: &self.head.headers,
                query: &self.query,
                peer: &self.peer,
                trusted_hops: defaults.trusted_hops,
            },
            started: now,
            request_id: &self.request_id,
        };
        let job = Job {
            expects_continue: false,
            // It is one of the route's own clusters.
            subset: None,
            timeout: Some(self.route.timeout.unwrap_or(TIME_MAX)),
            ..job(&scene, defaults, &edits, (None, &target))
        };
        let mut timer = Timer::new(now);
        let mut answer = ResponseHead::default();
        let mut client = Client {
            to: &mut Nobody,
            timer: &mut timer,
            answer: &mut answer,
        };
        let body = Again {
            body: self.body,
            at: 0,
        };
        let mut upload = Upload::new(body, &standing);
        let mut retries = Retries::new(&ONCE, &self.upstream, false);
        let mut record = Record::new(now);
        let sending = pin!(run(
            &job,
            &mut client,
            &mut upload,
            &mut retries,
            &mut record
        ));
        sending.await;
    }
}

/// A client that nothing reaches.
#[derive(Debug)]
struct Nobody;

impl ToClient for Nobody {
    type Body<'a> = Self;

    async fn go_on(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn interim(&mut self, _: &ResponseHead) -> io::Result<()> {
        Ok(())
    }

    fn begin(&mut self, _: &RequestHead, _: &mut ResponseHead, _: Closing<'_>) -> Self {
        Self
    }

    fn switch(&mut self, _: &ResponseHead, _: Switch<'_>) -> Self {
        Self
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Sink for Nobody {
    async fn send(&mut self, _: &[u8], _: bool) -> io::Result<()> {
        Ok(())
    }

    async fn pass(&mut self, body: &mut impl Source, count: usize) -> io::Result<()> {
        body.consume(count);
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn finish(&mut self, _: Option<HeaderMap>) -> io::Result<()> {
        Ok(())
    }

    /// A copy asks for nothing of that kind.
    fn switch(&mut self) {}

    fn poll_broken(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// A kept body, sent from its start.
#[derive(Debug)]
struct Again {
    body: Kept,
    at: usize,
}

impl Source for Again {
    fn step(&mut self) -> Result<Step, BodyFault> {
        Ok(match self.body.bytes.len() - self.at {
            0 => Step::End,
            left => Step::Data(left),
        })
    }

    async fn more(&mut self) -> Result<(), BodyFault> {
        Ok(())
    }

    fn data(&self, count: usize) -> &[u8] {
        &self.body.bytes[self.at..self.at + count]
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }

    fn take(&mut self, count: usize) -> Bytes {
        let bytes = Bytes::copy_from_slice(self.data(count));
        self.consume(count);
        bytes
    }

    fn is_over(&self) -> bool {
        self.at == self.body.bytes.len() && self.body.trailers.is_none()
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.body.trailers.take()
    }
}

impl FromClient for Again {
    fn switch(&mut self) {}

    fn is_untouched(&self) -> bool {
        false
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}
