//! Clients that go over to another protocol: who asks for it, who may, and whether the upstream
//! agreed.
//!
//! Owns what HTTP/1.1 (RFC 9110, 7.8) and HTTP/2 (RFC 8441) say differently. A request of HTTP/2 is
//! here as one of HTTP/1.1 would be: a GET with `upgrade`. Nothing that a client sends behind its
//! head goes upstream before the upstream agreed. What flows then is `tunnel`'s.

mod handshake;
mod stay;
mod tunnel;

use h2::ext::Protocol;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use proxy_config::compiled::Route;
use rand::Rng;

use super::answer::Reason;
use super::attempt::Job;
use super::ends::HeadEnd;
use super::flow::End;
use crate::http1::{HeadFault, RequestHead, ResponseHead, connection_tokens};

/// The name of WebSocket (RFC 6455, 11.2).
const WEBSOCKET: &str = "websocket";

/// What a client goes over to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch<'a> {
    /// This protocol.
    Protocol(&'a str),
    /// Bytes to an endpoint, by the method CONNECT.
    Connect,
}

/// A switch that a request asks for, and may.
#[derive(Debug)]
pub(super) struct Switching<'a> {
    pub(super) to: Switch<'a>,
    /// What a server of HTTP/1.1 shall prove that it knows WebSocket by, where the client, of
    /// HTTP/2, has none (RFC 8441, 5).
    key: Option<Box<str>>,
}

/// What becomes of a request's wish to go over to something else.
#[derive(Debug)]
pub(super) enum Wish<'a> {
    /// It has none, or none that matters.
    None,
    Granted(Switch<'a>),
    Refused(Reason),
}

impl<'a> Wish<'a> {
    /// That of a request which this route takes.
    pub(super) fn of(head: &RequestHead, route: &'a Route) -> Self {
        if head.method == Method::CONNECT {
            return match route.upgrades.connect() {
                true => Self::Granted(Switch::Connect),
                false => Self::Refused(Reason::ConnectOff),
            };
        }
        // Nearly no request has it.
        if !head.headers.contains_key(header::UPGRADE) {
            return Self::None;
        }
        let mut options = connection_tokens(&head.headers);
        let is_asked = head.version != Version::HTTP_10
            && head.method != Method::HEAD
            && options.any(|option| option.eq_ignore_ascii_case("upgrade"));
        if !is_asked {
            return Self::None;
        }
        if let Some(name) = asked(&head.headers).find_map(|name| route.upgrades.protocol(name)) {
            return Self::Granted(Switch::Protocol(name));
        }
        // Over HTTP/1.1 what is not allowed can be passed over. Over HTTP/2 an answer of 2xx would
        // say yes.
        let cannot_pass = head.version == Version::HTTP_2;
        let is_known = asked(&head.headers).any(|name| name.eq_ignore_ascii_case(WEBSOCKET));
        let says_yes = route.action.status().is_some_and(|status| status < 300);
        if (route.action.to().is_some() && (cannot_pass || is_known)) || (cannot_pass && says_yes) {
            return Self::Refused(Reason::UpgradeOff);
        }
        Self::None
    }
}

/// The protocols that a request names, the dearest first.
fn asked(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::UPGRADE).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

impl<'a> Switching<'a> {
    /// The switch of a request of this version.
    pub(super) fn new(to: Switch<'a>, client: Version, rng: &mut impl Rng) -> Self {
        let lacks_key = client == Version::HTTP_2 && to == Switch::Protocol(WEBSOCKET);
        let key = lacks_key.then(|| handshake::key(rng));
        Self { to, key }
    }

    /// Whether an upstream of HTTP/1.1 is asked with a key of ours.
    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Writes what asks an upstream of HTTP/1.1.
    pub(super) fn ask(&self, out: &mut Vec<u8>) {
        let Switch::Protocol(name) = self.to else {
            return;
        };
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
        out.extend_from_slice(name.as_bytes());
        if let Some(key) = &self.key {
            out.extend_from_slice(b"\r\nsec-websocket-key: ");
            out.extend_from_slice(key.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }

    /// What an upstream of HTTP/2 is asked for.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        match self.to {
            Switch::Protocol(name) => Some(Protocol::from(name)),
            Switch::Connect => None,
        }
    }

    /// What an upstream's answer makes of it; `None`: an ordinary answer that is passed on.
    pub(super) fn end(&self, answer: &ResponseHead, job: &Job<'_>) -> Option<End> {
        let malformed = |details| {
            let fault = HeadFault::Malformed(details);
            Some(End::NoHead(HeadEnd::Malformed(fault)))
        };
        let client = job.head.version;
        if answer.version == Version::HTTP_2 {
            return answer.status.is_success().then_some(End::Switch);
        }
        if answer.status != StatusCode::SWITCHING_PROTOCOLS {
            // To a client of HTTP/2 it would say yes.
            let says_yes = client == Version::HTTP_2 && answer.status.is_success();
            return says_yes.then_some(End::Declined);
        }
        let Switch::Protocol(name) = self.to else {
            return malformed("an upgrade nobody asked for");
        };
        let mut named = asked(&answer.headers);
        if answer.version == Version::HTTP_10 || !named.any(|it| it.eq_ignore_ascii_case(name)) {
            return malformed("an upgrade to something else");
        }
        if let Some(key) = &self.key {
            let proof = answer.headers.get(header::SEC_WEBSOCKET_ACCEPT);
            if proof.map(HeaderValue::as_bytes) != Some(handshake::proof(key.as_bytes()).as_bytes())
            {
                return malformed("an upgrade without its proof");
            }
        }
        if !job.standing.delivered.get() {
            return malformed("an upgrade before the request had come");
        }
        Some(End::Switch)
    }

    /// Makes the fields of an answer that agrees those that the client expects.
    fn fit(&self, answer: &mut ResponseHead, request: &RequestHead) {
        if self.to != Switch::Protocol(WEBSOCKET) {
            return;
        }
        if request.version == Version::HTTP_2 {
            answer.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        } else if answer.version == Version::HTTP_2
            && let Some(key) = request.headers.get(header::SEC_WEBSOCKET_KEY)
            && let Ok(proof) = HeaderValue::from_str(&handshake::proof(key.as_bytes()))
        {
            answer.headers.insert(header::SEC_WEBSOCKET_ACCEPT, proof);
        }
    }
}
