//! How a process begins to end: signals, a shutdown that everybody can await, supervised tasks.
//!
//! Owns nothing of the product's meaning. Never decides what to drain or in which order.

mod shutdown;
mod tasks;

pub use shutdown::{Shutdown, ShutdownTrigger, terminate_signal};
pub use tasks::{TaskFault, Tasks};
