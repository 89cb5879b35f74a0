//! What is sent to both proxies, and what their upstreams answer.

#![allow(clippy::too_many_lines, reason = "lists of cases are long")]

mod answers;
mod bodies;

use super::upstream::Script;

/// What an upstream says unless a case says otherwise.
const OK: &str = "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ncontent-length: 2\r\n\r\nok";

/// One exchange.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: String,
    /// What the client sends, with a pause behind each part.
    pub(super) request: Vec<Vec<u8>>,
    pub(super) script: Script,
    /// How many answers the client waits for.
    pub(super) answers: usize,
    /// Whether the method is HEAD.
    pub(super) head_method: bool,
    /// The client ends its direction behind the request.
    pub(super) half_closes: bool,
}

impl Case {
    fn new(name: &str, request: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.to_owned(),
            request: vec![request.as_ref().to_vec()],
            script: Script {
                early: false,
                answer: OK.into(),
                closes: false,
            },
            answers: 1,
            head_method: false,
            half_closes: false,
        }
    }

    fn then(mut self, part: &str) -> Self {
        self.request.push(part.into());
        self
    }

    fn early(mut self) -> Self {
        self.script.early = true;
        self
    }

    fn half_closes(mut self) -> Self {
        self.half_closes = true;
        self
    }

    fn answered(mut self, answer: impl AsRef<[u8]>) -> Self {
        self.script.answer = answer.as_ref().to_vec();
        self
    }

    fn answered_and_closed(self, answer: impl AsRef<[u8]>) -> Self {
        let mut case = self.answered(answer);
        case.script.closes = true;
        case
    }

    fn answers(mut self, answers: usize) -> Self {
        self.answers = answers;
        self
    }
}

/// A GET with this first line.
fn line(name: &str, line: &str) -> Case {
    Case::new(name, format!("{line}\r\nhost: h\r\n\r\n"))
}

/// A GET of this target.
fn target(name: &str, target: &str) -> Case {
    line(name, &format!("GET {target} HTTP/1.1"))
}

/// A GET with these further lines.
fn fields(name: &str, fields: &str) -> Case {
    Case::new(name, format!("GET / HTTP/1.1\r\nhost: h\r\n{fields}\r\n"))
}

/// A POST with these further lines and this body.
fn post(name: &str, fields: &str, body: &str) -> Case {
    Case::new(
        name,
        format!("POST / HTTP/1.1\r\nhost: h\r\n{fields}\r\n{body}"),
    )
}

/// A chunked POST.
fn chunks(name: &str, body: &str) -> Case {
    post(name, "transfer-encoding: chunked\r\n", body)
}

/// A GET that the upstream answers so.
fn answer(name: &str, answer: &str) -> Case {
    fields(name, "").answered(answer)
}

/// A GET that the upstream answers so, and then ends the connection.
fn last_answer(name: &str, answer: &str) -> Case {
    fields(name, "").answered_and_closed(answer)
}

pub(super) fn all() -> Vec<Case> {
    let parts = [
        lines(),
        targets(),
        request_fields(),
        bodies::framing(),
        bodies::chunked(),
        bodies::conversations(),
        answers::whole(),
        answers::broken(),
    ];
    parts.concat()
}

