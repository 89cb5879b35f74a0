//! `skein node`: the flags of a node, merged with its bootstrap file.
//!
//! Owns names, defaults and their order (flag, then file, then default). Never starts anything
//! itself: that is the crate `node`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use model::NodeName;
use node::{HistoryLimits, Limits, NodeOptions, SnapshotSchedule, TlsFiles};
use proxy_config::{Size, Time};
use serde::Deserialize;
use telemetry::LogFormat;

use crate::failure::Failure;
use crate::options::duration;
use crate::output::Output;

/// The heading of the store's limits in the help.
const STORE_LIMITS: &str = "Limits of the store";
/// The heading of the certificates in the help.
const TLS: &str = "TLS (PEM files; looked at again while the node runs)";

/// The heading of the scheduled snapshots in the help.
const SNAPSHOTS: &str = "Scheduled snapshots";
/// The time between two of them, and how many are kept, unless told otherwise.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(3_600);
const SNAPSHOT_KEEP: usize = 24;

/// The flags of `skein node`. In the bootstrap file they have the same names.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Node {
    /// Bootstrap file (YAML) with the same names as these flags; flags win
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,

    /// What people call this node, unique in the mesh [default: the host name]
    #[arg(long, value_name = "NAME")]
    name: Option<NodeName>,

    /// Where its identity, log, snapshots and last-known-good config live [default: ./skein-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Where clients reach the store [default: 127.0.0.1:2379]
    #[arg(long, value_name = "IP:PORT")]
    client_addr: Option<SocketAddr>,

    /// Where the other members reach its Raft [default: 127.0.0.1:2380]
    #[arg(long, value_name = "IP:PORT")]
    peer_addr: Option<SocketAddr>,

    /// Where the other nodes gossip with it, UDP [default: 127.0.0.1:7946]
    #[arg(long, value_name = "IP:PORT")]
    gossip_addr: Option<SocketAddr>,

    /// Where metrics and status are served [default: 127.0.0.1:9901]
    #[arg(long, value_name = "IP:PORT")]
    admin_addr: Option<SocketAddr>,

    /// How many nodes found the mesh together; give all of them the same number [default: 1]
    #[arg(long, value_name = "N")]
    bootstrap_expect: Option<usize>,

    /// Gossip addresses of other nodes; one that lives is enough
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    join: Vec<String>,

    /// File with the gossip key (`skein keygen`), the same on every node
    #[arg(long, value_name = "FILE")]
    gossip_key_file: Option<PathBuf>,

    /// Accept plain text and the public gossip key off loopback
    #[arg(long)]
    insecure: bool,

    /// The zone it is in
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,

    /// A label that resources select nodes by; may be repeated
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    #[serde(skip)]
    label: Vec<(String, String)>,

    /// The labels in the bootstrap file: a map.
    #[arg(skip)]
    labels: BTreeMap<String, String>,

    /// Proxy worker threads [default: one per core]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,

    /// Threads of store, mesh and admin together [default: half the cores, at most 4]
    #[arg(long, value_name = "N")]
    control_threads: Option<usize>,

    /// Remove a member that has been dead for so long, while this node leads and three voters remain;
    /// `never`: only by `skein member remove` [default: 72h]
    #[arg(long, value_name = "DURATION|never")]
    remove_dead_after: Option<String>,

    /// How often the members compare their states while this node leads; `never`: not at all
    /// [default: 10m]
    #[arg(long, value_name = "DURATION|never")]
    compare_every: Option<String>,

    /// Where a Listener with `bind: ":8080"` binds [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    proxy_ip: Option<IpAddr>,

    /// Certificate of the client port, which then speaks TLS only; etcd's --cert-file
    #[arg(long, alias = "cert-file", value_name = "FILE", help_heading = TLS)]
    #[serde(alias = "cert-file")]
    client_cert_file: Option<PathBuf>,

    /// Private key of that certificate; etcd's --key-file
    #[arg(long, alias = "key-file", value_name = "FILE", help_heading = TLS)]
    #[serde(alias = "key-file")]
    client_key_file: Option<PathBuf>,

    /// Clients must show a certificate of this CA; etcd's --trusted-ca-file
    #[arg(long, alias = "trusted-ca-file", value_name = "FILE", help_heading = TLS)]
    #[serde(alias = "trusted-ca-file")]
    client_trusted_ca_file: Option<PathBuf>,

    /// Certificate of the peer port, valid for the IP of --peer-addr; nodes then speak TLS only
    #[arg(long, value_name = "FILE", help_heading = TLS)]
    peer_cert_file: Option<PathBuf>,

    /// Private key of that certificate
    #[arg(long, value_name = "FILE", help_heading = TLS)]
    peer_key_file: Option<PathBuf>,

    /// CA of all nodes: each shows its certificate, whoever calls
    #[arg(long, value_name = "FILE", help_heading = TLS)]
    peer_trusted_ca_file: Option<PathBuf>,

    /// What the store may hold, current and past; 0B: the default [default: 2GiB]
    ///
    /// From there on, only what makes room is accepted. Give all nodes the same.
    #[arg(long, value_name = "SIZE", help_heading = STORE_LIMITS)]
    quota: Option<Size>,

    /// How long the store's history is kept [default: 1h]
    #[arg(long, value_name = "DURATION", help_heading = STORE_LIMITS)]
    history_keep: Option<Time>,

    /// At least so many revisions of history are kept, however old [default: 10000]
    #[arg(long, value_name = "N", help_heading = STORE_LIMITS)]
    history_min_revisions: Option<u64>,

    /// At most so much history is kept, however young [default: 256MiB]
    #[arg(long, value_name = "SIZE", help_heading = STORE_LIMITS)]
    history_max_bytes: Option<Size>,

    /// The largest request of a client [default: 1536KiB]
    #[arg(long, value_name = "SIZE", help_heading = STORE_LIMITS)]
    max_request_bytes: Option<Size>,

    /// The most operations of a client's transaction, in each of its lists [default: 128]
    #[arg(long, value_name = "N", help_heading = STORE_LIMITS)]
    max_txn_ops: Option<usize>,

    /// Save snapshots of the store to this folder, as `skein snapshot save` does; on each node that
    /// is told to, of its own copy
    #[arg(long, value_name = "DIR", help_heading = SNAPSHOTS)]
    snapshot_dir: Option<PathBuf>,

    /// The time between two of them [default: 1h]
    #[arg(long, value_name = "DURATION", help_heading = SNAPSHOTS)]
    snapshot_every: Option<Time>,

    /// How many of this node's are kept, the newest [default: 24]
    #[arg(long, value_name = "N", help_heading = SNAPSHOTS)]
    snapshot_keep: Option<usize>,

    /// What log lines look like: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// Asks the kernel for no huge pages: of each 2 MB page that the allocator touches for a few small
