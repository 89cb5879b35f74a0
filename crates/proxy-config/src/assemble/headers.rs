//! Changes of headers as written to the list that is worked off.

use std::collections::BTreeMap;

use http::HeaderName as Name;

use crate::header::{HeaderChange, HeaderChanges, HeaderTemplate};
use crate::resource::{HeaderEditsSpec, HeadersSpec};
use crate::words::HeaderName;

pub(crate) fn header_changes(spec: &HeadersSpec) -> HeaderChanges {
    HeaderChanges {
        request: changes(&spec.request),
        response: changes(&spec.response),
    }
}

/// What goes, goes first: so a header can be removed and given anew.
fn changes(spec: &HeaderEditsSpec) -> Box<[HeaderChange]> {
    let mut changes: Vec<_> = spec
        .remove
        .iter()
        .filter_map(header_name)
        .map(HeaderChange::Remove)
        .collect();
    let mut push = |values: &BTreeMap<_, HeaderTemplate>, change: fn(_, _) -> _| {
        for (header, value) in values {
            changes.extend(header_name(header).map(|name| change(name, value.clone())));
        }
    };
    push(&spec.set, HeaderChange::Set);
    push(&spec.add, HeaderChange::Add);
    push(&spec.add_if_absent, HeaderChange::AddIfAbsent);
    changes.into()
}

/// Both are tokens in lower case, so there is one.
pub(super) fn header_name(word: &HeaderName) -> Option<Name> {
    Name::from_bytes(word.as_str().as_bytes()).ok()
}
