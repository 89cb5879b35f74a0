//! What is wrong with a config: where, what, and how to mend it.
//!
//! Owns the one text form that people and programs see. Never decides whether a fault is fatal.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A place in an input text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Location {
    /// The input's name: a file, or `-` for standard input.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One thing that is wrong with a config.
///
/// Displayed as `<resource>: <path>: <fault>; <remedy>`, with the place in the input behind it
/// where that is known. A part that is empty is left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fault {
    /// The resource as `Kind/name`, or the input's name where there is no resource yet.
    pub resource: String,
    /// The field, such as `routes[2].match.path_prefix`; empty for the resource as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// Where it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

impl Fault {
    /// A fault whose `text` is `fault; remedy`.
    pub(crate) fn new(resource: impl Into<String>, path: impl Into<String>, text: &str) -> Self {
        let (message, remedy) = text.split_once("; ").unwrap_or((text, ""));
        Self {
            resource: resource.into(),
            path: path.into(),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
            location: None,
        }
    }

    pub(crate) fn at(mut self, location: Option<Location>) -> Self {
        self.location = location;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.resource, &self.path] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        match &self.location {
            Some(location) => write!(f, " ({location})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

/// The known word nearest to `word`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer words are not worth the quadratic comparison.
    const WORD_BYTES_MAX: usize = 64;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let lower = word.to_ascii_lowercase().replace('-', "_");
    let distance = |known: &str| {
        strsim::damerau_levenshtein(&lower, &known.to_ascii_lowercase().replace('-', "_"))
    };
    let near = known
        .into_iter()
        .map(|known| (distance(known), known))
        .min()?;
    (near.0 <= 1 + word.chars().count() / 4).then_some(near.1)
}

/// The remedy for an unknown word: the nearest one, or all.
pub(crate) fn suggest(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "remove it".to_owned(),
        None => format!("use one of: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_resource_path_fault_and_remedy() {
        let fault = Fault::new("Cluster/a", "endpoints[0]", "it is odd; make it even");
        assert_eq!(
            fault.to_string(),
            "Cluster/a: endpoints[0]: it is odd; make it even"
        );
        let location = Location {
            file: "a.yaml".into(),
            line: 3,
            column: 7,
        };
        let whole = Fault::new("Cluster/a", "", "it is odd").at(Some(location));
        assert_eq!(whole.to_string(), "Cluster/a: it is odd (a.yaml:3:7)");
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["path_prefix", "path", "methods", "headers"];
        assert_eq!(nearest("path_prefx", known), Some("path_prefix"));
        assert_eq!(nearest("path-prefix", known), Some("path_prefix"));
        assert_eq!(nearest("method", known), Some("methods"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(
            suggest("colour", &known),
            "use one of: path_prefix, path, methods, headers"
        );
    }
}
