//! The rules of a route's `match`.

use super::Findings;
use crate::resource::{HeaderSpec, MatchSpec, QuerySpec};

/// The longest name of a query parameter, and the longest text that a value is compared with.
const TEXT_BYTES_MAX: usize = 4096;

pub(super) fn check(matches: &MatchSpec, path: &str, findings: &mut Findings) {
    let given: Vec<_> = [
        ("path", matches.path.is_some()),
        ("path_prefix", matches.path_prefix.is_some()),
        ("path_template", matches.path_template.is_some()),
        ("path_regex", matches.path_regex.is_some()),
        ("grpc", matches.grpc.is_some()),
    ]
    .into_iter()
    .filter(|(_, given)| *given)
    .map(|(name, _)| format!("`{name}`"))
    .collect();
    findings.refuse_if(given.len() > 1, path, || {
        let both = if given.len() == 2 { "both " } else { "" };
        format!("{both}{}; give one of them", given.join(" and "))
    });
    findings.refuse_repeats(&format!("{path}.methods"), &matches.methods);
    for (index, header) in matches.headers.iter().enumerate() {
        check_header(header, &format!("{path}.headers[{index}]"), findings);
        let repeats = matches.headers[..index].contains(header);
        findings.refuse_if(repeats, format!("{path}.headers[{index}]"), || {
            format!("`{}` is given twice; keep one of them", header.name)
        });
    }
    for (index, query) in matches.query.iter().enumerate() {
        check_query(query, &format!("{path}.query[{index}]"), findings);
        let repeats = matches.query[..index].contains(query);
        findings.refuse_if(repeats, format!("{path}.query[{index}]"), || {
            format!("`{}` is given twice; keep one of them", query.name)
        });
    }
}

pub(super) fn check_header(header: &HeaderSpec, path: &str, findings: &mut Findings) {
    let texts = [
        ("exact", &header.exact),
        ("prefix", &header.prefix),
        ("suffix", &header.suffix),
        ("contains", &header.contains),
    ];
    let said = texts.iter().filter(|(_, text)| text.is_some()).count()
        + usize::from(header.regex.is_some())
        + usize::from(header.present == Some(true));
    findings.refuse_if(said != 1 || header.present == Some(false), path, || {
        "a header condition says one thing; give `exact: value`, `prefix`, `suffix`, `contains`, \
         `regex` or `present: true` (`invert: true` for the opposite)"
            .into()
    });
    let has_control = |text: &str| text.chars().any(char::is_control);
    for (field, text) in texts {
        let Some(text) = text else { continue };
        let odd = match field {
            "exact" => text.trim() != text,
            "prefix" => text.trim_start() != text,
            "suffix" => text.trim_end() != text,
            _ => false,
        };
        findings.refuse_if(odd || has_control(text), format!("{path}.{field}"), || {
            "no header has such a value; leave out control characters and outer spaces".into()
        });
        check_text(text, &format!("{path}.{field}"), findings);
        let empty = text.is_empty() && field != "exact";
        findings.refuse_if(empty, format!("{path}.{field}"), || {
            "every value has that; give a text, or `present: true`".into()
        });
    }
}

fn check_query(query: &QuerySpec, path: &str, findings: &mut Findings) {
    let said = usize::from(query.exact.is_some())
        + usize::from(query.prefix.is_some())
        + usize::from(query.regex.is_some())
        + usize::from(query.present == Some(true));
    findings.refuse_if(said != 1 || query.present == Some(false), path, || {
        "a query condition says one thing; give `exact: value`, `prefix`, `regex` or \
         `present: true`"
            .into()
    });
    findings.refuse_if(query.name.is_empty(), format!("{path}.name"), || {
        "there is no name; give one".into()
    });
    check_text(&query.name, &format!("{path}.name"), findings);
    for (field, text) in [("exact", &query.exact), ("prefix", &query.prefix)] {
        let Some(text) = text else { continue };
        check_text(text, &format!("{path}.{field}"), findings);
        let empty = text.is_empty() && field == "prefix";
        findings.refuse_if(empty, format!("{path}.{field}"), || {
            "every value has that; give a text, or `present: true`".into()
        });
    }
}

fn check_text(text: &str, path: &str, findings: &mut Findings) {
    findings.refuse_if(text.len() > TEXT_BYTES_MAX, path, || {
        format!("it is longer than {TEXT_BYTES_MAX} bytes; shorten it")
    });
}
