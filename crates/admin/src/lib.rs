//! The admin address: metrics, readiness, the config in force and the mesh's status over HTTP.
//!
//! Owns the HTTP of it. Never knows what it serves: the node answers through [`Answers`]. Read-only:
//! nothing here changes anything, so a stray request cannot hurt.

mod respond;
mod serve;

pub use respond::{Answers, Readiness};
pub use serve::{AdminServer, StartError};
