//! What upstreams answer.

#![allow(clippy::too_many_lines, reason = "lists of cases are long")]

use super::{Case, answer, last_answer};

pub(super) fn whole() -> Vec<Case> {
    let head = |name: &str, answer: &str| {
        let mut case = Case::new(name, "HEAD / HTTP/1.1\r\nhost: h\r\n\r\n").answered(answer);
        case.head_method = true;
        case
    };
    vec![
        answer("a status that nobody knows", "HTTP/1.1 299 Fine\r\nx-upstream: 1\r\ncontent-length: 0\r\n\r\n"),
        answer("a status of 599", "HTTP/1.1 599 No\r\nx-upstream: 1\r\ncontent-length: 0\r\n\r\n"),
        answer("no reason", "HTTP/1.1 200\r\nx-upstream: 1\r\ncontent-length: 0\r\n\r\n"),
        answer("an empty reason", "HTTP/1.1 200 \r\nx-upstream: 1\r\ncontent-length: 0\r\n\r\n"),
        answer("a reason beyond ASCII", "HTTP/1.1 200 \u{e4}\r\nx-upstream: 1\r\ncontent-length: 0\r\n\r\n"),
        answer("a chunked answer", "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        answer("an answer with trailers", "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n"),
        last_answer("an answer to the end", "HTTP/1.1 200 OK\r\nx-upstream: 1\r\n\r\nabc"),
        Case::new("an answer to the end, to HTTP/1.0", "GET / HTTP/1.0\r\nhost: h\r\n\r\n")
            .answered_and_closed("HTTP/1.1 200 OK\r\nx-upstream: 1\r\n\r\nabc"),
        Case::new("a chunked answer to HTTP/1.0", "GET / HTTP/1.0\r\nhost: h\r\n\r\n")
            .answered("HTTP/1.1 200 OK\r\nx-upstream: 1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        last_answer("an answer of HTTP/1.0", "HTTP/1.0 200 OK\r\nx-upstream: 1\r\n\r\nabc"),
        answer("a kept answer of HTTP/1.0", "HTTP/1.0 200 OK\r\nx-upstream: 1\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\nabc"),
        answer("an answer that closes", "HTTP/1.1 200 OK\r\nx-upstream: 1\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc"),
        head("HEAD", "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ncontent-length: 10\r\n\r\n"),
        head("HEAD, chunked", "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
        head("HEAD with a body", "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ncontent-length: 3\r\n\r\nabc"),
        answer("204", "HTTP/1.1 204 No Content\r\nx-upstream: 1\r\n\r\n"),
        answer("204 with a length", "HTTP/1.1 204 No Content\r\nx-upstream: 1\r\ncontent-length: 0\r\n\r\n"),
        answer("204 with a body", "HTTP/1.1 204 No Content\r\nx-upstream: 1\r\ncontent-length: 3\r\n\r\nabc"),
        answer("304 with a length", "HTTP/1.1 304 Not Modified\r\nx-upstream: 1\r\netag: \"a\"\r\ncontent-length: 3\r\n\r\n"),
        answer("100 first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nx-upstream: 1\r\ncontent-length: 0\r\n\r\n"),
        answer("103 first", "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nx-upstream: 1\r\ncontent-length: 0\r\n\r\n"),
        answer("102 first", "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nx-upstream: 1\r\ncontent-length: 0\r\n\r\n"),
        answer("101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nx-upstream: 1\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
        answer("fields of the hop", "HTTP/1.1 200 OK\r\nx-upstream: 1\r\nconnection: x-a\r\nx-a: b\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\ntrailer: x-t\r\nupgrade: h2c\r\ncontent-length: 0\r\n\r\n"),
        answer("cookies in an answer", "HTTP/1.1 200 OK\r\nx-upstream: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 0\r\n\r\n"),
        answer("a server and a date", "HTTP/1.1 200 OK\r\nx-upstream: 1\r\nserver: mine\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nvia: 1.0 other\r\ncontent-length: 0\r\n\r\n"),
        answer("space behind a value", "HTTP/1.1 200 OK\r\nx-upstream: 1\r\nx-a: b  \r\ncontent-length: 0\r\n\r\n"),
        answer("bytes beyond ASCII in an answer", "HTTP/1.1 200 OK\r\nx-upstream: 1\r\nx-a: \u{e4}\r\ncontent-length: 0\r\n\r\n"),
        answer("the same length twice in an answer", "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc"),
    ]
}

pub(super) fn broken() -> Vec<Case> {
    vec![
        last_answer("no answer", ""),
        last_answer("half a head as an answer", "HTTP/1.1 200 OK\r\nx-upst"),
        last_answer("no HTTP", "hello\r\n\r\n"),
        last_answer(
            "a status of two digits",
            "HTTP/1.1 20 OK\r\nx-upstream: 1\r\ncontent-length: 0\r\n\r\n",
        ),
        last_answer(
            "a status of 99",
            "HTTP/1.1 099 OK\r\nx-upstream: 1\r\ncontent-length: 0\r\n\r\n",
        ),
        last_answer(
            "a status of 700",
            "HTTP/1.1 700 OK\r\nx-upstream: 1\r\ncontent-length: 0\r\n\r\n",
        ),
        last_answer(
            "an answer of HTTP/2",
            "HTTP/2 200 OK\r\nx-upstream: 1\r\ncontent-length: 0\r\n\r\n",
        ),
        last_answer(
            "an answer with bare LF",
            "HTTP/1.1 200 OK\nx-upstream: 1\ncontent-length: 3\n\nabc",
        ),
        last_answer(
            "a folded value in an answer",
            "HTTP/1.1 200 OK\r\nx-upstream: 1\r\nx-a: b\r\n c\r\ncontent-length: 0\r\n\r\n",
        ),
        last_answer(
            "a NUL in an answer",
            "HTTP/1.1 200 OK\r\nx-upstream: 1\r\nx-a: b\0c\r\ncontent-length: 0\r\n\r\n",
        ),
        last_answer(
            "a space before the colon in an answer",
            "HTTP/1.1 200 OK\r\nx-upstream: 1\r\nx-a : b\r\ncontent-length: 0\r\n\r\n",
        ),
        last_answer(
            "both framings in an answer",
            "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        last_answer(
            "two lengths in an answer",
            "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        ),
        last_answer(
            "a length that is none in an answer",
            "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ncontent-length: x\r\n\r\nabcd",
        ),
        last_answer(
            "an unknown coding in an answer",
            "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ntransfer-encoding: xchunked\r\n\r\nabcd",
        ),
        last_answer(
            "an answer that breaks off",
            "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ncontent-length: 10\r\n\r\nabc",
        ),
        last_answer(
            "a chunked answer that breaks off",
            "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ),
        last_answer(
            "a bad chunk in an answer",
            "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\ng\r\n\r\n",
        ),
        answer(
            "more than its length",
            "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ncontent-length: 3\r\n\r\nabcdef",
        ),
        answer(
            "a second answer",
            "HTTP/1.1 200 OK\r\nx-upstream: 1\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nx-upstream: 2\r\ncontent-length: 3\r\n\r\ndef",
        ),
        last_answer(
            "a head of 100 kB as an answer",
            &format!(
                "HTTP/1.1 200 OK\r\nx-upstream: 1\r\nx-a: {}\r\ncontent-length: 0\r\n\r\n",
                "a".repeat(100_000)
            ),
        ),
        last_answer("100 and nothing more", "HTTP/1.1 100 Continue\r\n\r\n"),
    ]
}
