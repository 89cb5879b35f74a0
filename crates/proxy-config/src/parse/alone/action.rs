//! The rules of what a route does.

use super::Findings;
use super::headers::refuse_ours;
use crate::resource::{MatchSpec, RedirectSpec, RespondSpec, RewriteSpec, RouteSpec};

/// The largest body of an answer from the config.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// The codes that mean another URL and no more.
const REDIRECT_CODES: [u16; 5] = [301, 302, 303, 307, 308];
pub(super) fn check(route: &RouteSpec, path: &str, findings: &mut Findings) {
    let given = usize::from(route.to.is_some())
        + usize::from(route.redirect.is_some())
        + usize::from(route.respond.is_some());
    findings.refuse_if(given != 1, path, || {
        "a route does one thing; give `to: <cluster>`, `redirect` or `respond`".into()
    });
    if route.to.is_none() {
        for (field, is_given) in [
            ("timeout", route.timeout.is_some()),
            ("retry", route.retry.is_some()),
            ("hash", !route.hash.is_empty()),
            ("rewrite", route.rewrite.is_some()),
        ] {
            findings.refuse_if(is_given, format!("{path}.{field}"), || {
                "nothing is sent upstream; leave it out, or give `to`".into()
            });
        }
    }
    if let Some(rewrite) = &route.rewrite {
        check_rewrite(
            rewrite,
            &route.matches,
            &format!("{path}.rewrite"),
            findings,
        );
    }
    if let Some(redirect) = &route.redirect {
        check_redirect(
            redirect,
            &route.matches,
            &format!("{path}.redirect"),
            findings,
        );
    }
    if let Some(respond) = &route.respond {
        check_respond(respond, &format!("{path}.respond"), findings);
    }
}

fn check_rewrite(spec: &RewriteSpec, matches: &MatchSpec, path: &str, findings: &mut Findings) {
    let nothing = spec.path.is_none() && spec.path_prefix.is_none() && spec.host.is_none();
    findings.refuse_if(nothing, path, || {
        "it changes nothing; give `path`, `path_prefix` or `host`".into()
    });
    let both = spec.path.is_some() && spec.path_prefix.is_some();
    findings.refuse_if(both, path, || {
        "both `path` and `path_prefix`; give one of them".into()
    });
    check_prefix(spec.path_prefix.is_some(), matches, path, findings);
}

fn check_redirect(spec: &RedirectSpec, matches: &MatchSpec, path: &str, findings: &mut Findings) {
    let elsewhere = spec.scheme.is_some()
        || spec.host.is_some()
        || spec.port.is_some()
        || spec.path.is_some()
        || spec.path_prefix.is_some()
        || spec.strip_query;
    findings.refuse_if(!elsewhere, path, || {
        "it leads back to where it comes from; give `scheme`, `host`, `port`, `path`, \
         `path_prefix` or `strip_query`"
            .into()
    });
    let both = spec.path.is_some() && spec.path_prefix.is_some();
    findings.refuse_if(both, path, || {
        "both `path` and `path_prefix`; give one of them".into()
    });
    let has_port = spec.host.as_ref().is_some_and(|host| {
        let host = host.as_str();
        host[host.rfind(']').unwrap_or(0)..].contains(':')
    });
    findings.refuse_if(
        spec.port == Some(0) || (spec.port.is_some() && has_port),
        format!("{path}.port"),
        || "give one port, from 1 to 65535".into(),
    );
    let code = spec
        .code
        .is_some_and(|code| !REDIRECT_CODES.contains(&code));
    findings.refuse_if(code, format!("{path}.code"), || {
        "not the code of a redirect; give 301, 302, 303, 307 or 308".into()
    });
    check_prefix(spec.path_prefix.is_some(), matches, path, findings);
}

/// Only a path that was matched by its start has something to be replaced.
fn check_prefix(given: bool, matches: &MatchSpec, path: &str, findings: &mut Findings) {
    let no_prefix =
        matches.path_regex.is_some() || matches.path_template.is_some() || matches.grpc.is_some();
    findings.refuse_if(given && no_prefix, format!("{path}.path_prefix"), || {
        "the route matches no prefix that could be replaced; match by `path_prefix` or `path`"
            .into()
    });
}

fn check_respond(spec: &RespondSpec, path: &str, findings: &mut Findings) {
    let out_of_bounds = !(200..=599).contains(&spec.status);
    findings.refuse_if(out_of_bounds, format!("{path}.status"), || {
        "not the status of an answer; give 200 to 599".into()
    });
    let bodyless = matches!(spec.status, 204 | 205 | 304) && !spec.body.is_empty();
    findings.refuse_if(bodyless, format!("{path}.body"), || {
        format!(
            "an answer of status {} has no body; leave it out",
            spec.status
        )
    });
    findings.refuse_if(
        spec.body.len() > BODY_BYTES_MAX,
        format!("{path}.body"),
        || "it is longer than 16 KiB; serve it from an upstream".into(),
    );
    for name in spec.headers.keys() {
        refuse_ours(name.as_str(), &format!("{path}.headers"), findings);
    }
}
