//! TLS for every plane: certificates from files, checked, reloaded while running; both ends of a
//! connection.
//!
//! Owns everything that names rustls, whose types appear in no public signature. Never decides who
//! may connect to what, and knows no protocol above TLS but the names that ALPN has for them.

mod client;
mod credentials;
mod files;
mod material;
mod said;
mod server;
mod validity;

pub use client::{ClientStream, Dialer};
pub use credentials::{Credentials, LOOK_EVERY, Standing, Use};
pub use files::{Fault, Files, Named};
pub use said::was_refused;
pub use server::ServerStream;
pub use validity::date;
