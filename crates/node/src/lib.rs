//! One node: store, mesh and proxy, built and wired.
//!
//! Owns what needs more than one plane: forming a mesh, admission, reconciling the proxy with the
//! committed config, shared health, status. The only crate that knows all three planes.

mod admission;
mod answers;
mod certificates;
mod committed;
mod control;
mod form;
mod formation;
mod health;
mod known_peers;
mod last_known_good;
mod load;
mod metrics;
mod options;
mod parts;
mod process;
mod reconcile;
mod registrations;
mod revision_clock;
mod run;
mod scheduled;
mod serve;
mod standing;
mod status;
mod store_state;

pub use options::{NodeOptions, OptionsError, SnapshotSchedule, TlsFiles};
pub use run::{RunError, run};
pub use store_server::{HistoryLimits, Limits};
