//! `skein.v1.Mesh`: status, peers, explain, graph.
//!
//! Owns the answers' protobuf form. Never changes anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use control_api::v1;
use control_api::v1::mesh_server::Mesh;
use mesh_gossip::{Liveness, Peer, Peers};
use mesh_health::{HealthView, Report, Verdict};
use proxy_config::compiled::{Cluster, Endpoint, Origin};
use proxy_config::{Ask, EndpointHealth, ExplainedEjection, Live, Time, explain_live};
use tonic::{Request, Response, Status};

use crate::parts::Parts;
use crate::status::{addresses, unix_seconds};

/// Answers from one node's parts.
#[derive(Clone)]
pub(crate) struct MeshService(pub(crate) Arc<Parts>);

impl Mesh for MeshService {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(self.0.status()))
    }

    async fn peers(
        &self,
        _: Request<v1::PeersRequest>,
    ) -> Result<Response<v1::PeersResponse>, Status> {
        let peers = self.0.mesh.peers().borrow().clone();
        let own = Peer {
            facts: self.0.facts(),
            generation: self.0.generation,
            liveness: Liveness::Alive,
            since: self.0.started,
            foreign: false,
            reports: std::collections::BTreeMap::new(),
        };
        let mut all: Vec<v1::Peer> = std::iter::once(&own)
            .chain(peers.iter())
            .map(describe)
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        let answered_by = self.0.options.name.to_string();
        Ok(Response::new(v1::PeersResponse {
            peers: all,
            answered_by,
        }))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let asked = ask(request.into_inner())?;
        let health = self.0.health.borrow().clone();
        let in_force = self.0.in_force.borrow().clone();
        let peers = self.0.mesh.peers().borrow().clone();
        let known = Known {
            service: self,
            health: &health,
            peers: &peers,
        };
        let explanation = explain_live(&in_force.compiled.config, &asked, &known);
        let json = serde_json::to_vec(&explanation)
            .map_err(|fault| Status::internal(format!("skein: {fault}")))?;
        let answered_by = self.0.options.name.to_string();
        Ok(Response::new(v1::ExplainResponse {
            json: json.into(),
            answered_by,
        }))
    }

    async fn graph(
        &self,
        _: Request<v1::GraphRequest>,
    ) -> Result<Response<v1::GraphResponse>, Status> {
        let in_force = self.0.in_force.borrow().clone();
        let found = |cluster: &Arc<Cluster>| self.served(cluster);
        let graph = proxy_config::graph_with(&in_force.compiled.config, &found);
        let json = serde_json::to_vec(&graph)
            .map_err(|fault| Status::internal(format!("skein: {fault}")))?;
        let answered_by = self.0.options.name.to_string();
        Ok(Response::new(v1::GraphResponse {
            json: json.into(),
            answered_by,
        }))
    }
}

/// What an explanation is told beside the config.
struct Known<'a> {
    service: &'a MeshService,
    health: &'a HealthView,
    peers: &'a Peers,
}

impl Live for Known<'_> {
    fn health(&self, cluster: &Cluster, endpoint: &Endpoint) -> EndpointHealth {
        let (key, address) = (&cluster.key, endpoint.address);
        EndpointHealth {
            verdict: crate::health::verdict(self.health.health(key, address)),
            unhealthy_by: match endpoint.socket {
                None => self.service.accusers(self.peers, key, address),
                // Others speak of sockets of their own.
                Some(_) => self.service.accusers(&Peers::default(), key, address),
            },
            ejected: self.service.ejection(key, address),
        }
    }

    fn cluster(&self, cluster: &Arc<Cluster>) -> Arc<Cluster> {
        self.service.served(cluster)
    }

    fn unused(&self, cluster: &Cluster) -> Vec<String> {
        let registrations = &self.service.0.registrations;
        let each = cluster.origins.iter().flat_map(|origin| match origin {
            Origin::Service(name) => registrations.unused(name),
        });
        each.collect()
    }
}

impl MeshService {
    /// The cluster with the endpoints that were found for it.
    fn served(&self, cluster: &Arc<Cluster>) -> Arc<Cluster> {
        let served = self.0.proxy.cluster(&cluster.key);
        served.unwrap_or_else(|| Arc::clone(cluster))
    }

    /// What this node's outlier detection says of the endpoint.
    fn ejection(&self, cluster: &str, address: SocketAddr) -> Option<ExplainedEjection> {
        let (why, left) = self.0.proxy.ejection(cluster, address)?;
        Some(ExplainedEjection {
            why: why.to_owned(),
            left: Time(Duration::from_secs(left.as_secs())),
        })
    }

    /// The names of the nodes whose probes call the endpoint unhealthy.
    fn accusers(&self, peers: &Peers, cluster: &str, address: SocketAddr) -> Vec<String> {
        let says = |report: &Report| report.verdicts.get(&address) == Some(&Verdict::Unhealthy);
        let own = self.0.reports.borrow().get(cluster).is_some_and(says);
        let others = peers
            .alive()
            .filter(|peer| {
                peer.reports
                    .get(cluster)
                    .is_some_and(|one| says(&one.report))
            })
            .map(|peer| peer.facts.identity.name.to_string());
        let own = own.then(|| self.0.options.name.to_string());
        let mut names: Vec<String> = own.into_iter().chain(others).collect();
        names.sort();
        names
    }
}

/// The request as it would arrive: headers as given, and a host that overrides the URL's.
fn ask(request: v1::ExplainRequest) -> Result<Ask, Status> {
    let mut ask = Ask::get(&request.url)
        .map_err(|fault| Status::invalid_argument(format!("skein: {fault}")))?;
    if !request.host.is_empty() {
        ask.host = request.host;
    }
    if !request.method.is_empty() {
        ask.method = request.method.to_uppercase();
    }
    ask.headers = request
        .headers
        .into_iter()
        .map(|header| (header.name, header.value))
        .collect();
    Ok(ask)
}

fn describe(peer: &Peer) -> v1::Peer {
    let identity = &peer.facts.identity;
    let mut shown = v1::Peer {
        name: identity.name.to_string(),
        id: identity.node_id.0,
        mesh_id: identity.mesh_id.map_or(0, |mesh| mesh.0),
        since: unix_seconds(peer.since),
        foreign: peer.foreign,
        addresses: Some(addresses(&peer.facts)),
        version: identity.version.clone(),
        zone: identity.zone.clone().unwrap_or_default(),
        labels: identity.labels.clone().into_iter().collect(),
        roles: identity.roles.clone(),
        config_revision: peer.facts.state.config_revision.0,
        load_percent: u32::from(peer.facts.state.load_percent),
        ..v1::Peer::default()
    };
    shown.set_liveness(match peer.liveness {
        Liveness::Alive => v1::Liveness::Alive,
        Liveness::Down => v1::Liveness::Down,
        Liveness::Left => v1::Liveness::Left,
    });
    shown
}
