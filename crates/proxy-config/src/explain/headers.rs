//! The changes of headers on a request's way, in words.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::header::{HeaderChange, HeaderChanges};

/// Changes of headers, in the order in which they are made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExplainedHeaders {
    /// Of the request, each with who says so.
    pub request: Vec<String>,
    /// Of the answer, likewise.
    pub response: Vec<String>,
}

impl ExplainedHeaders {
    pub(super) fn new(levels: &[(&str, &HeaderChanges)]) -> Self {
        let told = |side: fn(&HeaderChanges) -> &[HeaderChange]| {
            let changes = levels.iter().flat_map(|(level, changes)| {
                let changes = side(changes).iter();
                changes.map(move |change| format!("{change} ({level})"))
            });
            changes.collect()
        };
        Self {
            request: told(|changes| &changes.request),
            response: told(|changes| &changes.response),
        }
    }
}

impl fmt::Display for ExplainedHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (side, changes) in [("request", &self.request), ("response", &self.response)] {
            for change in changes {
                writeln!(f, "{side} header: {change}")?;
            }
        }
        Ok(())
    }
}