fn lines() -> Vec<Case> {
    vec![
        line("a request", "GET /a?b=c HTTP/1.1"),
        line("another method", "PROPFIND / HTTP/1.1"),
        line("a method in small letters", "get / HTTP/1.1"),
        line("a method with a sign", "GE(T / HTTP/1.1"),
        line("a long method", &format!("{} / HTTP/1.1", "A".repeat(100))),
        line("OPTIONS of all", "OPTIONS * HTTP/1.1"),
        line("TRACE", "TRACE / HTTP/1.1"),
        line("CONNECT", "CONNECT h:80 HTTP/1.1"),
        line("two spaces", "GET  / HTTP/1.1"),
        line("a tab for a space", "GET\t/ HTTP/1.1"),
        line("a space behind the version", "GET / HTTP/1.1 "),
        line("a space before the method", " GET / HTTP/1.1"),
        line("HTTP/1.2", "GET / HTTP/1.2"),
        line("HTTP/2.0", "GET / HTTP/2.0"),
        line("HTTP/0.9", "GET /"),
        line("a version in small letters", "GET / http/1.1"),
        line("no version number", "GET / HTTP/"),
        Case::new(
            "an empty line first",
            "\r\nGET / HTTP/1.1\r\nhost: h\r\n\r\n",
        ),
        Case::new("bare LF", "GET / HTTP/1.1\nhost: h\n\n"),
        Case::new("one bare LF", "GET / HTTP/1.1\r\nhost: h\nx-a: b\r\n\r\n"),
        Case::new(
            "a bare CR in a value",
            "GET / HTTP/1.1\r\nhost: h\r\nx-a: b\rc\r\n\r\n",
        ),
        Case::new(
            "a TLS hello",
            b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
        ),
        Case::new("HTTP/1.0", "GET / HTTP/1.0\r\nhost: h\r\n\r\n"),
        Case::new(
            "HTTP/1.0 kept",
            "GET / HTTP/1.0\r\nhost: h\r\nconnection: keep-alive\r\n\r\n",
        ),
        Case::new("HTTP/1.0 without a host", "GET / HTTP/1.0\r\n\r\n"),
        Case::new("a head in pieces", "GET / HT")
            .then("TP/1.1\r\nho")
            .then("st: h\r\n\r")
            .then("\n"),
        Case::new("half a head", "GET / HTTP/1.1\r\nhost:").half_closes(),
    ]
}

fn targets() -> Vec<Case> {
    vec![
        target("dots", "/a/./b/../c"),
        target("dots above the root", "/../../a"),
        target("encoded dots", "/a/%2e%2E/b"),
        target("two slashes", "//a///b//"),
        target("an encoded slash", "/a%2Fb"),
        target("an encoded backslash", "/a%5cb"),
        target("a backslash", "/a\\b"),
        target("encoded letters", "/%41%62%7e%20"),
        target("a percent alone", "/a%"),
        target("percent and no digits", "/a%zz"),
        target("an encoded NUL", "/a%00b"),
        target("a fragment", "/a#b"),
        target("an empty query", "/a?"),
        target("a query with everything", "/a?b=/../c//d?e&%2e"),
        target("no slash", "a"),
        target("a star", "*"),
        target("absolute form", "http://h/a?b"),
        target("absolute form of another host", "http://other/a"),
        target("absolute form with https", "https://h/a"),
        target("absolute form without a path", "http://h"),
        target("absolute form with a user", "http://user:secret@h/a"),
        target("absolute form of another scheme", "ftp://h/a"),
        target("authority form", "h:80"),
        Case::new(
            "a byte beyond ASCII in the path",
            b"GET /\xc3\xa4 HTTP/1.1\r\nhost: h\r\n\r\n",
        ),
        Case::new(
            "a control character in the path",
            b"GET /a\x01b HTTP/1.1\r\nhost: h\r\n\r\n",
        ),
        Case::new(
            "a NUL in the path",
            b"GET /a\0b HTTP/1.1\r\nhost: h\r\n\r\n",
        ),
        target("ten thousand bytes", &format!("/{}", "a".repeat(10_000))),
        target(
            "seventy thousand bytes",
            &format!("/{}", "a".repeat(70_000)),
        ),
        target("signs", "/a;b=c,d'e(f)!$&*+:@"),
        target("signs that do not belong there", "/a<b>\"{c}|^`"),
    ]
}

