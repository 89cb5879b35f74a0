//! What a node is told when it starts.
//!
//! Owns the defaults and the rules that hold among the settings. Never reads a file or a flag.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use model::NodeName;
use store_raft::COMPARE_EVERY;
use store_server::{Limits, QUOTA_BYTES, REQUEST_BYTES, TXN_OPS};
use tls::{Files, Named};

/// The largest founding set: more voters cost every write and gain nothing.
const EXPECT_MAX: usize = 9;
/// As many threads of the control runtime as serve the store of a large mesh; a task that another thread
/// is woken for costs more than one that waits its turn, so there are few.
const CONTROL_THREADS_DEFAULT_MAX: usize = 4;
/// More workers or control threads than this are surely a mistake.
const WORKERS_MAX: usize = 1024;

/// One node's settings. The same names as the flags of `skein node`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOptions {
    /// What people call this node; unique in the mesh.
    pub name: NodeName,
    /// Where its identity, log, snapshots and last-known-good config live.
    pub data_dir: PathBuf,
    /// Where clients reach the store.
    pub client_addr: SocketAddr,
    /// Where the other members reach its Raft.
    pub peer_addr: SocketAddr,
    /// Where the other nodes gossip with it (UDP).
    pub gossip_addr: SocketAddr,
    /// Where metrics and status are served.
    pub admin_addr: SocketAddr,
    /// How many nodes found the mesh together.
    pub bootstrap_expect: usize,
    /// Gossip addresses, `HOST:PORT`, of nodes to join.
    pub join: Vec<String>,
    /// The file with the gossip keys; the first one seals, all of them open.
    pub gossip_key_file: Option<PathBuf>,
    /// Plain text and a public gossip key are accepted off loopback.
    pub insecure: bool,
    /// The zone it is in.
    pub zone: Option<String>,
    /// Labels that resources select nodes by.
    pub labels: BTreeMap<String, String>,
    /// Proxy worker threads.
    pub workers: usize,
    /// Threads of store, mesh and admin.
    pub control_threads: usize,
    /// Where a Listener with `bind: ":8080"` binds.
    pub proxy_ip: IpAddr,
    /// How often the members compare their states while this one leads; `None`: never.
    pub compare_every: Option<Duration>,
    /// The store's limits.
    pub limits: Limits,
    /// The certificates of the client port.
    pub client_tls: TlsFiles,
    /// The certificates of the peer port, and of calls to those of other nodes.
    pub peer_tls: TlsFiles,
    /// Where and how often it saves snapshots by itself, if it does.
    pub snapshots: Option<SnapshotSchedule>,
}

/// When a node saves snapshots by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSchedule {
    /// The folder; made if it is missing.
    pub dir: PathBuf,
    /// The time between two.
    pub every: Duration,
    /// How many of this node's are kept: the newest.
    pub keep: usize,
}

/// The files of one port's TLS, all in PEM; none: it speaks plain text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The port's certificate.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// The CA of those who may connect.
    pub trusted_ca: Option<PathBuf>,
}

/// The settings of one port's [`TlsFiles`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TlsFlags {
    cert: &'static str,
    key: &'static str,
    trusted_ca: &'static str,
}

const CLIENT_TLS: TlsFlags = TlsFlags {
    cert: "--client-cert-file",
    key: "--client-key-file",
    trusted_ca: "--client-trusted-ca-file",
};

const PEER_TLS: TlsFlags = TlsFlags {
    cert: "--peer-cert-file",
    key: "--peer-key-file",
    trusted_ca: "--peer-trusted-ca-file",
};

impl TlsFiles {
    /// Whether any of them is given.
    pub(crate) fn are_given(&self) -> bool {
        self.cert.is_some() || self.key.is_some() || self.trusted_ca.is_some()
    }

    fn check(&self, flags: TlsFlags) -> Result<(), OptionsError> {
        let missing = match (&self.cert, &self.key) {
            (None, _) if self.are_given() => Some(flags.cert),
            (Some(_), None) => Some(flags.key),
            _ => None,
        };
        let given = [
            self.key.as_ref().map(|_| flags.key),
            self.cert.as_ref().map(|_| flags.cert),
            self.trusted_ca.as_ref().map(|_| flags.trusted_ca),
        ];
        match (missing, given.into_iter().flatten().next()) {
            (Some(missing), Some(given)) => Err(OptionsError::HalfTls { given, missing }),
            _ => Ok(()),
        }
    }

