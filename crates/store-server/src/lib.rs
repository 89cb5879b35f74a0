//! store-server
