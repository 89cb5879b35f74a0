//! The kind Cluster as written.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ClusterTlsSpec, ConnectionsSpec, HeadersSpec, OutlierSpec, SubsetsSpec, is_default};
use crate::compiled::{Balance, ProxyProtocolVersion, UpstreamHttp};
use crate::units::Time;
use crate::words::{Address, Name, ProbePath, Reference};

/// A group of upstream endpoints and how to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// The endpoints: `ip:port`, or `unix:/path` for a socket of the node, or with weight and zone.
    /// What is at a path may be another server on each node: it is judged by each node for itself. May
    /// be left out where there is a `service`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointSpec>,
    /// Endpoints that register themselves as this service, with keys
    /// `/skein/endpoints/NAMESPACE/SERVICE/ID` of the store, are used beside `endpoints`; left out:
    /// none. `namespace/service` for one of another namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Reference>,
    /// Which HTTP the endpoints are spoken to, whatever the clients speak; left out: `h1`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub http: UpstreamHttp,
    /// How an endpoint is chosen.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balance: Balance,
    /// The active health check; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeSpec>,
    /// Whether, and how, TLS is spoken with the endpoints, by probes too; left out: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClusterTlsSpec>,
    /// Connections begin with a header of the PROXY protocol, before TLS, that says who the client is:
    /// `v1` or `v2`. A connection is used again for its own client alone; other `http` than h1 has no
    /// such connection. Probes speak for themselves. Left out: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// What at most may be in flight, per node.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: LimitsSpec,
    /// The time for making a connection; left out: Defaults' `connect_timeout`, 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Time>,
    /// A pooled connection without use for so long is closed; left out: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Time>,
    /// How long connections to endpoints are used, and how they are kept.
    #[serde(default, skip_serializing_if = "is_default")]
    pub connections: ConnectionsSpec,
    /// Below this share of healthy endpoints, in percent, all are used; 0: never. Left out: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic_threshold: Option<u8>,
    /// For `ring_hash`: a ring has at least so many points, 1 to 1048576; left out: 1024. More of
    /// them share more evenly, and cost memory and time at each change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_ring_size: Option<u32>,
    /// For `ring_hash`, `maglev` and `ip_hash`: an endpoint takes at most so many percent of its fair
    /// share of the requests in flight; what is more goes to the next one in the table, 100 to 10000.
    /// Left out: however many its keys bring. Each worker counts its own requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_balance_factor: Option<u32>,
    /// For `round_robin` and `least_request`: endpoints that are new or healthy again come to their
    /// share little by little; left out: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStartSpec>,
    /// Outlier detection: endpoints whose answers are bad are taken out for a while; left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier: Option<OutlierSpec>,
    /// The endpoints are divided by their labels, for routes that want a `subset`; left out: they
    /// are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subsets: Option<SubsetsSpec>,
    /// `true`: endpoints in the node's own zone come first, as if the others had a lower priority.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prefer_zone: bool,
    /// A priority, or the node's zone, keeps all requests while its healthy share times this is at
    /// least 100 percent, and passes on what is missing; in percent, 100 to 1000. Left out: 140.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overprovisioning_factor: Option<u32>,
    /// What is changed of headers for this cluster: after the route's changes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub headers: HeadersSpec,
}

/// How endpoints come to their whole share: after a time t they get max(`min_weight_percent`,
/// (t / `window`)^(1 / `aggression`)) of their weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowStartSpec {
    /// How long it takes.
    pub window: Time,
    /// 1: evenly. Higher: quicker in the beginning, 1 to 100. Left out: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggression: Option<u32>,
    /// The share in the beginning, 1 to 100; left out: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_weight_percent: Option<u8>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum EndpointSpec {
    /// The address alone.
    Address(Address),
    /// The long form.
    Fields(EndpointFields),
}

/// The long form of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointFields {
    /// Where it listens.
    pub address: Address,
    /// Its share, relative to the others'; 1 unless given.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
    /// The zone that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Name>,
    /// 0, unless given, is the first choice; endpoints of a higher number get only what those of
    /// lower numbers are not healthy enough for. 0 to 127.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: u32,
    /// What `subsets` know it by, such as `{ version: v2 }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

// Serde calls it with a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(number: &u32) -> bool {
    *number == 1
}

impl EndpointSpec {
    /// Where it listens.
    pub fn address(&self) -> &Address {
        match self {
            Self::Address(address) => address,
            Self::Fields(fields) => &fields.address,
        }
    }

    /// Its share.
    pub fn weight(&self) -> u32 {
        match self {
            Self::Address(_) => 1,
            Self::Fields(fields) => fields.weight,
        }
    }

    /// The zone that it is in.
    pub fn zone(&self) -> Option<&Name> {
        match self {
            Self::Address(_) => None,
            Self::Fields(fields) => fields.zone.as_ref(),
        }
    }

    /// Its labels.
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        match self {
            Self::Address(_) => None,
            Self::Fields(fields) => Some(&fields.labels),
        }
    }

    /// Its priority.
    pub fn priority(&self) -> u32 {
        match self {
            Self::Address(_) => 0,
            Self::Fields(fields) => fields.priority,
        }
    }
}

impl Serialize for EndpointSpec {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Address(address) => address.serialize(out),
            Self::Fields(fields) => fields.serialize(out),
        }
    }
}

impl<'de> Deserialize<'de> for EndpointSpec {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = EndpointSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address or a map with address, weight, zone, priority and labels")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<EndpointSpec, E> {
                text.parse().map(EndpointSpec::Address).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, input: A) -> Result<EndpointSpec, A::Error> {
                let fields = EndpointFields::deserialize(MapAccessDeserializer::new(input))?;
                // What the short form can say is kept in it: one way to say it.
                Ok(match fields {
                    EndpointFields {
                        address,
                        weight: 1,
                        zone: None,
                        priority: 0,
                        ref labels,
                    } if labels.is_empty() => EndpointSpec::Address(address),
                    fields => EndpointSpec::Fields(fields),
                })
            }
        }

        input.deserialize_any(Either)
    }
}

/// An active health check: `http`, `grpc` or `tcp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeSpec {
    /// `GET` this path; any 2xx is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<ProbePath>,
    /// Ask gRPC's health service (`grpc.health.v1`) for this service, or for the whole server if it is
    /// `""`; SERVING is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// `true`: it is enough that a connection can be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<bool>,
    /// For `http` and `grpc`: the `Host` header; left out: the endpoint's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The time between two probes; left out: 2s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Time>,
    /// The time for an answer; left out: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Time>,
    /// So many failures in a row make an endpoint unhealthy; left out: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_after: Option<u32>,
    /// So many successes in a row make it healthy again; left out: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_after: Option<u32>,
}

/// What at most may be in flight to a cluster, per node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsSpec {
    /// Connections; left out: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Requests that wait for a connection; left out: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
    /// Retries at one time that are always allowed; left out: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Retries at one time, in percent of the active requests; left out: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<u8>,
}
