//! The running demo: its processes, and what is asked of the mesh.
//!
//! Owns the children and the connections to the nodes. Never judges: the story does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control_api::v1;
use serde_json::{Value, json};
use store_api::etcdserverpb::{DeleteRangeRequest, RangeRequest};
use store_client::{Client, ClientOptions};

use super::children::{self, Process};
use super::layout::Layout;
use super::writes;
use crate::failure::Failure;
use crate::options::Options;
use crate::output::Format;
use crate::session::Session;

/// How long one question to the mesh may take; a fail-over fits in.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that runs, and how to reach it.
pub(crate) struct Stage {
    layout: Layout,
    exe: PathBuf,
    nodes: Vec<Option<Process>>,
    upstreams: Vec<Option<Process>>,
    /// To all nodes, with fail-over.
    mesh: Session,
    /// To each node alone.
    each: Vec<Session>,
}

impl Stage {
    /// A stage on which nothing runs yet. Writes the bootstrap files, the gossip key and the config.
    pub(crate) fn set(layout: Layout) -> Result<Self, Failure> {
        let exe = children::own_program()?;
        for node in &layout.nodes {
            let folder = node.bootstrap.parent().unwrap_or(&layout.dir);
            std::fs::create_dir_all(folder).map_err(|fault| cannot_write(folder, &fault))?;
            write(&node.bootstrap, &layout.bootstrap(node))?;
        }
        if !layout.gossip_key().exists() {
            crate::keygen::write_new_key(&layout.gossip_key())?;
        }
        write(&layout.config, &layout.quickstart())?;
        let mesh = session(layout.endpoints())?;
        let each = layout.endpoints().into_iter().map(|one| session(vec![one]));
        let each = each.collect::<Result<_, _>>()?;
        let nodes = layout.nodes.iter().map(|_| None).collect();
        let upstreams = layout.upstreams.iter().map(|_| None).collect();
        Ok(Self {
            layout,
            exe,
            nodes,
            upstreams,
            mesh,
            each,
        })
    }

    /// Where everything lives.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Starts the upstreams and the nodes, and writes `demo.json`.
    pub(crate) fn start_all(&mut self) -> Result<(), Failure> {
        for upstream in 0..self.upstreams.len() {
            self.start_upstream(upstream)?;
        }
        for node in 0..self.nodes.len() {
            self.start_node(node)?;
        }
        Ok(())
    }

    /// Starts one node.
    pub(crate) fn start_node(&mut self, node: usize) -> Result<(), Failure> {
        self.nodes[node] = Some(children::start_node(&self.exe, &self.layout.nodes[node])?);
        self.describe()
    }

    /// Starts one upstream.
    pub(crate) fn start_upstream(&mut self, upstream: usize) -> Result<(), Failure> {
        let layout = &self.layout.upstreams[upstream];
        self.upstreams[upstream] = Some(children::start_upstream(&self.exe, layout)?);
        self.describe()
    }

    /// `kill -9` of one node.
    pub(crate) async fn kill_node(&mut self, node: usize) -> Result<(), Failure> {
        if let Some(process) = &mut self.nodes[node] {
            process.kill().await?;
        }
        self.nodes[node] = None;
        self.describe()
    }

    /// `kill -9` of one upstream.
    pub(crate) async fn kill_upstream(&mut self, upstream: usize) -> Result<(), Failure> {
        if let Some(process) = &mut self.upstreams[upstream] {
            process.kill().await?;
        }
        self.upstreams[upstream] = None;
        self.describe()
    }

