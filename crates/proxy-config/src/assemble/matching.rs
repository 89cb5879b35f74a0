//! `match` as written to conditions.

use crate::pattern::Pattern;
use crate::resource::{HeaderSpec, MatchSpec, QuerySpec};
use crate::router::{Conditions, HeaderCondition, PathCondition, QueryCondition, ValueCondition};

pub(super) fn conditions(matches: &MatchSpec) -> Conditions {
    let methods = matches.methods.iter();
    Conditions {
        path: path(matches),
        methods: methods.map(|method| method.as_str().into()).collect(),
        headers: matches.headers.iter().map(header).collect(),
        query: matches.query.iter().map(query).collect(),
        grpc: matches.grpc.is_some(),
    }
}

/// At most one of them is given.
fn path(matches: &MatchSpec) -> PathCondition {
    if let Some(path) = &matches.path {
        PathCondition::Exact(path.as_str().into())
    } else if let Some(prefix) = &matches.path_prefix {
        PathCondition::Prefix(prefix.as_str().into())
    } else if let Some(template) = &matches.path_template {
        PathCondition::Template(template.clone())
    } else if let Some(pattern) = &matches.path_regex {
        PathCondition::Regex(pattern.clone())
    } else if let Some(name) = &matches.grpc {
        let path = format!("/{name}").into();
        if name.is_method() {
            PathCondition::Exact(path)
        } else {
            PathCondition::Prefix(path)
        }
    } else {
        PathCondition::Any
    }
}

pub(super) fn header(spec: &HeaderSpec) -> HeaderCondition {
    let value = value(&spec.exact, &spec.prefix, &spec.regex);
    let suffix = spec
        .suffix
        .as_deref()
        .map(|suffix| ValueCondition::Suffix(suffix.into()));
    let part = spec
        .contains
        .as_deref()
        .map(|part| ValueCondition::Contains(part.into()));
    HeaderCondition {
        name: spec.name.as_str().into(),
        value: value.or(suffix).or(part).unwrap_or(ValueCondition::Present),
        invert: spec.invert,
    }
}

fn query(spec: &QuerySpec) -> QueryCondition {
    let value = value(&spec.exact, &spec.prefix, &spec.regex);
    QueryCondition {
        name: spec.name.as_str().into(),
        value: value.unwrap_or(ValueCondition::Present),
    }
}

fn value(
    exact: &Option<String>,
    prefix: &Option<String>,
    regex: &Option<Pattern>,
) -> Option<ValueCondition> {
    let exact = exact
        .as_deref()
        .map(|value| ValueCondition::Exact(value.into()));
    let prefix = prefix
        .as_deref()
        .map(|value| ValueCondition::Prefix(value.into()));
    exact
        .or(prefix)
        .or_else(|| regex.clone().map(ValueCondition::Regex))
}
