//! The field `hash` of a route as written.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_default;
use crate::units::Time;
use crate::words::{HeaderName, PathText, WordFault, is_token, text_form};

/// What a request is known by: one of `header`, `cookie`, `source_ip` and `query_parameter`. Of
/// several in a list, all that a request has are hashed together, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HashSpec {
    /// The value of this header; of all its values, in whatever order, if it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// The value of a cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<CookieSpec>,
    /// `true`: the client's address, with Defaults' `trusted_hops`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<bool>,
    /// The first value of this query parameter, as it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_parameter: Option<String>,
    /// `true`: if there is a hash by now, the rest of the list is left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub terminal: bool,
}

/// A cookie to hash, which Skein can make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CookieSpec {
    /// Its name.
    pub name: CookieName,
    /// A client without it is given one that it keeps for so long; `0s`: until it is closed. Left
    /// out: none is made, and such a client has no hash here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Time>,
    /// The path of the cookie that is made; left out: the folder of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathText>,
}

/// The name of a cookie (RFC 6265, 4.1.1). Capitals count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieName(Box<str>);

impl CookieName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CookieName {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        if (1..=256).contains(&text.len()) && text.bytes().all(is_token) {
            return Ok(Self(text.into()));
        }
        let fault = "is not the name of a cookie; use letters, digits and `-`, such as session";
        Err(WordFault(format!("{text:?} {fault}")))
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(
    CookieName,
    "The name of a cookie.",
    "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
);
