//! Subsets of a cluster's endpoints by label, as compiled.
//!
//! Owns what labels are and when an endpoint has them. Never chooses: that is `proxy-balance`.

use std::fmt;
use std::sync::Arc;

/// Labels with their values, ascending by label: those of an endpoint, or those that all endpoints
/// of a subset have. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// These labels; of two of one name the last.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let pairs = pairs.into_iter();
        let sorted: std::collections::BTreeMap<&str, &str> = pairs.collect();
        let pairs = sorted.into_iter();
        Self(
            pairs
                .map(|(label, value)| (label.into(), value.into()))
                .collect(),
        )
    }

    /// The value of a label.
    pub fn value(&self, label: &str) -> Option<&Arc<str>> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(label));
        at.ok().map(|at| &self.0[at].1)
    }

    /// The names of the labels, ascending.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().map(|(label, _)| label)
    }

    /// Whether `other` has all of these.
    pub fn are_in(&self, other: &Self) -> bool {
        let mut pairs = self.0.iter();
        pairs.all(|(label, value)| other.value(label) == Some(value))
    }

    /// The labels of these names; `None` if one is missing.
    pub fn only(&self, names: &[Arc<str>]) -> Option<Self> {
        let pair = |name: &Arc<str>| Some((name.clone(), self.value(name)?.clone()));
        let pairs: Option<Arc<[_]>> = names.iter().map(pair).collect();
        pairs.map(Self)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (label, value)) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{label}={value}")?;
        }
        Ok(())
    }
}

/// How the endpoints of a cluster are divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subsets {
    /// For each of these lists of labels (ascending), one subset for each combination of values
    /// that endpoints have.
    pub keys: Box<[Box<[Arc<str>]>]>,
    /// Where requests go whose subset has no endpoint.
    pub fallback: SubsetFallback,
}

/// What becomes of requests whose subset has no endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubsetFallback {
    /// No endpoint can be used.
    None,
    /// Any endpoint may be.
    Any,
    /// Those that have these labels.
    Default(Labels),
}
