//! The reverse proxy: from a client's connection to an upstream's and back.
//!
//! Owns what a proxy does to a message and when it tries again. The bytes of HTTP are `http1`'s,
//! the choice of an endpoint is `upstream`'s.

mod affinity;
mod answer;
mod attempt;
mod connection;
mod edits;
mod ends;
mod exchange;
mod fields;
mod flow;
mod forwarded;
mod grpc;
mod headers;
mod http2;
mod mirror;
mod own;
mod record;
mod relay;
mod retry;
mod routed;
mod target;
mod upgrade;
mod upload;

pub(crate) use affinity::address_key;
pub(crate) use connection::serve;
