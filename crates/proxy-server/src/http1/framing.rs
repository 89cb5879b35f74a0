//! Where a message's body ends, and whether its connection can be used again.
//!
//! Owns the reading of Content-Length, Transfer-Encoding and Connection (RFC 9112, 6 and 9).
//! Stricter than the RFC in requests: what two readers could understand differently is refused.

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Version};

use super::head::{HeadFault, RequestHead, ResponseHead};

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    Empty,
    /// So many bytes, at least 1.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Everything until the connection ends (responses only).
    UntilClose,
}

impl Framing {
    fn of_length(length: u64) -> Self {
        match length {
            0 => Self::Empty,
            length => Self::Length(length),
        }
    }
}

/// The framing of a request.
pub(crate) fn request_framing(head: &RequestHead) -> Result<Framing, HeadFault> {
    let headers = &head.headers;
    let coded = headers.contains_key(TRANSFER_ENCODING);
    let sized = headers.contains_key(CONTENT_LENGTH);
    if !coded && !sized {
        return Ok(Framing::Empty);
    }
    if coded && sized {
        return Err(HeadFault::Malformed(
            "both content-length and transfer-encoding are given",
        ));
    }
    if coded {
        if head.version == Version::HTTP_10 {
            return Err(HeadFault::Malformed("transfer-encoding needs HTTP/1.1"));
        }
        return coding(headers).map(|()| Framing::Chunked);
    }
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let length = values.next().and_then(|value| length(value.as_bytes()));
    match (length, values.next()) {
        (Some(length), None) => Ok(Framing::of_length(length)),
        _ => Err(HeadFault::Malformed("content-length is malformed")),
    }
}

/// The framing of a response to `method`. With both Content-Length and Transfer-Encoding the latter
/// counts, and the caller must not use the connection again.
pub(crate) fn response_framing(method: &Method, head: &ResponseHead) -> Result<Framing, HeadFault> {
    let status = head.status.as_u16();
    if method == Method::HEAD || status < 200 || matches!(status, 204 | 304) {
        return Ok(Framing::Empty);
    }
    let headers = &head.headers;
    if headers.contains_key(TRANSFER_ENCODING) {
        if head.version == Version::HTTP_10 {
            return Err(HeadFault::Malformed("transfer-encoding needs HTTP/1.1"));
        }
        return coding(headers).map(|()| Framing::Chunked);
    }
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = values.next() else {
        return Ok(Framing::UntilClose);
    };
    // Servers repeat the field by mistake; the same value twice leaves no doubt (RFC 9112, 6.3).
    match length(first.as_bytes()) {
        Some(length) if values.all(|value| value == first) => Ok(Framing::of_length(length)),
        _ => Err(HeadFault::Malformed("content-length is malformed")),
    }
}

/// `chunked`, once and alone.
fn coding(headers: &HeaderMap) -> Result<(), HeadFault> {
    let mut values = headers.get_all(TRANSFER_ENCODING).iter();
    let first = values.next().map_or(&b""[..], |value| value.as_bytes());
    if values.next().is_some() || first.is_empty() {
        return Err(HeadFault::Malformed("transfer-encoding is malformed"));
    }
    if first.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    // A list: what comes before a last `chunked` would be for us to decode.
    let mut codings = first.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    if codings
        .next()
        .is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"))
    {
        Err(HeadFault::TransferCoding)
    } else {
        Err(HeadFault::Malformed("transfer-encoding is not chunked"))
    }
}

/// Whether this is the value of a Content-Length that can be passed on.
pub(crate) fn is_length(value: &[u8]) -> bool {
    length(value).is_some()
}

/// Digits only: no sign, no space, no list.
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The lower- or mixed-case tokens of all Connection fields. Values that are no text give none.
pub(crate) fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// Whether the sender ends the connection after this message.
pub(crate) fn wants_close(headers: &HeaderMap) -> bool {
    connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("close"))
}

