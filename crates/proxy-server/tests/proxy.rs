//! The proxy as its neighbours see it: real sockets on both sides, config from YAML.

// Helpers of tests may fail as tests do; the lint's own exception covers test functions only.
#![allow(clippy::unwrap_used)]

#[path = "proxy/actions.rs"]
mod actions;
#[path = "proxy/balancing.rs"]
mod balancing;
#[path = "proxy/bodies.rs"]
mod bodies;
#[path = "proxy/certificates.rs"]
mod certificates;
#[path = "proxy/conditions.rs"]
mod conditions;
#[path = "proxy/connections.rs"]
mod connections;
#[path = "proxy/downstream2.rs"]
mod downstream2;
#[path = "proxy/exchanges.rs"]
mod exchanges;
#[path = "proxy/found.rs"]
mod found;
#[path = "proxy/framing.rs"]
mod framing;
#[path = "proxy/grpc.rs"]
mod grpc;
#[path = "proxy/headers.rs"]
mod headers;
#[path = "proxy/hostile2.rs"]
mod hostile2;
#[path = "proxy/introductions.rs"]
mod introductions;
#[path = "proxy/limits.rs"]
mod limits;
#[path = "proxy/listeners.rs"]
mod listeners;
#[path = "proxy/mirrors.rs"]
mod mirrors;
#[path = "proxy/outliers.rs"]
mod outliers;
#[path = "proxy/passthrough.rs"]
mod passthrough;
#[path = "proxy/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "proxy/resting.rs"]
mod resting;
#[path = "proxy/retries.rs"]
mod retries;
#[path = "proxy/rig.rs"]
mod rig;
#[path = "proxy/routing.rs"]
mod routing;
#[path = "proxy/streams.rs"]
mod streams;
#[path = "proxy/subsets.rs"]
mod subsets;
#[path = "proxy/tcp.rs"]
mod tcp;
#[path = "proxy/tls.rs"]
mod tls;
#[path = "proxy/tls_optional.rs"]
mod tls_optional;
#[path = "proxy/udp.rs"]
mod udp;
#[path = "proxy/unix_sockets.rs"]
mod unix_sockets;
#[path = "proxy/upgrades.rs"]
mod upgrades;
#[path = "proxy/upstream2.rs"]
mod upstream2;
#[path = "proxy/upstream_tls.rs"]
mod upstream_tls;
