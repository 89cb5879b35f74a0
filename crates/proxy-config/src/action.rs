//! What a route does with a request: pass it on, redirect it, or answer it.
//!
//! Owns how another URL is made of the one that was asked for. Never makes bytes that could end a
//! header: what came from a client is taken as visible ASCII only.

use std::borrow::Cow;
use std::fmt;

use http::HeaderName;

use crate::compiled::Split;
use crate::host::normalize_host;
use crate::rewrite::{RewriteFault, Substitution, TemplateChange};

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// Passes the request on to one of some clusters.
    Forward(Split),
    /// Sends the client elsewhere.
    Redirect(Redirect),
    /// Answers.
    Respond(Respond),
}

/// Another URL to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `http` or `https`; `None`: the one that was asked.
    pub scheme: Option<&'static str>,
    /// The host, perhaps with a port; `None`: the one that was asked.
    pub host: Option<Box<str>>,
    /// The port; `None`: the one that was asked, unless the scheme's own.
    pub port: Option<u16>,
    /// The path.
    pub path: PathChange,
    /// The query is left out.
    pub strip_query: bool,
}

/// An answer from the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// The body.
    pub body: Box<[u8]>,
    /// Further headers, their names in lower case.
    pub headers: Box<[(Box<str>, Box<str>)]>,
}

/// How another path is made of one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PathChange {
    /// It stays.
    #[default]
    Keep,
    /// It becomes this.
    Whole(Box<str>),
    /// Its first segments, `from`, become `to`. `from` has no slash at its end.
    Prefix {
        /// What the path begins with.
        from: Box<str>,
        /// What stands there instead.
        to: Box<str>,
    },
    /// What an expression matches in it is replaced.
    Regex(Box<Substitution>),
    /// It is made of the variables of the route's template.
    Template(TemplateChange),
}

/// Which host an upstream is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostChange {
    /// The one that was asked.
    #[default]
    Keep,
    /// This one, perhaps with a port.
    Fixed(Box<str>),
    /// What this header of the request says, if that is a host.
    FromHeader(HeaderName),
}

/// What is changed of a request before it is passed on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// The path.
    pub path: PathChange,
    /// The host.
    pub host: HostChange,
}

/// The URL that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The host as the client sent it, with its port.
    pub host: &'a str,
    /// The normalised path.
    pub path: &'a str,
    /// The query without its question mark.
    pub query: &'a str,
}

impl Action {
    /// Where requests go, if they are passed on.
    pub fn to(&self) -> Option<&Split> {
        match self {
            Self::Forward(split) => Some(split),
            Self::Redirect(_) | Self::Respond(_) => None,
        }
    }

    /// The word for the log: `redirect` or `respond`; `None` where the request is passed on.
    pub fn word(&self) -> Option<&'static str> {
        match self {
            Self::Forward(_) => None,
            Self::Redirect(_) => Some("redirect"),
            Self::Respond(_) => Some("respond"),
        }
    }

    /// The status that Skein answers with, if it answers.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Forward(_) => None,
            Self::Redirect(redirect) => Some(redirect.status),
            Self::Respond(respond) => Some(respond.status),
        }
    }

    /// What becomes of a request, in a few words.
    pub fn told(&self, asked: &Asked<'_>) -> String {
        match self {
            Self::Redirect(redirect) => match redirect.location(asked) {
                Ok(url) => format!("{self} to {url}"),
                Err(fault) => format!("but answers 500: {fault}"),
            },
            Self::Forward(_) => format!("to {self}"),
            Self::Respond(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward(split) => split.fmt(f),
            Self::Redirect(redirect) => write!(f, "redirect {}", redirect.status),
            Self::Respond(respond) => write!(f, "respond {}", respond.status),
        }
    }
}

impl Redirect {
    /// The URL for the `Location` header.
    ///
    /// # Errors
    /// The path cannot be made.
    pub fn location(&self, asked: &Asked<'_>) -> Result<String, RewriteFault> {
        let scheme = self.scheme.unwrap_or(asked.scheme);
        let host = self.host.as_deref().unwrap_or(asked.host);
        let host = match self.port {
            Some(_) => split_port(host).0,
            // The old scheme's own port means nothing to the new one (as in Envoy).
            None if self.host.is_none() && scheme != asked.scheme => match split_port(host) {
                (name, port) if port == own_port(asked.scheme) => name,
                _ => host,
            },
            None => host,
        };
        let mut url = format!("{scheme}://{host}");
        if let Some(port) = self.port {
            url.push(':');
            url.push_str(&port.to_string());
        }
        url.push_str(&self.path.apply(asked.path)?);
        if !self.strip_query && !asked.query.is_empty() {
            url.push('?');
            url.push_str(asked.query);
        }
        Ok(visible(url))
    }
}

