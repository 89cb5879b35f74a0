//! The mesh: who is there, what they say about themselves, and whom they reach.
//!
//! Owns sealed gossip over UDP (the engine is chitchat, which nobody else names): membership with
//! liveness, every node's facts and health reports. Never decides on config, Raft or routing, and
//! never carries anything that must not be lost.

mod counters;
mod engine;
mod facts;
mod heart;
mod keys;
mod link;
mod mesh;
mod peers;
mod pieces;
mod replay;
mod roster;
mod seal;
mod seeds;
mod throttle;

pub use counters::{Counters, DropReason};
pub use facts::{
    FACT_BYTES_MAX, Facts, Identity, LISTENERS_MAX, ListenerFact, NodeState, Promised,
    PublishError, REFUSED_MAX, RefusedResource,
};
pub use heart::{HEARD_WITHIN_INTERVALS, SEED_CALLS_MAX};
pub use keys::{KEYS_MAX, KeyError, KeyFault, KeyRing};
pub use mesh::{GOSSIP_INTERVAL, GossipConfig, Mesh, StartError, WrongKey};
pub use peers::{Liveness, Peer, Peers, ReceivedReport};
