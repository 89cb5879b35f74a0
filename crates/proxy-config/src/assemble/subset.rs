//! Labels and subsets, as written to as compiled.

use std::collections::BTreeMap;

use crate::compiled::{Labels, SubsetFallback, Subsets};
use crate::resource::{FallbackWord, SubsetsSpec};

pub(crate) fn labels(written: &BTreeMap<String, String>) -> Labels {
    let pairs = written.iter();
    Labels::new(pairs.map(|(label, value)| (label.as_str(), value.as_str())))
}

pub(super) fn subsets(spec: &SubsetsSpec) -> Subsets {
    let ascending = |names: &Vec<String>| {
        let mut names: Vec<_> = names.iter().map(|name| name.as_str().into()).collect();
        names.sort_unstable();
        names.into_boxed_slice()
    };
    Subsets {
        keys: spec.keys.iter().map(ascending).collect(),
        fallback: match spec.fallback {
            None | Some(FallbackWord::None) => SubsetFallback::None,
            Some(FallbackWord::Any) => SubsetFallback::Any,
            Some(FallbackWord::Default) => SubsetFallback::Default(labels(&spec.default)),
        },
    }
}
