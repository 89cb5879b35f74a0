//! JSON bytes, as the store holds them, to a tree.
//!
//! Owns strictness: one value, no field twice. The tree has no places, for nobody edits stored
//! bytes by line.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Entry, INPUT_BYTES_MAX, Node, Place, Style, SyntaxFault, Value};

/// Reads the one JSON value of `bytes`.
pub(crate) fn parse_json(bytes: &[u8]) -> Result<Node, SyntaxFault> {
    if bytes.len() > INPUT_BYTES_MAX {
        let text = format!("the value has {} bytes; split it", bytes.len());
        return Err(SyntaxFault::new(text, Place::default()));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let text = format!("this is not valid JSON: {error}; write it with `skein apply`");
        SyntaxFault::new(
            text,
            Place {
                line: error.line(),
                column: error.column(),
            },
        )
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let value = input.deserialize_any(ValueVisitor)?;
        Ok(Self::new(value, Place::default()))
    }
}

struct ValueVisitor;

impl ValueVisitor {
    fn bare<E>(self, word: impl fmt::Display) -> Result<Value, E> {
        Ok(Value::Scalar(word.to_string().into(), Style::Bare))
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        self.bare(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        self.bare(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        self.bare(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        self.bare(value)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        self.bare("null")
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Scalar(value.into(), Style::Quoted))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = input.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        while let Some((key, node)) = input.next_entry::<Box<str>, Node>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("`{key}` is given twice")));
            }
            entries.push(Entry {
                key,
                place: Place::default(),
                node,
            });
        }
        Ok(Value::Map(entries))
    }
}
