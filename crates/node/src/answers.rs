//! What the admin address answers, from this node's parts.
//!
//! Owns the JSON of the config dump and of the status. Never changes anything.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use admin::{Answers, Readiness};
use control_api::v1;
use prometheus_client::encoding::text::encode;
use serde_json::{Value, json};
use store_raft::Store;
use telemetry::Registry;

use crate::metrics;
use crate::parts::Parts;

/// Answers for one node.
pub(crate) struct NodeAnswers {
    parts: Arc<Parts>,
    /// Collectors may keep state between scrapes.
    registry: Mutex<Registry>,
}

impl NodeAnswers {
    /// Answers from `parts`, with the metrics of `registry` and the node's own.
    pub(crate) fn new(parts: &Arc<Parts>, mut registry: Registry) -> Self {
        metrics::register(parts, &mut registry);
        Self {
            parts: Arc::clone(parts),
            registry: Mutex::new(registry),
        }
    }

    /// Adds the metrics of a part that came later.
    pub(crate) fn add_metrics(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Answers for NodeAnswers {
    fn metrics(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => text,
            Err(fault) => format!("# the metrics cannot be written: {fault}\n# EOF\n"),
        }
    }

    fn readiness(&self) -> Readiness {
        if self.parts.stopping.load(Ordering::Relaxed) {
            return Readiness::NotReady("this node is stopping".to_owned());
        }
        let member = |store: Store| store.status().is_member();
        if self.parts.has_config() || self.parts.store().is_some_and(member) {
            // Traffic needs no store, so its fault is told and turns nobody away.
            Readiness::Ready {
                fault: self.parts.store_fault(),
            }
        } else {
            Readiness::NotReady("this node is in no mesh yet and has no config".to_owned())
        }
    }

    fn config_dump(&self) -> Value {
        let in_force = self.parts.in_force.borrow().clone();
        let resources: Vec<Value> = (in_force.compiled.in_force().resources())
            .filter_map(|resource| serde_json::from_slice(&resource.canonical_json()).ok())
            .collect();
        let listeners: Vec<Value> = (in_force.listeners.iter())
            .map(|one| {
                let fault = one.result.as_ref().err().map(ToString::to_string);
                json!({ "name": one.name.to_string(), "bind": one.bind, "fault": fault })
            })
            .collect();
        json!({
            "config_revision": in_force.compiled.config.config_revision,
            "mesh_id": in_force.mesh_id,
            "resources": resources,
            "refused": in_force.compiled.refused,
            "listeners": listeners,
        })
    }

    fn status(&self) -> Value {
        let status = self.parts.status();
        let nodes: Vec<Value> = status.nodes.iter().map(node).collect();
        json!({
            "mesh_id": format!("{:016x}", status.mesh_id),
            "leader": status.leader,
            "has_quorum": status.has_quorum,
            "config_revision": status.config_revision,
            "answered_by": status.answered_by,
            "cluster_version": status.cluster_version,
            "downgrade": status.downgrade,
            "live_bytes": status.live_bytes,
            "history_bytes": status.history_bytes,
            "quota_bytes": status.quota_bytes,
            "nodes": nodes,
        })
    }
}

fn node(node: &v1::NodeStatus) -> Value {
    let word = |text: &str, prefix: &str| text.trim_start_matches(prefix).to_owned();
    json!({
        "name": node.name,
        "id": format!("{:016x}", node.id),
        "role": word(node.role().as_str_name(), "ROLE_").to_lowercase(),
        "state": word(node.state().as_str_name(), "CONFIG_STATE_"),
        "config_revision": node.config_revision,
        "version": node.version,
        "store_fault": node.store_fault,
    })
}
