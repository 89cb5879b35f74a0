//! Words that become parts of messages: what holds one can be written into a head as it is.

use std::fmt;
use std::str::FromStr;

use super::{WordFault, is_token, text_form};
use crate::host::normalize_host;

/// The longest value of a header that config sets.
const VALUE_BYTES_MAX: usize = 4096;
/// The longest name of a protocol.
const NAME_BYTES_MAX: usize = 64;
/// Protocols that are a matter of one connection: who speaks them next is another one.
const BETWEEN_NEIGHBOURS: [&str; 4] = ["h2", "h2c", "http", "tls"];

/// The value of a header: visible characters, spaces and tabs between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderText(Box<str>);

impl HeaderText {
    /// The value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HeaderText {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let fits = |byte: u8| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t';
        if text.bytes().all(fits) && text.trim() == text && text.len() <= VALUE_BYTES_MAX {
            return Ok(Self(text.into()));
        }
        Err(WordFault(format!(
            "{text:?} is not the value of a header; use at most {VALUE_BYTES_MAX} visible ASCII \
             characters, with spaces only between them"
        )))
    }
}

impl fmt::Display for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(
    HeaderText,
    "The value of a header.",
    "^([!-~]([\\t -~]*[!-~])?)?$"
);

/// A host, perhaps with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort(Box<str>);

impl HostPort {
    /// The host and its port.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostPort {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        match normalize_host(text) {
            Ok(_) if !text.contains('*') && !text.ends_with(':') => Ok(Self(text.into())),
            Ok(_) => Err(WordFault(format!(
                "{text:?} is not one host; write shop.example.com or shop.example.com:8443"
            ))),
            Err(fault) => Err(WordFault(format!(
                "{text:?} is not a host: {fault}; write shop.example.com or shop.example.com:8443"
            ))),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(HostPort, "A host, perhaps with a port.", "^[^/@* ]+$");

/// A protocol to go over to, as `Upgrade` names it (RFC 9110, 7.8); in lower case however it was
/// written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpgradeName(Box<str>);

impl UpgradeName {
    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UpgradeName {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let is_name = |part: &str| !part.is_empty() && part.bytes().all(is_token);
        let (name, version) = match text.split_once('/') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        if !is_name(name) || !version.is_none_or(is_name) || text.len() > NAME_BYTES_MAX {
            return Err(WordFault(format!(
                "{text:?} is not the name of a protocol; write websocket, connect, or one like spdy/3.1"
            )));
        }
        let lower = text.to_ascii_lowercase();
        let name = lower.split('/').next().unwrap_or_default();
        if BETWEEN_NEIGHBOURS.contains(&name) {
            return Err(WordFault(format!(
                "`{text}` is agreed on between neighbours, and cannot be passed on; leave it out"
            )));
        }
        Ok(Self(lower.into()))
    }
}

impl fmt::Display for UpgradeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(
    UpgradeName,
    "A protocol to go over to, such as `websocket`, or `connect`.",
    "^[!#$%&'*+.^_`|~0-9A-Za-z-]+(/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_ends_a_header_is_a_value_or_a_host() {
        for bad in [
            "a\r\nb: c",
            "a\nb",
            "a\0",
            " a",
            "a ",
            "é",
            &"a".repeat(4097),
        ] {
            assert!(bad.parse::<HeaderText>().is_err(), "{bad:?}");
        }
        for good in ["", "a", "max-age=1; \t x"] {
            assert_eq!(good.parse::<HeaderText>().unwrap().as_str(), good);
        }
        for bad in ["a\r\nb", "a b", "user@a", "a/b", "*", "a:", "a:x", ""] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad:?}");
        }
        for bad in [
            "", "a b", "a,b", "a\r\nb", "/1", "a/", "a/b/c", "H2C", "TLS/1.2", "HTTP/2.0",
        ] {
            assert!(bad.parse::<UpgradeName>().is_err(), "{bad:?}");
        }
        for (good, name) in [("WebSocket", "websocket"), ("SPDY/3.1", "spdy/3.1")] {
            assert_eq!(good.parse::<UpgradeName>().unwrap().as_str(), name);
        }
        for good in ["a", "a.b:80", "[::1]:80"] {
            assert_eq!(good.parse::<HostPort>().unwrap().as_str(), good);
        }
    }
}
