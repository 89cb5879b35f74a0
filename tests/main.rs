//! Everything that is proven on the whole product: real processes, real sockets, real disks.
//!
//! One binary, one module per concern, so that it links once.

mod demo;
mod forming;
mod harness;
mod tidy;
