//! How a process runs and begins to end: signals, a shutdown that everybody can await, supervised tasks,
//! long computations beside them.
//!
//! Owns nothing of the product's meaning. Never decides what to drain or in which order.

mod aside;
mod shutdown;
mod tasks;

pub use aside::aside;
pub use shutdown::{Shutdown, ShutdownTrigger, terminate_signal};
pub use tasks::{TaskFault, Tasks};
