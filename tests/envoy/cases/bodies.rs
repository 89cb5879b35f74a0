//! Bodies of requests, and what comes behind a request on its connection.

#![allow(clippy::too_many_lines, reason = "lists of cases are long")]

use super::{Case, chunks, fields, post};

pub(super) fn framing() -> Vec<Case> {
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n";
    vec![
        post("a body", "content-length: 3\r\n", "abc"),
        post("an empty body", "content-length: 0\r\n", ""),
        post("no length", "", ""),
        Case::new(
            "a body of a GET",
            "GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc",
        ),
        Case::new(
            "a body of a HEAD",
            "HEAD / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc",
        ),
        post(
            "both framings",
            "content-length: 6\r\ntransfer-encoding: chunked\r\n",
            smuggled,
        ),
        post(
            "both framings, the other way",
            "transfer-encoding: chunked\r\ncontent-length: 6\r\n",
            smuggled,
        ),
        post(
            "two lengths",
            "content-length: 6\r\ncontent-length: 5\r\n",
            smuggled,
        ),
        post(
            "the same length twice",
            "content-length: 3\r\ncontent-length: 3\r\n",
            "abc",
        ),
        post("a list of one length", "content-length: 3, 3\r\n", "abc"),
        post("a signed length", "content-length: +3\r\n", "abc"),
        post("a negative length", "content-length: -1\r\n", "abc"),
        post("zeros before a length", "content-length: 0003\r\n", "abc"),
        post("a hexadecimal length", "content-length: 0x3\r\n", "abc"),
        post("no digits", "content-length: \r\n", "abc"),
        post(
            "a length beyond 64 bits",
            "content-length: 99999999999999999999\r\n",
            "abc",
        ),
        post(
            "a length with a space in it",
            "content-length: 1 2\r\n",
            "abc",
        ),
        post(
            "chunked in capitals",
            "transfer-encoding: CHUNKED\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        post(
            "chunked twice",
            "transfer-encoding: chunked, chunked\r\n",
            smuggled,
        ),
        post(
            "chunked in two fields",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            smuggled,
        ),
        post(
            "chunked not last",
            "transfer-encoding: chunked, identity\r\n",
            smuggled,
        ),
        post(
            "gzip, chunked",
            "transfer-encoding: gzip, chunked\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        post("identity", "transfer-encoding: identity\r\n", ""),
        post(
            "an unknown coding",
            "transfer-encoding: xchunked\r\n",
            smuggled,
        ),
        post(
            "a vertical tab before chunked",
            "transfer-encoding: \x0bchunked\r\n",
            smuggled,
        ),
        post(
            "a space before the colon of a coding",
            "transfer-encoding : chunked\r\n",
            smuggled,
        ),
        post("an empty coding", "transfer-encoding: \r\n", ""),
        post(
            "a folded coding",
            "transfer-encoding:\r\n chunked\r\n",
            smuggled,
        ),
        Case::new(
            "chunked in HTTP/1.0",
            format!("POST / HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{smuggled}"),
        ),
        Case::new(
            "a length in HTTP/1.0",
            "POST / HTTP/1.0\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc",
        ),
        Case::new(
            "a chunked GET",
            "GET / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        post("a body that breaks off", "content-length: 10\r\n", "abc").half_closes(),
        chunks("chunks that break off", "3\r\nabc\r\n").half_closes(),
    ]
}

pub(super) fn chunked() -> Vec<Case> {
    vec![
        chunks("chunks", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
        chunks("no chunk", "0\r\n\r\n"),
        chunks("a size in capitals", "A\r\n0123456789\r\n0\r\n\r\n"),
        chunks("zeros before a size", "0003\r\nabc\r\n0\r\n\r\n"),
        chunks("an extension", "3;name=value\r\nabc\r\n0\r\n\r\n"),
        chunks(
            "an extension in quotes",
            "3;name=\"a;b\"\r\nabc\r\n0\r\n\r\n",
        ),
        chunks(
            "an extension with a line end in quotes",
            "3;name=\"a\r\nb\"\r\nabc\r\n0\r\n\r\n",
        ),
        chunks(
            "a long extension",
            &format!("3;{}\r\nabc\r\n0\r\n\r\n", "a".repeat(5_000)),
        ),
        chunks("a space behind a size", "3 \r\nabc\r\n0\r\n\r\n"),
        chunks("a space before a size", " 3\r\nabc\r\n0\r\n\r\n"),
        chunks("no size", "\r\nabc\r\n0\r\n\r\n"),
        chunks("a size that is none", "g\r\nabc\r\n0\r\n\r\n"),
        chunks("a size with 0x", "0x3\r\nabc\r\n0\r\n\r\n"),
        chunks("a signed size", "+3\r\nabc\r\n0\r\n\r\n"),
        chunks("a negative size", "-3\r\nabc\r\n0\r\n\r\n"),
        chunks(
            "a size beyond 64 bits",
            "10000000000000003\r\nabc\r\n0\r\n\r\n",
        ),
        chunks(
            "a chunk that is longer than its size",
            "2\r\nabc\r\n0\r\n\r\n",
        ),
        chunks(
            "a chunk that is shorter than its size",
            "5\r\nabc\r\n0\r\n\r\n",
        )
        .half_closes(),
        chunks("LF behind a size", "3\nabc\r\n0\r\n\r\n"),
        chunks("LF behind a chunk", "3\r\nabc\n0\r\n\r\n"),
        chunks("CR behind a size", "3\rabc\r\n0\r\n\r\n"),
        chunks("trailers", "3\r\nabc\r\n0\r\nx-a: b\r\n\r\n"),
        chunks(
            "a length in the trailers",
            "3\r\nabc\r\n0\r\ncontent-length: 9\r\nhost: other\r\n\r\n",
        ),
        chunks("bad trailers", "3\r\nabc\r\n0\r\nx a: b\r\n\r\n"),
        chunks(
            "a large trailer",
            &format!("3\r\nabc\r\n0\r\nx-a: {}\r\n\r\n", "b".repeat(100_000)),
        ),
    ]
}

pub(super) fn conversations() -> Vec<Case> {
    let two = "GET /1 HTTP/1.1\r\nhost: h\r\n\r\nGET /2 HTTP/1.1\r\nhost: h\r\n\r\n";
    vec![
        Case::new("two at once", two).answers(2),
        Case::new("one after the other", "GET /1 HTTP/1.1\r\nhost: h\r\n\r\n")
            .then("GET /2 HTTP/1.1\r\nhost: h\r\n\r\n")
            .answers(2),
        Case::new("one behind a body", "POST /1 HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nhost: h\r\n\r\n").answers(2),
        Case::new("one behind the last", "GET /1 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\nGET /2 HTTP/1.1\r\nhost: h\r\n\r\n"),
        Case::new("nonsense behind one", "GET /1 HTTP/1.1\r\nhost: h\r\n\r\n\0\0\0\r\n\r\n").answers(2),
        post("expect", "expect: 100-continue\r\ncontent-length: 3\r\n", "").then("abc"),
        post("expect something else", "expect: 200-ok\r\ncontent-length: 3\r\n", "abc"),
        post("expect, and no body", "expect: 100-continue\r\ncontent-length: 3\r\n", "")
            .early()
            .answered_and_closed("HTTP/1.1 413 No\r\nx-upstream: 1\r\ncontent-length: 2\r\n\r\nno"),
        post("an answer before the body has come", "content-length: 6\r\n", "abc").early(),
        post("an answer before the chunks have come", "transfer-encoding: chunked\r\n", "3\r\nabc\r\n").early(),
        fields("a client that ends its direction", "").half_closes(),
        fields("an upgrade that nobody allowed", "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
            .answered("HTTP/1.1 101 Switching Protocols\r\nx-upstream: 1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"),
    ]
}
