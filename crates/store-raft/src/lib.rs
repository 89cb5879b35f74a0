//! The replicated store of one node: Raft over the write-ahead log, images on top.
//!
//! Owns everything that names openraft, whose types appear in no public signature. Serves no port
//! and knows no gossip: the node hands its peer service to a server and its members in.

mod addresses;
mod archive;
mod auth_row;
mod config;
pub mod convert;
mod counters;
mod full_disk;
mod lease_pages;
mod log;
mod machine;
mod membership;
mod mesh;
mod network;
mod propose;
mod pulse;
mod reads;
mod recover;
mod recovery;
mod renew;
mod retention;
mod rows;
mod service;
mod snapshot;
mod soundness;
mod status;
mod store;
mod timings;
mod types;
mod wire;

pub use archive::{ArchiveInfo, ArchiveReadError, Outgoing, read_archive};
pub use config::{COMPARE_EVERY, SnapshotLimits, StoreConfig};
pub use counters::{Counters, SyncTimes};
pub use membership::MembershipError;
pub use propose::{PROPOSAL_BYTES_MAX, PROPOSALS_MAX, ProposeError, Unfit, check_fit};
pub use reads::{READERS_MAX, ReadError};
pub use recover::{Left, RecoverError, Uncertain};
pub use recovery::{Recovery, Source};
pub use renew::{RenewError, Renewed, restore};
pub use service::PeerService;
pub use soundness::Soundness;
pub use status::{Leader, Member, RaftStatus, Role};
pub use store::{StartError, Store};
pub use timings::Timings;

/// openraft, with our types.
pub(crate) type Raft = openraft::Raft<types::Types, machine::StateMachine>;
