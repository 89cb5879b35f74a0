//! Everything that is proven on the whole product: real processes, real sockets, real disks.
//!
//! One binary, one module per concern, so that it links once.

mod config;
mod demo;
mod etcdctl;
mod faults;
mod forming;
mod harness;
mod health;
mod proxy;
mod start;
mod store;
mod tidy;