    fn files(&self, flags: TlsFlags) -> Option<Files> {
        let named = |setting, path: &Option<PathBuf>| {
            let path = path.as_ref()?;
            Some(Named::new(setting, path))
        };
        let own = named(flags.cert, &self.cert).zip(named(flags.key, &self.key));
        own.map(|own| Files {
            own: Some(own),
            trusted_ca: named(flags.trusted_ca, &self.trusted_ca),
        })
    }
}

/// The settings cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Others must reach the address, and nobody reaches a wildcard.
    #[error(
        "--{flag} {address}: the other nodes are told this address, so it must be one of this \
         machine's own; give its IP"
    )]
    Wildcard {
        /// The flag.
        flag: &'static str,
        /// Its value.
        address: SocketAddr,
    },
    /// Plain text off loopback.
    #[error(
        "--{flag} {address} is not on loopback and speaks plain text; {remedy}use a loopback \
         address, or give --insecure if the network is trusted"
    )]
    Plain {
        /// The flag.
        flag: &'static str,
        /// Its value.
        address: SocketAddr,
        /// The settings that help, if there are.
        remedy: &'static str,
    },
    /// A certificate without its key, or the like.
    #[error("{given} needs {missing}, too; give both, or none")]
    HalfTls {
        /// The setting that is given.
        given: &'static str,
        /// The one that is missing.
        missing: &'static str,
    },
    /// A published gossip key off loopback.
    #[error(
        "--gossip-addr {0} is not on loopback; make a key with `skein keygen -o gossip.key`, give \
         it to every node and start each with --gossip-key-file gossip.key (or --insecure)"
    )]
    NoGossipKey(SocketAddr),
    /// No or too many founding nodes.
    #[error("--bootstrap-expect {0}: give 1 to {EXPECT_MAX}; 3 or 5 are usual")]
    Expect(usize),
    /// Several founding nodes cannot find each other.
    #[error(
        "--bootstrap-expect {0} needs --join: the gossip address of at least one of the other \
         founding nodes"
    )]
    ExpectWithoutJoin(usize),
    /// No or absurdly many workers.
    #[error("--workers {0}: give 1 to {WORKERS_MAX}; leave it out for one per core")]
    Workers(usize),
    /// No or absurdly many threads.
    #[error(
        "--control-threads {0}: give 1 to {WORKERS_MAX}; leave it out for half the cores, at most {CONTROL_THREADS_DEFAULT_MAX}"
    )]
    ControlThreads(usize),
    /// Requests that no mesh could carry, or that carry nothing.
    #[error(
        "--max-request-bytes {0}B: give {low}B to {high}MiB",
        low = REQUEST_BYTES.start(),
        high = REQUEST_BYTES.end() >> 20
    )]
    RequestBytes(usize),
    /// Transactions of nothing, or endless ones.
    #[error("--max-txn-ops {0}: give {low} to {high}", low = TXN_OPS.start(), high = TXN_OPS.end())]
    TxnOps(usize),
    /// Snapshots without end, or none at all.
    #[error("--snapshot-every must be at least 1s, and --snapshot-keep at least 1")]
    Schedule,
    /// Snapshots that would be lost together with what they are of.
    #[error(
        "--snapshot-dir {0} is within the data directory, and would be lost together with it; give a \
         folder elsewhere, best on another disk"
    )]
    SnapshotsInside(PathBuf),
    /// A store without room.
    #[error("--quota {0}B: give at least {least}MiB, or 0B for the default", least = QUOTA_BYTES.start() >> 20)]
    Quota(u64),
}

