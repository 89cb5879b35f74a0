//! Whom a request is for: host, path and query, in the form that is matched and forwarded.
//!
//! Owns the precedence between the target and the Host header (RFC 9112, 3.2). Never routes.

use std::borrow::Cow;

use http::{HeaderValue, Method, Version, header};
use proxy_config::{EscapedSlashes, normalize_host, normalize_path};

use crate::http1::{HeadFault, RequestHead};

/// A request's destination.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// As the client wrote it, with its port: what the upstream is sent.
    pub(super) host: &'a str,
    /// Normalised.
    pub(super) path: Cow<'a, str>,
    /// With its question mark; empty if there is none.
    pub(super) query: &'a str,
}

impl<'a> Target<'a> {
    /// Reads the target and the Host header. An absolute target wins over Host, which must be there
    /// all the same. `is_tls`: the client came by TLS.
    pub(super) fn of(
        head: &'a RequestHead,
        escaped: EscapedSlashes,
        is_tls: bool,
    ) -> Result<Self, HeadFault> {
        let named = host_header(head)?;
        let target = head.target();
        if head.method == Method::CONNECT {
            return Self::of_connect(match head.version {
                Version::HTTP_2 => named,
                _ => target,
            });
        }
        let (host, rest) = if target.starts_with('/') {
            (named, target)
        } else if let Some(absolute) = strip_scheme(target, is_tls) {
            let end = absolute.find(['/', '?']).unwrap_or(absolute.len());
            absolute.split_at(end)
        } else if target == "*" && head.method == Method::OPTIONS {
            (named, target)
        } else {
            return Err(HeadFault::Malformed("the request target has no known form"));
        };
        if normalize_host(host).is_err() {
            return Err(HeadFault::Malformed("the host is malformed"));
        }
        let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        let path = match path {
            "" => Cow::Borrowed("/"),
            "*" => Cow::Borrowed(path),
            path => normalize_path(path, escaped)
                .map_err(|_| HeadFault::Malformed("the path is malformed"))?,
        };
        Ok(Self { host, path, query })
    }

    /// That of CONNECT is a host and its port, and nothing else (RFC 9110, 9.3.6).
    fn of_connect(authority: &'a str) -> Result<Self, HeadFault> {
        let port = authority.rsplit_once(':').map(|(_, port)| port.parse());
        let has_port = matches!(port, Some(Ok(1..=u16::MAX)));
        if !has_port || normalize_host(authority).is_err() {
            return Err(HeadFault::Malformed(
                "the target of CONNECT is no host:port",
            ));
        }
        Ok(Self {
            host: authority,
            path: Cow::Borrowed("/"),
            query: "",
        })
    }
}

/// The one Host header. Missing, twice or not text: refused, whatever the version.
fn host_header(head: &RequestHead) -> Result<&str, HeadFault> {
    let mut values = head.headers.get_all(header::HOST).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (Some(Ok(host)), None) => Ok(host),
        (None, _) => Err(HeadFault::Malformed("the host header is missing")),
        (_, Some(_)) => Err(HeadFault::Malformed("there is more than one host header")),
        (Some(Err(_)), None) => Err(HeadFault::Malformed("the host is malformed")),
    }
}

/// What follows `http://`, or `https://` where the connection is that: believing it elsewhere would let
/// a client choose what the upstream thinks.
fn strip_scheme(target: &str, is_tls: bool) -> Option<&str> {
    let known = ["http://", "https://"].into_iter();
    let mut known = known.take(if is_tls { 2 } else { 1 });
    known.find_map(|scheme| {
        let (begin, rest) = target.split_at_checked(scheme.len())?;
        begin.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn head(method: Method, target: &str, hosts: &[&str]) -> RequestHead {
        let mut head = RequestHead {
            method,
            target: Bytes::copy_from_slice(target.as_bytes()),
            ..RequestHead::default()
        };
        for host in hosts {
            head.headers.append(header::HOST, host.parse().unwrap());
        }
        head
    }

    #[test]
    fn forms_of_targets_are_read() {
        for (target, host, path, query) in [
            ("/a?b=/c?d", "h:80", "/a", "?b=/c?d"),
            ("/a/../b//c", "h:80", "/b/c", ""),
            ("http://Other:1/x?y", "Other:1", "/x", "?y"),
            ("HTTP://other", "other", "/", ""),
            ("http://other?y", "other", "/", "?y"),
        ] {
            let head = head(Method::GET, target, &["h:80"]);
            let read = Target::of(&head, EscapedSlashes::Refuse, false).unwrap();
            assert_eq!((read.host, &*read.path, read.query), (host, path, query));
        }
        let secure = head(Method::GET, "HTTPS://other:1/x", &["h"]);
        let read = Target::of(&secure, EscapedSlashes::Refuse, true).unwrap();
        assert_eq!((read.host, &*read.path), ("other:1", "/x"));
        let all = head(Method::OPTIONS, "*", &["h"]);
        assert_eq!(
            Target::of(&all, EscapedSlashes::Refuse, false)
                .unwrap()
                .path,
            "*"
        );
    }

    #[test]
    fn doubtful_targets_are_refused() {
        for (target, hosts) in [
            ("/", &[][..]),
            ("/", &["a", "a"]),
            ("/", &["a", "b"]),
            ("/", &[""]),
            ("/", &["user@a"]),
            ("/", &["a b"]),
            ("*", &["a"]),
            ("a:443", &["a"]),
            ("https://a/", &["a"]),
            ("http:///x", &["a"]),
            ("http://u@a/x", &["a"]),
            ("http://a/x", &[]),
            ("/../a", &["a"]),
            ("/a%00", &["a"]),
            ("/a%2fb", &["a"]),
        ] {
            let refused = head(Method::GET, target, hosts);
            let refused = Target::of(&refused, EscapedSlashes::Refuse, false);
            assert!(refused.is_err(), "{target} {hosts:?}: {refused:?}");
        }
    }
}
