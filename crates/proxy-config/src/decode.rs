//! Trees to typed values through serde, with every fault told where it is.
//!
//! Owns recovery: a faulty part is set aside and decoding goes on, so that one pass over an input
//! tells all that is wrong with it. Never guesses a value for what it set aside.

mod access;
mod error;

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Expected, Visitor};

use crate::fault::suggest;
use crate::tree::{Node, Place, Style, Value};
use access::{Fields, Items};
pub(crate) use error::DecodeError;

/// The most faults that are told of one document.
const FAULTS_MAX: usize = 64;

/// One fault of a tree.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) path: String,
    /// `fault; remedy`.
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// Decodes `node`, or says all that is wrong with it. Fields of the root in `elsewhere` are known
/// but decoded by somebody else.
pub(crate) fn decode<T: DeserializeOwned>(
    node: &Node,
    elsewhere: &'static [&'static str],
) -> Result<T, Vec<Finding>> {
    let mut findings = Vec::new();
    while findings.len() < FAULTS_MAX {
        let unknown = RefCell::new(Vec::new());
        let root = Decoder {
            node,
            step: None,
            unknown: &unknown,
            elsewhere,
        };
        let result = T::deserialize(root).map_err(|error| error.locate(&root));
        findings.append(&mut unknown.into_inner());
        match result {
            Ok(value) if findings.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(error) => {
                let Some(origin) = error.origin else { break };
                let is_root = std::ptr::eq(origin, node);
                node.set_aside(origin);
                findings.extend(error.finding);
                if is_root {
                    break;
                }
            }
        }
    }
    Err(findings)
}

impl Node {
    /// Sets aside the descendant at this address.
    fn set_aside(&self, origin: *const Self) {
        if std::ptr::eq(self, origin) {
            self.set_aside.set(true);
            return;
        }
        match &self.value {
            Value::Scalar(..) => {}
            Value::List(items) => items.iter().for_each(|item| item.set_aside(origin)),
            Value::Map(entries) => entries
                .iter()
                .for_each(|entry| entry.node.set_aside(origin)),
        }
    }
}

/// The way from the root to a node.
#[derive(Clone, Copy)]
struct Step<'a> {
    parent: Option<&'a Self>,
    name: StepName<'a>,
}

#[derive(Clone, Copy)]
enum StepName<'a> {
    Field(&'a str),
    Index(usize),
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.name {
            StepName::Index(index) => write!(f, "[{index}]"),
            StepName::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            StepName::Field(name) => f.write_str(name),
        }
    }
}

/// Reads one node as what the visitor asks for.
#[derive(Clone, Copy)]
struct Decoder<'a> {
    node: &'a Node,
    step: Option<&'a Step<'a>>,
    /// Unknown fields: told, and passed over.
    unknown: &'a RefCell<Vec<Finding>>,
    elsewhere: &'static [&'static str],
}

impl<'a> Decoder<'a> {
    fn path(&self) -> String {
        self.step.map(Step::to_string).unwrap_or_default()
    }

    fn mismatch(&self, expected: &str) -> DecodeError {
        let found = match &self.node.value {
            _ if self.node.is_nothing() => "nothing".to_owned(),
            Value::Scalar(text, Style::Quoted) => format!("the text {text:?}"),
            Value::Scalar(text, _) => format!("`{text}`"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        };
        let remedy = if self.node.is_nothing() {
            "give a value or leave the field out".to_owned()
        } else {
            format!("give {expected}")
        };
        let text = format!("expected {expected}, found {found}; {remedy}");
        DecodeError::from_text(text).locate(self)
    }

    /// The scalar as a text.
    fn as_text(&self) -> Result<&'a str, DecodeError> {
        self.node.text().ok_or_else(|| self.mismatch("text"))
    }

    /// The scalar as a number or truth value.
    fn as_word<T: std::str::FromStr>(&self, expected: &str) -> Result<T, DecodeError> {
        match &self.node.value {
            Value::Scalar(text, Style::Plain | Style::Bare) => {
                text.parse().map_err(|_| self.mismatch(expected))
            }
            _ => Err(self.mismatch(expected)),
        }
    }

    fn items<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::List(items) => visitor
                .visit_seq(Items {
                    owner: self,
                    items,
                    next: 0,
                })
                .map_err(|error| error.locate(&self)),
            _ => Err(self.mismatch("a list")),
        }
    }

    fn fields<'de, V: Visitor<'de>>(
        self,
        known: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.mismatch("a map of fields"));
        };
        visitor
            .visit_map(Fields {
                owner: self,
                entries,
                known,
                value: None,
            })
            .map_err(|error| error.locate(&self))
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty, $expected:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let number: $type = self.as_word($expected)?;
            visitor.$visit(number).map_err(|error: DecodeError| error.locate(&self))
        }
    )*};
}

impl<'de> Deserializer<'de> for Decoder<'_> {
    type Error = DecodeError;

    /// Asked for by fields with a short and a long form.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::List(_) => self.items(visitor),
            Value::Map(_) => self.fields(None, visitor),
            Value::Scalar(..) => match self.node.text() {
                Some(text) => visitor
                    .visit_str(text)
                    .map_err(|error: DecodeError| error.locate(&self)),
                None => Err(self.mismatch(&(&visitor as &dyn Expected).to_string())),
            },
        }
    }

    numbers! {
        deserialize_bool visit_bool bool, "true or false";
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number from 0 to 4294967295";
        deserialize_u64 visit_u64 u64, "a whole number, not negative";
        deserialize_i8 visit_i8 i8, "a whole number";
        deserialize_i16 visit_i16 i16, "a whole number";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
        deserialize_char visit_char char, "a character";
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor
            .visit_str(self.as_text()?)
            .map_err(|error: DecodeError| error.locate(&self))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    /// A field that is written has a value: nothing is not the same as left out.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.items(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.fields(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.fields(Some(known), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let word = serde::de::value::StrDeserializer::new(self.as_text()?);
        visitor
            .visit_enum(word)
            .map_err(|error: DecodeError| error.locate(&self))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

/// The text for a field that a struct does not have.
fn unknown_field(name: &str, known: &[&str]) -> String {
    match later(name) {
        true => format!("`{name}` is not supported yet; remove it"),
        false => format!("unknown field `{name}`; {}", suggest(name, known)),
    }
}

/// Words of later versions, so that who knows Envoy or the road map gets a straight answer.
fn later(word: &str) -> bool {
    const WORDS: &[&str] = &[
        "filters",
        "direct_response",
        "outlier",
        "outlier_detection",
        "dns",
        "hash_policy",
        "subset",
    ];
    WORDS.contains(&word)
}
