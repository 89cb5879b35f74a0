//! Words of TLS: files, names in certificates, protocols above it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{WordFault, text_form};
use crate::host::normalize_host;

/// The longest path of a file, and the longest name in a certificate.
const TEXT_BYTES_MAX: usize = 4096;
/// What ALPN can carry (RFC 7301, 3.1).
const ALPN_BYTES_MAX: usize = 255;

macro_rules! text {
    ($type:ident) => {
        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// A file of the node, by its path from the root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(Box<str>);

text!(FilePath);

impl FromStr for FilePath {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let is_path = text.len() > 1 && text.starts_with('/') && !text.ends_with('/');
        if is_path && text.len() <= TEXT_BYTES_MAX && !text.contains(char::is_control) {
            return Ok(Self(text.into()));
        }
        Err(WordFault(format!(
            "{text:?} is not the path of a file; write it from the root, such as /etc/skein/edge.pem"
        )))
    }
}

text_form!(FilePath, "A file, by its path from the root.", "^/.*[^/]$");

/// A name in a certificate: a host, an IP address, or a URI, which may end with `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectName(Box<str>);

text!(SubjectName);

impl FromStr for SubjectName {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let visible = text.len() <= TEXT_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
        let is_uri = text.split_once("://").is_some_and(|(scheme, rest)| {
            let rest = rest.strip_suffix('*').unwrap_or(rest);
            !scheme.is_empty() && !rest.is_empty() && !rest.contains('*')
        });
        let is_name = || text.parse::<IpAddr>().is_ok() || is_host_name(text);
        if visible && (is_uri || is_name()) {
            return Ok(Self(text.into()));
        }
        Err(WordFault(format!(
            "{text:?} is not a name in a certificate; write a host, an IP address, or a URI such as \
             spiffe://mesh/shop or spiffe://mesh/*"
        )))
    }
}

text_form!(
    SubjectName,
    "A host, an IP address, or a URI, which may end with `*`.",
    "^[!-~]+$"
);

/// Whether this is the name of a host, and no address.
pub(crate) fn is_host_name(text: &str) -> bool {
    text.parse::<IpAddr>().is_err()
        && !text.contains(['*', ':', '['])
        && normalize_host(text).is_ok_and(|host| !host.is_empty())
}

/// The name of a protocol above TLS, such as `http/1.1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlpnName(Box<str>);

text!(AlpnName);

impl FromStr for AlpnName {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if visible && (1..=ALPN_BYTES_MAX).contains(&text.len()) {
            return Ok(Self(text.into()));
        }
        Err(WordFault(format!(
            "{text:?} is not the name of a protocol; write one such as h2 or http/1.1"
        )))
    }
}

text_form!(
    AlpnName,
    "The name of a protocol, as ALPN has it.",
    "^[!-~]+$"
);
