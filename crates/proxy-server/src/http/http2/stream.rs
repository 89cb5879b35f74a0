//! One stream of a client: a request from its head to the end of its answer.
//!
//! Owns what is counted and logged of it, and the answers of our own. How it gets answered is
//! `exchange`'s.

use std::rc::Rc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as Code, RecvStream};
use http::{HeaderMap, Method, Request, StatusCode};
use proxy_config::compiled::{AccessLog, Protocol};
use rand::RngExt as _;
use tokio::time::Instant;

use super::head::request_head;
use super::{Fate, Peer, SOON};
use crate::counters::Active;
use crate::deadline::Timer;
use crate::flags::Flag;
use crate::http::answer::{Reason, answer_fields};
use crate::http::attempt::Client;
use crate::http::connection::LINGER;
use crate::http::edits::make;
use crate::http::ends::{Responding, Sink as _, Streamed};
use crate::http::exchange::{Outcome, Scene, exchange, flag_of};
use crate::http::forwarded::new_request_id;
use crate::http::grpc;
use crate::http::record::{Record, log};
use crate::http::upload::{Standing, Upload};
use crate::http1::{Framing, RequestHead, ResponseHead};

/// Answers one request.
pub(super) async fn serve(
    peer: Rc<Peer>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> Fate {
    let started = Instant::now();
    let mut timer = peer.take_timer(started);
    let fate = answer(&peer, request, Responding::new(respond), &mut timer).await;
    peer.put_timer(timer);
    fate
}

async fn answer(
    peer: &Peer,
    request: Request<RecvStream>,
    mut to: Responding,
    timer: &mut Timer,
) -> Fate {
    let started = Instant::now();
    // The newest config decides, whatever it was when the connection was made.
    let routing = peer.worker.routing();
    let defaults = &routing.config.defaults;
    let serving = peer.slot.serving();
    let Protocol::Http(http) = &serving.listener.protocol else {
        to.reset(Code::REFUSED_STREAM);
        return Fate::Unserved;
    };
    let counters = serving.counters(peer.slot.worker);
    counters.requests.increment();
    let _active = Active::count(&counters.requests_active);
    let mut record = Record::new(started);

    let (parts, body) = request.into_parts();
    let (whole, body) = arriving(&parts.method, body);
    let (head, checked) = request_head(parts, whole, defaults.max_head_bytes);
    let framing = *checked.as_ref().unwrap_or(&Framing::Empty);
    let standing = Standing::new(framing, started);
    let outcome = match checked {
        Err(fault) => Outcome::Answer(Reason::Head(fault)),
        Ok(_) => {
            let scene = Scene {
                worker: &peer.worker,
                slot: &peer.slot,
                routing: &routing,
                head: &head,
                peer: &peer.text,
                ends: peer.ends,
                is_tls: peer.is_tls,
                framing,
                standing: &standing,
            };
            let mut upload = Upload::new(body, &standing);
            let answer = &mut ResponseHead::default();
            let to = &mut to;
            let mut client = Client { to, timer, answer };
            exchange(&scene, http, &mut client, &mut upload, &mut record).await
        }
    };
    record.received = standing.received.get();
    if let Some((flag, details)) = flag_of(outcome) {
        record.blame(flag, details);
    }
    match outcome {
        Outcome::Answered => {}
        Outcome::Gone => to.reset(Code::CANCEL),
        Outcome::Answer(reason) => {
            if let Some(refusal) = reason.refusal() {
                counters.refused[refusal.index()].increment();
            }
            answer_refused(peer, &head, reason, (&mut to, timer), &mut record).await;
        }
        Outcome::Own => answer_own(peer, &head, (&mut to, timer), &mut record).await,
    }
    record.sent = to.sent;
    let ended = record.ended.filter(|_| outcome == Outcome::Answered);
    let ended = ended.unwrap_or_else(Instant::now);
    record.count(counters, ended);
    if defaults.access_log == AccessLog::Json {
        let told = (&head, &record, ended);
        log(&peer.worker, &peer.slot, peer.ends.client, told);
    }
    if record.flag == Some(Flag::DownstreamTermination) {
        let soon = ended - started < SOON;
        Fate::Reset { soon }
    } else {
        Fate::Ended
    }
}

/// Whether a request has no body, and what arrives of it. That of CONNECT is none, and waits.
fn arriving(method: &Method, body: RecvStream) -> (bool, Streamed) {
    let whole = body.is_end_stream();
    match *method {
        Method::CONNECT => (whole, Streamed::held(body)),
        _ => (whole, Streamed::new(body)),
    }
}

/// Sends an answer of our own to what cannot be answered otherwise.
async fn answer_refused(
    peer: &Peer,
    head: &RequestHead,
    reason: Reason,
    client: (&mut Responding, &mut Timer),
    record: &mut Record<'_>,
) {
    if record.request_id.is_empty() {
        // What is refused this early has none of its own.
        record.request_id = new_request_id(peer.worker.rng().random());
    }
    let mut headers = HeaderMap::new();
    if grpc::is_call(head) {
        let about = &record.request_id;
        let code = {
            let mut clock = peer.worker.clock();
            grpc::answer_fields(&mut headers, reason, head, (about, clock.date()))
        };
        record.status = StatusCode::OK.as_u16();
        record.grpc_status = Some(code);
        make(&record.changes, &mut headers);
        return send(client, head, (StatusCode::OK, headers), Bytes::new()).await;
    }
    record.status = reason.status().as_u16();
    let body = {
        let mut clock = peer.worker.clock();
        answer_fields(&mut headers, reason, &record.request_id, clock.date())
    };
    make(&record.changes, &mut headers);
    send(client, head, (reason.status(), headers), body.into()).await;
}

/// Sends what the route answers by itself.
async fn answer_own(
    peer: &Peer,
    head: &RequestHead,
    client: (&mut Responding, &mut Timer),
    record: &mut Record<'_>,
) {
    let Some(own) = &record.own else { return };
    let mut headers = HeaderMap::new();
    own.fields(&mut headers, &record.request_id, peer.worker.clock().date());
    make(&record.changes, &mut headers);
    record.status = own.status();
    let status = StatusCode::from_u16(record.status).unwrap_or_default();
    let body = Bytes::copy_from_slice(own.body());
    send(client, head, (status, headers), body).await;
}

async fn send(
    (to, timer): (&mut Responding, &mut Timer),
    head: &RequestHead,
    (status, headers): (StatusCode, HeaderMap),
    body: Bytes,
) {
    let whole = body.is_empty() || head.method == Method::HEAD;
    let mut sink = to.head(status, headers, whole);
    if !whole {
        let limit = Instant::now() + LINGER;
        let _ = timer.until(|| Some(limit), sink.send(&body, true)).await;
    }
}
