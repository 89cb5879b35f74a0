//! What a proxy writes of a head: everything but the fields that are between two neighbours, then
//! its own.
//!
//! Owns hop-by-hop fields (RFC 9110, 7.6.1) and the framing that we choose. One pass over the
//! fields, straight into the bytes that are sent. Our own fields come last and cannot be named away
//! by a Connection header.

use http::{HeaderMap, HeaderName, Method, header};
use smallvec::SmallVec;

use super::fields::Fields;
use super::forwarded::{X_FORWARDED_FOR, X_FORWARDED_PROTO, X_REQUEST_ID};
use super::target::Target;
use super::upgrade::{Switch, Switching};
use crate::clock::WallClock;
use crate::http1::{Framing, RequestHead, ResponseHead, connection_tokens, is_length};

/// What a rewritten path was before (Envoy's name).
const X_ORIGINAL_PATH: &str = "x-envoy-original-path";

/// What our request adds to the client's.
#[derive(Debug)]
pub(super) struct Additions<'a> {
    pub(super) target: &'a Target<'a>,
    /// What was asked for, where the route changes its path: the upstream is told that too.
    pub(super) original: Option<&'a Target<'a>>,
    pub(super) framing: Framing,
    /// The address of whom the request came from.
    pub(super) peer: &'a str,
    /// What the request came by.
    pub(super) scheme: &'static str,
    /// Whether the X-Forwarded-Proto that came along is believed.
    pub(super) trusted: bool,
    pub(super) request_id: &'a str,
    /// What the client goes over to, if it asks for that and may.
    pub(super) switching: Option<Switching<'a>>,
}

impl Additions<'_> {
    /// Whether that is what the client goes over to.
    pub(super) fn switches_to(&self, to: Switch<'_>) -> bool {
        let switching = self.switching.as_ref();
        switching.is_some_and(|switching| switching.to == to)
    }
}

/// Writes the request head for an upstream that speaks HTTP/1.
///
/// No Via: RFC 9110 asks for it, but servers (nginx's `gzip_proxied`) send uncompressed answers to
/// requests that have it, and neither Envoy nor HAProxy nor nginx add it.
pub(super) fn write_request(out: &mut Vec<u8>, head: &RequestHead, add: &Additions<'_>) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(add.target.path.as_bytes());
    out.extend_from_slice(add.target.query.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(add.target.host.as_bytes());
    out.extend_from_slice(b"\r\n");
    let has_key = add.switching.as_ref().is_some_and(Switching::has_key);
    let trailers = request_fields(out, head, add, has_key);
    if let Some(switching) = &add.switching {
        switching.ask(out);
    } else if trailers == Trailers::Taken {
        out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n");
    }
    match add.framing {
        // Methods that usually have a body say that they have none (RFC 9110, 8.6).
        Framing::Empty => {
            if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
                out.extend_from_slice(b"content-length: 0\r\n");
            }
        }
        framing => out.framing(framing),
    }
    out.extend_from_slice(b"\r\n");
}

/// The fields of a request for an upstream that speaks HTTP/2.
pub(super) fn request_map(head: &RequestHead, add: &Additions<'_>) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(head.headers.len() + 4);
    if request_fields(&mut map, head, add, add.switching.is_some()) == Trailers::Taken {
        map.add("te", b"trailers");
    }
    map.framing(add.framing);
    map
}

/// Whether whoever asks takes trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trailers {
    Taken,
    Dropped,
}

/// Writes a request's fields for an upstream, but for Host, TE and the framing; and, if it is hidden,
/// the key of WebSocket.
fn request_fields(
    out: &mut impl Fields,
    head: &RequestHead,
    add: &Additions<'_>,
    hides_key: bool,
) -> Trailers {
    let named = named_by_connection(&head.headers);
    let mut trailers = Trailers::Dropped;
    let mut proto_kept = false;
    let mut forwarded = ForwardedFor::default();
    for (name, value) in &head.headers {
        if *name == header::TE && accepts_trailers(value.as_bytes()) {
            trailers = Trailers::Taken;
        }
        if stays_here(name, &named)
            || matches!(
                *name,
                header::HOST | header::EXPECT | header::CONTENT_LENGTH
            )
            || (*name == header::SEC_WEBSOCKET_KEY && hides_key)
        {
            continue;
        }
        match name.as_str() {
            X_FORWARDED_FOR => forwarded.push(value.as_bytes()),
            X_REQUEST_ID => {}
            X_ORIGINAL_PATH if add.original.is_some() => {}
            X_FORWARDED_PROTO if !add.trusted => {}
            text => {
                proto_kept |= text == X_FORWARDED_PROTO;
                out.pass(name, value);
            }
        }
    }
    out.list(X_FORWARDED_FOR, &forwarded.0, add.peer);
    if !proto_kept {
        out.add(X_FORWARDED_PROTO, add.scheme.as_bytes());
    }
    out.add(X_REQUEST_ID, add.request_id.as_bytes());
    if let Some(original) = add.original {
        let path = [original.path.as_bytes(), original.query.as_bytes()].concat();
        out.add(X_ORIGINAL_PATH, &path);
    }
    trailers
}

