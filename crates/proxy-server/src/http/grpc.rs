//! What gRPC means to a proxy: which requests it is, their deadline, and answers in its form.
//!
//! Owns the mapping from HTTP's statuses to gRPC's (Envoy's; gRPC's own, `http-grpc-status-mapping`,
//! is the same where both say something) and the reading of `grpc-timeout` and `grpc-status`. Never
//! looks into a message.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, Version, header};

use super::answer::Reason;
use super::fields::Fields;
use crate::http1::RequestHead;

/// The code of a deadline that passed.
const DEADLINE_EXCEEDED: u16 = 4;

/// Whether this is a call of gRPC: it has trailers, so there is none over HTTP/1.
pub(super) fn is_call(head: &RequestHead) -> bool {
    head.version == Version::HTTP_2 && is_grpc(&head.headers)
}

/// `application/grpc`, perhaps with the encoding of its messages; not gRPC-Web.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    kind.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// How long the caller waits, if it says so: up to eight digits and a unit.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The status of a call, as its trailers (or its head, without a body) tell.
pub(super) fn status(fields: &HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Writes the fields of an answer of our own to a call; the code. The answer has no body.
pub(super) fn answer_fields(
    out: &mut HeaderMap,
    reason: Reason,
    head: &RequestHead,
    (request_id, date): (&str, &str),
) -> u16 {
    let code = if reason == Reason::ResponseTimeout && timeout(&head.headers).is_some() {
        DEADLINE_EXCEEDED
    } else {
        code_of(reason.status())
    };
    super::answer::answer_fields(out, reason, request_id, date);
    out.remove(header::CONTENT_LENGTH);
    out.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    out.add("grpc-status", code.to_string().as_bytes());
    // Our phrases are plain ASCII without `%`, so nothing of them needs to be encoded.
    out.add("grpc-message", reason.details().as_bytes());
    code
}

fn code_of(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &'static str, value: &str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(name, value.parse().unwrap());
        map
    }

    #[test]
    fn calls_are_known_by_their_content_type() {
        let is = |kind| is_grpc(&one("content-type", kind));
        assert!(is("application/grpc") && is("application/grpc+proto"));
        assert!(is("application/grpc; charset=utf-8"));
        assert!(
            !is("application/grpc-web") && !is("application/json") && !is_grpc(&HeaderMap::new())
        );
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        for (text, millis) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("3S", Some(3000)),
            ("99999999m", Some(99_999_999)),
            ("5000u", Some(5)),
            ("6000000n", Some(6)),
            ("0m", Some(0)),
            ("123456789m", None),
            ("m", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("1s", None),
            ("1 S", None),
        ] {
            let read = timeout(&one("grpc-timeout", text));
            assert_eq!(read, millis.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn statuses_are_mapped_as_envoy_does() {
        let mapped = [400, 401, 403, 404, 429, 502, 503, 504, 408, 431, 500];
        let codes = mapped.map(|status| code_of(StatusCode::from_u16(status).unwrap()));
        assert_eq!(codes, [13, 16, 7, 12, 14, 14, 14, 14, 2, 2, 2]);
    }
}
