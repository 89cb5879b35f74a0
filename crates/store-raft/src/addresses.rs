//! Where each member is called: at the address that it tells by gossip, else at the recorded one.
//!
//! Owns both. A member that moved is called at its new address before that is recorded, so that even
//! a mesh all of whose members moved at once can elect who records it. Never judges an address: each
//! call names the node that it is meant for, so a wrong one reaches nobody.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use model::NodeId;

/// The peer addresses of the members, `HOST:PORT`.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    recorded: BTreeMap<NodeId, String>,
    told: BTreeMap<NodeId, String>,
}

impl Addresses {
    /// Takes over what the newest membership records.
    pub(crate) fn record(&self, recorded: BTreeMap<NodeId, String>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.recorded = recorded;
    }

    /// Takes over what the living tell. Nobody else is called elsewhere than recorded.
    pub(crate) fn tell(&self, told: BTreeMap<NodeId, String>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.told = told;
    }

    /// Where to call this node, if that is known.
    pub(crate) fn of(&self, id: NodeId) -> Option<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let told = known.told.get(&id);
        told.or_else(|| known.recorded.get(&id)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> BTreeMap<NodeId, String> {
        BTreeMap::from([(NodeId(1), address.to_owned())])
    }

    #[test]
    fn the_living_are_called_where_they_say_and_the_others_where_it_is_recorded() {
        let addresses = Addresses::default();
        assert_eq!(addresses.of(NodeId(1)), None);
        addresses.record(at("old:1"));
        assert_eq!(addresses.of(NodeId(1)).as_deref(), Some("old:1"));
        addresses.tell(at("new:1"));
        assert_eq!(addresses.of(NodeId(1)).as_deref(), Some("new:1"));
        assert_eq!(addresses.of(NodeId(2)), None);
        addresses.tell(BTreeMap::new());
        assert_eq!(addresses.of(NodeId(1)).as_deref(), Some("old:1"));
    }
}
