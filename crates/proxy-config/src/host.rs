//! Hosts: the form in which a request's host is matched, and the domains of a virtual host.
//!
//! Owns what counts as the same host. Never looks anything up and never resolves a name.

use std::borrow::Cow;
use std::fmt;

/// The longest host name that DNS can carry; a longer one is refused.
const HOST_BYTES_MAX: usize = 253;

/// Why a text is not a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostFault {
    /// Nothing is left after the port.
    #[error("it is empty")]
    Empty,
    /// More bytes than a name can have.
    #[error("it is longer than 253 bytes")]
    TooLong,
    /// User information, white space, or another character that no host has.
    #[error("it has a character that no host name has")]
    BadCharacter,
    /// What follows the colon is not a port.
    #[error("what follows its colon is not a port")]
    BadPort,
}

/// `host` as it is matched: lower-case, without port and without the root's trailing dot. Borrows
/// when nothing but the end is cut. An IPv6 literal keeps its brackets.
pub fn normalize_host(host: &str) -> Result<Cow<'_, str>, HostFault> {
    split_host(host).map(|(name, _)| name)
}

/// As [`normalize_host`], with the port that was cut. An empty one is none (RFC 3986, 3.2.3).
pub fn split_host(host: &str) -> Result<(Cow<'_, str>, Option<u16>), HostFault> {
    let (name, port) = split_port(host)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(HostFault::Empty);
    }
    if name.len() > HOST_BYTES_MAX {
        return Err(HostFault::TooLong);
    }
    let literal = name.starts_with('[');
    let fits = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || b"-._~!$&'()*+,;=%".contains(&byte)
            || (literal && b"[]:".contains(&byte))
    };
    if !name.bytes().all(fits) {
        return Err(HostFault::BadCharacter);
    }
    let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    };
    Ok((name, port))
}

fn split_port(host: &str) -> Result<(&str, Option<u16>), HostFault> {
    let name_end = match host.strip_prefix('[') {
        Some(rest) => rest
            .find(']')
            .map(|at| at + 2)
            .ok_or(HostFault::BadCharacter)?,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(name_end);
    let digits = match port.strip_prefix(':') {
        Some(digits) => digits,
        None if port.is_empty() => "",
        None => return Err(HostFault::BadPort),
    };
    if digits.is_empty() {
        return Ok((name, None));
    }
    let port = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match port.map(str::parse) {
        Some(Ok(port)) => Ok((name, Some(port))),
        _ => Err(HostFault::BadPort),
    }
}

/// One entry of a virtual host's `domains`: hosts, whatever the port, or with this port alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Authority {
    /// The hosts.
    pub domain: Domain,
    /// The port that the client must have asked; `None`: any, or none.
    pub port: Option<u16>,
}

impl Authority {
    /// Reads a [`Domain`], perhaps with `:port` behind it.
    pub fn parse(text: &str) -> Result<Self, HostFault> {
        let (name, port) = split_port(text)?;
        if port == Some(0) || (port.is_none() && name != text) {
            return Err(HostFault::BadPort);
        }
        let domain = Domain::parse(name)?;
        Ok(Self { domain, port })
    }

    /// Whether a host and port as [`split_host`] returns them are meant.
    pub fn matches(&self, host: &str, port: Option<u16>) -> bool {
        (self.port.is_none() || self.port == port) && self.domain.matches(host)
    }
}

impl From<Domain> for Authority {
    fn from(domain: Domain) -> Self {
        Self { domain, port: None }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.domain.fmt(f)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// The hosts that a virtual host serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// This host alone.
    Exact(Box<str>),
    /// `*.x`: every host below `x`, at any depth, but not `x`. Holds `.x`.
    Below(Box<str>),
    /// `x.*`: every host that begins with the labels of `x`, and has more. Holds `x.`.
    Begins(Box<str>),
    /// `*`: every host.
    Any,
}

impl Domain {
    /// Reads `host`, `*.host`, `host.*` or `*`.
    pub fn parse(text: &str) -> Result<Self, HostFault> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(name) = text.strip_suffix(".*") {
            return match Self::parse(name)? {
                Self::Exact(name) => Ok(Self::Begins(format!("{name}.").into())),
                _ => Err(HostFault::BadCharacter),
            };
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        if split_port(name)?.0 != name {
            return Err(HostFault::BadPort);
        }
        if name.contains('*') {
            return Err(HostFault::BadCharacter);
        }
        let name = normalize_host(name)?;
        Ok(if text.starts_with("*.") {
            Self::Below(format!(".{name}").into())
        } else {
            Self::Exact(name.into())
        })
    }

