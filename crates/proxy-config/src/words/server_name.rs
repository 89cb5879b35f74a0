//! The word for names that clients of TLS ask for.

use std::fmt;
use std::str::FromStr;

use super::tls::is_host_name;
use super::{WordFault, text_form};
use crate::host::Domain;

/// A host name that a client of TLS can ask for, or `*.` and one for all below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName(Domain);

impl ServerName {
    /// The names that are meant.
    pub fn domain(&self) -> &Domain {
        &self.0
    }
}

impl FromStr for ServerName {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        match Domain::parse(text) {
            Ok(domain @ (Domain::Exact(_) | Domain::Below(_))) if is_host_name(name) => {
                Ok(Self(domain))
            }
            _ => Err(WordFault::new(format!(
                "{text:?} is not a name that clients can ask for; write shop.example.com or \
                 *.example.com, and leave `server_names` out for all others"
            ))),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_form!(
    ServerName,
    "A host name, or `*.` and a host name for all below it.",
    "^(\\*\\.)?[^*:/\\[\\]]+$"
);
