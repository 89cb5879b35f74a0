//! Shared health: this node's probes out, everybody's reports in, one view to the balancers.
//!
//! Owns the link between gossip, prober and proxy. Never judges: `mesh-health` merges.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_health::{Assignment, EndpointKey, Evidence, Health, merge};
use model::NodeId;
use proxy_config::Verdict;
use proxy_config::compiled::{Cluster, CompiledConfig, Endpoint, Probe};
use proxy_server::probe::Prober;
use tokio::sync::watch;

use crate::parts::Parts;

/// How often the view is merged anew when nothing changes: reports grow old.
const MERGE_EVERY: Duration = Duration::from_secs(1);

/// Probes, reports and merges for as long as this node runs.
pub(crate) async fn share(parts: Arc<Parts>, mut prober: Prober) {
    let mut in_force = parts.in_force.subscribe();
    let mut peers = parts.mesh.peers();
    let mut reports = parts.reports.clone();
    let mut moves = parts.proxy.moves();
    let mut assigned: Option<(Arc<CompiledConfig>, BTreeSet<NodeId>)> = None;
    let mut assignment = Assignment::default();
    loop {
        let config = in_force.borrow_and_update().compiled.config.clone();
        let known = peers.borrow_and_update().clone();
        let mut live = known.alive_ids();
        live.insert(parts.node_id);
        let stands = assigned
            .as_ref()
            .is_some_and(|(for_config, among)| Arc::ptr_eq(for_config, &config) && *among == live);
        if !stands {
            // What moves from here on is looked at once more.
            moves.take();
            let probes = probes(&config, |key| parts.proxy.cluster(key));
            assignment = assign(&probes, &live, parts.node_id);
            let share = assignment.share(parts.node_id);
            prober.assign(
                share
                    .filter_map(|key| Some((key.clone(), probes.get(&key)?.clone())))
                    .collect(),
            );
            assigned = Some((config, live.clone()));
        }
        let own_reports = reports.borrow_and_update().clone();
        parts.mesh.publish_reports(&own_reports);
        let received = known.reports(Instant::now());
        let evidence = Evidence {
            own: parts.node_id,
            own_reports: &own_reports,
            received: &received,
        };
        let previous = parts.health.borrow().clone();
        let view = merge(&evidence, &assignment, &previous);
        if view.version != previous.version {
            let view = Arc::new(view);
            parts.proxy.set_health(Arc::clone(&view));
            parts.health.send_replace(view);
        }
        // Other endpoints of a cluster concern that cluster alone.
        let mut news = pin!(news(&mut in_force, &mut peers, &mut reports));
        loop {
            tokio::select! {
                () = &mut news => break,
                true = moves.changed() => {}
            }
            let Some(moved) = moves.take() else {
                assigned = None;
                break;
            };
            for key in &moved {
                reassign(&parts, &mut prober, &mut assignment, (key, &live));
            }
        }
    }
}

/// Shares out the probes of one cluster anew, if it has other endpoints than before.
fn reassign(
    parts: &Parts,
    prober: &mut Prober,
    assignment: &mut Assignment,
    (key, live): (&Arc<str>, &BTreeSet<NodeId>),
) {
    let cluster = parts.proxy.cluster(key);
    let endpoints = cluster.iter().flat_map(|cluster| cluster.endpoints.iter());
    let probes: BTreeMap<EndpointKey, Probe> = endpoints
        .filter_map(|endpoint| probe(cluster.as_deref()?, endpoint))
        .collect();
    if assignment
        .addresses(key)
        .eq(probes.keys().map(|endpoint| endpoint.address))
    {
        return;
    }
    let (sockets, shared): (Vec<_>, Vec<_>) =
        probes.iter().partition(|(_, probe)| probe.socket.is_some());
    assignment.replace(
        live,
        key,
        shared.iter().map(|(endpoint, _)| endpoint.address),
    );
    for (endpoint, _) in sockets {
        assignment.keep_own(parts.node_id, endpoint.clone());
    }
    let share = probes.into_iter().filter(|(endpoint, _)| {
        let probers = assignment.probers(key, endpoint.address);
        probers.contains(&parts.node_id)
    });
    prober.assign_cluster(key, share.collect());
}

/// Waits for anything that changes the view, at most [`MERGE_EVERY`]. While the node drains, gossip
/// has ended and probes go on: a closed channel only ends its own branch.
async fn news<A, B, C>(
    in_force: &mut watch::Receiver<A>,
    peers: &mut watch::Receiver<B>,
    reports: &mut watch::Receiver<C>,
) {
    tokio::select! {
        Ok(()) = in_force.changed() => {}
        Ok(()) = peers.changed() => {}
        Ok(()) = reports.changed() => {}
        () = tokio::time::sleep(MERGE_EVERY) => {}
    }
}

