//! TLS for every plane: certificates from files, checked, reloaded while running; both ends of a
//! connection.
//!
//! Owns everything that names rustls, whose types appear in no public signature. Never decides who
//! may connect to what, and knows no protocol above TLS but the names that ALPN has for them.

mod breach;
mod calling;
mod client;
mod credentials;
mod files;
mod listening;
mod material;
mod names;
mod reload;
mod said;
mod server;
mod session;
mod trust;
mod validity;
mod version;

pub use breach::{Breach, BreachClass};
pub use calling::{Calling, CallingTerms};
pub use client::{ClientStream, Dialer};
pub use credentials::{Credentials, LOOK_EVERY, Standing, Use};
pub use files::{Fault, Files, Named};
pub use listening::{ClientTerms, Expiry, ListenerTerms, Listening};
pub use said::was_refused;
pub use server::ServerStream;
pub use session::Session;
pub use validity::date;
pub use version::Version;