/// What our response adds to the upstream's.
#[derive(Debug)]
pub(super) struct Closing<'a> {
    /// How the body is framed towards the client.
    pub(super) framing: Framing,
    pub(super) connection: ConnectionOption,
    /// Gives a response without a date one.
    pub(super) clock: &'a mut WallClock,
}

/// What the client is told about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionOption {
    /// It stays, which HTTP/1.1 need not say.
    Kept,
    /// It stays, which an HTTP/1.0 client must be told.
    KeptOld,
    /// It ends after this response.
    Close,
}

/// Writes the response head for a client that speaks HTTP/1.
pub(super) fn write_response(
    out: &mut Vec<u8>,
    method: &Method,
    head: &ResponseHead,
    closing: Closing<'_>,
) {
    write_status(out, head);
    let (framing, connection) = (closing.framing, closing.connection);
    response_fields(out, method, head, closing);
    if framing == Framing::Empty {
        let bodyless = method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
        if !bodyless {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
    }
    out.extend_from_slice(match connection {
        ConnectionOption::Kept => b"\r\n",
        ConnectionOption::KeptOld => b"connection: keep-alive\r\n\r\n",
        ConnectionOption::Close => b"connection: close\r\n\r\n",
    });
}

fn write_status(out: &mut Vec<u8>, head: &ResponseHead) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(&head.reason);
    out.extend_from_slice(b"\r\n");
}

/// Writes a response's fields for a client.
pub(super) fn response_fields(
    out: &mut impl Fields,
    method: &Method,
    head: &ResponseHead,
    closing: Closing<'_>,
) {
    let named = named_by_connection(&head.headers);
    // Without a body the length tells what a GET would get (RFC 9110, 8.6), but for 204.
    let length_passes =
        closing.framing == Framing::Empty && (method == Method::HEAD || head.status == 304);
    let mut dated = false;
    let mut length_written = false;
    for (name, value) in &head.headers {
        if stays_here(name, &named) {
            continue;
        }
        if *name == header::CONTENT_LENGTH {
            if length_passes && !length_written && is_length(value.as_bytes()) {
                length_written = true;
                out.pass(name, value);
            }
            continue;
        }
        dated |= *name == header::DATE;
        out.pass(name, value);
    }
    if !dated {
        out.add("date", closing.clock.date().as_bytes());
    }
    out.framing(closing.framing);
}

/// Writes the head of an answer that goes over to something else, for HTTP/1.
pub(super) fn write_switch(out: &mut Vec<u8>, head: &ResponseHead, to: Switch<'_>) {
    let Switch::Protocol(name) = to else {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        interim_fields(out, head);
        return out.extend_from_slice(b"\r\n");
    };
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    interim_fields(out, head);
    out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
}

/// Writes an interim response (1xx) as it came, without hop-by-hop fields, for HTTP/1.
pub(super) fn write_interim(out: &mut Vec<u8>, head: &ResponseHead) {
    write_status(out, head);
    interim_fields(out, head);
    out.extend_from_slice(b"\r\n");
}

/// Writes an interim response's fields.
pub(super) fn interim_fields(out: &mut impl Fields, head: &ResponseHead) {
    let named = named_by_connection(&head.headers);
    for (name, value) in &head.headers {
        if !stays_here(name, &named) && *name != header::CONTENT_LENGTH {
            out.pass(name, value);
        }
    }
}

/// Whether a client takes trailers (TE: trailers); otherwise they are dropped (RFC 9110, 6.5.1).
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::TE).iter();
    values.any(|value| accepts_trailers(value.as_bytes()))
}

fn accepts_trailers(te: &[u8]) -> bool {
    te.split(|byte| *byte == b',')
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// The field names in Connection, beyond the usual options.
fn named_by_connection(headers: &HeaderMap) -> SmallVec<[&str; 4]> {
    if !headers.contains_key(header::CONNECTION) {
        return SmallVec::new();
    }
    connection_tokens(headers)
        .filter(|token| !token.eq_ignore_ascii_case("close"))
        .filter(|token| !token.eq_ignore_ascii_case("keep-alive"))
        .collect()
}

/// Whether a field is for the next hop only.
fn stays_here(name: &HeaderName, named: &[&str]) -> bool {
    matches!(
        *name,
        header::CONNECTION
            | header::TE
            | header::TRANSFER_ENCODING
            | header::UPGRADE
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
    ) || matches!(
        name.as_str(),
        "keep-alive" | "proxy-connection" | "http2-settings"
    ) || named
        .iter()
        .any(|token| token.eq_ignore_ascii_case(name.as_str()))
}

/// X-Forwarded-For: what came along, then the peer.
#[derive(Debug, Default)]
struct ForwardedFor<'a>(SmallVec<[&'a [u8]; 2]>);

impl<'a> ForwardedFor<'a> {
    fn push(&mut self, list: &'a [u8]) {
        if !list.is_empty() {
            self.0.push(list);
        }
    }
}

#[cfg(test)]
mod tests;
