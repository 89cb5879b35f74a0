//! The error that serde's visitors make and the decoder locates.
//!
//! Owns the wording of what serde finds by itself. Never locates anything twice: the innermost
//! place holds.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

use super::{Decoder, Finding, later, unknown_field};
use crate::fault::suggest;
use crate::tree::Node;

/// Why decoding stopped.
#[derive(Debug)]
pub(crate) struct DecodeError {
    text: String,
    /// The field whose absence is the fault.
    missing: Option<&'static str>,
    /// The node to set aside, compared by address and never read.
    pub(super) origin: Option<*const Node>,
    /// What to tell; nothing where the fault follows from one that is told already.
    pub(super) finding: Option<Finding>,
}

impl DecodeError {
    pub(super) fn from_text(text: String) -> Self {
        Self {
            text,
            missing: None,
            origin: None,
            finding: None,
        }
    }

    /// Says that it happened here, unless a place further in is known.
    pub(super) fn locate(mut self, here: &Decoder<'_>) -> Self {
        if self.origin.is_some() {
            return self;
        }
        self.origin = Some(here.node);
        let set_aside = |field: &str| here.node.field(field).is_some_and(|f| f.set_aside.get());
        if !self.missing.is_some_and(set_aside) {
            self.finding = Some(Finding {
                path: here.path(),
                text: std::mem::take(&mut self.text),
                place: here.node.place,
            });
        }
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for DecodeError {}

impl Error for DecodeError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::from_text(text.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a map".to_owned(),
            Unexpected::Str(text) => format!("the text {text:?}"),
            other => other.to_string(),
        };
        Self::from_text(format!(
            "expected {expected}, found {found}; give {expected}"
        ))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self::from_text(match later(word) {
            true => format!(
                "`{word}` is not supported yet; use one of: {}",
                known.join(", ")
            ),
            false => format!("unknown word `{word}`; {}", suggest(word, known)),
        })
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::from_text(unknown_field(name, known))
    }

    fn missing_field(name: &'static str) -> Self {
        let text = format!("`{name}` is missing; add it");
        Self {
            missing: Some(name),
            ..Self::from_text(text)
        }
    }
}
