//! On which nodes a resource applies.
//!
//! Owns the logic of node sets without knowing the nodes: what surely covers, what surely never
//! meets. Where it cannot be sure it says so on the safe side.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::NodeName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::compiled::Target;

/// The nodes where a resource applies: `[n1, n2]` by name, or `{ zone: b }` by labels, of which a
/// node must have all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum NodeSelector {
    /// The nodes of these names.
    Names(BTreeSet<NodeName>),
    /// The nodes with all these labels.
    Labels(BTreeMap<String, String>),
}

impl NodeSelector {
    /// Whether this node is selected.
    pub fn selects(&self, target: &Target) -> bool {
        match self {
            Self::Names(names) => names.contains(&target.node),
            Self::Labels(labels) => labels
                .iter()
                .all(|(key, value)| target.labels.get(key) == Some(value)),
        }
    }
}

/// Whether every node of `inner` is surely one of `outer`.
pub(crate) fn covers(outer: Option<&NodeSelector>, inner: Option<&NodeSelector>) -> bool {
    use NodeSelector::{Labels, Names};
    match (outer, inner) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(Names(outer)), Some(Names(inner))) => inner.is_subset(outer),
        (Some(Labels(outer)), Some(Labels(inner))) => outer
            .iter()
            .all(|(key, value)| inner.get(key) == Some(value)),
        (Some(_), Some(_)) => false,
    }
}

/// Whether some node could be in both.
pub(crate) fn may_meet(one: Option<&NodeSelector>, other: Option<&NodeSelector>) -> bool {
    use NodeSelector::{Labels, Names};
    match (one, other) {
        (Some(Names(one)), Some(Names(other))) => !one.is_disjoint(other),
        (Some(Labels(one)), Some(Labels(other))) => one
            .iter()
            .all(|(key, value)| other.get(key).is_none_or(|theirs| theirs == value)),
        _ => true,
    }
}

impl<'de> Deserialize<'de> for NodeSelector {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = NodeSelector;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of node names or a map of labels")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, input: A) -> Result<NodeSelector, A::Error> {
                BTreeSet::deserialize(SeqAccessDeserializer::new(input)).map(NodeSelector::Names)
            }

            fn visit_map<A: MapAccess<'de>>(self, input: A) -> Result<NodeSelector, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(input)).map(NodeSelector::Labels)
            }
        }

        let selector = input.deserialize_any(Either)?;
        let is_empty = match &selector {
            Self::Names(names) => names.is_empty(),
            Self::Labels(labels) => labels.is_empty(),
        };
        if is_empty {
            return Err(D::Error::custom(
                "it selects nothing; leave it out for all nodes",
            ));
        }
        Ok(selector)
    }
}

impl JsonSchema for NodeSelector {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NodeSelector".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Node names, or labels of which a node must have all.",
            "oneOf": [
                { "type": "array", "items": { "type": "string" }, "minItems": 1 },
                { "type": "object", "additionalProperties": { "type": "string" }, "minProperties": 1 },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Option<NodeSelector> {
        Some(NodeSelector::Names(
            all.iter().map(|name| name.parse().unwrap()).collect(),
        ))
    }

    fn labels(all: &[(&str, &str)]) -> Option<NodeSelector> {
        let pairs = all
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Some(NodeSelector::Labels(pairs.collect()))
    }

    #[test]
    fn sets_cover_only_where_that_is_sure() {
        let covers = |outer: &Option<_>, inner: &Option<_>| covers(outer.as_ref(), inner.as_ref());
        assert!(covers(&None, &names(&["a"])) && !covers(&names(&["a"]), &None));
        assert!(covers(&names(&["a", "b"]), &names(&["a"])));
        assert!(!covers(&names(&["a"]), &names(&["a", "b"])));
        assert!(covers(
            &labels(&[("zone", "b")]),
            &labels(&[("zone", "b"), ("tier", "x")])
        ));
        assert!(!covers(
            &labels(&[("zone", "b"), ("tier", "x")]),
            &labels(&[("zone", "b")])
        ));
        assert!(!covers(&labels(&[("zone", "b")]), &names(&["a"])));
    }

    #[test]
    fn sets_are_apart_only_where_that_is_sure() {
        let meet = |one: &Option<_>, other: &Option<_>| may_meet(one.as_ref(), other.as_ref());
        assert!(meet(&None, &names(&["a"])) && meet(&names(&["a", "b"]), &names(&["b"])));
        assert!(!meet(&names(&["a"]), &names(&["b"])));
        assert!(!meet(&labels(&[("zone", "a")]), &labels(&[("zone", "b")])));
        assert!(meet(&labels(&[("zone", "a")]), &labels(&[("tier", "b")])));
        assert!(meet(&labels(&[("zone", "a")]), &names(&["n1"])));
    }
}
