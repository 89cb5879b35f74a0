//! Log set-up and build information.
//!
//! Owns the format of log lines (always stderr, so that stdout is data) and the product's version.
//! Never counts anything: each crate registers its own metrics.

mod logging;

pub use logging::{LogFormat, LoggingError, init_logging};
pub use prometheus_client::registry::Registry;

/// The product's version, as `skein --version`, gossip and the store's status show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
