//! Trailers: the fields after a chunked body.
//!
//! Owns which of them may pass a proxy (RFC 9110, 6.5.1). Never merges them into a head.

use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderName, header};

use super::body::BodyFault;
use super::head::{HeadLimits, LineEnds, fill, take_head};

/// Trailers may have so many bytes.
pub(super) const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// Trailers may have so many fields.
const TRAILER_FIELDS_MAX: usize = 32;

/// Cuts the trailers with their empty line off the front of `buffer`. The outer `None`: they have
/// not arrived whole; the inner one: there are none.
pub(super) fn parse_trailers(
    buffer: &mut BytesMut,
) -> Result<Option<Option<HeaderMap>>, BodyFault> {
    if !b"\r\n".starts_with(&buffer[..buffer.len().min(2)]) {
        return parse_fields(buffer);
    }
    if buffer.len() < 2 {
        return Ok(None);
    }
    buffer.advance(2);
    Ok(Some(None))
}

fn parse_fields(buffer: &mut BytesMut) -> Result<Option<Option<HeaderMap>>, BodyFault> {
    const MALFORMED: BodyFault = BodyFault::Malformed("the trailers are malformed");
    let limits = HeadLimits {
        bytes_max: TRAILER_BYTES_MAX,
        line_ends: LineEnds::Strict,
    };
    // Trailers are rare and small, so the search may begin anew with each piece. It begins behind
    // the first byte, which is no line end, and skips no empty lines that way.
    let Some(bytes) = take_head(buffer, &mut 1, limits).map_err(|_| MALFORMED)? else {
        return Ok(None);
    };
    let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS_MAX];
    match httparse::parse_headers(&bytes, &mut fields) {
        Ok(httparse::Status::Complete((len, fields))) if len == bytes.len() => {
            let mut map = HeaderMap::with_capacity(fields.len());
            fill(&mut map, &bytes, fields).map_err(|_| MALFORMED)?;
            Ok(Some(Some(map)))
        }
        _ => Err(MALFORMED),
    }
}

/// Writes the last chunk, the trailers that may pass, and the empty line.
pub(crate) fn write_trailers(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if may_pass(name) {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The trailers that may pass, for those who do not write them as lines.
pub(crate) fn without_forbidden(trailers: HeaderMap) -> HeaderMap {
    if trailers.keys().all(may_pass) {
        return trailers;
    }
    let fields = trailers.iter().filter(|(name, _)| may_pass(name));
    let fields = fields.map(|(name, value)| (name.clone(), value.clone()));
    fields.collect()
}

/// Not what frames, routes or authenticates a message, or says where it comes from: a recipient that merged such a trailer into
/// the head would read another message than the one that was checked.
fn may_pass(name: &HeaderName) -> bool {
    !matches!(
        *name,
        header::AUTHORIZATION
            | header::CONNECTION
            | header::CONTENT_ENCODING
            | header::CONTENT_LENGTH
            | header::CONTENT_RANGE
            | header::CONTENT_TYPE
            | header::COOKIE
            | header::EXPECT
            | header::HOST
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
            | header::SET_COOKIE
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
    ) && !matches!(
        name.as_str(),
        "forwarded" | "keep-alive" | "proxy-connection" | "x-real-ip" | "x-request-id"
    ) && !name.as_str().starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_pass_but_not_those_that_would_change_the_message() {
        let mut buffer = BytesMut::from(
            "x-sum: 1\r\nHost: evil\r\ncontent-length: 9\r\nX-Forwarded-For: 1.1.1.1\r\n\
             x-forwarded-proto: https\r\nforwarded: for=1.1.1.1\r\nx-request-id: a\r\n\r\nnext",
        );
        let trailers = parse_trailers(&mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..], b"next");
        let mut out = Vec::new();
        write_trailers(&mut out, trailers.as_ref());
        assert_eq!(out, b"0\r\nx-sum: 1\r\n\r\n");
    }

    #[test]
    fn trailers_have_limits() {
        let mut long = BytesMut::from(&vec![b'a'; TRAILER_BYTES_MAX + 1][..]);
        assert!(parse_trailers(&mut long).is_err());
        let many = format!("{}\r\n", "a: b\r\n".repeat(TRAILER_FIELDS_MAX + 1));
        assert!(parse_trailers(&mut BytesMut::from(&many[..])).is_err());
    }
}