/// Who probes what. A Unix socket is each node's own: what one finds there says nothing to others.
fn assign(
    probes: &BTreeMap<EndpointKey, Probe>,
    live: &BTreeSet<NodeId>,
    own: NodeId,
) -> Assignment {
    let (sockets, shared): (Vec<_>, Vec<_>) =
        probes.iter().partition(|(_, probe)| probe.socket.is_some());
    let mut assignment = Assignment::new(live, shared.into_iter().map(|(key, _)| key.clone()));
    for (key, _) in sockets {
        assignment.keep_own(own, key.clone());
    }
    assignment
}

/// Every probed endpoint of the config, and of those that were found for its clusters as they are
/// `served`.
fn probes(
    config: &CompiledConfig,
    served: impl Fn(&str) -> Option<Arc<Cluster>>,
) -> BTreeMap<EndpointKey, Probe> {
    let mut probes = BTreeMap::new();
    for cluster in config.clusters.values() {
        if cluster.probe.is_none() {
            continue;
        }
        let served = served(&cluster.key);
        let cluster = served.as_ref().unwrap_or(cluster);
        let endpoints = cluster.endpoints.iter();
        probes.extend(endpoints.filter_map(|endpoint| probe(cluster, endpoint)));
    }
    probes
}

/// The probe of one endpoint, if its cluster has any.
fn probe(cluster: &Cluster, endpoint: &Endpoint) -> Option<(EndpointKey, Probe)> {
    let probe = cluster.probe.clone()?;
    let key = EndpointKey {
        cluster: Arc::clone(&cluster.key),
        address: endpoint.address,
    };
    let socket = endpoint.socket.clone();
    Some((key, Probe { socket, ..probe }))
}

/// A health as explanations tell it.
pub(crate) fn verdict(health: Health) -> Verdict {
    match health {
        Health::Unknown => Verdict::Unknown,
        Health::Healthy => Verdict::Healthy,
        Health::Unhealthy => Verdict::Unhealthy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_probed_by_every_node_for_itself() {
        let text = "{kind: Cluster, name: a, endpoints: ['unix:/run/a', '10.0.0.1:80'], probe: {tcp: true}}";
        let set = proxy_config::parse_documents("in", text).unwrap();
        let target = proxy_config::compiled::Target {
            node: "n".parse().unwrap(),
            labels: BTreeMap::new(),
            proxy_ip: [127, 0, 0, 1].into(),
        };
        let set = set.into_iter().collect();
        let compiled = proxy_config::compile(&set, &target, None, model::ConfigRevision(1));
        let probes = probes(&compiled.config, |_| None);
        let live: BTreeSet<_> = (1..=9).map(NodeId).collect();
        let share = |node| {
            assign(&probes, &live, NodeId(node))
                .share(NodeId(node))
                .collect()
        };
        let shares: Vec<Vec<EndpointKey>> = (1..=9).map(share).collect();
        let is_socket = |key: &&EndpointKey| probes[key].socket.is_some();
        let sockets = shares
            .iter()
            .map(|share| share.iter().filter(is_socket).count());
        assert_eq!(sockets.collect::<Vec<_>>(), [1; 9]);
        let shared = shares
            .iter()
            .flatten()
            .filter(|key| !is_socket(key))
            .count();
        assert_eq!(shared, 3);
    }

    #[tokio::test]
    async fn while_the_node_drains_the_loop_neither_spins_nor_ends() {
        let (in_force, mut config_changed) = watch::channel(0);
        let (gossip, mut peers) = watch::channel(0);
        let (probes, mut reports) = watch::channel(0);
        // Gossip was left; what remains are the probes and the clock.
        drop(gossip);
        let began = Instant::now();
        news(&mut config_changed, &mut peers, &mut reports).await;
        assert!(began.elapsed() >= MERGE_EVERY, "it spins");
        for source in [&probes, &in_force] {
            source.send_modify(|value| *value += 1);
            news(&mut config_changed, &mut peers, &mut reports).await;
            assert!(!config_changed.has_changed().unwrap() && !reports.has_changed().unwrap());
        }
        drop((in_force, probes));
        let began = Instant::now();
        news(&mut config_changed, &mut peers, &mut reports).await;
        assert!(began.elapsed() >= MERGE_EVERY, "it spins");
    }
}
