//! What passes a proxy and what does not.

use bytes::Bytes;
use http::{HeaderName, StatusCode};

use super::*;

fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), value.parse().unwrap());
    }
    headers
}

fn request(method: Method, fields: &[(&'static str, &str)], framing: Framing) -> String {
    let head = RequestHead {
        method,
        headers: map(fields),
        ..RequestHead::default()
    };
    let target = Target {
        host: "h:8",
        path: "/p".into(),
        query: "?q",
    };
    let add = Additions {
        scheme: "http",
        target: &target,
        original: None,
        framing,
        peer: "1.2.3.4",
        trusted: false,
        request_id: "id",
        switching: None,
    };
    let mut out = Vec::new();
    write_request(&mut out, &head, &add);
    String::from_utf8(out).unwrap()
}

fn response(
    method: Method,
    status: u16,
    fields: &[(&'static str, &str)],
    framing: Framing,
) -> String {
    let head = ResponseHead {
        status: StatusCode::from_u16(status).unwrap(),
        reason: Bytes::from_static(b"Why"),
        headers: map(fields),
        ..ResponseHead::default()
    };
    let mut clock = WallClock::default();
    let closing = Closing {
        framing,
        connection: ConnectionOption::Kept,
        clock: &mut clock,
    };
    let mut out = Vec::new();
    write_response(&mut out, &method, &head, closing);
    let now = clock.date();
    String::from_utf8(out).unwrap().replace(now, "now")
}

#[test]
fn a_request_gets_our_fields_and_keeps_its_own() {
    let written = request(
        Method::GET,
        &[("host", "x"), ("a", "1"), ("a", "2")],
        Framing::Empty,
    );
    assert_eq!(
        written,
        "GET /p?q HTTP/1.1\r\nhost: h:8\r\na: 1\r\na: 2\r\nx-forwarded-for: 1.2.3.4\r\n\
         x-forwarded-proto: http\r\nx-request-id: id\r\n\r\n"
    );
}

#[test]
fn fields_for_the_next_hop_stay_here() {
    let fields = [
        (
            "connection",
            "keep-alive, X-Secret, upgrade, x-forwarded-for",
        ),
        ("x-secret", "s"),
        ("keep-alive", "5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic x"),
        ("upgrade", "websocket"),
        ("http2-settings", "x"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        ("expect", "100-continue"),
        ("stays", "1"),
    ];
    let written = request(Method::POST, &fields, Framing::Chunked);
    assert_eq!(
        written,
        "POST /p?q HTTP/1.1\r\nhost: h:8\r\nstays: 1\r\nx-forwarded-for: 1.2.3.4\r\n\
         x-forwarded-proto: http\r\nx-request-id: id\r\ntransfer-encoding: chunked\r\n\r\n"
    );
}

#[test]
fn forwarded_fields_grow_and_cannot_be_forged() {
    let fields = [
        ("x-forwarded-for", "9.9.9.9"),
        ("x-forwarded-for", "8.8.8.8"),
        ("x-forwarded-proto", "https"),
        ("te", "trailers"),
    ];
    let written = request(Method::POST, &fields, Framing::Empty);
    for expected in [
        "x-forwarded-for: 9.9.9.9, 8.8.8.8, 1.2.3.4\r\n",
        "x-forwarded-proto: http\r\n",
        "te: trailers\r\nconnection: te\r\n",
        "content-length: 0\r\n",
    ] {
        assert_eq!(written.matches(expected).count(), 1, "{written}");
    }
}

#[test]
fn a_response_is_framed_anew() {
    let fields = [
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
        ("content-length", "9"),
        ("server", "s"),
    ];
    assert_eq!(
        response(Method::GET, 200, &fields, Framing::Length(5)),
        "HTTP/1.1 200 Why\r\nserver: s\r\ndate: now\r\ncontent-length: 5\r\n\r\n"
    );
    let dated = response(Method::GET, 200, &[("date", "then")], Framing::Chunked);
    assert_eq!(
        dated,
        "HTTP/1.1 200 Why\r\ndate: then\r\ntransfer-encoding: chunked\r\n\r\n"
    );
}

#[test]
fn bodyless_responses_say_the_length_that_a_body_would_have() {
    let sized = [("content-length", "5"), ("date", "d")];
    let of = |method, status| response(method, status, &sized, Framing::Empty);
    assert!(of(Method::HEAD, 200).contains("content-length: 5\r\n"));
    assert!(of(Method::GET, 304).contains("content-length: 5\r\n"));
    assert!(!of(Method::GET, 204).contains("content-length"));
    assert!(of(Method::GET, 200).contains("content-length: 0\r\n"));
    assert!(!response(Method::HEAD, 200, &[], Framing::Empty).contains("content-length"));
}

#[test]
fn a_length_without_a_body_passes_only_if_it_is_one() {
    for (value, passes) in [("5", true), ("5, 7", false), ("-5", false), ("+5", false)] {
        let head = response(
            Method::HEAD,
            200,
            &[("content-length", value)],
            Framing::Empty,
        );
        let line = format!("content-length: {value}\r\n");
        assert_eq!(head.contains(&line), passes, "{head}");
        assert_eq!(head.contains("content-length"), passes, "{head}");
    }
}
