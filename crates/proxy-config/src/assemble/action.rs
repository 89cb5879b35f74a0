//! What a route does, as written, to its compiled shape.

use imbl::OrdMap;

use super::headers::header_name;
use super::split;
use crate::action::{Action, HostChange, PathChange, Redirect, Respond, Rewrite};
use crate::compiled::{Cluster, Mirror, ResourceName};
use crate::link::Shared;
use crate::resource::{
    MatchSpec, MirrorSpec, RedirectSpec, RegexRewriteSpec, Resource, RespondSpec, RouteSpec, Scheme,
};
use crate::rewrite::{Substitution, TemplateChange, TemplateText};
use crate::words::PathText;

/// Envoy's.
const REDIRECT_CODE: u16 = 301;

/// The action, if the clusters that it names are all there.
pub(super) fn action(
    route: &RouteSpec,
    resource: &Resource,
    clusters: &OrdMap<ResourceName, Shared<Cluster>>,
) -> Option<Action> {
    if let Some(spec) = &route.redirect {
        return Some(Action::Redirect(redirect(spec, &route.matches)));
    }
    if let Some(spec) = &route.respond {
        return Some(Action::Respond(respond(spec)));
    }
    split(route.to.as_ref()?, resource, clusters).map(Action::Forward)
}

/// Where copies go, if the clusters are all there.
pub(super) fn mirrors(
    route: &RouteSpec,
    resource: &Resource,
    clusters: &OrdMap<ResourceName, Shared<Cluster>>,
) -> Option<Box<[Mirror]>> {
    let mirror = |spec: &MirrorSpec| {
        let name = spec.to.resolve(resource.namespace());
        Some(Mirror {
            cluster: clusters.get(&name)?.0.clone(),
            percent: spec.percent,
            keep_host: spec.keep_host,
        })
    };
    route.mirror.iter().map(mirror).collect()
}

fn redirect(spec: &RedirectSpec, matches: &MatchSpec) -> Redirect {
    Redirect {
        status: spec.code.unwrap_or(REDIRECT_CODE),
        scheme: spec.scheme.map(|scheme| match scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }),
        host: spec.host.as_ref().map(|host| host.as_str().into()),
        port: spec.port,
        path: path_change(
            (&spec.path, &spec.path_prefix),
            (&spec.path_regex, &spec.path_template),
            matches,
        ),
        strip_query: spec.strip_query,
    }
}

/// What is changed of a request that is passed on.
pub(super) fn rewrite(route: &RouteSpec) -> Rewrite {
    let Some(spec) = &route.rewrite else {
        return Rewrite::default();
    };
    Rewrite {
        path: path_change(
            (&spec.path, &spec.path_prefix),
            (&spec.path_regex, &spec.path_template),
            &route.matches,
        ),
        host: if let Some(host) = &spec.host {
            HostChange::Fixed(host.as_str().into())
        } else if let Some(name) = spec.host_from_header.as_ref().and_then(header_name) {
            HostChange::FromHeader(name)
        } else {
            HostChange::Keep
        },
    }
}

/// At most one of the four is given, and each was checked.
fn path_change(
    (path, prefix): (&Option<PathText>, &Option<PathText>),
    (regex, template): (&Option<RegexRewriteSpec>, &Option<TemplateText>),
    matches: &MatchSpec,
) -> PathChange {
    if let Some(path) = path {
        PathChange::Whole(path.as_str().into())
    } else if let Some(prefix) = prefix {
        replaced(prefix, matches)
    } else if let Some(spec) = regex
        && let Ok(substitution) = Substitution::new(&spec.pattern, &spec.substitution)
    {
        PathChange::Regex(Box::new(substitution))
    } else if let (Some(text), Some(from)) = (template, &matches.path_template)
        && let Ok(change) = TemplateChange::new(text, from)
    {
        PathChange::Template(change)
    } else {
        PathChange::Keep
    }
}

/// `to` for what the route matches of a path.
fn replaced(to: &PathText, matches: &MatchSpec) -> PathChange {
    match (&matches.path, &matches.path_prefix) {
        (Some(_), _) => PathChange::Whole(to.as_str().into()),
        (None, from) => PathChange::Prefix {
            from: from
                .as_ref()
                .map_or("", |from| from.as_str().trim_end_matches('/'))
                .into(),
            to: to.as_str().into(),
        },
    }
}

fn respond(spec: &RespondSpec) -> Respond {
    let headers = spec.headers.iter();
    let mut headers: Vec<(Box<str>, Box<str>)> = headers
        .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
        .collect();
    if !spec.body.is_empty() && !headers.iter().any(|(name, _)| **name == *"content-type") {
        let text = "text/plain; charset=utf-8";
        headers.insert(0, ("content-type".into(), text.into()));
    }
    Respond {
        status: spec.status,
        body: spec.body.as_bytes().into(),
        headers: headers.into(),
    }
}