/// Whether an HTTP/1.0 sender asks to keep the connection.
pub(crate) fn wants_keep_alive(headers: &HeaderMap) -> bool {
    connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("keep-alive"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, StatusCode};

    use super::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        fields.iter().map(field).collect()
    }

    fn of_request(version: Version, fields: &[(&'static str, &str)]) -> Result<Framing, HeadFault> {
        request_framing(&RequestHead {
            version,
            headers: map(fields),
            ..RequestHead::default()
        })
    }

    #[test]
    fn requests_that_could_be_smuggled_are_refused() {
        for fields in [
            &[("content-length", "5"), ("transfer-encoding", "chunked")][..],
            &[("transfer-encoding", "chunked"), ("content-length", "5")],
            &[("content-length", "5"), ("content-length", "6")],
            &[("content-length", "5"), ("content-length", "5")],
            &[("content-length", "5, 5")],
            &[("content-length", "+5")],
            &[("content-length", "-5")],
            &[("content-length", "0x5")],
            &[("content-length", "5 5")],
            &[("content-length", "")],
            &[("content-length", "99999999999999999999")],
            &[("transfer-encoding", "chunked, identity")],
            &[("transfer-encoding", "xchunked")],
            &[
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            &[("transfer-encoding", "")],
        ] {
            let refused = of_request(Version::HTTP_11, fields);
            assert!(
                matches!(refused, Err(HeadFault::Malformed(_))),
                "{fields:?}"
            );
        }
        assert_eq!(
            of_request(Version::HTTP_11, &[("transfer-encoding", "gzip, chunked")]),
            Err(HeadFault::TransferCoding)
        );
        let old = of_request(Version::HTTP_10, &[("transfer-encoding", "chunked")]);
        assert!(matches!(old, Err(HeadFault::Malformed(_))));
    }

    #[test]
    fn requests_have_a_length_chunks_or_nothing() {
        for (fields, expected) in [
            (&[][..], Framing::Empty),
            (&[("content-length", "0")], Framing::Empty),
            (&[("content-length", "007")], Framing::Length(7)),
            (&[("transfer-encoding", "Chunked")], Framing::Chunked),
        ] {
            assert_eq!(of_request(Version::HTTP_11, fields), Ok(expected));
        }
    }

    #[test]
    fn responses_follow_method_and_status_first() {
        let of = |method: Method, status: u16, fields: &[(&'static str, &str)]| {
            response_framing(
                &method,
                &ResponseHead {
                    status: StatusCode::from_u16(status).unwrap(),
                    headers: map(fields),
                    ..ResponseHead::default()
                },
            )
        };
        let sized = [("content-length", "5")];
        assert_eq!(of(Method::GET, 200, &sized), Ok(Framing::Length(5)));
        assert_eq!(of(Method::HEAD, 200, &sized), Ok(Framing::Empty));
        assert_eq!(of(Method::GET, 304, &sized), Ok(Framing::Empty));
        assert_eq!(of(Method::GET, 204, &sized), Ok(Framing::Empty));
        assert_eq!(of(Method::GET, 200, &[]), Ok(Framing::UntilClose));
        let twice = [("content-length", "5"), ("content-length", "5")];
        assert_eq!(of(Method::GET, 200, &twice), Ok(Framing::Length(5)));
        let both = [("content-length", "5"), ("transfer-encoding", "chunked")];
        assert_eq!(of(Method::GET, 200, &both), Ok(Framing::Chunked));
        let differing = [("content-length", "5"), ("content-length", "6")];
        assert!(of(Method::GET, 200, &differing).is_err());
    }

    #[test]
    fn connection_is_a_list_of_tokens() {
        let headers = map(&[("connection", "Keep-Alive, x-a"), ("connection", " CLOSE ")]);
        assert!(wants_close(&headers) && wants_keep_alive(&headers));
        assert_eq!(connection_tokens(&headers).count(), 3);
        assert!(!wants_close(&map(&[("connection", "closed")])));
    }
}
