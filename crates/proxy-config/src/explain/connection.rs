//! What becomes of a connection that is passed on as it is.
//!
//! Owns the account of it. Whether it offers a protocol cannot be asked: routes that want one are told.

use std::time::Duration;

use super::{Ask, Chosen, ExplainedHeaders, Explanation, Live, TriedRoute, targets};
use crate::compiled::{Split, TlsAsked, TlsPassthrough};
use crate::host::{Domain, normalize_host};
use crate::units::Time;

impl Explanation {
    /// Follows a connection, or a session, that all go the same way; the outcome.
    pub(super) fn pass(
        &mut self,
        to: &Split,
        idle_timeout: Option<Duration>,
        live: &dyn Live,
    ) -> String {
        self.chosen = Some(chosen(None, to, idle_timeout, live));
        format!("the connection goes to {to}")
    }

    /// Follows a TLS connection by the name that it asks for; the outcome.
    pub(super) fn pass_tls(&mut self, tls: &TlsPassthrough, ask: &Ask, live: &dyn Live) -> String {
        let name = match normalize_host(&ask.host) {
            Ok(name) => name.into_owned(),
            Err(fault) => return format!("closed: the name that it asks for: {fault}"),
        };
        let has_name =
            |names: &[Domain]| names.is_empty() || names.iter().any(|n| n.matches(&name));
        for (index, route) in tls.routes.routes().iter().enumerate() {
            if !route.alpn.is_empty() && has_name(&route.server_names) {
                self.tried.push(TriedRoute {
                    index,
                    conditions: route.to_string(),
                    mismatch: Some("unless it offers that protocol".to_owned()),
                });
            }
        }
        let found = tls.routes.find(&TlsAsked {
            server_name: Some(&name),
            offers: &|_| false,
        });
        self.host = name;
        match (found, &tls.to) {
            (Some(index), _) => {
                let route = &tls.routes.routes()[index];
                self.tried.push(TriedRoute {
                    index,
                    conditions: route.to_string(),
                    mismatch: None,
                });
                let (to, idle_timeout) = (&route.to, tls.idle_timeout);
                self.chosen = Some(chosen(Some(index), to, idle_timeout, live));
                format!("routes[{index}] takes it, the connection goes to {to}")
            }
            (None, Some(to)) => {
                self.chosen = Some(chosen(None, to, tls.idle_timeout, live));
                format!("no route has its name, the connection goes to {to}")
            }
            (None, None) => "closed: no route has its name".to_owned(),
        }
    }
}

fn chosen(
    route: Option<usize>,
    to: &Split,
    idle_timeout: Option<Duration>,
    live: &dyn Live,
) -> Chosen {
    Chosen {
        route,
        timeout: idle_timeout.map(Time),
        idle_timeout: None,
        max_stream_duration: None,
        retry: None,
        upgrades: String::new(),
        hash: Vec::new(),
        headers: ExplainedHeaders::default(),
        mirror: Vec::new(),
        targets: targets(to, None, live),
    }
}
