//! proxy-server

pub mod probe;
