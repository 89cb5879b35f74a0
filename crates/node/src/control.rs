//! The services `skein.v1` on the client port: what the `skein` commands ask.
//!
//! Owns the translation from requests to this node's parts. Never writes but through the store.

pub(crate) mod config;
pub(crate) mod mesh;
