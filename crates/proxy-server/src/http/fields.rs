//! Where the fields of a head are written: as lines of HTTP/1, or into a map for HTTP/2.
//!
//! Owns their form, so that which fields there are is decided once, whatever version is spoken.

use std::io::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use proxy_config::compiled::HeaderChange;

use super::edits::make;
use crate::http1::Framing;

/// The fields of a head in the making.
pub(super) trait Fields {
    /// Adds a field as it came.
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue);

    /// Adds a field of our own.
    fn add(&mut self, name: &str, value: &[u8]);

    /// Adds a list: what came along, then what is ours.
    fn list(&mut self, name: &'static str, came: &[&[u8]], own: &str);

    /// Adds what tells how the body is framed.
    fn framing(&mut self, framing: Framing);
}

/// Writes what `write` gives, with these changes.
pub(super) fn changed<T>(
    out: &mut Vec<u8>,
    changes: &[HeaderChange],
    write: impl FnOnce(&mut dyn Fields) -> T,
) -> T {
    if changes.is_empty() {
        return write(out);
    }
    let mut headers = HeaderMap::new();
    let told = write(&mut headers);
    make(changes, &mut headers);
    for (name, value) in &headers {
        out.pass(name, value);
    }
    told
}

impl Fields for Vec<u8> {
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.add(name.as_str(), value.as_bytes());
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        self.extend_from_slice(name.as_bytes());
        self.extend_from_slice(b": ");
        self.extend_from_slice(value);
        self.extend_from_slice(b"\r\n");
    }

    fn list(&mut self, name: &'static str, came: &[&[u8]], own: &str) {
        self.extend_from_slice(name.as_bytes());
        self.extend_from_slice(b": ");
        for list in came {
            self.extend_from_slice(list);
            self.extend_from_slice(b", ");
        }
        self.extend_from_slice(own.as_bytes());
        self.extend_from_slice(b"\r\n");
    }

    fn framing(&mut self, framing: Framing) {
        match framing {
            Framing::Length(length) => {
                write!(self, "content-length: {length}\r\n").expect("a Vec takes every write");
            }
            Framing::Chunked => self.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Framing::Empty | Framing::UntilClose => {}
        }
    }
}

impl Fields for HeaderMap {
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name, value.clone());
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        // Both are ours, or were checked with the config.
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_bytes(value),
        ) {
            self.append(name, value);
        }
    }

    fn list(&mut self, name: &'static str, came: &[&[u8]], own: &str) {
        let mut value = Vec::new();
        for list in came {
            value.extend_from_slice(list);
            value.extend_from_slice(b", ");
        }
        value.extend_from_slice(own.as_bytes());
        self.add(name, &value);
    }

    /// Frames end bodies by themselves; a length that is known is told all the same.
    fn framing(&mut self, framing: Framing) {
        if let Framing::Length(length) = framing {
            self.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
}
