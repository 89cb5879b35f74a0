//! Shared health: observations, thresholds, who probes what, and the merge of reports.
//!
//! Pure: time and membership are arguments. Never opens a socket, never gossips.

mod view;

pub use view::{EndpointKey, Health, HealthView};
