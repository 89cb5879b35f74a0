//! store-mvcc
