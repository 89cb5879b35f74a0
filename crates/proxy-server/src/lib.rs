//! The data plane: worker threads that proxy HTTP, TCP and TLS by the compiled config.
//!
//! Owns sockets, pools and everything on the path of a request. Never parses config, never judges
//! health, never knows where either comes from.

mod accept;
mod access_log;
mod bind;
mod certificates;
mod client_hello;
mod clock;
mod counters;
mod deadline;
mod flags;
mod http;
mod http1;
mod listener;
mod metrics;
mod passthrough;
pub mod probe;
mod proxy_protocol;
mod refusal;
mod server;
mod tcp;
mod udp;
mod upkeep;
mod upstream;
mod wire;
mod worker;

pub use bind::BindError;
pub use metrics::ProxyMetrics;
pub use server::{ListenerOutcome, ProxyOptions, ProxyServer, StartError};
pub use upkeep::Moves;
