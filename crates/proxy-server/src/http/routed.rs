//! Which route takes a request, and what it makes of it: an answer, or what the upstream is asked.
//!
//! Owns where the parts of another URL come from. Never sends anything.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use proxy_config::RequestView;
use proxy_config::compiled::{
    Action, Asked, Defaults, HttpListener, Rewrite, RewriteFault, Route, Split,
};

use super::answer::Reason;
use super::exchange::Scene;
use super::forwarded::X_FORWARDED_PROTO;
use super::own::Own;
use super::target::Target;
use crate::http1::RequestHead;

/// The route that takes a request.
pub(super) fn route<'a>(
    http: &'a HttpListener,
    head: &RequestHead,
    target: &Target<'_>,
) -> Option<&'a Arc<Route>> {
    let header = |name: &str| listed(&head.headers, name);
    let found = http.router.route(&RequestView {
        host: target.host,
        path: &target.path,
        query: target.query.strip_prefix('?').unwrap_or_default(),
        method: head.method.as_str(),
        header: &header,
    });
    found.map(|found| found.route)
}

/// A header as routes see it: all its values, also those that are no text.
pub(super) fn listed<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    let text = |value: &'a HeaderValue| String::from_utf8_lossy(value.as_bytes());
    let mut values = headers.get_all(name).iter();
    let mut list = text(values.next()?);
    for value in values {
        list.to_mut().push_str(", ");
        list.to_mut().push_str(&text(value));
    }
    Some(list)
}

/// Where a request goes.
#[derive(Debug)]
pub(super) enum Way<'a> {
    /// To one of these clusters.
    Forward(&'a Split),
    /// Nowhere: this is the answer.
    Own(Own<'a>),
    /// Nowhere: the route cannot do what it shall.
    Fault(Reason),
}

impl<'a> Way<'a> {
    pub(super) fn of(
        route: &'a Route,
        scene: &Scene<'_>,
        (defaults, target): (&Defaults, &Target<'_>),
    ) -> Self {
        match &route.action {
            Action::Forward(split) => Self::Forward(split),
            Action::Redirect(redirect) => {
                match redirect.location(&asked(scene, defaults, target)) {
                    Ok(location) => Self::Own(Own::Redirect {
                        status: redirect.status,
                        location,
                    }),
                    Err(_) => Self::Fault(Reason::Rewrite),
                }
            }
            Action::Respond(respond) => Self::Own(Own::Respond(respond)),
        }
    }
}

/// Whom the request is for as the upstream is told.
pub(super) fn rewritten<'a>(
    target: &'a Target<'a>,
    rewrite: &'a Rewrite,
    headers: &'a HeaderMap,
) -> Result<Target<'a>, RewriteFault> {
    let header = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        let only = values.next().filter(|_| values.next().is_none());
        only.and_then(|value| value.to_str().ok())
    };
    Ok(Target {
        host: rewrite.host.apply(target.host, header),
        path: rewrite.path.apply(&target.path)?,
        query: target.query,
    })
}

/// The URL that the client asked for. Its scheme is what a trusted proxy before us says, if it does.
fn asked<'a>(scene: &Scene<'_>, defaults: &Defaults, target: &'a Target<'a>) -> Asked<'a> {
    let said = scene.head.headers.get(X_FORWARDED_PROTO);
    let said = said.filter(|_| defaults.trusted_hops > 0);
    let is_https = said.map_or(scene.is_tls, |value| {
        value.as_bytes().eq_ignore_ascii_case(b"https")
    });
    Asked {
        scheme: if is_https { "https" } else { "http" },
        host: target.host,
        path: &target.path,
        query: target.query.strip_prefix('?').unwrap_or_default(),
    }
}
