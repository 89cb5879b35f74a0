//! One life of chitchat on the link.
//!
//! Owns its configuration and every call into it. Never interprets what it knows: that is `roster`.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState,
    spawn_chitchat,
};
use model::NodeId;
use tokio::sync::{Notify, watch};

use crate::link::{Link, SealedTransport};
use crate::roster::Sighting;

/// What all nodes of all meshes say: meshes are told apart by key and by mesh id.
const CLUSTER: &str = "skein";

/// A node is dead when it is silent for so many mean heartbeat intervals.
const PHI_THRESHOLD: f64 = 9.0;

/// Heartbeat intervals that make up the mean. Chitchat adds five intervals of prior belief to them,
/// so that few samples keep the mean between half an interval and one, however many nodes relay
/// heartbeats: silence counts after 1.35 to 2.7 s at 300 ms. More would make a busy mesh hasty.
/// `examples/detection.rs` measures it: with every core taken by others, three nodes knew of a death
/// after 2.1 to 2.7 s and twenty after 3.0 to 3.6 s, and nobody was held for dead who was not.
const SAMPLES: usize = 5;

/// Longer gaps between heartbeats are outages and do not count as samples.
const GAP_INTERVALS: u32 = 4;

/// A dead node is remembered so long; half as long it is told to others. With an entry of about 60
/// bytes for each life, a node that restarts every 5 s fills 20 KiB of the list in that time.
const DEAD_MEMORY: Duration = Duration::from_secs(3600);

/// A deleted key is remembered so long; a peer that was away for longer gets everything anew.
const TOMBSTONE_MEMORY: Duration = Duration::from_secs(600);

/// A shutdown that takes longer is cut off.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);

/// Who this node is to chitchat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) node: NodeId,
    pub(crate) generation: u64,
    pub(crate) address: SocketAddr,
    pub(crate) interval: Duration,
}

/// A running chitchat.
pub(crate) struct Engine {
    handle: ChitchatHandle,
    /// Told when a value changes.
    news: Arc<Notify>,
    /// Changes with the set of the living.
    living: watch::Receiver<BTreeMap<ChitchatId, NodeState>>,
    ended: Pin<Box<dyn Future<Output = String> + Send + Sync>>,
}

/// What happened in the engine.
#[derive(Debug)]
pub(crate) enum Event {
    /// It knows something new.
    News,
    /// It stopped by itself, which it should not; with what it said.
    Ended(String),
}

impl Engine {
    /// Starts `life` on `link`, saying `values`.
    pub(crate) async fn start(
        link: &Arc<Link>,
        life: Life,
        values: &BTreeMap<String, String>,
    ) -> Self {
        let values = values
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let transport = SealedTransport(Arc::clone(link));
        let handle = spawn_chitchat(config(life), values, &transport)
            .await
            .expect("the link is open already, and chitchat itself has nothing else to fail at");
        let news = Arc::new(Notify::new());
        let living = handle
            .with_chitchat(|chitchat| {
                let told = Arc::clone(&news);
                chitchat
                    .subscribe_event("", move |_| told.notify_one())
                    .forever();
                chitchat.live_nodes_watcher()
            })
            .await;
        let ended = handle.termination_watcher();
        let ended = Box::pin(async move {
            ended
                .await
                .err()
                .map_or_else(|| "it returned".to_owned(), |error| error.to_string())
        });
        Self {
            handle,
            news,
            living,
            ended,
        }
    }

    /// Waits for something to happen. After [`Event::Ended`] nothing will.
    pub(crate) async fn event(&mut self) -> Event {
        tokio::select! {
            () = self.news.notified() => Event::News,
            Ok(()) = self.living.changed() => Event::News,
            fault = self.ended.as_mut() => Event::Ended(fault),
        }
    }

    /// Makes `values` all that this node says.
    pub(crate) async fn say(&self, values: &BTreeMap<String, String>) {
        self.handle
            .with_chitchat(|chitchat| {
                let own = chitchat.self_node_state();
                let gone: Vec<String> = own
                    .key_values()
                    .filter(|(key, _)| !values.contains_key(*key))
                    .map(|(key, _)| key.to_owned())
                    .collect();
                for key in gone {
                    own.delete(&key);
                }
                for (key, value) in values {
                    own.set(key, value);
                }
            })
            .await;
    }

    /// Shows `look` everything that chitchat knows, this node excepted.
    pub(crate) async fn look<T>(&self, look: impl FnOnce(Vec<Sighting<'_>>) -> T) -> T {
        let mut look = Some(look);
        self.handle
            .with_chitchat(|chitchat| {
                let look = look.take().expect("called once");
                look(sightings(chitchat))
            })
            .await
    }

    /// Compares notes with `address` now.
    pub(crate) fn gossip(&self, address: SocketAddr) {
        // An error means that chitchat stopped; `ended` tells.
        let _ = self.handle.gossip(address);
    }

    /// Ends it.
    pub(crate) async fn stop(self) {
        let _ = tokio::time::timeout(SHUTDOWN_PATIENCE, self.handle.shutdown()).await;
    }
}

fn sightings(chitchat: &Chitchat) -> Vec<Sighting<'_>> {
    let own = chitchat.self_chitchat_id();
    let live: HashSet<&ChitchatId> = chitchat.live_nodes().collect();
    chitchat
        .node_states()
        .iter()
        .filter(|(id, _)| *id != own)
        .map(|(id, state)| Sighting {
            id,
            state,
            live: live.contains(id),
        })
        .collect()
}

fn config(life: Life) -> ChitchatConfig {
    ChitchatConfig {
        chitchat_id: ChitchatId::new(life.node.to_string(), life.generation, life.address),
        cluster_id: CLUSTER.to_owned(),
        gossip_interval: life.interval,
        listen_addr: life.address,
        // Seeds are called by `heart`, which knows when it is alone.
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: PHI_THRESHOLD,
            sampling_window_size: SAMPLES,
            max_interval: life.interval * GAP_INTERVALS,
            initial_interval: life.interval,
            dead_node_grace_period: DEAD_MEMORY,
        },
        marked_for_deletion_grace_period: TOMBSTONE_MEMORY,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;
    use crate::counters::Counters;
    use crate::keys::KeyRing;

    #[tokio::test]
    async fn the_end_of_the_engine_is_noticed_and_another_one_can_take_the_link() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (link, _) = Link::new(socket, KeyRing::development(), Counters::default());
        let interval = Duration::from_millis(50);
        let mut life = Life {
            node: NodeId(1),
            generation: 1,
            address,
            interval,
        };
        let values = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let mut first = Engine::start(&link, life, &values).await;
        // What a panic inside chitchat amounts to.
        first.handle.abort();
        loop {
            if let Event::Ended(fault) = first.event().await {
                assert!(!fault.is_empty());
                break;
            }
        }
        life.generation = 2;
        let mut second = Engine::start(&link, life, &values).await;
        let news = tokio::time::timeout(interval * 100, second.event())
            .await
            .unwrap();
        assert!(matches!(news, Event::News), "{news:?}");
        second.stop().await;
    }
}
