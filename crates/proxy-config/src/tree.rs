//! A document as a tree of nodes that know where they were written.
//!
//! Owns the composition of YAML events and of JSON into one shape, within limits. Never decides
//! what a field means.

mod json;
mod yaml;

use std::cell::Cell;

pub(crate) use json::parse_json;
pub(crate) use yaml::parse_yaml;

/// The largest input text; more is refused unread.
pub const INPUT_BYTES_MAX: usize = 8 << 20;
/// The deepest nesting of lists and maps; more is refused.
const DEPTH_MAX: usize = 64;
/// The most nodes of one input, counting what aliases repeat; more is refused.
const NODES_MAX: usize = 2_000_000;

/// A line and a column, from 1; (0, 0) where nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// One value.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
    /// Decoding found a fault here and goes on as if this were not written.
    pub(crate) set_aside: Cell<bool>,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A word whose type follows from the field that it is given for.
    Scalar(Box<str>, Style),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// YAML without quotes: text, a number, a truth value or nothing, as the field asks. `no` for
    /// a text is the text `no`.
    Plain,
    /// Text for certain.
    Quoted,
    /// No text for certain: a bare word of JSON.
    Bare,
}

/// One field of a map.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

/// The text is no document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxFault {
    /// `fault; remedy`.
    pub(crate) text: String,
    pub(crate) place: Place,
}

impl SyntaxFault {
    fn new(text: impl Into<String>, place: Place) -> Self {
        Self {
            text: text.into(),
            place,
        }
    }
}

impl Node {
    pub(crate) fn new(value: Value, place: Place) -> Self {
        Self {
            value,
            place,
            set_aside: Cell::new(false),
        }
    }

    /// The field `key` of a map.
    pub(crate) fn field(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| *e.key == *key).map(|e| &e.node),
            _ => None,
        }
    }

    /// The word, where this is one that can be text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text, Style::Plain | Style::Quoted) if !self.is_nothing() => Some(text),
            _ => None,
        }
    }

    /// Whether this is YAML's or JSON's null.
    pub(crate) fn is_nothing(&self) -> bool {
        match &self.value {
            Value::Scalar(text, Style::Plain | Style::Bare) => {
                matches!(&**text, "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// The place of the node at `path` (as in `routes[2].match`), or of the last one on the way.
    pub(crate) fn locate(&self, path: &str) -> Place {
        let steps = path.split(['.', '[', ']']).filter(|step| !step.is_empty());
        let mut at = self;
        for step in steps {
            let next = match &at.value {
                Value::List(items) => step.parse().ok().and_then(|index: usize| items.get(index)),
                _ => at.field(step),
            };
            match next {
                Some(node) => at = node,
                None => break,
            }
        }
        at.place
    }

    /// The number of nodes from here on.
    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(..) => 0,
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(entries) => entries.iter().map(|e| e.node.count()).sum(),
        }
    }
}
