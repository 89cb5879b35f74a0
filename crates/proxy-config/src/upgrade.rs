//! What clients of a route may go over to: other protocols (RFC 9110, 7.8), and the method CONNECT.
//!
//! Owns that the names are compared as the protocol says, whatever their case. Never looks at a request.

use std::fmt;

use crate::words::UpgradeName;

/// The word for the method CONNECT, which asks for bytes and no protocol.
const CONNECT: &str = "connect";

/// What clients of a route may go over to; by default nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upgrades {
    /// In lower case.
    protocols: Box<[Box<str>]>,
    connect: bool,
}

impl Upgrades {
    pub(crate) fn new(names: &[UpgradeName]) -> Self {
        let protocols = names.iter().map(UpgradeName::as_str);
        let protocols = protocols.filter(|name| *name != CONNECT);
        Self {
            protocols: protocols.map(Into::into).collect(),
            connect: names.iter().any(|name| name.as_str() == CONNECT),
        }
    }

    /// The name, in lower case, of a protocol that is asked for, if clients may go over to it.
    pub fn protocol(&self, asked: &str) -> Option<&str> {
        let known = self.protocols.iter();
        let mut known = known.filter(|name| name.eq_ignore_ascii_case(asked));
        known.next().map(|name| &**name)
    }

    /// Whether CONNECT is served.
    pub fn connect(&self) -> bool {
        self.connect
    }

    /// Whether there is nothing to go over to.
    pub fn is_empty(&self) -> bool {
        self.protocols.is_empty() && !self.connect
    }
}

impl fmt::Display for Upgrades {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connect = self.connect.then_some(CONNECT);
        let names: Vec<&str> = self.protocols.iter().map(|name| &**name).collect();
        let names: Vec<&str> = names.into_iter().chain(connect).collect();
        f.write_str(&names.join(", "))
    }
}
