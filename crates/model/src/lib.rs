//! Words that two or more families of crates share: identifiers, addresses, reserved keys.
//!
//! Owns their textual forms. Never does I/O, never knows Raft, gossip or HTTP.

mod ids;
mod reserved;
mod version;

pub use ids::{ConfigRevision, MeshId, NodeId, NodeName, ParseIdError, ParseNameError};
pub use reserved::{CONFIG_PREFIX, ENDPOINT_PREFIX, RESERVED_PREFIX};
pub use version::{ParseVersionError, Version};
