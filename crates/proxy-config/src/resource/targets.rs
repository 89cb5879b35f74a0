//! Where requests go: one cluster, or several with weights.
//!
//! Owns the short form (`to: web`) and the long one (`to: { v1: 90, v2: 10 }`).

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::words::Reference;

/// Clusters with their weights; the sum of the weights is above 0 and fits a `u32`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets(BTreeMap<Reference, u32>);

impl Targets {
    /// The clusters in order, with their weights.
    pub fn iter(&self) -> impl Iterator<Item = (&Reference, u32)> {
        self.0.iter().map(|(cluster, weight)| (cluster, *weight))
    }
}

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self.0.iter().next() {
            Some((cluster, _)) if self.0.len() == 1 => cluster.serialize(out),
            _ => self.0.serialize(out),
        }
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = BTreeMap<Reference, u32>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a cluster or a map of clusters to weights")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(BTreeMap::from([(text.parse().map_err(E::custom)?, 1)]))
            }

            fn visit_map<A: MapAccess<'de>>(self, input: A) -> Result<Self::Value, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(input))
            }
        }

        let targets = input.deserialize_any(Either)?;
        let total: u64 = targets.values().map(|weight| u64::from(*weight)).sum();
        if total == 0 {
            return Err(D::Error::custom(
                "no cluster has a weight above 0; give at least one a share",
            ));
        }
        if u32::try_from(total).is_err() {
            return Err(D::Error::custom(
                "the weights sum to more than 4294967295; use smaller ones",
            ));
        }
        // A single target takes everything, whatever its weight: one way to say it.
        Ok(Self(match targets.len() {
            1 => targets.into_keys().map(|cluster| (cluster, 1)).collect(),
            _ => targets,
        }))
    }
}

impl JsonSchema for Targets {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Targets".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let cluster = generator.subschema_for::<Reference>();
        json_schema!({
            "description": "A cluster, or clusters with their weights.",
            "oneOf": [
                cluster,
                {
                    "type": "object", "minProperties": 1,
                    "additionalProperties": { "type": "integer", "minimum": 0, "maximum": 4294967295u32 },
                },
            ],
        })
    }
}