impl NodeOptions {
    /// The defaults for a node of this name.
    pub fn new(name: NodeName) -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            name,
            data_dir: PathBuf::from("./skein-data"),
            client_addr: local(2379),
            peer_addr: local(2380),
            gossip_addr: local(7946),
            admin_addr: local(9901),
            bootstrap_expect: 1,
            join: Vec::new(),
            gossip_key_file: None,
            insecure: false,
            zone: None,
            labels: BTreeMap::new(),
            workers: cores(),
            control_threads: (cores() / 2).clamp(1, CONTROL_THREADS_DEFAULT_MAX),
            proxy_ip: Ipv4Addr::UNSPECIFIED.into(),
            compare_every: Some(COMPARE_EVERY),
            limits: Limits::default(),
            client_tls: TlsFiles::default(),
            snapshots: None,
            peer_tls: TlsFiles::default(),
        }
    }

    /// Checks the rules that hold among the settings.
    pub fn check(&self) -> Result<(), OptionsError> {
        let told = [
            ("client-addr", self.client_addr),
            ("peer-addr", self.peer_addr),
            ("gossip-addr", self.gossip_addr),
        ];
        for (flag, address) in told {
            if address.ip().is_unspecified() {
                return Err(OptionsError::Wildcard { flag, address });
            }
        }
        if !self.insecure {
            self.check_plain()?;
            if !self.gossip_addr.ip().is_loopback() && self.gossip_key_file.is_none() {
                return Err(OptionsError::NoGossipKey(self.gossip_addr));
            }
        }
        self.client_tls.check(CLIENT_TLS)?;
        self.peer_tls.check(PEER_TLS)?;
        if self.peer_tls.cert.is_some() && self.peer_tls.trusted_ca.is_none() {
            // Between nodes both sides are checked.
            return Err(OptionsError::HalfTls {
                given: PEER_TLS.cert,
                missing: PEER_TLS.trusted_ca,
            });
        }
        if !(1..=EXPECT_MAX).contains(&self.bootstrap_expect) {
            return Err(OptionsError::Expect(self.bootstrap_expect));
        }
        if self.bootstrap_expect > 1 && self.join.is_empty() {
            return Err(OptionsError::ExpectWithoutJoin(self.bootstrap_expect));
        }
        if !(1..=WORKERS_MAX).contains(&self.workers) {
            return Err(OptionsError::Workers(self.workers));
        }
        if !(1..=WORKERS_MAX).contains(&self.control_threads) {
            return Err(OptionsError::ControlThreads(self.control_threads));
        }
        if let Some(schedule) = &self.snapshots {
            if schedule.every < Duration::from_secs(1) || schedule.keep == 0 {
                return Err(OptionsError::Schedule);
            }
            if schedule.dir.starts_with(&self.data_dir) {
                return Err(OptionsError::SnapshotsInside(schedule.dir.clone()));
            }
        }
        self.check_limits()
    }

    /// The files of the client port, if it speaks TLS.
    pub(crate) fn client_files(&self) -> Option<Files> {
        self.client_tls.files(CLIENT_TLS)
    }

    /// The files of the peer port, if it speaks TLS.
    pub(crate) fn peer_files(&self) -> Option<Files> {
        self.peer_tls.files(PEER_TLS)
    }

    fn check_plain(&self) -> Result<(), OptionsError> {
        let remedy = "give --client-cert-file and --client-key-file, ";
        let of_peer = "give --peer-cert-file, --peer-key-file and --peer-trusted-ca-file, ";
        let plain = [
            (
                "client-addr",
                self.client_addr,
                remedy,
                self.client_tls.are_given(),
            ),
            (
                "peer-addr",
                self.peer_addr,
                of_peer,
                self.peer_tls.are_given(),
            ),
            ("admin-addr", self.admin_addr, "", false),
        ];
        for (flag, address, remedy, is_tls) in plain {
            if !is_tls && !address.ip().is_loopback() {
                return Err(OptionsError::Plain {
                    flag,
                    address,
                    remedy,
                });
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), OptionsError> {
        let limits = &self.limits;
        if !REQUEST_BYTES.contains(&limits.request_bytes) {
            return Err(OptionsError::RequestBytes(limits.request_bytes));
        }
        if !TXN_OPS.contains(&limits.txn_ops) {
            return Err(OptionsError::TxnOps(limits.txn_ops));
        }
        if !QUOTA_BYTES.contains(&limits.quota_bytes) {
            return Err(OptionsError::Quota(limits.quota_bytes));
        }
        Ok(())
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests;
