//! The field `proxy_protocol` of a listener as written: a word, or a map with more.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::proxy_protocol::ProxyProtocol;
use crate::words::Network;

/// Whose PROXY headers are read.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum ProxyProtocolSpec {
    /// Everybody's.
    Mode(ProxyProtocol),
    /// Those of some.
    Fields(ProxyProtocolFields),
}

/// Whose PROXY headers are read, and who is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocolFields {
    /// Whether everybody must send one.
    pub mode: ProxyProtocol,
    /// Only these are believed. Of all others, `required` refuses the connection, and `optional` takes
    /// it as their own: what looks like a header is none then. Left out: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_sources: Option<Vec<Network>>,
}

impl ProxyProtocolSpec {
    /// Whether everybody must send one.
    pub fn mode(&self) -> ProxyProtocol {
        match self {
            Self::Mode(mode) => *mode,
            Self::Fields(fields) => fields.mode,
        }
    }

    /// Those who are believed, if not everybody is.
    pub fn trusted_sources(&self) -> Option<&[Network]> {
        match self {
            Self::Mode(_) => None,
            Self::Fields(fields) => fields.trusted_sources.as_deref(),
        }
    }
}

impl Serialize for ProxyProtocolSpec {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Mode(mode) => mode.serialize(out),
            Self::Fields(fields) => fields.serialize(out),
        }
    }
}

impl<'de> Deserialize<'de> for ProxyProtocolSpec {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ProxyProtocolSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`required`, `optional`, or a map with mode and trusted_sources")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ProxyProtocolSpec, E> {
                let word = StrDeserializer::<E>::new(text);
                ProxyProtocol::deserialize(word).map(ProxyProtocolSpec::Mode)
            }

            fn visit_map<A: MapAccess<'de>>(self, input: A) -> Result<ProxyProtocolSpec, A::Error> {
                let fields = ProxyProtocolFields::deserialize(MapAccessDeserializer::new(input))?;
                // What the short form can say is kept in it: one way to say it.
                Ok(match fields.trusted_sources {
                    None => ProxyProtocolSpec::Mode(fields.mode),
                    Some(_) => ProxyProtocolSpec::Fields(fields),
                })
            }
        }

        input.deserialize_any(Either)
    }
}
