//! The answers that a route gives by itself: redirects and answers from the config.
//!
//! Owns their bytes. What goes wrong is answered by `answer`.

use std::io::Write as _;

use http::{Method, StatusCode};
use proxy_config::compiled::{Action, Respond};

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

    fn body(&self) -> &[u8] {
        match self {
            Self::Redirect { .. } => &[],
            Self::Respond(respond) => &respond.body,
        }
    }

    /// Writes the whole answer to a request of this method.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        method: &Method,
        request_id: &str,
        (connection, date): (ConnectionOption, &str),
    ) {
        let status = self.status();
        let phrase = StatusCode::from_u16(status).ok();
        let phrase = phrase.and_then(|status| status.canonical_reason());
        let taken = "a Vec takes every write";
        write!(out, "HTTP/1.1 {status} {}\r\n", phrase.unwrap_or_default()).expect(taken);
        match self {
            Self::Redirect { location, .. } => {
                write!(out, "location: {location}\r\n").expect(taken);
            }
            Self::Respond(respond) => {
                for (name, value) in &respond.headers {
                    write!(out, "{name}: {value}\r\n").expect(taken);
                }
            }
        }
        // Neither has a body, and a 204 not even a length (RFC 9110, 8.6).
        if !matches!(status, 204 | 304) {
            write!(out, "content-length: {}\r\n", self.body().len()).expect(taken);
        }
        write!(out, "x-request-id: {request_id}\r\ndate: {date}\r\n").expect(taken);
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
