//! A message of HTTP/1 as it lies on the wire, read leniently: what it means is compared, not judged.

use std::fmt;
use std::io::Read;

/// A request or an answer.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// The first line.
    pub(super) start: String,
    /// Lower-case names and values, in order.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Body,
}

/// How a body was framed, and what it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) framing: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) trailers: Vec<(String, String)>,
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.framing)?;
        match self.bytes.len() {
            0..=200 => write!(f, "{:?}", String::from_utf8_lossy(&self.bytes))?,
            length => write!(f, "{length} bytes")?,
        }
        if !self.trailers.is_empty() {
            write!(f, " {:?}", self.trailers)?;
        }
        Ok(())
    }
}

/// A head.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) start: String,
    pub(super) fields: Vec<(String, String)>,
}

impl Head {
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields
            .find(|(field, _)| field == name)
            .map(|(_, value)| &**value)
    }
}

/// Reads up to the end of a head; `None`: there was none.
pub(super) fn read_head(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Option<Head> {
    let end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at;
        }
        more(stream, buffer)?;
    };
    let head: Vec<u8> = buffer.drain(..end + 4).collect();
    let text = text(&head);
    let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
    let start = lines.next().unwrap_or_default().to_owned();
    Some(Head {
        start,
        fields: lines.map(field).collect(),
    })
}

/// Reads the body that a head announces; `None`: it broke off. `to_end`: a body without a length
/// goes to the end of the connection.
pub(super) fn read_body(
    stream: &mut impl Read,
    buffer: &mut Vec<u8>,
    head: &Head,
    to_end: bool,
) -> Option<Body> {
    let mut body = Body::default();
    let coding = head.value("transfer-encoding");
    if coding.is_some_and(|coding| coding.to_ascii_lowercase().ends_with("chunked")) {
        body.framing = "chunked";
        loop {
            let line = read_line(stream, buffer)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).ok()?;
            if size == 0 {
                break;
            }
            body.bytes.extend(read_exact(stream, buffer, size)?);
            read_line(stream, buffer)?;
        }
        loop {
            let line = read_line(stream, buffer)?;
            if line.is_empty() {
                return Some(body);
            }
            body.trailers.push(field(&line));
        }
    }
    if let Some(length) = head.value("content-length") {
        body.framing = "length";
        body.bytes = read_exact(stream, buffer, length.parse().ok()?)?;
    } else if to_end {
        body.framing = "to the end";
        while more(stream, buffer).is_some() {}
        body.bytes = std::mem::take(buffer);
    } else {
        body.framing = "none";
    }
    Some(body)
}

fn read_line(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Option<String> {
    let end = loop {
        if let Some(at) = find(buffer, b"\r\n") {
            break at;
        }
        more(stream, buffer)?;
    };
    let line: Vec<u8> = buffer.drain(..end + 2).collect();
    Some(text(&line[..end]))
}

fn read_exact(stream: &mut impl Read, buffer: &mut Vec<u8>, count: usize) -> Option<Vec<u8>> {
    while buffer.len() < count {
        more(stream, buffer)?;
    }
    Some(buffer.drain(..count).collect())
}

/// Reads once; `None`: the end, an error, or nothing for too long.
fn more(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; 16 * 1024];
    match stream.read(&mut piece) {
        Ok(0) | Err(_) => None,
        Ok(count) => {
            buffer.extend_from_slice(&piece[..count]);
            Some(())
        }
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_ascii_lowercase(), value.trim().to_owned())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Each byte is a character, so that nothing is lost.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}
