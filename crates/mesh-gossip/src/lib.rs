//! mesh-gossip
