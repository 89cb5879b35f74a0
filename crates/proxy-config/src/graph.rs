//! The compiled config as the dataflow graph that it is: listener → virtual host → route → cluster
//! → endpoint.
//!
//! Owns the graph and its renderings. Never measures: rates are joined by the node ids.

mod render;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::compiled::{Cluster, CompiledConfig, Listener, Protocol, Split};
use crate::router::VirtualHost;

/// A graph whose edges lead from where requests come in to where they go out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Graph {
    /// The nodes, each once, listeners first.
    pub nodes: Vec<GraphNode>,
    /// The edges.
    pub edges: Vec<GraphEdge>,
}

/// A node of a [`Graph`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphNode {
    /// Unique and stable, such as `cluster:default/web`.
    pub id: String,
    /// What it is.
    pub kind: GraphNodeKind,
    /// What to show.
    pub label: String,
}

/// What a node of a [`Graph`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GraphNodeKind {
    /// A bound address.
    Listener,
    /// A group of domains.
    VirtualHost,
    /// A route.
    Route,
    /// A group of endpoints.
    Cluster,
    /// An upstream address.
    Endpoint,
}

/// An edge of a [`Graph`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphEdge {
    /// The id where it begins.
    pub from: String,
    /// The id where it ends.
    pub to: String,
    /// A share, as `90/100`; empty where there is no choice.
    pub label: String,
}

/// The graph of what one node runs.
pub fn graph(config: &CompiledConfig) -> Graph {
    graph_with(config, &Arc::clone)
}

/// As [`graph`], with clusters as `found` makes them of those of the config: with the endpoints that
/// were found since.
pub fn graph_with(config: &CompiledConfig, found: &dyn Fn(&Arc<Cluster>) -> Arc<Cluster>) -> Graph {
    let mut builder = Builder {
        graph: Graph::default(),
        known: BTreeSet::new(),
        found,
    };
    for listener in config.listeners.values() {
        builder.listener(listener);
    }
    for cluster in config.clusters.values() {
        builder.cluster(cluster);
    }
    builder.graph
}

struct Builder<'a> {
    graph: Graph,
    known: BTreeSet<String>,
    found: &'a dyn Fn(&Arc<Cluster>) -> Arc<Cluster>,
}

impl Builder<'_> {
    /// Adds a node; whether it is new.
    fn node(&mut self, id: &str, kind: GraphNodeKind, label: String) -> bool {
        let is_new = self.known.insert(id.to_owned());
        if is_new {
            self.graph.nodes.push(GraphNode {
                id: id.to_owned(),
                kind,
                label,
            });
        }
        is_new
    }

    fn edge(&mut self, from: &str, to: &str, label: String) {
        self.graph.edges.push(GraphEdge {
            from: from.to_owned(),
            to: to.to_owned(),
            label,
        });
    }

    fn listener(&mut self, listener: &Listener) {
        let id = format!(
            "listener:{}/{}",
            listener.name.namespace, listener.name.name
        );
        let label = format!("{} {} {}", listener.name, listener.spoken(), listener.bind);
        self.node(&id, GraphNodeKind::Listener, label);
        match &listener.protocol {
            Protocol::Http(http) => {
                for host in http.router.virtual_hosts() {
                    let host_id = self.virtual_host(host);
                    self.edge(&id, &host_id, String::new());
                }
            }
            Protocol::Tcp(tcp) => self.split(&id, &tcp.to),
            Protocol::Udp(udp) => self.split(&id, &udp.to),
            Protocol::TlsPassthrough(tls) => {
                let name = &listener.name;
                for (index, route) in tls.routes.routes().iter().enumerate() {
                    let route_id = format!("tls_route:{}/{}/{index}", name.namespace, name.name);
                    let label = format!("routes[{index}] {route}");
                    self.node(&route_id, GraphNodeKind::Route, label);
                    self.edge(&id, &route_id, String::new());
                    self.split(&route_id, &route.to);
                }
                if let Some(to) = &tls.to {
                    self.split(&id, to);
                }
            }
        }
    }

    fn virtual_host(&mut self, host: &VirtualHost) -> String {
        let name = host.name();
        let id = format!("virtual_host:{}/{}", name.namespace, name.name);
        let domains: Vec<_> = host.domains().iter().map(ToString::to_string).collect();
        let label = format!("{name} {}", domains.join(" "));
        if self.node(&id, GraphNodeKind::VirtualHost, label) {
            for (conditions, route) in host.routes() {
                let route_id = format!("route:{}/{}/{}", name.namespace, name.name, route.index);
                let mut label = format!("routes[{}] {conditions}", route.index);
                if route.action.word().is_some() {
                    // The request ends there: there is no node behind it.
                    label = format!("{label}: {}", route.action);
                }
                self.node(&route_id, GraphNodeKind::Route, label);
                self.edge(&id, &route_id, String::new());
                if let Some(to) = route.action.to() {
                    self.split(&route_id, to);
                }
                for mirror in &route.mirror {
                    let cluster = self.cluster(&mirror.cluster);
                    let label = format!("mirror {} %", mirror.percent);
                    self.edge(&route_id, &cluster, label);
                }
            }
        }
        id
    }

    fn split(&mut self, from: &str, split: &Split) {
        for (cluster, weight) in split.shares() {
            let label = match split.targets.len() {
                1 => String::new(),
                _ => format!("{weight}/{}", split.total),
            };
            let id = self.cluster(cluster);
            self.edge(from, &id, label);
        }
    }

    fn cluster(&mut self, cluster: &Arc<Cluster>) -> String {
        let id = format!("cluster:{}", cluster.key);
        if self.node(&id, GraphNodeKind::Cluster, cluster.name.to_string()) {
            for endpoint in &(self.found)(cluster).endpoints {
                let endpoint_id = format!("endpoint:{}/{}", cluster.key, endpoint.label());
                self.node(&endpoint_id, GraphNodeKind::Endpoint, endpoint.label());
                self.edge(&id, &endpoint_id, String::new());
            }
        }
        id
    }
}
