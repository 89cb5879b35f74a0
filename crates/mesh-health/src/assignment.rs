//! Who probes what: rendezvous hashing of endpoints over the live nodes.
//!
//! Owns the choice of probers. Every node computes it for itself and gets the same answer from the
//! same live set; never talks to anybody about it.
//!
//! Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998 (highest
//! random weight). A node that leaves moves only the share that it had.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use model::NodeId;

use crate::EndpointKey;

/// So many nodes probe each endpoint; all of them when fewer are alive.
pub const PROBERS: usize = 3;

/// The probers of every probed endpoint, for one live set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    clusters: BTreeMap<Arc<str>, BTreeMap<SocketAddr, Vec<NodeId>>>,
}

impl Assignment {
    /// Chooses the probers of `endpoints` among `live`.
    pub fn new(live: &BTreeSet<NodeId>, endpoints: impl IntoIterator<Item = EndpointKey>) -> Self {
        let mut clusters: BTreeMap<Arc<str>, BTreeMap<SocketAddr, Vec<NodeId>>> = BTreeMap::new();
        for endpoint in endpoints {
            let chosen = choose(&endpoint, live);
            clusters
                .entry(endpoint.cluster)
                .or_default()
                .insert(endpoint.address, chosen);
        }
        Self { clusters }
    }

    /// Leaves an endpoint to this node alone: what is there is not what others see.
    pub fn keep_own(&mut self, node: NodeId, endpoint: EndpointKey) {
        let endpoints = self.clusters.entry(endpoint.cluster).or_default();
        endpoints.insert(endpoint.address, vec![node]);
    }

    /// Chooses for one cluster alone, which has these endpoints now; none: it is not probed.
    pub fn replace(
        &mut self,
        live: &BTreeSet<NodeId>,
        cluster: &Arc<str>,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) {
        let chosen = addresses.into_iter().map(|address| {
            let cluster = Arc::clone(cluster);
            let chosen = choose(&EndpointKey { cluster, address }, live);
            (address, chosen)
        });
        let chosen: BTreeMap<_, _> = chosen.collect();
        if chosen.is_empty() {
            self.clusters.remove(cluster);
        } else {
            self.clusters.insert(Arc::clone(cluster), chosen);
        }
    }

    /// The endpoints of this cluster that are probed, ascending.
    pub fn addresses(&self, cluster: &str) -> impl Iterator<Item = SocketAddr> + '_ {
        let endpoints = self.clusters.get(cluster).into_iter();
        endpoints.flat_map(|endpoints| endpoints.keys().copied())
    }

    /// The endpoints that `node` probes.
    pub fn share(&self, node: NodeId) -> impl Iterator<Item = EndpointKey> + '_ {
        self.clusters.iter().flat_map(move |(cluster, endpoints)| {
            endpoints
                .iter()
                .filter(move |(_, probers)| probers.contains(&node))
                .map(move |(&address, _)| EndpointKey {
                    cluster: Arc::clone(cluster),
                    address,
                })
        })
    }

    /// The probers of `address` in `cluster` (`namespace/name`), at most [`PROBERS`]; none for an
    /// endpoint that is not probed.
    pub fn probers(&self, cluster: &str, address: SocketAddr) -> &[NodeId] {
        self.clusters
            .get(cluster)
            .and_then(|endpoints| endpoints.get(&address))
            .map_or(&[], Vec::as_slice)
    }

    /// Every endpoint with its probers, by cluster.
    pub(crate) fn clusters(&self) -> &BTreeMap<Arc<str>, BTreeMap<SocketAddr, Vec<NodeId>>> {
        &self.clusters
    }
}

/// The nodes of `live` with the highest weights for `endpoint`, in the order of their ids.
fn choose(endpoint: &EndpointKey, live: &BTreeSet<NodeId>) -> Vec<NodeId> {
    let seed = hash(endpoint);
    let mut best: Vec<(u64, NodeId)> = Vec::with_capacity(PROBERS + 1);
    for &node in live {
        let weighed = (mix(seed ^ mix(node.0)), node);
        let at = best.partition_point(|other| *other > weighed);
        if at < PROBERS {
            best.insert(at, weighed);
            best.truncate(PROBERS);
        }
    }
    let mut nodes: Vec<NodeId> = best.into_iter().map(|(_, node)| node).collect();
    nodes.sort_unstable();
    nodes
}