/// objects, all would count as resident, three times the memory of an idle node. Traffic gains
/// nothing by them (`bench/README.md`).
fn without_huge_pages() {
    // A kernel without the call has no such pages either.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// A time; `None` stands for never.
fn or_never(
    flag: &str,
    text: Option<&str>,
    default: Option<Duration>,
) -> Result<Option<Duration>, Failure> {
    match text {
        None => Ok(default),
        Some("never") => Ok(None),
        Some(text) => match duration(text) {
            Ok(time) => Ok(Some(time)),
            Err(error) => Err(Failure::usage(format!(
                "{flag} {text}: {error}, or `never`"
            ))),
        },
    }
}

impl Node {
    /// Runs the node until it is told to stop.
    pub(crate) fn run(self, output: &mut Output<'_>) -> ExitCode {
        crate::demo::children::end_with_parent();
        without_huge_pages();
        let result = self.resolve().and_then(|(options, log_format)| {
            telemetry::init_logging(log_format)
                .map_err(|error| Failure::usage(error.to_string()))?;
            node::run(options).map_err(|error| Failure::failed(error.to_string()))
        });
        output.finish(result)
    }

    fn resolve(self) -> Result<(NodeOptions, LogFormat), Failure> {
        let file = self
            .config
            .as_deref()
            .map(read)
            .transpose()?
            .unwrap_or_default();
        let merged = self.over(file);
        let limits = merged.limits(Limits::default())?;
        let snapshots = merged.schedule()?;
        let name = match merged.name {
            Some(name) => name,
            None => host_name()?,
        };
        let format = merged.log_format.as_deref().unwrap_or("text");
        let format = format
            .parse()
            .map_err(|error: telemetry::LoggingError| Failure::usage(error.to_string()))?;
        let default = NodeOptions::new(name);
        let compare_every = merged.compare_every.as_deref();
        let compare_every = or_never("--compare-every", compare_every, default.compare_every)?;
        let options = NodeOptions {
            data_dir: merged.data_dir.unwrap_or(default.data_dir),
            client_addr: merged.client_addr.unwrap_or(default.client_addr),
            peer_addr: merged.peer_addr.unwrap_or(default.peer_addr),
            gossip_addr: merged.gossip_addr.unwrap_or(default.gossip_addr),
            admin_addr: merged.admin_addr.unwrap_or(default.admin_addr),
            bootstrap_expect: merged.bootstrap_expect.unwrap_or(default.bootstrap_expect),
            join: merged.join,
            gossip_key_file: merged.gossip_key_file,
            insecure: merged.insecure,
            zone: merged.zone,
            labels: merged.labels,
            workers: merged.workers.unwrap_or(default.workers),
            control_threads: merged.control_threads.unwrap_or(default.control_threads),
            proxy_ip: merged.proxy_ip.unwrap_or(default.proxy_ip),
            compare_every,
            limits,
            client_tls: TlsFiles {
                cert: merged.client_cert_file,
                key: merged.client_key_file,
                trusted_ca: merged.client_trusted_ca_file,
            },
            snapshots,
            peer_tls: TlsFiles {
                cert: merged.peer_cert_file,
                key: merged.peer_key_file,
                trusted_ca: merged.peer_trusted_ca_file,
            },
            name: default.name,
        };
        options
            .check()
            .map_err(|error| Failure::usage(error.to_string()))?;
        Ok((options, format))
    }

    fn schedule(&self) -> Result<Option<SnapshotSchedule>, Failure> {
        let Some(dir) = self.snapshot_dir.clone() else {
            if self.snapshot_every.is_some() || self.snapshot_keep.is_some() {
                let text = "--snapshot-every and --snapshot-keep need --snapshot-dir";
                return Err(Failure::usage(text));
            }
            return Ok(None);
        };
        Ok(Some(SnapshotSchedule {
            dir,
            every: self.snapshot_every.map_or(SNAPSHOT_EVERY, |time| time.0),
            keep: self.snapshot_keep.unwrap_or(SNAPSHOT_KEEP),
        }))
    }

    fn limits(&self, default: Limits) -> Result<Limits, Failure> {
        let bytes = |size: Size| usize::try_from(size.0).unwrap_or(usize::MAX);
        let history = default.history;
        let remove_dead_after = self.remove_dead_after.as_deref();
        let (flag, default_after) = ("--remove-dead-after", default.remove_dead_after);
        let remove_dead_after = or_never(flag, remove_dead_after, default_after)?;
        Ok(Limits {
            request_bytes: self.max_request_bytes.map_or(default.request_bytes, bytes),
            txn_ops: self.max_txn_ops.unwrap_or(default.txn_ops),
            // As in etcd, 0 asks for the default.
            quota_bytes: match self.quota {
                None | Some(Size(0)) => default.quota_bytes,
                Some(Size(bytes)) => bytes,
            },
            history: HistoryLimits {
                keep: self.history_keep.map_or(history.keep, |time| time.0),
                min_revisions: self.history_min_revisions.unwrap_or(history.min_revisions),
                max_bytes: self.history_max_bytes.map_or(history.max_bytes, |it| it.0),
            },
            remove_dead_after,
            ..default
        })
    }

    /// These flags where they were given, else what the file says.
    fn over(self, file: Self) -> Self {
        let mut labels = file.labels;
        labels.extend(self.label);
        Self {
            config: None,
            name: self.name.or(file.name),
            data_dir: self.data_dir.or(file.data_dir),
            client_addr: self.client_addr.or(file.client_addr),
            peer_addr: self.peer_addr.or(file.peer_addr),
            gossip_addr: self.gossip_addr.or(file.gossip_addr),
            admin_addr: self.admin_addr.or(file.admin_addr),
            bootstrap_expect: self.bootstrap_expect.or(file.bootstrap_expect),
            join: if self.join.is_empty() {
                file.join
            } else {
                self.join
            },
            gossip_key_file: self.gossip_key_file.or(file.gossip_key_file),
            insecure: self.insecure || file.insecure,
            zone: self.zone.or(file.zone),
            label: Vec::new(),
            labels,
            workers: self.workers.or(file.workers),
            control_threads: self.control_threads.or(file.control_threads),
            remove_dead_after: self.remove_dead_after.or(file.remove_dead_after),
            compare_every: self.compare_every.or(file.compare_every),
            proxy_ip: self.proxy_ip.or(file.proxy_ip),
            client_cert_file: self.client_cert_file.or(file.client_cert_file),
            client_key_file: self.client_key_file.or(file.client_key_file),
            client_trusted_ca_file: self.client_trusted_ca_file.or(file.client_trusted_ca_file),
            peer_cert_file: self.peer_cert_file.or(file.peer_cert_file),
            peer_key_file: self.peer_key_file.or(file.peer_key_file),
            peer_trusted_ca_file: self.peer_trusted_ca_file.or(file.peer_trusted_ca_file),
            quota: self.quota.or(file.quota),
            history_keep: self.history_keep.or(file.history_keep),
            history_min_revisions: self.history_min_revisions.or(file.history_min_revisions),
            history_max_bytes: self.history_max_bytes.or(file.history_max_bytes),
            max_request_bytes: self.max_request_bytes.or(file.max_request_bytes),
            max_txn_ops: self.max_txn_ops.or(file.max_txn_ops),
            snapshot_dir: self.snapshot_dir.or(file.snapshot_dir),
            snapshot_every: self.snapshot_every.or(file.snapshot_every),
            snapshot_keep: self.snapshot_keep.or(file.snapshot_keep),
            log_format: self.log_format.or(file.log_format),
        }
    }
}

fn read(path: &Path) -> Result<Node, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("--config {shown}: {error}")))?;
    serde_saphyr::from_str(&text)
        .map_err(|error| Failure::usage(format!("--config {shown}: {error}")))
}

fn host_name() -> Result<NodeName, Failure> {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy().into_owned();
    host.parse().map_err(|error| {
        Failure::usage(format!(
            "the host name does not serve as a node's name: {error}; give --name"
        ))
    })
}

#[cfg(test)]
mod tests;
