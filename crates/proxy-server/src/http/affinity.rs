//! What a request is known by, so that requests alike go to the same endpoint.
//!
//! Owns the evaluation of a route's hash policies, as Envoy's `HashPolicyImpl` does it, and the
//! cookie that is made for a client without one. Never chooses an endpoint.

use std::io::{Cursor, Write as _};
use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, header};
use proxy_balance::hash;
use proxy_config::compiled::{Balance, Cluster, HashOn, HashPolicy, NewCookie};
use rand::{Rng, RngExt as _};
use smallvec::SmallVec;

use super::forwarded::client_address;

/// The longest text of an address.
const ADDRESS_BYTES_MAX: usize = 48;

/// By what a request is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Affinity {
    /// The hash of it; `None`: by nothing.
    pub(super) key: Option<u64>,
    /// What the client is told to be known by from now on: a `Set-Cookie`.
    pub(super) cookie: Option<HeaderValue>,
}

/// What of a request can be hashed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) headers: &'a HeaderMap,
    /// With its question mark; empty if there is none.
    pub(super) query: &'a str,
    /// The address of whom the request came from.
    pub(super) peer: &'a str,
    pub(super) trusted_hops: u32,
}

impl Affinity {
    /// What `cluster` chooses by. Nothing is looked at where it does not hash.
    pub(super) fn of(
        cluster: &Cluster,
        policies: &[HashPolicy],
        subject: &Subject<'_>,
        rng: &mut impl Rng,
    ) -> Self {
        match cluster.balance {
            Balance::IpHash => Self {
                key: subject.source_ip(),
                cookie: None,
            },
            Balance::RingHash | Balance::Maglev => Self::by(policies, subject, rng),
            _ => Self::default(),
        }
    }

    fn by(policies: &[HashPolicy], subject: &Subject<'_>, rng: &mut impl Rng) -> Self {
        let mut affinity = Self::default();
        for policy in policies {
            let found = match &policy.on {
                HashOn::Header(name) => subject.header(name),
                HashOn::SourceIp => subject.source_ip(),
                HashOn::QueryParameter(name) => subject.query_parameter(name),
                HashOn::Cookie { name, new } => match (subject.cookie(name), new) {
                    (Some(value), _) => Some(hash(value, 0)),
                    (None, Some(new)) => affinity.make_cookie(name, new, rng),
                    (None, None) => None,
                },
            };
            if let Some(found) = found {
                let before = affinity.key.unwrap_or_default();
                affinity.key = Some(before.rotate_left(1) ^ found);
            }
            if policy.terminal && affinity.key.is_some() {
                break;
            }
        }
        affinity
    }

    fn make_cookie(&mut self, name: &str, new: &NewCookie, rng: &mut impl Rng) -> Option<u64> {
        // There is one response head, and room for one more field in it.
        if self.cookie.is_some() {
            return None;
        }
        let value = format!("{:016x}", rng.random::<u64>());
        let mut text = format!("{name}={value}");
        if !new.ttl.is_zero() {
            // A client that counts in seconds must not forget it before it has it.
            let seconds = new.ttl.as_secs().max(1).to_string();
            text.push_str("; Max-Age=");
            text.push_str(&seconds);
        }
        if let Some(path) = &new.path {
            text.push_str("; Path=");
            text.push_str(path);
        }
        text.push_str("; HttpOnly");
        self.cookie = Some(HeaderValue::try_from(text).ok()?);
        Some(hash(value.as_bytes(), 0))
    }
}

impl Subject<'_> {
    /// Of several values the order does not matter: proxies on the way may change it.
    fn header(&self, name: &str) -> Option<u64> {
        let values = self.headers.get_all(name).iter();
        let mut values: SmallVec<[&[u8]; 4]> = values.map(HeaderValue::as_bytes).collect();
        if values.is_empty() {
            return None;
        }
        values.sort_unstable();
        Some(values.iter().fold(0, |seed, value| hash(value, seed)))
    }

    /// The value of the first cookie of this name, without quotes around it.
    fn cookie(&self, name: &str) -> Option<&[u8]> {
        let lists = self.headers.get_all(header::COOKIE).iter();
        let mut pairs = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b';'));
        let value = pairs.find_map(|pair| {
            let pair = pair.trim_ascii();
            let value = pair.strip_prefix(name.as_bytes())?;
            value.strip_prefix(b"=")
        })?;
        let unquoted = value
            .strip_prefix(b"\"")
            .and_then(|v| v.strip_suffix(b"\""));
        Some(unquoted.unwrap_or(value))
    }

    fn query_parameter(&self, name: &str) -> Option<u64> {
        let query = self.query.strip_prefix('?')?;
        let value = query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })?;
        Some(hash(value.as_bytes(), 0))
    }

    fn source_ip(&self) -> Option<u64> {
        if self.trusted_hops == 0 {
            return Some(hash(self.peer.as_bytes(), 0));
        }
        let peer = self.peer.parse().ok()?;
        Some(address_key(client_address(
            self.headers,
            peer,
            self.trusted_hops,
        )))
    }
}

/// The hash of an address: of its text, as Envoy's.
pub(crate) fn address_key(address: IpAddr) -> u64 {
    let mut text = Cursor::new([0; ADDRESS_BYTES_MAX]);
    write!(text, "{}", address.to_canonical()).expect("every address is shorter");
    let length = usize::try_from(text.position()).unwrap_or_default();
    hash(&text.get_ref()[..length], 0)
}

#[cfg(test)]
mod tests;
