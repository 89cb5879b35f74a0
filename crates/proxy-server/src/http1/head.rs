//! Request and response heads: where one ends in a buffer, and its parts.
//!
//! Owns the limits of a head. Never looks at what a header means for framing (see `framing`).

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

/// A head with more fields is refused.
pub(crate) const FIELDS_MAX: usize = 100;
/// A request target longer than this is answered 414.
const TARGET_BYTES_MAX: usize = 16 * 1024;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadFault {
    /// The bytes are no HTTP/1 head, or one that two readers could understand differently.
    #[error("{0}")]
    Malformed(&'static str),
    /// More bytes or fields than allowed.
    #[error("the header section is too large")]
    TooLarge,
    /// The target alone is too long.
    #[error("the request target is too long")]
    TargetTooLong,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("the HTTP version is not supported on this port")]
    Version,
    /// A transfer coding other than `chunked`.
    #[error("the transfer coding is not supported")]
    TransferCoding,
}

/// What a head may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Bytes up to and with the empty line.
    pub(crate) bytes_max: usize,
    /// Which line ends are accepted.
    pub(crate) line_ends: LineEnds,
}

/// Which line ends a head may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEnds {
    /// CR LF only: what clients send, some of them hostile.
    Strict,
    /// A bare LF too: what old upstreams answer.
    Lenient,
}

/// A request head.
#[derive(Debug, Clone)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    /// As received: visible ASCII without `#` and `\`.
    pub(crate) target: Bytes,
    /// HTTP/1.0 or HTTP/1.1.
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            method: Method::GET,
            target: Bytes::new(),
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
        }
    }
}

impl RequestHead {
    /// The target as text.
    pub(crate) fn target(&self) -> &str {
        std::str::from_utf8(&self.target).expect("the parser lets ASCII through only")
    }
}

/// A response head.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    /// The reason phrase as received.
    pub(crate) reason: Bytes,
    /// HTTP/1.0 or HTTP/1.1.
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self {
            status: StatusCode::OK,
            reason: Bytes::new(),
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
        }
    }
}

/// Cuts a whole head off the front of `buffer`, or answers `None` when its end has not arrived.
/// `scanned` remembers, between calls, how far the search came, so that a head in many small pieces
/// costs no more than one in one piece; it must start at 0 for each head.
pub(crate) fn take_head(
    buffer: &mut BytesMut,
    scanned: &mut usize,
    limits: HeadLimits,
) -> Result<Option<Bytes>, HeadFault> {
    if *scanned == 0 {
        // Empty lines before a message are skipped (RFC 9112, 2.2).
        let empty = buffer.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
        let empty = empty.count();
        buffer.advance(empty);
    }
    let found = find_end(buffer, *scanned, limits.line_ends)?;
    let len = found.unwrap_or(buffer.len());
    if len > limits.bytes_max {
        return Err(HeadFault::TooLarge);
    }
    if found.is_none() {
        // The end can straddle: "\n\r" may be there already.
        *scanned = buffer.len().saturating_sub(2);
        return Ok(None);
    }
    *scanned = 0;
    Ok(Some(buffer.split_to(len).freeze()))
}

/// The length of the head with its empty line, searched from `from`.
fn find_end(buffer: &[u8], from: usize, ends: LineEnds) -> Result<Option<usize>, HeadFault> {
    for at in memchr::memchr_iter(b'\n', &buffer[from..]) {
        let at = from + at;
        let bare = at == 0 || buffer[at - 1] != b'\r';
        if bare && ends == LineEnds::Strict {
            return Err(HeadFault::Malformed(
                "a line ends without a carriage return",
            ));
        }
        match &buffer[at + 1..] {
            [b'\r', b'\n', ..] => return Ok(Some(at + 3)),
            [b'\n', ..] if ends == LineEnds::Lenient => return Ok(Some(at + 2)),
            _ => {}
        }
    }
    Ok(None)
}

/// Refuses a request target that is too long, or no URI.
pub(crate) fn check_target(target: &str) -> Result<(), HeadFault> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(HeadFault::TargetTooLong);
    }
    // `#` is never sent, `\` is taken for `/` by some, and the rest is no URI (RFC 3986).
    let foreign = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'#' | b'\\');
    if target.bytes().any(foreign) {
        return Err(HeadFault::Malformed(
            "the request target has a character that no URI has",
        ));
    }
    Ok(())
}

/// Parses what [`take_head`] cut off into `head`, whose header map is used again.
pub(crate) fn parse_request(bytes: &Bytes, head: &mut RequestHead) -> Result<(), HeadFault> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed
        .parse_with_uninit_headers(bytes, &mut fields)
        .map_err(|error| fault(error, "the request line is malformed"))?;
    if status != httparse::Status::Complete(bytes.len()) {
        return Err(HeadFault::Malformed("the header section is malformed"));
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(HeadFault::Malformed("the request line is malformed"));
    };
    check_target(target)?;
    head.method = Method::from_bytes(method.as_bytes())
        .map_err(|_| HeadFault::Malformed("the method is malformed"))?;
    head.target = bytes.slice_ref(target.as_bytes());
    head.version = version_of(version);
    fill(&mut head.headers, bytes, parsed.headers)
}

