//! The field `mirror` of a route as written.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::is_default;
use crate::words::Reference;

/// Copies requests to another cluster, whose answers nobody sees (Envoy's shadowing). A copy is made
/// when the request has been received, never slows it, and is left out where its body is longer than
/// 64 KiB, where a worker has 128 copies under way, or where the cluster's limits are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorSpec {
    /// The cluster.
    pub to: Reference,
    /// The share of the requests that is copied, 0 to 100, such as 0.5; left out: 100.
    #[serde(default, skip_serializing_if = "is_default")]
    pub percent: Percent,
    /// `true`: the copy has the host of the request. Left out: `-shadow` behind its name, so that
    /// whoever gets it can tell (as in Envoy).
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep_host: bool,
}

/// A share of 0 to 100 percent, in steps of a millionth of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u32);

impl Percent {
    /// All, in millionths.
    pub const WHOLE: u32 = 1_000_000;

    /// The share in millionths of the whole.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// The share as a number of percent.
    fn number(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl Default for Percent {
    fn default() -> Self {
        Self(Self::WHOLE)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self.0 % 10_000 {
            0 => out.serialize_u32(self.0 / 10_000),
            _ => out.serialize_f64(self.number()),
        }
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(input)?;
        if !(0.0..=100.0).contains(&number) {
            let fault = format!("`{number}` is not a share in percent; give 0 to 100, such as 0.5");
            return Err(serde::de::Error::custom(fault));
        }
        // Within the bounds, so the nearest whole number of millionths is one.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let millionths = (number * 10_000.0).round() as u32;
        Ok(Self(millionths))
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "number", "minimum": 0, "maximum": 100,
            "description": "A share in percent.",
        })
    }
}
