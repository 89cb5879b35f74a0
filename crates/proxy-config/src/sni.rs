//! Where a TLS connection goes that is passed on: by the name that it asks for.
//!
//! Owns the order of precedence. A look-up costs what the name costs, not what all the routes do.
//! Never reads bytes: the caller tells what a connection asks for.

use std::fmt;

use crate::compiled::Split;
use crate::host::Domain;

/// Fixed keys: what is looked up never enters the map, so nobody can make it slow.
type Names = std::collections::HashMap<
    Box<str>,
    Vec<usize>,
    std::hash::BuildHasherDefault<std::hash::DefaultHasher>,
>;

/// The routes of a listener that passes TLS on.
#[derive(Debug, Default)]
pub struct TlsRoutes {
    /// In the written order.
    routes: Box<[TlsRoute]>,
    /// The places of the routes for a name alone; for all below a name, which is kept as `.x`; and
    /// for whatever name.
    exact: Names,
    below: Names,
    any: Vec<usize>,
}

/// One of [`TlsRoutes`].
#[derive(Debug)]
pub struct TlsRoute {
    /// The names; empty: any, and none.
    pub server_names: Box<[Domain]>,
    /// One of these must be offered; empty: nothing must.
    pub alpn: Box<[Box<str>]>,
    /// Where connections go.
    pub to: Split,
}

/// What a connection asks for in its first message.
#[derive(Clone, Copy)]
pub struct TlsAsked<'a> {
    /// The name, in lower case and without a dot at its end.
    pub server_name: Option<&'a str>,
    /// Whether it offers a protocol.
    pub offers: &'a dyn Fn(&str) -> bool,
}

impl TlsRoute {
    /// Whether it takes a connection that it may have by its name.
    fn takes(&self, asked: &TlsAsked<'_>) -> bool {
        self.alpn.is_empty() || self.alpn.iter().any(|name| (asked.offers)(name))
    }
}

impl fmt::Display for TlsRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.server_names.iter().map(ToString::to_string).collect();
        match names.is_empty() {
            true => f.write_str("any name")?,
            false => f.write_str(&names.join(", "))?,
        }
        match self.alpn.is_empty() {
            true => Ok(()),
            false => write!(f, ", alpn {}", self.alpn.join(" or ")),
        }
    }
}

impl TlsRoutes {
    /// The routes, in the written order.
    pub fn new(routes: Vec<TlsRoute>) -> Self {
        let mut all = Self::default();
        for (at, route) in routes.iter().enumerate() {
            if route.server_names.is_empty() {
                all.any.push(at);
            }
            for name in &route.server_names {
                let (names, name) = match name {
                    Domain::Exact(name) => (&mut all.exact, name),
                    Domain::Below(suffix) => (&mut all.below, suffix),
                    // No word of the config says these.
                    Domain::Begins(_) | Domain::Any => continue,
                };
                names.entry(name.clone()).or_default().push(at);
            }
        }
        all.routes = routes.into();
        all
    }

    /// The routes, in the written order.
    pub fn routes(&self) -> &[TlsRoute] {
        &self.routes
    }

    /// The place of the route that takes a connection: one for its very name before those for all
    /// below a name, of those the longest first, then those without a name; of several with the same
    /// name the first that takes what the connection offers.
    pub fn find(&self, asked: &TlsAsked<'_>) -> Option<usize> {
        let first = |places: &[usize]| {
            let mut places = places.iter().copied();
            places.find(|at| self.routes[*at].takes(asked))
        };
        let named = |names: &Names, name: &str| names.get(name).and_then(|places| first(places));
        let by_name = asked.server_name.and_then(|name| {
            let exact = named(&self.exact, name);
            let mut suffixes = name.match_indices('.').filter(|(at, _)| *at > 0);
            let has_below = !self.below.is_empty();
            exact.or_else(|| match has_below {
                true => suffixes.find_map(|(at, _)| named(&self.below, &name[at..])),
                false => None,
            })
        });
        by_name.or_else(|| first(&self.any))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(names: &[&str], alpn: &[&str]) -> TlsRoute {
        TlsRoute {
            server_names: names.iter().map(|it| Domain::parse(it).unwrap()).collect(),
            alpn: alpn.iter().map(|name| Box::from(*name)).collect(),
            to: Split {
                targets: Box::default(),
                total: 0,
            },
        }
    }

    fn find(routes: &TlsRoutes, name: Option<&str>, offered: &[&str]) -> Option<usize> {
        routes.find(&TlsAsked {
            server_name: name,
            offers: &|name| offered.contains(&name),
        })
    }

    #[test]
    fn the_nearest_name_wins_wherever_it_is_written() {
        let routes = TlsRoutes::new(vec![
            route(&[], &["acme-tls/1"]),
            route(&["*.test"], &[]),
            route(&["*.a.test", "a.test"], &[]),
            route(&["x.a.test"], &["h2"]),
        ]);
        for (name, offered, expected) in [
            (Some("a.test"), &[][..], Some(2)),
            (Some("x.a.test"), &[], Some(2)),
            (Some("x.a.test"), &["http/1.1", "h2"], Some(3)),
            (Some("y.x.a.test"), &["h2"], Some(2)),
            (Some("b.test"), &["acme-tls/1"], Some(1)),
            (Some("test"), &[], None),
            (Some(".test"), &[], None),
            (Some("other"), &["acme-tls/1"], Some(0)),
            (None, &["acme-tls/1"], Some(0)),
            (None, &["h2"], None),
        ] {
            let found = find(&routes, name, offered);
            assert_eq!(found, expected, "{name:?} {offered:?}");
        }
    }

    /// How near a route is to a name; more is nearer.
    fn nearness(route: &TlsRoute, name: Option<&str>) -> Option<usize> {
        let near = |domain: &Domain| match (domain, name) {
            (Domain::Exact(known), Some(name)) if **known == *name => Some(usize::MAX),
            (Domain::Below(suffix), Some(name)) if domain.matches(name) => Some(suffix.len()),
            _ => None,
        };
        match route.server_names.is_empty() {
            true => Some(0),
            false => route.server_names.iter().filter_map(near).max(),
        }
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_scan_of_all_routes_finds(
            table in proptest::collection::vec((
                proptest::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,2}", 0..3),
                proptest::option::of("[pq]"),
            ), 0..12),
            name in proptest::option::of("[ab](\\.[ab]){0,3}"),
            offered in proptest::collection::vec("[pq]", 0..2),
        ) {
            let routes = table.iter().map(|(names, alpn)| {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                let alpn: Vec<_> = alpn.iter().map(String::as_str).collect();
                route(&names, &alpn)
            });
            let routes = TlsRoutes::new(routes.collect());
            let offered: Vec<_> = offered.iter().map(String::as_str).collect();
            let asked = TlsAsked {
                server_name: name.as_deref(),
                offers: &|name| offered.contains(&name),
            };
            let all = routes.routes().iter().enumerate();
            let taking = all.filter(|(_, route)| route.takes(&asked));
            let near = taking.filter_map(|(at, route)| {
                Some((nearness(route, name.as_deref())?, std::cmp::Reverse(at)))
            });
            let scanned = near.max().map(|(_, at)| at.0);
            prop_assert_eq!(routes.find(&asked), scanned);
        }
    }
}
