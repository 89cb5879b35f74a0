//! Everything that is proven on the whole product: real processes, real sockets, real disks.
//!
//! One binary, one module per concern, so that it links once.

// All of this is tests, helpers too: they fail by panicking, and say on stderr what led there.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod auth;
mod changing;
mod config;
mod demo;
mod differential;
mod envoy;
mod etcdctl;
mod faults;
mod forming;
mod harness;
mod health;
mod json;
mod losses;
mod members;
mod peer_tls;
mod proxy;
mod registering;
mod snapshots;
mod start;
mod store;
mod tidy;
mod tls;
mod versions;
mod without_store;