    /// Ends everything that still runs, nodes first.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let nodes = self.nodes.into_iter().flatten().map(Process::stop);
        for stopped in futures_util::future::join_all(nodes).await {
            stopped?;
        }
        for upstream in self.upstreams.into_iter().flatten() {
            upstream.stop().await?;
        }
        Ok(())
    }

    /// The process ids of the nodes.
    pub(crate) fn pids(&self) -> Vec<Option<u32>> {
        self.nodes
            .iter()
            .map(|node| node.as_ref().map(Process::pid))
            .collect()
    }

    /// The name and log of a node that ended by itself, if one did.
    pub(crate) fn fallen(&mut self) -> Option<Failure> {
        self.nodes
            .iter_mut()
            .zip(&self.layout.nodes)
            .find_map(|(process, node)| {
                let status = process.as_mut()?.ended()?;
                let log = std::fs::read_to_string(&node.log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                Some(Failure::failed(format!(
                    "node {} ended ({status}); the end of its log {}:\n{}",
                    node.name,
                    node.log.display(),
                    last.join("\n")
                )))
            })
    }

    /// `demo.json`: every address and process id.
    fn describe(&self) -> Result<(), Failure> {
        let pid = |process: &Option<Process>| process.as_ref().map(Process::pid);
        let mut all = json!(self.layout);
        all["pid"] = json!(std::process::id());
        all["endpoints"] = json!(self.layout.endpoints());
        for (at, process) in self.nodes.iter().enumerate() {
            all["nodes"][at]["pid"] = json!(pid(process));
            all["nodes"][at]["web"] = json!(self.layout.web(at));
        }
        for (at, process) in self.upstreams.iter().enumerate() {
            all["upstreams"][at]["pid"] = json!(pid(process));
        }
        // Whoever reads it while it changes must find one of the two, whole.
        let next = self.layout.dir.join("demo.json.next");
        write(&next, &format!("{all:#}\n"))?;
        std::fs::rename(&next, self.layout.record())?;
        Ok(())
    }
}

/// What is asked of the mesh.
impl Stage {
    /// The http listener of every node.
    pub(crate) fn web_addresses(&self) -> Vec<SocketAddr> {
        (0..self.layout.nodes.len())
            .map(|node| self.layout.web(node))
            .collect()
    }

    /// A client of the whole mesh.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let options = ClientOptions {
            deadline: ASK_TIMEOUT,
            ..ClientOptions::default()
        };
        Ok(Client::new(self.layout.endpoints(), options)?)
    }

    /// Whether all nodes are members of one mesh that can write.
    pub(crate) async fn formed(&self) -> bool {
        let mut meshes = Vec::new();
        for session in &self.each {
            match session.status().await {
                Ok(status) if status.has_quorum && status.nodes.len() == self.nodes.len() => {
                    meshes.push(status.mesh_id);
                }
                _ => return false,
            }
        }
        meshes.dedup();
        meshes.len() == 1 && meshes[0] != 0
    }

    /// Whether `count` nodes live and all of them are SYNCED at one config revision, as each of the
    /// living sees it.
    pub(crate) async fn synced(&self, count: usize) -> bool {
        let mut seen = 0;
        for (session, _) in self
            .each
            .iter()
            .zip(&self.nodes)
            .filter(|(_, node)| node.is_some())
        {
            let Ok(status) = session.status().await else {
                return false;
            };
            let living: Vec<_> = (status.nodes.iter())
                .filter(|node| node.state() != v1::ConfigState::Down)
                .collect();
            let together = living.iter().all(|node| {
                node.state() == v1::ConfigState::Synced
                    && node.config_revision == status.config_revision
            });
            if living.len() != count || !together || status.config_revision == 0 {
                return false;
            }
            seen += 1;
        }
        seen == count
    }

    /// Whether every living node sees the node called `name` as DOWN.
    pub(crate) async fn down(&self, name: &str) -> bool {
        for (session, _) in self
            .each
            .iter()
            .zip(&self.nodes)
            .filter(|(_, node)| node.is_some())
        {
            let Ok(status) = session.status().await else {
                return false;
            };
            let node = status.nodes.iter().find(|node| node.name == name);
            if node.is_none_or(|node| node.state() != v1::ConfigState::Down) {
                return false;
            }
        }
        true
    }

    /// The leader's place among the nodes.
    pub(crate) async fn leader(&self) -> Result<usize, Failure> {
        let status = self.mesh.status().await?;
        let place = self
            .layout
            .nodes
            .iter()
            .position(|node| node.name == status.leader);
        place.ok_or_else(|| Failure::failed("the mesh has no leader"))
    }

    /// Whether every node's balancers leave this upstream out.
    pub(crate) async fn unhealthy_everywhere(&self, upstream: usize) -> bool {
        let address = self.layout.upstreams[upstream].address.to_string();
        for session in &self.each {
            let request = v1::ExplainRequest {
                url: "/".to_owned(),
                host: "demo.local".to_owned(),
                ..v1::ExplainRequest::default()
            };
            let Ok(answer) = session.explain(None, request).await else {
                return false;
            };
            let Ok(explanation) = serde_json::from_slice(&answer.json) else {
                return false;
            };
            if !is_unhealthy(&explanation, &address) {
                return false;
            }
        }
        true
    }

    /// Deletes what an earlier run in the same folder wrote: it must not stand in for a write that
    /// is lost in this one.
    pub(crate) async fn forget_writes(&self) -> Result<(), Failure> {
        let request = DeleteRangeRequest {
            key: writes::PREFIX.into(),
            range_end: prefix_end(writes::PREFIX),
            ..DeleteRangeRequest::default()
        };
        self.mesh.store().delete_range(request).await?;
        Ok(())
    }

    /// The acknowledged keys that some node does not have.
    pub(crate) async fn missing_writes(&self, keys: &[String]) -> Result<Vec<String>, Failure> {
        let mut missing = Vec::new();
        for session in &self.each {
            let request = RangeRequest {
                key: writes::PREFIX.into(),
                range_end: prefix_end(writes::PREFIX),
                serializable: true,
                keys_only: true,
                ..RangeRequest::default()
            };
            let found = session.store().range(request).await?;
            let found: std::collections::HashSet<_> =
                found.kvs.iter().map(|kv| kv.key.clone()).collect();
            missing.extend(
                keys.iter()
                    .filter(|key| !found.contains(key.as_bytes()))
                    .cloned(),
            );
        }
        Ok(missing)
    }

    /// Applies the quickstart example.
    pub(crate) async fn apply_quickstart(&self) -> Result<(), Failure> {
        self.apply(&self.layout.quickstart()).await
    }

    /// Splits the traffic between the two upstreams' clusters.
    pub(crate) async fn apply_split(&self, blue: u32, green: u32) -> Result<(), Failure> {
        self.apply(&format!(
            "{HOST}  - to: {{ blue: {blue}, green: {green} }}\n{RETRY}"
        ))
        .await
    }

    /// Sends all traffic to one cluster that has both upstreams.
    pub(crate) async fn apply_one_cluster(&self) -> Result<(), Failure> {
        let [blue, green] = [0, 1].map(|at: usize| self.layout.upstreams[at].address);
        self.apply(&format!(
            "kind: Cluster\nname: both\nendpoints: [\"{blue}\", \"{green}\"]\n\
             probe: {{ http: /healthz, every: 500ms }}\n---\n{HOST}  - to: both\n{RETRY}"
        ))
        .await
    }

    async fn apply(&self, text: &str) -> Result<(), Failure> {
        let resources = proxy_config::parse_documents("demo", text).map_err(|faults| {
            Failure::refused(faults.iter().map(crate::failure::FaultLine::from).collect())
        })?;
        let documents = resources.iter().map(|resource| v1::Document {
            source: "demo".to_owned(),
            json: resource.canonical_json().into(),
        });
        let request = v1::ApplyRequest {
            documents: documents.collect(),
            ..v1::ApplyRequest::default()
        };
        self.mesh.apply(request).await.map(|_| ())
    }
}

