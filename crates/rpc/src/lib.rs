//! A port that speaks gRPC: its connections, the calls on them, and the way to the methods that answer.
//!
//! Owns the server's side of the client and the peer port. Knows no service: the generated code of the
//! `.proto` files is built on it, and who answers is handed in.

mod answer;
mod calls;
mod connection;
mod serve;
mod service;

pub use answer::{TIMEOUT, answers_stream, asks_stream, both_stream, caller_waits, unary};
pub use connection::Speaks;
pub use serve::{Port, serve};
pub use service::{
    Answer, Answering, Call, InProcess, MessageLimits, Service, Services, method, no_such_method,
    refuse,
};