fn request_fields() -> Vec<Case> {
    let many: String = (0..101).map(|at| format!("x-{at}: {at}\r\n")).collect();
    vec![
        Case::new("no host", "GET / HTTP/1.1\r\n\r\n"),
        Case::new("an empty host", "GET / HTTP/1.1\r\nhost:\r\n\r\n"),
        Case::new(
            "two hosts",
            "GET / HTTP/1.1\r\nhost: h\r\nhost: other\r\n\r\n",
        ),
        Case::new(
            "the same host twice",
            "GET / HTTP/1.1\r\nhost: h\r\nhost: h\r\n\r\n",
        ),
        Case::new(
            "a host with a port",
            "GET / HTTP/1.1\r\nhost: h:8080\r\n\r\n",
        ),
        Case::new(
            "a host in capitals",
            "GET / HTTP/1.1\r\nhost: H.TEST\r\n\r\n",
        ),
        Case::new(
            "a host with a user",
            "GET / HTTP/1.1\r\nhost: user@h\r\n\r\n",
        ),
        Case::new("a host with a slash", "GET / HTTP/1.1\r\nhost: h/a\r\n\r\n"),
        Case::new("a host with a space", "GET / HTTP/1.1\r\nhost: h a\r\n\r\n"),
        Case::new(
            "two hosts in one",
            "GET / HTTP/1.1\r\nhost: h, other\r\n\r\n",
        ),
        Case::new("a host of IPv6", "GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n"),
        Case::new(
            "a host with a bad port",
            "GET / HTTP/1.1\r\nhost: h:80a\r\n\r\n",
        ),
        fields("capitals", "X-Some-Thing: A b\r\n"),
        fields("the same name again", "x-a: 1\r\nx-b: 2\r\nx-a: 3\r\n"),
        fields("an empty value", "x-a:\r\n"),
        fields("space around a value", "x-a: \t b \t \r\n"),
        fields("bytes beyond ASCII in a value", "x-a: \u{e4}\r\n"),
        fields("a tab in a value", "x-a: b\tc\r\n"),
        fields("a control character in a value", "x-a: b\x01c\r\n"),
        fields("a NUL in a value", "x-a: b\0c\r\n"),
        fields("DEL in a value", "x-a: b\x7fc\r\n"),
        fields("an underscore in a name", "x_a: b\r\n"),
        fields("a space before the colon", "x-a : b\r\n"),
        fields("a space in a name", "x a: b\r\n"),
        fields("no name", ": b\r\n"),
        fields("no colon", "x-a\r\n"),
        fields("a sign in a name", "x(a: b\r\n"),
        fields("a folded value", "x-a: b\r\n c\r\n"),
        Case::new(
            "a folded first line",
            "GET / HTTP/1.1\r\n x: y\r\nhost: h\r\n\r\n",
        ),
        fields("a hundred and one fields", &many),
        fields(
            "a field of 50 kB",
            &format!("x-a: {}\r\n", "a".repeat(50_000)),
        ),
        fields(
            "a field of 100 kB",
            &format!("x-a: {}\r\n", "a".repeat(100_000)),
        ),
        fields("cookies", "cookie: a=1\r\ncookie: b=2\r\n"),
        fields(
            "named in connection",
            "connection: x-a, keep-alive\r\nx-a: b\r\n",
        ),
        fields(
            "our fields named in connection",
            "connection: x-forwarded-for, host\r\n",
        ),
        fields("connection: close", "connection: close\r\n"),
        fields("connection: nonsense", "connection: ,, \t,\r\n"),
        fields("keep-alive", "keep-alive: timeout=5\r\n"),
        fields("proxy-connection", "proxy-connection: keep-alive\r\n"),
        fields("te: trailers", "te: trailers\r\n"),
        fields("te: gzip", "te: gzip, trailers;q=0.5\r\n"),
        fields("trailer", "trailer: x-a\r\n"),
        fields("proxy-authorization", "proxy-authorization: Basic YTpi\r\n"),
        fields(
            "upgrade to h2c",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        ),
        fields("upgrade without connection", "upgrade: websocket\r\n"),
        fields(
            "x-forwarded-for of a client",
            "x-forwarded-for: 9.9.9.9\r\n",
        ),
        fields(
            "x-forwarded-proto of a client",
            "x-forwarded-proto: https\r\n",
        ),
        fields(
            "x-forwarded-host of a client",
            "x-forwarded-host: other\r\n",
        ),
        fields("forwarded of a client", "forwarded: for=9.9.9.9\r\n"),
        fields(
            "x-envoy of a client",
            "x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\nx-envoy-upstream-rq-timeout-ms: 1\r\n",
        ),
        fields(
            "x-real-ip and via",
            "x-real-ip: 9.9.9.9\r\nvia: 1.1 other\r\n",
        ),
        fields("a range", "range: bytes=0-1\r\nif-range: \"a\"\r\n"),
        fields("expect without a body", "expect: 100-continue\r\n"),
    ]
}
