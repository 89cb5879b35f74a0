//! Which endpoint of a cluster gets the next request.
//!
//! Owns the algorithms, the set of endpoints that may be chosen ([`Eligible`]), and who is ejected for
//! bad answers ([`Outliers`]). Pure: load, time
//! and randomness are arguments, health is a view that others merged. Never opens a
//! connection, never judges health, never adds an endpoint.

mod balancer;
mod eligible;
mod ewma;
mod fitness;
mod groups;
mod hash;
mod hosts;
mod levels;
mod outlier;
mod schedule;
mod slow_start;
mod table;

pub use balancer::{Ask, Balancer, Load};
pub use eligible::Eligible;
pub use ewma::Ewma;
pub use fitness::Fitness;
pub use groups::Groups;
pub use hash::hash;
pub use outlier::{Ejection, OutlierKind, Outliers, Tally};