impl HostChange {
    /// The host that it makes of `asked`; `header` gives the one value of a request's header.
    pub fn apply<'a>(
        &'a self,
        asked: &'a str,
        header: impl FnOnce(&HeaderName) -> Option<&'a str>,
    ) -> &'a str {
        match self {
            Self::Keep => asked,
            Self::Fixed(host) => host,
            Self::FromHeader(name) => header(name)
                .filter(|host| normalize_host(host).is_ok())
                .unwrap_or(asked),
        }
    }
}

impl PathChange {
    /// The path that it makes of this one.
    ///
    /// # Errors
    /// What comes out is too long, or no path.
    pub fn apply<'a>(&'a self, path: &'a str) -> Result<Cow<'a, str>, RewriteFault> {
        Ok(match self {
            Self::Keep => Cow::Borrowed(path),
            Self::Whole(whole) => Cow::Borrowed(whole),
            Self::Prefix { from, to } => match path.strip_prefix(&**from) {
                Some("") => Cow::Borrowed(to),
                // On whole segments: neither `//` nor two names in one arise.
                Some(rest) if rest.starts_with('/') => {
                    Cow::Owned(format!("{}{rest}", to.trim_end_matches('/')))
                }
                _ => Cow::Borrowed(path),
            },
            // `OPTIONS *` asks for no path.
            Self::Regex(_) | Self::Template(_) if path == "*" => Cow::Borrowed(path),
            Self::Regex(substitution) => substitution.apply(path)?,
            Self::Template(template) => Cow::Owned(template.apply(path)?),
        })
    }
}

/// A host and the digits behind its colon.
fn split_port(host: &str) -> (&str, &str) {
    let name_end = host.rfind(']').map_or(0, |at| at + 1);
    match host[name_end..].find(':') {
        Some(at) => (&host[..name_end + at], &host[name_end + at + 1..]),
        None => (host, ""),
    }
}

fn own_port(scheme: &str) -> &'static str {
    if scheme == "https" { "443" } else { "80" }
}

/// Escapes what could not stand in a header.
fn visible(url: String) -> String {
    if url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return url;
    }
    let escape = |byte: u8| match byte {
        byte if byte.is_ascii_graphic() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    url.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIRECT: Redirect = Redirect {
        status: 301,
        scheme: None,
        host: None,
        port: None,
        path: PathChange::Keep,
        strip_query: false,
    };

    fn asked(host: &str) -> Asked<'_> {
        Asked {
            scheme: "http",
            host,
            path: "/a/b",
            query: "c=d",
        }
    }

    #[test]
    fn another_url_is_made_of_the_one_that_was_asked() {
        let https = Redirect {
            scheme: Some("https"),
            ..REDIRECT
        };
        let other = Redirect {
            host: Some("other.test:81".into()),
            strip_query: true,
            path: PathChange::Whole("/x".into()),
            ..REDIRECT
        };
        let port = |port| Redirect {
            port: Some(port),
            ..https.clone()
        };
        for (redirect, host, location) in [
            (&REDIRECT, "h:8080", "http://h:8080/a/b?c=d"),
            (&https, "h", "https://h/a/b?c=d"),
            (&https, "h:80", "https://h/a/b?c=d"),
            (&https, "h:8080", "https://h:8080/a/b?c=d"),
            (&https, "[::1]:80", "https://[::1]/a/b?c=d"),
            (&port(8443), "h:80", "https://h:8443/a/b?c=d"),
            (&port(8443), "[::1]", "https://[::1]:8443/a/b?c=d"),
            (&other, "h:80", "http://other.test:81/x"),
        ] {
            assert_eq!(
                redirect.location(&asked(host)).as_deref(),
                Ok(location),
                "{host}"
            );
        }
    }

    #[test]
    fn a_location_cannot_end_its_header() {
        let hostile = Asked {
            query: "a\r\nset-cookie: x=1\0é ",
            ..asked("h")
        };
        assert_eq!(
            REDIRECT.location(&hostile).unwrap(),
            "http://h/a/b?a%0D%0Aset-cookie:%20x=1%00%C3%A9%20"
        );
    }

    #[test]
    fn prefixes_are_replaced_on_whole_segments() {
        let change = |from: &str, to: &str| PathChange::Prefix {
            from: from.into(),
            to: to.into(),
        };
        for (from, to, path, made) in [
            ("/api", "/v2", "/api/x", "/v2/x"),
            ("/api", "/v2/", "/api/x", "/v2/x"),
            ("/api", "/v2/", "/api", "/v2/"),
            ("/api", "/", "/api", "/"),
            ("/api", "/", "/api/", "/"),
            ("/api", "/", "/api/x/", "/x/"),
            ("", "/v2", "/", "/v2/"),
            ("", "/v2", "/x", "/v2/x"),
            ("", "/v2", "*", "*"),
        ] {
            let change = change(from, to);
            assert_eq!(
                change.apply(path).as_deref(),
                Ok(made),
                "{from} {to} {path}"
            );
        }
    }
}
