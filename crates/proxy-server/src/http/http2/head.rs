//! A request's head as HTTP/2 carries it, in the form that all exchanges have.
//!
//! Owns what RFC 9113, 8 asks of a head beyond what the crate `h2` checks, which is the pseudo
//! fields, fields of a connection (stream errors) and `content-length`. Never routes.

use bytes::Bytes;
use h2::ext::Protocol;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version, header};

use crate::http1::{FIELDS_MAX, Framing, HeadFault, RequestHead, check_target};

/// The head of a request, and how its body is framed if nothing is wrong with it. `whole`: there is
/// no body.
pub(super) fn request_head(
    parts: Parts,
    whole: bool,
    bytes_max: usize,
) -> (RequestHead, Result<Framing, HeadFault>) {
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    let target = parts.uri.path_and_query().map_or("", |path| path.as_str());
    // What follows is no body, but bytes of something else.
    let whole = whole || parts.method == Method::CONNECT;
    let protocol = parts.extensions.get::<Protocol>();
    let mut head = RequestHead {
        method: match protocol {
            Some(_) => Method::GET,
            None => parts.method,
        },
        target: Bytes::copy_from_slice(target.as_bytes()),
        version: Version::HTTP_2,
        headers: parts.headers,
    };
    let checked = check_size(&head, bytes_max)
        .and_then(|()| check_target(target))
        .and_then(|()| name_host(&mut head.headers, authority))
        .and_then(|()| protocol.map_or(Ok(()), |name| ask_for(name, &mut head.headers)))
        .and_then(|()| framing(&head.headers, whole));
    if checked.is_ok() {
        join_cookies(&mut head.headers);
    }
    (head, checked)
}

/// As many bytes and fields as a head of HTTP/1 may have.
fn check_size(head: &RequestHead, bytes_max: usize) -> Result<(), HeadFault> {
    let fields = head.headers.iter();
    let bytes = fields.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    let bytes = bytes.sum::<usize>() + head.target.len();
    if bytes > bytes_max || head.headers.len() > FIELDS_MAX {
        return Err(HeadFault::TooLarge);
    }
    Ok(())
}

/// `:authority` is what Host is elsewhere; where both are given they must agree (RFC 9113, 8.3.1).
fn name_host(headers: &mut HeaderMap, authority: Option<&str>) -> Result<(), HeadFault> {
    let Some(authority) = authority else {
        return Ok(());
    };
    let mut named = headers.get_all(header::HOST).iter();
    if named.any(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())) {
        return Err(HeadFault::Malformed(
            "the host header differs from :authority",
        ));
    }
    let authority = HeaderValue::from_str(authority);
    let authority = authority.map_err(|_| HeadFault::Malformed("the host is malformed"))?;
    headers.insert(header::HOST, authority);
    Ok(())
}

/// Asks for a protocol as HTTP/1.1 does (RFC 8441, 5; the method is GET there).
fn ask_for(protocol: &Protocol, headers: &mut HeaderMap) -> Result<(), HeadFault> {
    let name = HeaderValue::from_str(protocol.as_str());
    let name = name.map_err(|_| HeadFault::Malformed("the protocol is malformed"))?;
    headers.insert(header::UPGRADE, name);
    let upgrade = HeaderValue::from_static("upgrade");
    headers.insert(header::CONNECTION, upgrade);
    Ok(())
}

fn framing(headers: &HeaderMap, whole: bool) -> Result<Framing, HeadFault> {
    if whole {
        return Ok(Framing::Empty);
    }
    let Some(length) = headers.get(header::CONTENT_LENGTH) else {
        return Ok(Framing::Chunked);
    };
    let length = length.to_str().ok().and_then(|length| length.parse().ok());
    match length {
        Some(0) => Ok(Framing::Empty),
        Some(length) => Ok(Framing::Length(length)),
        None => Err(HeadFault::Malformed("content-length is malformed")),
    }
}

/// Clients may cut the Cookie field into pieces; others expect one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut pieces = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (pieces.next(), pieces.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for piece in std::iter::once(second).chain(pieces) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(piece.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(fields: &[(&str, &str)], whole: bool) -> (RequestHead, Result<Framing, HeadFault>) {
        let mut request = Request::builder().uri("http://a:8/p?q");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request_head(request.body(()).unwrap().into_parts().0, whole, 1000)
    }

    #[test]
    fn a_head_has_its_host_and_one_cookie() {
        let (head, framing) = head(
            &[("cookie", "a=1"), ("cookie", "b=2"), ("host", "A:8")],
            true,
        );
        assert_eq!(framing, Ok(Framing::Empty));
        assert_eq!(head.target(), "/p?q");
        assert_eq!(head.headers[header::HOST], "a:8");
        let cookies: Vec<_> = head.headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }

    #[test]
    fn a_body_has_a_length_or_none() {
        let of = |fields: &[_], whole| head(fields, whole).1.unwrap();
        assert_eq!(of(&[], false), Framing::Chunked);
        assert_eq!(of(&[("content-length", "7")], false), Framing::Length(7));
        assert_eq!(of(&[("content-length", "0")], false), Framing::Empty);
    }

    #[test]
    fn doubtful_heads_are_refused() {
        let malformed = |fields| matches!(head(fields, true).1, Err(HeadFault::Malformed(_)));
        assert!(malformed(&[("host", "b")]));
        assert!(malformed(&[("host", "a:8"), ("host", "b")]));
        let long = "v".repeat(1000);
        assert_eq!(head(&[("a", &long)], true).1, Err(HeadFault::TooLarge));
    }
}
