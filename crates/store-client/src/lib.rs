//! The client of a mesh's client port: etcd's API over several endpoints, as the command line
//! and the tests use it.
//!
//! Owns fail-over (a read goes on to the next endpoint; a write only if it surely was not
//! proposed), deadlines, typed errors, and watches that resume elsewhere without loss or
//! duplicate. Never decides anything about keys, and never retries a write whose fate is unknown.

mod auth;
mod call;
mod client;
mod endpoint;
mod error;
mod kv;
mod lease;
mod sign_in;
mod snapshot;
mod watch;

pub use call::CallChannel;
pub use client::{Client, ClientOptions};
pub use error::{ClientError, Tried};
pub use kv::prefix_end;
pub use sign_in::Credentials;
pub use snapshot::SnapshotStream;
pub use watch::{WatchBatch, WatchError, Watcher};
