//! The key ranges of the store that Skein keeps for itself.
//!
//! Owns the prefixes. Never decides who may write there: that is admission.

/// Every key below this prefix belongs to Skein; writes there are admitted, whoever makes them.
pub const RESERVED_PREFIX: &str = "/skein/";

/// Config resources: `/skein/config/<namespace>/<kind>/<name>`, canonical JSON.
pub const CONFIG_PREFIX: &str = "/skein/config/";

/// Registered endpoints: `/skein/endpoints/<namespace>/<cluster>/<id>`.
pub const ENDPOINT_PREFIX: &str = "/skein/endpoints/";
