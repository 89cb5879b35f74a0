//! store-raft
