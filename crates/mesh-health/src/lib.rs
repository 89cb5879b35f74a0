//! Shared health: observations, thresholds, who probes what, and the merge of reports.
//!
//! Pure: time and membership are arguments. Never opens a socket, never gossips.

mod assignment;
mod merge;
mod report;
mod threshold;
mod view;

pub use assignment::{Assignment, PROBERS};
pub use merge::{Evidence, Received, merge};
pub use report::{REPORT_BYTES_MAX, REPORT_FRESH_MAX, Report, ReportError};
pub use threshold::{Observation, Threshold, Verdict};
pub use view::{EndpointKey, Health, HealthView};
