//! Which endpoint of a cluster gets the next request.
//!
//! Owns the algorithms and the set of endpoints that may be chosen ([`Eligible`]). Pure: load and
//! randomness are arguments, health is a view that others merged. Never opens a connection, never
//! judges health, never adds an endpoint.

mod balancer;
mod eligible;
mod schedule;

pub use balancer::Balancer;
pub use eligible::Eligible;
