//! proxy-config