    /// Whether a host in the form of [`normalize_host`] is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
            Self::Begins(start) => host.len() > start.len() && host.starts_with(&**start),
            Self::Any => true,
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*{suffix}"),
            Self::Begins(start) => write!(f, "{start}*"),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_matched_in_lower_case_without_port_and_root_dot() {
        for (given, expected) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com:8080", "example.com"),
            ("example.com.", "example.com"),
            ("example.com:", "example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[FE80::1]", "[fe80::1]"),
        ] {
            assert_eq!(normalize_host(given).as_deref(), Ok(expected), "{given}");
        }
        assert!(matches!(
            normalize_host("plain:80"),
            Ok(Cow::Borrowed("plain"))
        ));
    }

    #[test]
    fn hosts_that_could_mean_two_things_are_refused() {
        for (given, fault) in [
            ("", HostFault::Empty),
            (":80", HostFault::Empty),
            ("user@example.com", HostFault::BadCharacter),
            ("a b", HostFault::BadCharacter),
            ("a/b", HostFault::BadCharacter),
            ("a\0", HostFault::BadCharacter),
            ("[::1", HostFault::BadCharacter),
            ("a:99999", HostFault::BadPort),
            ("a:8x", HostFault::BadPort),
            ("a:b:80", HostFault::BadPort),
            ("[::1]x", HostFault::BadPort),
        ] {
            assert_eq!(normalize_host(given), Err(fault), "{given}");
        }
        assert_eq!(normalize_host(&"a".repeat(254)), Err(HostFault::TooLong));
    }

    #[test]
    fn wildcards_mean_hosts_below_at_any_depth() {
        let below = Domain::parse("*.Example.com").unwrap();
        assert!(below.matches("a.example.com") && below.matches("a.b.example.com"));
        assert!(!below.matches("example.com") && !below.matches("badexample.com"));
        assert_eq!(below.to_string(), "*.example.com");
        assert!(Domain::parse("*").unwrap().matches("anything"));
        let begins = Domain::parse("Www.Shop.*").unwrap();
        assert!(begins.matches("www.shop.de") && begins.matches("www.shop.co.uk"));
        assert!(!begins.matches("www.shop") && !begins.matches("www.shops.de"));
        assert_eq!(begins.to_string(), "www.shop.*");
        for bad in ["*.a.*", "*.*", "a*", "*a.com", "a.com:80", "*.", ".*", ""] {
            assert!(Domain::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_domain_with_a_port_means_that_port_alone() {
        for (text, host, taken) in [
            ("A.test:8443", "a.test:8443", true),
            ("a.test:8443", "A.test.:08443", true),
            ("a.test:8443", "a.test", false),
            ("a.test:8443", "a.test:843", false),
            ("a.test", "a.test:8443", true),
            ("*.test:81", "a.test:81", true),
            ("*.test:81", "a.test:82", false),
            ("a.*:81", "a.test:81", true),
            ("*:81", "a.test:81", true),
            ("*:81", "a.test:", false),
            ("[::1]:81", "[::1]:81", true),
            ("[::1]:81", "[::1]", false),
        ] {
            let authority = Authority::parse(text).unwrap();
            let (name, port) = split_host(host).unwrap();
            assert_eq!(authority.matches(&name, port), taken, "{text} {host}");
            assert_eq!(authority.to_string(), text.to_ascii_lowercase());
        }
        for bad in ["a:", "a:0", "a:99999", "a:x", "*.:80", ":80", "a:1:2", "*:"] {
            assert!(Authority::parse(bad).is_err(), "{bad}");
        }
    }
}
