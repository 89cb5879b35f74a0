//! The rules for listeners: what goes with which protocol.

use std::collections::HashMap;

use super::{Findings, headers, tls};
use crate::resource::{HeadersSpec, ListenerProtocol, ListenerSpec, TlsRouteSpec};
use crate::words::ServerName;

/// So many routes can be at one listener, and so many names in one of them.
const ROUTES_MAX: usize = 10_000;
const NAMES_MAX: usize = 1024;
/// So many are looked through for each connection.
const SOURCES_MAX: usize = 256;

pub(super) fn check(spec: &ListenerSpec, findings: &mut Findings) {
    headers::check(&spec.headers, "headers", findings);
    if let Some(tls) = &spec.tls {
        tls::check_listener(tls, spec.protocol, findings);
    }
    let is_http = spec.protocol == ListenerProtocol::Http;
    let is_passthrough = spec.protocol == ListenerProtocol::TlsPassthrough;
    let edits = spec.headers != HeadersSpec::default();
    let word = match spec.protocol {
        ListenerProtocol::Http => "http",
        ListenerProtocol::Tcp => "tcp",
        ListenerProtocol::Udp => "udp",
        ListenerProtocol::TlsPassthrough => "tls_passthrough",
    };
    findings.refuse_if(edits && !is_http, "headers", || {
        format!("a {word} listener sees no headers; leave it out")
    });
    findings.refuse_if(
        !spec.routes.is_empty() && !is_passthrough,
        "routes",
        || match is_http {
            true => "an http listener has no routes; attach a VirtualHost to it".into(),
            false => "only a tls_passthrough listener has routes; use `to`".into(),
        },
    );
    check_sources(spec, findings);
    match spec.protocol {
        ListenerProtocol::Tcp => {
            findings.refuse_if(spec.to.is_none(), "to", || {
                "a tcp listener needs to know where connections go; add `to: <cluster>`".into()
            });
        }
        ListenerProtocol::Udp => {
            findings.refuse_if(spec.to.is_none(), "to", || {
                "a udp listener needs to know where datagrams go; add `to: <cluster>`".into()
            });
            findings.refuse_if(spec.tls.is_some(), "tls", || {
                "TLS needs connections; leave it out, or use another protocol".into()
            });
            findings.refuse_if(spec.proxy_protocol.is_some(), "proxy_protocol", || {
                "datagrams have no PROXY header; leave it out".into()
            });
        }
        ListenerProtocol::TlsPassthrough => {
            findings.refuse_if(spec.tls.is_some(), "tls", || {
                "TLS that is passed on is not ended here; leave `tls` out, or use `protocol: tcp`"
                    .into()
            });
            findings.refuse_if(
                spec.to.is_none() && spec.routes.is_empty(),
                "routes",
                || {
                    "nothing goes anywhere; give `routes`, or `to: <cluster>` for all connections"
                        .into()
                },
            );
            check_routes(&spec.routes, findings);
        }
        ListenerProtocol::Http => {
            findings.refuse_if(spec.to.is_some(), "to", || {
                "an http listener has no `to`; attach a VirtualHost to it".into()
            });
            findings.refuse_if(spec.idle_timeout.is_some(), "idle_timeout", || {
                "this is not for http listeners; set `idle_timeout` in Defaults".into()
            });
        }
    }
}

fn check_sources(spec: &ListenerSpec, findings: &mut Findings) {
    if let Some(trusted) = spec
        .proxy_protocol
        .as_ref()
        .and_then(|it| it.trusted_sources())
    {
        let path = "proxy_protocol.trusted_sources";
        findings.refuse_if(trusted.is_empty(), path, || {
            "nobody is trusted; give at least one, or leave it out for everybody".into()
        });
        findings.refuse_if(trusted.len() > SOURCES_MAX, path, || {
            format!("there are more than {SOURCES_MAX}; use larger ranges")
        });
        findings.refuse_repeats(path, trusted);
    }
}

fn check_routes(routes: &[TlsRouteSpec], findings: &mut Findings) {
    findings.refuse_if(routes.len() > ROUTES_MAX, "routes", || {
        format!("there are more than {ROUTES_MAX}; use wildcards, or several listeners")
    });
    // Of a name: the route that takes all its connections.
    let mut taken: HashMap<&ServerName, usize> = HashMap::new();
    for (index, route) in routes.iter().enumerate() {
        let path = format!("routes[{index}].match");
        let (names, alpn) = (&route.matches.server_names, &route.matches.alpn);
        findings.refuse_if(names.is_empty() && alpn.is_empty(), path.clone(), || {
            "it matches everything; give `server_names`, or use the listener's `to`".into()
        });
        findings.refuse_if(
            names.len() > NAMES_MAX,
            format!("{path}.server_names"),
            || format!("there are more than {NAMES_MAX} names; use several routes, or wildcards"),
        );
        findings.refuse_repeats(&format!("{path}.server_names"), names);
        findings.refuse_repeats(&format!("{path}.alpn"), alpn);
        for (at, name) in names.iter().enumerate() {
            if let Some(by) = taken.get(name) {
                findings.refuse_if(true, format!("{path}.server_names[{at}]"), || {
                    format!(
                        "routes[{by}] takes all connections for `{name}` before; remove it from one \
                         of them, or put this one first"
                    )
                });
            }
        }
        if alpn.is_empty() {
            for name in names {
                taken.entry(name).or_insert(index);
            }
        }
    }
}
