//! Runs the tests that a virtual host carries.
//!
//! Owns the verdict. Never sends anything, and never looks at another virtual host: whether a test
//! holds depends on this one alone.

use std::sync::Arc;

use crate::compiled::{Action, Asked, Split};
use crate::host::{Authority, Domain};
use crate::path::{EscapedSlashes, normalize_path};
use crate::resource::{Expectation, VirtualHostSpec};
use crate::router::{RequestView, VirtualHost};

/// What a request is answered that no route takes.
const NO_ROUTE: u16 = 404;

/// The path and text of each test that does not hold.
pub(crate) fn run(
    spec: &VirtualHostSpec,
    namespace: &Arc<str>,
    host: &VirtualHost,
) -> Vec<(String, String)> {
    let check = |(index, expectation): (usize, &Expectation)| {
        let text = check(expectation, namespace, host)?;
        Some((format!("expect[{index}]"), text))
    };
    spec.expect.iter().enumerate().filter_map(check).collect()
}

fn check(expectation: &Expectation, namespace: &Arc<str>, host: &VirtualHost) -> Option<String> {
    let written = &*expectation.get;
    let (path, query) = written.split_once('?').unwrap_or((written, ""));
    // `%2F` may be tested: what a node does with it, its Defaults say.
    let path = normalize_path(path, EscapedSlashes::Keep).ok()?;
    let method = expectation
        .method
        .as_ref()
        .map_or("GET", |method| method.as_str());
    let header = |name: &str| {
        let found = expectation
            .headers
            .iter()
            .find(|(known, _)| known.as_str() == name);
        found.map(|(_, value)| value.as_str().into())
    };
    let any_host = any_host(host.domains());
    let asked = Asked {
        scheme: "http",
        host: expectation.host.as_deref().unwrap_or(&any_host),
        path: &path,
        query,
    };
    let request = RequestView {
        host: asked.host,
        path: &path,
        query,
        method,
        header: &header,
    };
    let chosen = host.route(&request);
    let found = match chosen {
        None => "no route takes it".to_owned(),
        Some(route) => format!(
            "routes[{}] takes it, {}",
            route.index,
            route.action.told(&asked)
        ),
    };
    let (holds, wanted) = match (&expectation.to, &expectation.redirect) {
        (None, None) => {
            let status = expectation.status.unwrap_or(NO_ROUTE);
            let found = chosen.map_or(Some(NO_ROUTE), |route| route.action.status());
            (found == Some(status), format!("status {status}"))
        }
        (None, Some(url)) => {
            let holds = chosen.is_some_and(|route| match &route.action {
                Action::Redirect(redirect) => redirect.location(&asked).as_ref() == Ok(url),
                Action::Forward(_) | Action::Respond(_) => false,
            });
            (holds, url.clone())
        }
        (Some(reference), _) => {
            let name = reference.resolve(namespace);
            let holds = chosen.is_some_and(|route| {
                let is_wanted = |to: &Split| {
                    let mut targets = to.targets.iter();
                    targets.any(|target| target.cluster.name == name)
                };
                route.action.to().is_some_and(is_wanted)
            });
            (holds, reference.to_string())
        }
    };
    let text = format!(
        "{method} {written} should go to {wanted}, but {found}; correct the routes or the expectation"
    );
    (!holds).then_some(text)
}

/// A host of the virtual host; routes do not look at it.
fn any_host(domains: &[Authority]) -> String {
    let exact = |one: &&Authority| matches!(one.domain, Domain::Exact(_));
    match domains.iter().find(exact) {
        Some(exact) => exact.to_string(),
        None => "localhost".to_owned(),
    }
}
