//! Config of the proxy: raw text → typed resources → linked → compiled, and the router that results.
//!
//! Pure: no I/O, no clock, no randomness. Never decides when a config comes into force.

pub mod compiled;
mod host;
mod router;

pub use host::{Domain, HostFault, normalize_host};
pub use router::{
    Conditions, HeaderCondition, Mismatch, PathCondition, RequestView, RouteMatch, Router,
    VirtualHost,
};
