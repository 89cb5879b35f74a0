//! The request that is asked about, from a URL and what goes with it.

use serde::{Deserialize, Serialize};

/// A request to explain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The listener by name; else the port decides.
    pub listener: Option<String>,
    /// The port; without it the first http listener is meant.
    pub port: Option<u16>,
    /// The host, as in the `Host` header.
    pub host: String,
    /// The path, with or without a query.
    pub path: String,
    /// The method, in capitals.
    pub method: String,
    /// The headers by name.
    pub headers: Vec<(String, String)>,
    /// Whether the port is one of UDP.
    #[serde(default)]
    pub udp: bool,
}

/// The text is not a URL that can be explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskFault {
    /// Another scheme than http, tcp, udp or tls.
    #[error(
        "`{0}` is not a URL; write http://host:port/path, tcp://host:port, udp://host:port, tls://host or /path"
    )]
    Url(String),
    /// The port is no number from 1 to 65535.
    #[error("`{0}` has no valid port; write a number from 1 to 65535 behind the host")]
    Port(String),
}

impl Ask {
    /// The value of a header that is given once.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter();
        let (_, value) = named.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        let again = named.any(|(known, _)| known.eq_ignore_ascii_case(name));
        (!again).then_some(value.as_str())
    }

    /// A `GET` of `url`: `http://host[:port]/path`, `host[:port]/path`, `tcp://host:port`,
    /// `udp://host:port`, `tls://host[:port]`, or a path alone for the first http listener.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn get(url: &str) -> Result<Self, AskFault> {
        let (rest, default_port) = match url.split_once("://") {
            Some(("http", rest)) => (rest, Some(80)),
            Some(("tcp" | "udp", rest)) => (rest, None),
            Some(("tls", rest)) => (rest, Some(443)),
            Some(_) => return Err(AskFault::Url(url.to_owned())),
            None if url.starts_with('/') => (url, None),
            None => (url, Some(80)),
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('?') => (&rest[..at], format!("/{}", &rest[at..])),
            Some(at) => (&rest[..at], rest[at..].to_owned()),
            None => (rest, "/".to_owned()),
        };
        let path = path.split('#').next().unwrap_or_default().to_owned();
        if authority.is_empty() && !url.starts_with('/') {
            return Err(AskFault::Url(url.to_owned()));
        }
        let digits = authority
            .rsplit_once(':')
            .filter(|(_, digits)| !digits.ends_with(']'));
        let port = match digits {
            Some((_, digits)) => match digits.parse() {
                Ok(port) if port > 0 => Some(port),
                _ => return Err(AskFault::Port(url.to_owned())),
            },
            None => default_port,
        };
        let host = if authority.is_empty() {
            "localhost"
        } else {
            authority
        };
        Ok(Self {
            listener: None,
            port,
            host: host.to_owned(),
            path,
            method: "GET".to_owned(),
            headers: Vec::new(),
            udp: url.starts_with("udp://"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_give_port_host_and_path() {
        for (url, port, host, path) in [
            (
                "http://a.test:8080/x?y=1",
                Some(8080),
                "a.test:8080",
                "/x?y=1",
            ),
            ("http://a.test", Some(80), "a.test", "/"),
            ("a.test:81/x#top", Some(81), "a.test:81", "/x"),
            ("http://[::1]/x", Some(80), "[::1]", "/x"),
            ("http://[::1]:82?q", Some(82), "[::1]:82", "/?q"),
            ("tcp://10.0.0.1:9000", Some(9000), "10.0.0.1:9000", "/"),
            ("udp://10.0.0.1:53", Some(53), "10.0.0.1:53", "/"),
            ("tls://a.test", Some(443), "a.test", "/"),
            ("tls://a.test:8443", Some(8443), "a.test:8443", "/"),
            ("/x", None, "localhost", "/x"),
        ] {
            let ask = Ask::get(url).unwrap();
            assert_eq!(
                (ask.port, &*ask.host, &*ask.path),
                (port, host, path),
                "{url}"
            );
        }
        for bad in [
            "ftp://a/",
            "http://",
            "",
            "http://a:0/",
            "http://a:x/",
            "http://a:70000/",
        ] {
            assert!(Ask::get(bad).is_err(), "{bad}");
        }
    }
}
