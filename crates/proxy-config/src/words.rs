//! Words with a form of their own: names, references, addresses, paths, methods, header names.
//!
//! Owns that a value of these types is well-formed: what holds one need not check again. Never
//! knows whether what a word refers to exists.

mod address;
mod http;
mod network;
mod server_name;
mod tls;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use crate::compiled::ResourceName;
use crate::host::Authority;
use crate::path::{EscapedSlashes, normalize_path};

pub use address::Address;
pub use http::{HeaderText, HostPort, UpgradeName};
pub use network::Network;
pub use server_name::ServerName;
pub(crate) use tls::is_host_name;
pub use tls::{AlpnName, FilePath, SubjectName};

/// The namespace of what names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The longest path of a route or probe.
const PATH_BYTES_MAX: usize = 4096;

/// Serde and JSON Schema through `FromStr` and `Display`.
macro_rules! text_form {
    ($type:ty, $about:literal, $pattern:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string", "description": $about, "pattern": $pattern,
                })
            }
        }
    };
}
pub(crate) use text_form;

/// The text does not have the form that its field asks for; the text of the error is the fault and
/// its remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WordFault(pub(crate) String);

impl WordFault {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }
}

/// The name of a resource or namespace: 1 to 63 letters, digits, `-`, `_` or `.`, beginning with a
/// letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shared text.
    pub(crate) fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl Default for Name {
    fn default() -> Self {
        Self(DEFAULT_NAMESPACE.into())
    }
}

impl FromStr for Name {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let fits = (1..=63).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && text.as_bytes()[0].is_ascii_alphanumeric();
        if fits {
            return Ok(Self(text.into()));
        }
        Err(WordFault(format!(
            "{text:?} is not a name; use 1 to 63 letters, digits, `-`, `_` or `.`, beginning with a \
             letter or digit"
        )))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(Name, "A name.", "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$");

/// A reference to a resource of a known kind: `name` in the namespace of who refers, or
/// `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    namespace: Option<Name>,
    name: Name,
}

impl Reference {
    /// What is meant, said by a resource in `namespace`.
    pub fn resolve(&self, namespace: &Arc<str>) -> ResourceName {
        let namespace = self.namespace.as_ref().map_or(namespace, Name::shared);
        ResourceName {
            namespace: namespace.clone(),
            name: self.name.shared().clone(),
        }
    }
}

impl FromStr for Reference {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        Ok(match text.split_once('/') {
            Some((namespace, name)) => Self {
                namespace: Some(namespace.parse()?),
                name: name.parse()?,
            },
            None => Self {
                namespace: None,
                name: text.parse()?,
            },
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        self.name.fmt(f)
    }
}

text_form!(
    Reference,
    "The name of a resource, with `namespace/` before it where that is another one.",
    "^([A-Za-z0-9][A-Za-z0-9_.-]{0,62}/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
);

/// Where a listener binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bind {
    /// `None`: the node's `--proxy-ip`.
    pub ip: Option<IpAddr>,
    /// The port, not 0.
    pub port: u16,
}

impl Bind {
    /// The address on a node.
    pub fn resolve(&self, proxy_ip: IpAddr) -> SocketAddr {
        SocketAddr::new(self.ip.unwrap_or(proxy_ip), self.port)
    }

    /// Whether two listeners of one node could get into each other's way. An address that only the
    /// node knows, and one that means all, meets every other.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
        self.port == other.port && (any(self.ip) || any(other.ip) || self.ip == other.ip)
    }
}

