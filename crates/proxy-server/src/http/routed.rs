//! What a route makes of a request: an answer, or what the upstream is asked.
//!
//! Owns where the parts of another URL come from. Never sends anything.

use http::{HeaderMap, HeaderName};
use proxy_config::compiled::{Action, Asked, Defaults, Rewrite, RewriteFault, Route, Split};

use super::answer::Reason;
use super::forwarded::X_FORWARDED_PROTO;
use super::own::Own;
use super::target::Target;
use crate::http1::RequestHead;

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
        head: &RequestHead,
        (defaults, target): (&Defaults, &Target<'_>),
    ) -> Self {
        match &route.action {
            Action::Forward(split) => Self::Forward(split),
            Action::Redirect(redirect) => match redirect.location(&asked(head, defaults, target)) {
                Ok(location) => Self::Own(Own::Redirect {
                    status: redirect.status,
                    location,
                }),
                Err(_) => Self::Fault(Reason::Rewrite),
            },
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

/// The URL that the client asked for. Its scheme is what a trusted proxy before us says.
fn asked<'a>(head: &RequestHead, defaults: &Defaults, target: &'a Target<'a>) -> Asked<'a> {
    let said = head.headers.get(X_FORWARDED_PROTO);
    let is_https = defaults.trusted_hops > 0
        && said.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"));
    Asked {
        scheme: if is_https { "https" } else { "http" },
        host: target.host,
        path: &target.path,
        query: target.query.strip_prefix('?').unwrap_or_default(),
    }
}
