//! The rules of what a route does.

use super::Findings;
use super::headers::refuse_ours;
use crate::fault::suggest;
use crate::resource::{
    MatchSpec, RedirectSpec, RegexRewriteSpec, RespondSpec, RewriteSpec, RouteSpec,
};
use crate::rewrite::{Substitution, TemplateChange, TemplateText};
use crate::words::PathText;

/// The largest body of an answer from the config.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// A route copies its requests to at most so many clusters.
const MIRRORS_MAX: usize = 4;
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
            ("idle_timeout", route.idle_timeout.is_some()),
            ("max_stream_duration", route.max_stream_duration.is_some()),
            ("retry", route.retry.is_some()),
            ("upgrades", !route.upgrades.is_empty()),
            ("hash", !route.hash.is_empty()),
            ("rewrite", route.rewrite.is_some()),
            ("mirror", !route.mirror.is_empty()),
        ] {
            findings.refuse_if(is_given, format!("{path}.{field}"), || {
                "nothing is sent upstream; leave it out, or give `to`".into()
            });
        }
    }
    findings.refuse_if(
        route.mirror.len() > MIRRORS_MAX,
        format!("{path}.mirror"),
        || format!("there are more than {MIRRORS_MAX}; leave some out"),
    );
    let mirrored = route.mirror.iter().map(|mirror| mirror.to.to_string());
    findings.refuse_repeats(&format!("{path}.mirror"), mirrored);
    findings.refuse_repeats(&format!("{path}.upgrades"), &route.upgrades);
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
    let change = PathChanges {
        path: spec.path.as_ref(),
        prefix: spec.path_prefix.as_ref(),
        regex: spec.path_regex.as_ref(),
        template: spec.path_template.as_ref(),
    };
    let host = spec.host.is_some() || spec.host_from_header.is_some();
    findings.refuse_if(change.count() == 0 && !host, path, || {
        "it changes nothing; give `path`, `path_prefix`, `path_regex`, `path_template`, `host` or \
         `host_from_header`"
            .into()
    });
    let both = spec.host.is_some() && spec.host_from_header.is_some();
    findings.refuse_if(both, path, || {
        "both `host` and `host_from_header`; give one of them".into()
    });
    change.check(matches, path, findings);
}

/// The ways to say another path.
struct PathChanges<'a> {
    path: Option<&'a PathText>,
    prefix: Option<&'a PathText>,
    regex: Option<&'a RegexRewriteSpec>,
    template: Option<&'a TemplateText>,
}

impl PathChanges<'_> {
    fn given(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("`path`", self.path.is_some()),
            ("`path_prefix`", self.prefix.is_some()),
            ("`path_regex`", self.regex.is_some()),
            ("`path_template`", self.template.is_some()),
        ];
        let given = all.into_iter().filter(|(_, given)| *given);
        given.map(|(name, _)| name)
    }

    fn count(&self) -> usize {
        self.given().count()
    }

    fn check(&self, matches: &MatchSpec, path: &str, findings: &mut Findings) {
        findings.refuse_if(self.count() > 1, path, || {
            let given: Vec<_> = self.given().collect();
            let both = if given.len() == 2 { "both " } else { "" };
            format!("{both}{}; give one of them", given.join(" and "))
        });
        check_prefix(self.prefix.is_some(), matches, path, findings);
        if let Some(regex) = self.regex
            && let Err(fault) = Substitution::new(&regex.pattern, &regex.substitution)
        {
            let path = format!("{path}.path_regex.substitution");
            findings.refuse_if(true, path, || fault);
        }
        let Some(template) = self.template else {
            return;
        };
        let path = format!("{path}.path_template");
        match &matches.path_template {
            None => findings.refuse_if(true, path, || {
                "the route matches no template whose variables could be used; match by \
                 `path_template`"
                    .into()
            }),
            Some(from) => {
                let unknown = TemplateChange::new(template, from).err();
                let known: Vec<_> = from.variables().map(|(_, name)| name).collect();
                findings.refuse_if(unknown.is_some(), path, || {
                    let name = unknown.unwrap_or_default();
                    let remedy = suggest(name, &known);
                    format!("the route's template has no `{name}`; {remedy}")
                });
            }
        }
    }
}

fn check_redirect(spec: &RedirectSpec, matches: &MatchSpec, path: &str, findings: &mut Findings) {
    let change = PathChanges {
        path: spec.path.as_ref(),
        prefix: spec.path_prefix.as_ref(),
        regex: spec.path_regex.as_ref(),
        template: spec.path_template.as_ref(),
    };
    let elsewhere = spec.scheme.is_some()
        || spec.host.is_some()
        || spec.port.is_some()
        || change.count() > 0
        || spec.strip_query;
    findings.refuse_if(!elsewhere, path, || {
        "it leads back to where it comes from; give `scheme`, `host`, `port`, `path`, \
         `path_prefix`, `path_regex`, `path_template` or `strip_query`"
            .into()
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
    change.check(matches, path, findings);
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