/// Parses what [`take_head`] cut off into `head`, whose header map is used again.
pub(crate) fn parse_response(bytes: &Bytes, head: &mut ResponseHead) -> Result<(), HeadFault> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields)
        .map_err(|error| fault(error, "the status line is malformed"))?;
    if status != httparse::Status::Complete(bytes.len()) {
        return Err(HeadFault::Malformed("the header section is malformed"));
    }
    let (Some(code), Some(version)) = (parsed.code, parsed.version) else {
        return Err(HeadFault::Malformed("the status line is malformed"));
    };
    head.status = StatusCode::from_u16(code)
        .ok()
        .filter(|status| status.as_u16() < 600)
        .ok_or(HeadFault::Malformed("the status code is out of range"))?;
    head.reason = match parsed.reason {
        Some(reason) if !reason.is_empty() => bytes.slice_ref(reason.as_bytes()),
        _ => Bytes::new(),
    };
    head.version = version_of(version);
    fill(&mut head.headers, bytes, parsed.headers)
}

/// Adds the fields to `map`, sharing the head's bytes.
pub(super) fn fill(
    map: &mut HeaderMap,
    bytes: &Bytes,
    fields: &[httparse::Header<'_>],
) -> Result<(), HeadFault> {
    map.clear();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| HeadFault::Malformed("a header name is malformed"))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
            .map_err(|_| HeadFault::Malformed("a header value is malformed"))?;
        map.append(name, value);
    }
    Ok(())
}

/// httparse knows two versions.
fn version_of(minor: u8) -> Version {
    if minor == 0 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    }
}

fn fault(error: httparse::Error, first_line: &'static str) -> HeadFault {
    match error {
        httparse::Error::TooManyHeaders => HeadFault::TooLarge,
        httparse::Error::Version => HeadFault::Version,
        httparse::Error::HeaderName => HeadFault::Malformed("a header name is malformed"),
        httparse::Error::HeaderValue => HeadFault::Malformed("a header value is malformed"),
        httparse::Error::NewLine => HeadFault::Malformed("a line end is malformed"),
        httparse::Error::Status | httparse::Error::Token => HeadFault::Malformed(first_line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: HeadLimits = HeadLimits {
        bytes_max: 1024,
        line_ends: LineEnds::Strict,
    };

    fn request(text: &str) -> Result<RequestHead, HeadFault> {
        let mut buffer = BytesMut::from(text);
        let bytes = take_head(&mut buffer, &mut 0, STRICT)?.expect("a whole head");
        let mut head = RequestHead::default();
        parse_request(&bytes, &mut head).map(|()| head)
    }

    #[test]
    fn a_head_is_found_however_it_is_cut() {
        let text = b"\r\nGET /a?b HTTP/1.1\r\nHost: x\r\nA: 1\r\nA: 2\r\n\r\nrest";
        for cut in 0..text.len() {
            let mut buffer = BytesMut::from(&text[..cut]);
            let mut scanned = 0;
            let mut found = take_head(&mut buffer, &mut scanned, STRICT).unwrap();
            if found.is_none() {
                buffer.extend_from_slice(&text[cut..]);
                found = take_head(&mut buffer, &mut scanned, STRICT).unwrap();
            }
            let mut head = RequestHead::default();
            parse_request(&found.unwrap(), &mut head).unwrap();
            assert_eq!(head.target(), "/a?b");
            assert_eq!(head.headers.get_all("a").iter().count(), 2);
        }
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        for text in [
            "GET / HTTP/1.1\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\n\r\n",
            "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
            "GET / HTTP/1.1\r\nA: x\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nA: x\0\r\n\r\n",
            "GET /a\\b HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /\r\n\r\n",
        ] {
            let refused = request(text);
            assert!(matches!(refused, Err(HeadFault::Malformed(_))), "{text:?}");
        }
        let preface = request("PRI * HTTP/2.0\r\n\r\n").unwrap_err();
        assert_eq!(preface, HeadFault::Version);
    }

    #[test]
    fn limits_of_bytes_fields_and_target_hold() {
        let mut endless = BytesMut::from(&vec![b'a'; 1025][..]);
        let refused = take_head(&mut endless, &mut 0, STRICT);
        assert_eq!(refused, Err(HeadFault::TooLarge));

        let roomy = HeadLimits {
            bytes_max: 1 << 20,
            ..STRICT
        };
        let whole = |text: String| {
            let bytes = take_head(&mut BytesMut::from(&text[..]), &mut 0, roomy);
            parse_request(&bytes.unwrap().unwrap(), &mut RequestHead::default())
        };
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
        assert_eq!(whole(many), Err(HeadFault::TooLarge));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(TARGET_BYTES_MAX));
        assert_eq!(whole(long), Err(HeadFault::TargetTooLong));
    }

    #[test]
    fn a_response_keeps_its_reason_and_may_have_bare_line_feeds() {
        let lenient = HeadLimits {
            line_ends: LineEnds::Lenient,
            ..STRICT
        };
        let mut buffer = BytesMut::from("HTTP/1.0 299 Odd one\nA: b\n\nbody");
        let bytes = take_head(&mut buffer, &mut 0, lenient).unwrap().unwrap();
        let mut head = ResponseHead::default();
        parse_response(&bytes, &mut head).unwrap();
        assert_eq!(
            (head.status.as_u16(), &head.reason[..]),
            (299, &b"Odd one"[..])
        );
        assert_eq!(
            (head.version, &buffer[..]),
            (Version::HTTP_10, &b"body"[..])
        );
    }
}
