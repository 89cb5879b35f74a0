//! The answers that a route gives by itself: redirects and answers from the config.
//!
//! Owns their bytes. What goes wrong is answered by `answer`.

use std::io::Write as _;

use http::{Method, StatusCode};
use proxy_config::compiled::{Action, HeaderChange, Respond};

use super::fields::{Fields, changed};
use super::headers::ConnectionOption;

/// What a client is told instead of an upstream's answer.
#[derive(Debug)]
pub(super) enum Own<'a> {
    /// It shall ask for this URL.
    Redirect { status: u16, location: String },
    /// This.
    Respond(&'a Respond),
}

impl Own<'_> {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Redirect { status, .. } => *status,
            Self::Respond(respond) => respond.status,
        }
    }

    pub(super) fn body(&self) -> &[u8] {
        match self {
            Self::Redirect { .. } => &[],
            Self::Respond(respond) => &respond.body,
        }
    }

    /// Writes the answer's fields.
    pub(super) fn fields(&self, out: &mut (impl Fields + ?Sized), request_id: &str, date: &str) {
        match self {
            Self::Redirect { location, .. } => out.add("location", location.as_bytes()),
            Self::Respond(respond) => {
                for (name, value) in &respond.headers {
                    out.add(name, value.as_bytes());
                }
            }
        }
        // Neither has a body, and a 204 not even a length (RFC 9110, 8.6).
        if !matches!(self.status(), 204 | 304) {
            let length = self.body().len().to_string();
            out.add("content-length", length.as_bytes());
        }
        out.add("x-request-id", request_id.as_bytes());
        out.add("date", date.as_bytes());
    }

    /// Writes the whole answer to a request of this method, for HTTP/1.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        method: &Method,
        request_id: &str,
        (connection, date): (ConnectionOption, &str),
        changes: &[HeaderChange],
    ) {
        let status = self.status();
        let phrase = StatusCode::from_u16(status).ok();
        let phrase = phrase.and_then(|status| status.canonical_reason());
        let taken = "a Vec takes every write";
        write!(out, "HTTP/1.1 {status} {}\r\n", phrase.unwrap_or_default()).expect(taken);
        changed(out, changes, |fields| self.fields(fields, request_id, date));
        out.extend_from_slice(match connection {
            ConnectionOption::Kept => b"\r\n",
            ConnectionOption::KeptOld => b"connection: keep-alive\r\n\r\n",
            ConnectionOption::Close => b"connection: close\r\n\r\n",
        });
        if *method != Method::HEAD {
            out.extend_from_slice(self.body());
        }
    }
}

/// Which counter of a listener counts what a route did, if any does.
pub(super) fn counted<'a>(
    counters: &'a crate::counters::ListenerCounters,
    action: &Action,
) -> Option<&'a crate::counters::Counter> {
    match action {
        Action::Forward(_) => None,
        Action::Redirect(_) => Some(&counters.redirects),
        Action::Respond(_) => Some(&counters.direct_responses),
    }
}
