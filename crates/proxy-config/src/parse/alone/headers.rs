//! The rules of header changes.

use super::Findings;
use crate::resource::{HeaderEditsSpec, HeadersSpec};
use crate::words::HeaderName;

/// One level makes at most so many changes of one head.
const CHANGES_MAX: usize = 64;
/// Headers that frame messages, are for one hop only, or that Skein writes itself.
const OURS: [&str; 18] = [
    "connection",
    "content-length",
    "date",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-envoy-original-path",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
    "host",
];

pub(super) fn check(spec: &HeadersSpec, path: &str, findings: &mut Findings) {
    for (side, edits) in [("request", &spec.request), ("response", &spec.response)] {
        let path = format!("{path}.{side}");
        check_edits(edits, &path, findings);
    }
    let edits = &spec.request;
    for (field, values) in [
        ("set", &edits.set),
        ("add", &edits.add),
        ("add_if_absent", &edits.add_if_absent),
    ] {
        for (name, value) in values {
            let Some(variable) = value.of_response() else {
                continue;
            };
            findings.refuse_if(true, format!("{path}.request.{field}.{name}"), || {
                format!("`%{variable}%` is known with the answer only; use it in `response`")
            });
        }
    }
}

fn check_edits(edits: &HeaderEditsSpec, path: &str, findings: &mut Findings) {
    let removed = edits.remove.iter().map(HeaderName::as_str);
    findings.refuse_repeats(&format!("{path}.remove"), removed);
    for (index, name) in edits.remove.iter().enumerate() {
        refuse_ours(name.as_str(), &format!("{path}.remove[{index}]"), findings);
    }
    let made = [&edits.set, &edits.add, &edits.add_if_absent];
    for (field, values) in ["set", "add", "add_if_absent"].into_iter().zip(made) {
        for name in values.keys() {
            refuse_ours(name.as_str(), &format!("{path}.{field}.{name}"), findings);
        }
    }
    let count = edits.remove.len() + made.iter().map(|values| values.len()).sum::<usize>();
    findings.refuse_if(count > CHANGES_MAX, path, || {
        format!("there are {count} changes, more than {CHANGES_MAX}; leave some out")
    });
}

/// Refuses a header that config cannot change.
pub(super) fn refuse_ours(name: &str, path: &str, findings: &mut Findings) {
    findings.refuse_if(OURS.contains(&name), path, || match name {
        "host" => "the host is no header to change here; use `rewrite: { host: name }`".into(),
        _ => format!("`{name}` is written by Skein itself; leave it out"),
    });
}
