//! Makes the header changes that the config asks for.
//!
//! Owns their order over the levels, what their variables stand for in a request, and that a
//! neighbour cannot name away what is set here. Costs a request nothing that has no changes.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Version, header};
use proxy_config::compiled::{Cluster, HeaderChange, HeaderChanges, Route, Variable};
use tokio::time::Instant;

use super::affinity::Subject;
use super::forwarded::{X_REQUEST_ID, client_address};
use super::target::Target;
use crate::clock::timestamp;
use crate::http1::{RequestHead, connection_tokens};

/// What an upgrade, a kept connection and trailers need. What else is named in Connection is gone
/// from a head that was changed, and so is its name.
const OPTIONS: [&str; 4] = ["close", "keep-alive", "te", "upgrade"];

/// The changes for one request, and what their values are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edits<'a> {
    pub(super) listener: &'a HeaderChanges,
    pub(super) route: &'a Route,
    /// `None`: it goes to none.
    pub(super) cluster: Option<&'a Cluster>,
    /// As the client sent it.
    pub(super) head: &'a RequestHead,
    pub(super) target: &'a Target<'a>,
    pub(super) subject: Subject<'a>,
    pub(super) started: Instant,
    pub(super) request_id: &'a str,
}

/// An answer, as far as variables stand for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered<'a> {
    pub(super) status: u16,
    pub(super) endpoint: &'a str,
}

impl<'a> Edits<'a> {
    /// From the listener to the cluster: the most specific one has the last word.
    fn levels(&self) -> impl Iterator<Item = &'a HeaderChanges> {
        let [host, route] = &self.route.headers;
        let all: [&HeaderChanges; 3] = [self.listener, host, route];
        all.into_iter()
            .chain(self.cluster.map(|cluster| &cluster.headers))
    }

    /// The head that is sent instead of the client's; `None` where nothing is changed.
    pub(super) fn request(&self) -> Option<RequestHead> {
        if self.levels().all(|level| level.request.is_empty()) {
            return None;
        }
        let mut head = self.head.clone();
        let changes = self.levels().flat_map(|level| &level.request);
        self.change(changes, &mut head.headers, None);
        Some(head)
    }

    /// Changes the headers of an answer.
    pub(super) fn response(&self, headers: &mut HeaderMap, answered: Answered<'_>) {
        if self.levels().any(|level| !level.response.is_empty()) {
            let changes = self.levels().flat_map(|level| &level.response);
            self.change(changes, headers, Some(answered));
        }
    }

    /// What is changed of an answer of our own, to be done when it is written.
    pub(super) fn own(&self, status: u16) -> Vec<HeaderChange> {
        let answered = Answered {
            status,
            endpoint: "",
        };
        let tell = |variable: &Variable, out: &mut Vec<u8>| {
            self.tell(variable, Some(answered), out);
        };
        self.levels()
            .flat_map(|level| &level.response)
            .filter_map(|change| change.settled(&tell))
            .collect()
    }

    fn change<'c>(
        &self,
        changes: impl Iterator<Item = &'c HeaderChange>,
        headers: &mut HeaderMap,
        answered: Option<Answered<'_>>,
    ) {
        settle_connection(headers);
        for change in changes {
            change.apply(headers, &|variable, out| self.tell(variable, answered, out));
        }
    }

    fn tell(&self, variable: &Variable, answered: Option<Answered<'_>>, out: &mut Vec<u8>) {
        match variable {
            Variable::ClientAddress => match self.subject.peer.parse::<IpAddr>() {
                Ok(peer) if self.subject.trusted_hops > 0 => {
                    let client =
                        client_address(self.subject.headers, peer, self.subject.trusted_hops);
                    put(out, format_args!("{}", client.to_canonical()));
                }
                _ => out.extend_from_slice(self.subject.peer.as_bytes()),
            },
            Variable::PeerAddress => out.extend_from_slice(self.subject.peer.as_bytes()),
            Variable::Protocol => out.extend_from_slice(match self.head.version {
                Version::HTTP_10 => b"HTTP/1.0",
                Version::HTTP_2 => b"HTTP/2",
                _ => b"HTTP/1.1",
            }),
            Variable::StartTime => {
                let now = SystemTime::now();
                let started = now.checked_sub(self.started.elapsed()).unwrap_or(now);
                out.extend_from_slice(timestamp(started).as_bytes());
            }
            Variable::VirtualHost => put(out, format_args!("{}", self.route.virtual_host)),
            Variable::Cluster => {
                if let Some(cluster) = self.cluster {
                    put(out, format_args!("{}", cluster.name));
                }
            }
            Variable::Endpoint => {
                let endpoint = answered.map_or("", |answered| answered.endpoint);
                out.extend_from_slice(endpoint.as_bytes());
            }
            Variable::Status => {
                if let Some(answered) = answered {
                    put(out, format_args!("{}", answered.status));
                }
            }
            Variable::Host => out.extend_from_slice(self.target.host.as_bytes()),
            Variable::Path => {
                out.extend_from_slice(self.target.path.as_bytes());
                out.extend_from_slice(self.target.query.as_bytes());
            }
            Variable::Method => out.extend_from_slice(self.head.method.as_str().as_bytes()),
            Variable::RequestHeader(name) if name == X_REQUEST_ID => {
                out.extend_from_slice(self.request_id.as_bytes());
            }
            Variable::RequestHeader(name) => {
                for (index, value) in self.head.headers.get_all(name).iter().enumerate() {
                    out.extend_from_slice(if index > 0 { b", " } else { b"" });
                    out.extend_from_slice(value.as_bytes());
                }
            }
        }
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every write");
}

/// Makes changes whose values are made already.
pub(super) fn make(changes: &[HeaderChange], headers: &mut HeaderMap) {
    for change in changes {
        change.apply(headers, &|_, _| {});
    }
}

/// Takes away now what Connection names (RFC 9110, 7.6.1), so that it cannot take away what is set
/// afterwards.
fn settle_connection(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let (options, named): (Vec<String>, Vec<String>) = connection_tokens(headers)
        .map(str::to_ascii_lowercase)
        .partition(|token| OPTIONS.contains(&&**token));
    for name in &named {
        headers.remove(name);
    }
    headers.remove(header::CONNECTION);
    if let Ok(value) = HeaderValue::from_str(&options.join(", "))
        && !options.is_empty()
    {
        headers.insert(header::CONNECTION, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_names_goes_before_anything_is_set() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Tenant"),
            ("connection", "close,upgrade, x y"),
            ("x-tenant", "forged"),
            ("stays", "1"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        settle_connection(&mut headers);
        assert_eq!(headers["connection"], "keep-alive, close, upgrade");
        assert!(!headers.contains_key("x-tenant") && headers.contains_key("stays"));
        let mut plain = HeaderMap::new();
        plain.insert("connection", "x-a".parse().unwrap());
        settle_connection(&mut plain);
        assert!(plain.is_empty());
    }
}