/// The host of the story, up to its routes.
const HOST: &str = "kind: VirtualHost\nname: shop\nlisteners: [web]\ndomains: [\"*\"]\nroutes:\n";
/// How every route of the story is retried.
const RETRY: &str = "    retry: { when: [connect-failure, reset], times: 2 }\n";

fn session(endpoints: Vec<String>) -> Result<Session, Failure> {
    Session::open(&Options {
        cacert: None,
        cert: None,
        key: None,
        endpoints,
        namespace: None,
        output: Format::Text,
        timeout: ASK_TIMEOUT,
        user: None,
        password: None,
        password_file: None,
    })
}

fn is_unhealthy(explanation: &Value, address: &str) -> bool {
    match explanation {
        Value::Object(fields) => {
            let here = fields.get("address").is_some_and(|value| value == address)
                && fields
                    .get("health")
                    .is_some_and(|health| health["verdict"] == "unhealthy");
            here || fields.values().any(|value| is_unhealthy(value, address))
        }
        Value::Array(items) => items.iter().any(|item| is_unhealthy(item, address)),
        _ => false,
    }
}

/// The first key after all keys with `prefix`, which must not end in 0xff.
fn prefix_end(prefix: &str) -> bytes::Bytes {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|fault| cannot_write(path, &fault))
}

fn cannot_write(path: &Path, fault: &std::io::Error) -> Failure {
    Failure::failed(format!(
        "cannot write {}: {fault}; give another --dir",
        path.display()
    ))
}