impl FromStr for Bind {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let bind = match text.strip_prefix(':') {
            Some(port) => port.parse().ok().map(|port| Self { ip: None, port }),
            None => text.parse().ok().map(|address: SocketAddr| Self {
                ip: Some(address.ip()),
                port: address.port(),
            }),
        };
        match bind {
            Some(bind) if bind.port > 0 => Ok(bind),
            _ => Err(WordFault(format!(
                "{text:?} is not an address to bind; write \":8080\" for the node's proxy address, \
                 or ip:port such as \"0.0.0.0:8080\""
            ))),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}

text_form!(
    Bind,
    "`:port` for the node's proxy address, or `ip:port`.",
    "^.*:[0-9]+$"
);

/// A path to match: begins with `/`, has no query, and is in the form to which requests are
/// normalised (else it could never match).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathText(Box<str>);

impl PathText {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PathText {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        if text.len() > PATH_BYTES_MAX {
            let text = format!("the path is longer than {PATH_BYTES_MAX} bytes; shorten it");
            return Err(WordFault(text));
        }
        // `%2F` may be written: it matches where Defaults keep it.
        let fault = match normalize_path(text, EscapedSlashes::Keep) {
            Ok(normal) if *normal == *text => return Ok(Self(text.into())),
            Ok(normal) => format!(
                "{text:?} never matches, for requests are normalised first; write {normal:?}"
            ),
            Err(fault) => format!("{text:?} is not a path: {fault}; write it as /like/this"),
        };
        Err(WordFault(fault))
    }
}

impl fmt::Display for PathText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(
    PathText,
    "A path, beginning with `/`, without a query.",
    "^/[^?#]*$"
);

/// What a probe asks for: a path, which may have a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbePath(Box<str>);

impl ProbePath {
    /// The path and query.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProbePath {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let visible = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if text.starts_with('/') && visible && text.len() <= PATH_BYTES_MAX {
            return Ok(Self(text.into()));
        }
        Err(WordFault(format!(
            "{text:?} is not a path to probe; write it as /like/this"
        )))
    }
}

impl fmt::Display for ProbePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(ProbePath, "A path, beginning with `/`.", "^/[^#]*$");

/// An HTTP method, in capitals.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Method(Box<str>);

impl Method {
    /// The method.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Method {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let fits = !text.is_empty()
            && text.len() <= 32
            && text
                .bytes()
                .all(|byte| is_token(byte) && !byte.is_ascii_lowercase());
        if fits {
            return Ok(Self(text.into()));
        }
        Err(WordFault(format!(
            "{text:?} is not a method; write it in capitals, such as GET"
        )))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(Method, "An HTTP method, in capitals.", "^[^a-z\\s]+$");

/// The name of a header, in lower case however it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeaderName(Box<str>);

impl HeaderName {
    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HeaderName {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        if !text.is_empty() && text.len() <= 256 && text.bytes().all(is_token) {
            return Ok(Self(text.to_ascii_lowercase().into()));
        }
        let fault = "is not a header name; use letters, digits and `-`, such as x-tenant";
        Err(WordFault(format!("{text:?} {fault}")))
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(
    HeaderName,
    "The name of a header.",
    "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
);

/// A gRPC method as `package.Service/Method`, or all of a service as `package.Service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcName(Box<str>);

impl GrpcName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether one method is meant, not a service.
    pub fn is_method(&self) -> bool {
        self.0.contains('/')
    }
}

impl FromStr for GrpcName {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let is_name = |name: &str| {
            let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            !name.is_empty() && name.bytes().all(part)
        };
        let (service, method) = match text.split_once('/') {
            Some((service, method)) => (service, Some(method)),
            None => (text, None),
        };
        if service.split('.').all(is_name) && method.is_none_or(is_name) && text.len() <= 1024 {
            return Ok(Self(text.into()));
        }
        Err(WordFault(format!(
            "{text:?} is not a gRPC method; write it as package.Service/Method, or package.Service \
             for all of a service"
        )))
    }
}

impl fmt::Display for GrpcName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(
    GrpcName,
    "A gRPC method as `package.Service/Method`, or all of a service as `package.Service`.",
    "^[A-Za-z0-9_.]+(/[A-Za-z0-9_]+)?$"
);

/// RFC 9110, 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl FromStr for Authority {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        Self::parse(text).map_err(|fault| {
            WordFault(format!(
                "{text:?} is not a domain: {fault}; write shop.example.com, *.example.com, shop.* or \
                 \"*\", with `:8443` behind it for that port alone"
            ))
        })
    }
}

text_form!(
    Authority,
    "A host name, `*.` and a host name for all below it, a host name and `.*` for all that begin \
     so, or `*`; with `:port` behind it, for that port alone.",
    "^(\\*|(\\*\\.)?[^*:/]+|[^*:/]+\\.\\*|\\[[^*/]+\\])(:[0-9]+)?$"
);

#[cfg(test)]
mod tests;