/// FNV-1a over the endpoint's text. All nodes must agree on it for ever, so it is spelled here and
/// not left to a hasher of the standard library.
fn hash(endpoint: &EndpointKey) -> u64 {
    let address = endpoint.address.to_string();
    let bytes = endpoint.cluster.bytes().chain([0]).chain(address.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): spreads every bit over all others.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(port: u16) -> EndpointKey {
        EndpointKey {
            cluster: "default/api".into(),
            address: ([10, 0, 0, 1], port).into(),
        }
    }

    fn nodes(ids: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
        ids.into_iter().map(NodeId).collect()
    }

    #[test]
    fn the_choice_is_pinned_because_versions_must_agree_on_it() {
        let live = nodes(1..=5);
        let chosen: Vec<Vec<u64>> = (1..=4)
            .map(|port| {
                choose(&endpoint(port), &live)
                    .iter()
                    .map(|node| node.0)
                    .collect()
            })
            .collect();
        assert_eq!(chosen, [[2, 3, 5], [1, 2, 3], [1, 2, 4], [3, 4, 5]]);
    }

    #[test]
    fn load_is_spread_evenly() {
        let live = nodes((0..10).map(|n| n * 7919));
        let assignment = Assignment::new(&live, (1..=2000).map(endpoint));
        for &node in &live {
            let share = assignment.share(node).count();
            assert!(
                (500..=700).contains(&share),
                "{node} probes {share} of 2000, not about 600"
            );
        }
    }

    #[test]
    fn a_cluster_chosen_for_alone_is_as_if_all_were_chosen_for() {
        let live = nodes(1..=5);
        let of = |cluster: &str, ports: std::ops::Range<u16>| -> Vec<EndpointKey> {
            let key = |port| EndpointKey {
                cluster: cluster.into(),
                ..endpoint(port)
            };
            ports.map(key).collect()
        };
        let all = |api| [of("default/api", api), of("default/web", 1..9)].concat();
        let mut assignment = Assignment::new(&live, all(1..9));
        for ports in [3..12, 1..1, 2..4] {
            let addresses = ports.clone().map(|port| endpoint(port).address);
            assignment.replace(&live, &"default/api".into(), addresses.clone());
            assert_eq!(assignment, Assignment::new(&live, all(ports)));
            assert!(assignment.addresses("default/api").eq(addresses));
        }
    }

    #[test]
    fn few_nodes_probe_everything_and_no_node_nothing() {
        let two = Assignment::new(&nodes([4, 9]), [endpoint(80)]);
        assert_eq!(
            two.probers("default/api", endpoint(80).address),
            [NodeId(4), NodeId(9)]
        );
        assert!(
            two.probers("default/other", endpoint(80).address)
                .is_empty()
        );
        let none = Assignment::new(&BTreeSet::new(), [endpoint(80)]);
        assert!(none.probers("default/api", endpoint(80).address).is_empty());
    }

    proptest! {
        #[test]
        fn a_leaving_node_moves_only_its_share(
            ids in prop::collection::btree_set(any::<u64>(), 1..12),
            pick in any::<prop::sample::Index>(),
            port in 1u16..,
        ) {
            let live = nodes(ids);
            let gone = *live.iter().nth(pick.index(live.len())).unwrap();
            let mut rest = live.clone();
            rest.remove(&gone);
            let before = choose(&endpoint(port), &live);
            let after = choose(&endpoint(port), &rest);
            prop_assert_eq!(before.len(), live.len().min(PROBERS));
            if before.contains(&gone) {
                prop_assert!(before.iter().filter(|n| **n != gone).all(|n| after.contains(n)));
            } else {
                prop_assert_eq!(before, after);
            }
        }
    }
}
