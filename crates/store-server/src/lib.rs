//! The store's servers: etcd's interface on the client port, `Forward` on the peer port.
//!
//! Owns admission's lane, the way to the leader, watches, and the care of the membership. Knows
//! neither openraft nor what a config value means; listens on no port itself: the services are
//! handed out.

mod access;
mod admit;
mod answer;
mod auth;
mod autopilot;
mod cluster;
mod damaged;
mod downgrade;
mod election;
#[cfg(test)]
mod fixture;
mod forward;
mod gateway;
mod header;
mod health;
mod history;
mod join;
mod kv;
mod lane;
mod leader_calls;
mod lease;
mod limits;
mod lock;
mod long;
mod maintenance;
mod members;
mod metrics;
mod passwords;
mod patience;
mod quota;
mod reads;
mod refusal;
mod relay;
mod relayed;
mod require_leader;
mod reserved;
mod server;
mod tokens;
mod turns;
mod versions;
mod watch;
mod writes;

pub use access::caller_of;
pub use answer::{Answer, Written};
pub use autopilot::{Judgement, Liveness, VOTERS_MAX, VOTERS_MIN};
pub use damaged::fault as state_fault;
pub use forward::{ForwardService, Introduction};
pub use gateway::MetricsText;
pub use join::{JoinError, Joined, request_join, request_record};
pub use limits::{
    AUTH_TOKEN_TTL, HistoryLimits, Limits, QUOTA_BYTES, REMOVE_DEAD_AFTER, REQUEST_BYTES, TXN_OPS,
};
pub use patience::Patience;
pub use refusal::{Admission, Refusal};
pub use server::StoreServer;
pub use watch::WatchHub;
pub use writes::Writes;
