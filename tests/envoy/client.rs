//! A client that sends exactly the bytes of a case, and notes what comes back.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::cases::Case;
use super::message::{Head, read_body, read_head};

/// Silence for so long means that nothing more comes.
const SILENCE: Duration = Duration::from_millis(1500);
/// A connection that is not closed for so long behind the last answer is kept.
const KEPT: Duration = Duration::from_millis(120);

/// Fields of an answer that each proxy makes in its own way, about itself and not about the message.
const OWN: &[&str] = &[
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-status",
    "server",
    "transfer-encoding",
    "x-envoy-upstream-service-time",
    "x-request-id",
];

/// What the client of a case got: one line for each answer, and how it ended.
pub(super) fn play(proxy: SocketAddr, case: &Case) -> Vec<String> {
    let mut told = Vec::new();
    let mut stream = TcpStream::connect(proxy).expect("the proxy listens");
    stream
        .set_read_timeout(Some(SILENCE))
        .expect("a read timeout");
    // A proxy may answer and close before everything is sent.
    for part in &case.request {
        if stream.write_all(part).is_err() {
            break;
        }
        if case.request.len() > 1 {
            std::thread::sleep(Duration::from_millis(30));
        }
    }
    if case.half_closes {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut buffer = Vec::new();
    let (mut finals, mut closes) = (0, false);
    while finals < case.answers {
        let Some(head) = read_head(&mut stream, &mut buffer) else {
            told.push(ending(&mut stream, &buffer));
            return told;
        };
        let status = head.start.split(' ').nth(1).unwrap_or_default().to_owned();
        if status.starts_with('1') && status != "101" {
            told.push(format!("interim {status} {}", fields(&head)));
            continue;
        }
        finals += 1;
        let bodiless = case.head_method || ["101", "204", "304"].contains(&&*status);
        let body = if bodiless {
            Some(String::new())
        } else {
            read_body(&mut stream, &mut buffer, &head, true).map(|body| body.to_string())
        };
        let body = body.unwrap_or_else(|| "cut".to_owned());
        closes = (head.value("connection")).is_some_and(|it| it.eq_ignore_ascii_case("close"));
        // What a proxy says itself, it says in its own words.
        if head.value("x-upstream").is_some() {
            told.push(format!("{status} {} {body}", fields(&head)));
        } else {
            told.push(format!("own {status}"));
        }
    }
    // A proxy may take its time to close what it said it will.
    let _ = stream.set_read_timeout(Some(KEPT));
    told.push(match ending(&mut stream, &buffer) {
        kept if kept == "kept" && closes => "closed".to_owned(),
        ending => ending,
    });
    told
}

fn ending(stream: &mut TcpStream, rest: &[u8]) -> String {
    if !rest.is_empty() {
        return format!("and then {:?}", String::from_utf8_lossy(rest));
    }
    match stream.read(&mut [0; 1024]) {
        Ok(0) => "closed".to_owned(),
        Ok(_) => "and more".to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => "kept".to_owned(),
        // With our bytes unread a close is a reset.
        Err(_) => "closed".to_owned(),
    }
}

fn fields(head: &Head) -> String {
    let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in &head.fields {
        if !OWN.contains(&&**name) {
            fields.entry(name).or_default().push(value);
        }
    }
    format!("{fields:?}")
}
