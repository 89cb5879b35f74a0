//! Where everything of the demo lives: folder, addresses, ports, files.
//!
//! Owns the choice of ports: free ones in a new folder, in a known one those of its `demo.json`.
//! Never starts anything.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Nodes of the demo.
pub(crate) const NODES: u8 = 3;
/// The config that the demo applies: the example of the same name, with the ports of this run.
const QUICKSTART: &str = include_str!("../../../../config-examples/quickstart.yaml");
/// The addresses in the example that a run replaces by its own.
const EXAMPLE_WEB: &str = "\":8080\"";
const EXAMPLE_RAW: &str = "\":9000\"";
const EXAMPLE_UPSTREAMS: [&str; 2] = ["127.0.0.1:18081", "127.0.0.1:18082"];
/// The upstreams and their documented ports.
const UPSTREAMS: [(&str, u16); 2] = [("blue", 18081), ("green", 18082)];

/// Whether well-known ports are tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// The documented ports, any free one where one is taken: for people.
    Documented,
    /// Any free port: many runs at one time do not meet.
    Any,
}

/// One node of the demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeLayout {
    pub(crate) name: String,
    pub(crate) proxy_ip: IpAddr,
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) gossip: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Its bootstrap file: `skein node --config FILE` starts it.
    #[serde(skip_deserializing)]
    pub(crate) bootstrap: PathBuf,
    /// Its log.
    #[serde(skip_deserializing)]
    pub(crate) log: PathBuf,
}

/// One upstream of the demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UpstreamLayout {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
}

/// Everything of one run. What is read back are the addresses: a folder may have been moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    #[serde(skip_deserializing)]
    pub(crate) dir: PathBuf,
    /// The port of the http listener on every node's proxy address.
    pub(crate) web_port: u16,
    /// The port of the tcp listener.
    pub(crate) raw_port: u16,
    pub(crate) nodes: Vec<NodeLayout>,
    pub(crate) upstreams: Vec<UpstreamLayout>,
    /// The resources that were applied.
    #[serde(skip_deserializing)]
    pub(crate) config: PathBuf,
}

impl Layout {
    /// The layout of a run in `dir`, which must exist. Members know each other by the addresses of
    /// the first run there, so a later one has the same or none.
    pub(crate) fn in_folder(dir: &Path, ports: Ports) -> Result<Self, Failure> {
        let record = record(dir);
        match std::fs::read_to_string(&record) {
            Ok(text) => {
                let layout = Self::recorded(dir, &text)?;
                layout.check_free()?;
                Ok(layout)
            }
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Self::choose(dir, ports)
                .map_err(|fault| {
                    Failure::failed(format!(
                        "no ports for the demo: {fault}; \
                         it needs 127.0.0.1 and 127.0.0.11 to 127.0.0.13"
                    ))
                }),
            Err(fault) => Err(Failure::failed(format!(
                "cannot read {}: {fault}; give another --dir",
                record.display()
            ))),
        }
    }

    /// What `demo.json` says of an earlier run in `dir`.
    fn recorded(dir: &Path, text: &str) -> Result<Self, Failure> {
        let foreign = |fault: &dyn std::fmt::Display| {
            Failure::failed(format!(
                "{} does not describe a demo of this release: {fault}; give another --dir",
                record(dir).display()
            ))
        };
        let layout: Self = serde_json::from_str(text).map_err(|fault| foreign(&fault))?;
        let names = layout.upstreams.iter().map(|upstream| &*upstream.name);
        if !names.eq(UPSTREAMS.map(|(name, _)| name)) {
            return Err(foreign(&"its upstreams are not blue and green"));
        }
        if !(layout.nodes.iter().map(|node| &node.name)).eq(&node_names()) {
            return Err(foreign(&"its nodes are not n1, n2 and n3"));
        }
        Ok(layout.placed_in(dir))
    }

    /// Chooses addresses for a first run in `dir`.
    fn choose(dir: &Path, ports: Ports) -> io::Result<Self> {
        let ips: Vec<IpAddr> = (1..=NODES)
            .map(|n| Ipv4Addr::new(127, 0, 0, 10 + n).into())
            .collect();
        let nodes = ips
            .iter()
            .zip(node_names())
            .map(|(&ip, name)| {
                Ok(NodeLayout {
                    name,
                    proxy_ip: ip,
                    client: free_tcp(ip, 2379, ports)?,
                    peer: free_tcp(ip, 2380, ports)?,
                    gossip: free_udp(ip, 7946, ports)?,
                    admin: free_tcp(ip, 9901, ports)?,
                    bootstrap: PathBuf::new(),
                    log: PathBuf::new(),
                })
            })
            .collect::<io::Result<Vec<_>>>()?;
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let upstreams = UPSTREAMS
            .into_iter()
            .map(|(name, port)| {
                Ok(UpstreamLayout {
                    name: name.to_owned(),
                    address: free_tcp(local, port, ports)?,
                })
            })
            .collect::<io::Result<Vec<_>>>()?;
        let layout = Self {
            dir: PathBuf::new(),
            web_port: free_everywhere(&ips, 8080, ports)?,
            raw_port: free_everywhere(&ips, 9000, ports)?,
            nodes,
            upstreams,
            config: PathBuf::new(),
        };
        Ok(layout.placed_in(dir))
    }

    /// Puts all files below `dir`.
    fn placed_in(mut self, dir: &Path) -> Self {
        for node in &mut self.nodes {
            let folder = dir.join(&node.name);
            node.bootstrap = folder.join("node.yaml");
            node.log = folder.join("node.log");
        }
        self.config = dir.join("quickstart.yaml");
        self.dir = dir.to_owned();
        self
    }

    /// Names the first address that something else uses, if one is.
    fn check_free(&self) -> Result<(), Failure> {
        let tcp = |address: SocketAddr| TcpListener::bind(address).map(drop);
        let udp = |address: SocketAddr| UdpSocket::bind(address).map(drop);
        let check = |owner: &str, purpose: &str, address, tried: io::Result<()>| {
            tried.map_err(|fault| {
                Failure::failed(format!(
                    "{address}, the {purpose} address of {owner} in {}, cannot be used: {fault}; \
                     stop what uses it, perhaps a demo that still runs there, or give another --dir",
                    self.record().display()
                ))
            })
        };
        for (at, node) in self.nodes.iter().enumerate() {
            let (web, raw) = (self.web(at), self.raw(at));
            check(&node.name, "client", node.client, tcp(node.client))?;
            check(&node.name, "peer", node.peer, tcp(node.peer))?;
            check(&node.name, "gossip", node.gossip, udp(node.gossip))?;
            check(&node.name, "admin", node.admin, tcp(node.admin))?;
            check(&node.name, "web", web, tcp(web))?;
            check(&node.name, "raw", raw, tcp(raw))?;
        }
        for UpstreamLayout { name, address } in &self.upstreams {
            check(name, "upstream", *address, tcp(*address))?;
        }
        Ok(())
    }

    /// The file that tells people, and the next run in the same folder, where everything is.
    pub(crate) fn record(&self) -> PathBuf {
        record(&self.dir)
    }

    /// The http listener's address on `node`.
    pub(crate) fn web(&self, node: usize) -> SocketAddr {
        SocketAddr::new(self.nodes[node].proxy_ip, self.web_port)
    }

    /// The tcp listener's address on `node`.
    fn raw(&self, node: usize) -> SocketAddr {
        SocketAddr::new(self.nodes[node].proxy_ip, self.raw_port)
    }

    /// The quickstart example with the addresses of this run.
    pub(crate) fn quickstart(&self) -> String {
        let mut text = QUICKSTART
            .replace(EXAMPLE_WEB, &format!("\":{}\"", self.web_port))
            .replace(EXAMPLE_RAW, &format!("\":{}\"", self.raw_port));
        for (example, upstream) in EXAMPLE_UPSTREAMS.iter().zip(&self.upstreams) {
            text = text.replace(example, &upstream.address.to_string());
        }
        text
    }

    /// The bootstrap file of `node`.
    pub(crate) fn bootstrap(&self, node: &NodeLayout) -> String {
        let join: Vec<String> = self
            .nodes
            .iter()
            .filter(|other| other.name != node.name)
            .map(|other| format!("\"{}\"", other.gossip))
            .collect();
        format!(
            "# One node of the demo: skein node --config {file}\n\
             name: {name}\ndata-dir: {data}\nclient-addr: \"{client}\"\npeer-addr: \"{peer}\"\n\
             gossip-addr: \"{gossip}\"\nadmin-addr: \"{admin}\"\nproxy-ip: \"{proxy}\"\n\
             bootstrap-expect: {NODES}\njoin: [{join}]\ngossip-key-file: {key}\nworkers: 1\n",
            file = node.bootstrap.display(),
            name = node.name,
            data = quoted(&self.dir.join(&node.name).join("data")),
            client = node.client,
            peer = node.peer,
            gossip = node.gossip,
            admin = node.admin,
            proxy = node.proxy_ip,
            join = join.join(", "),
            key = quoted(&self.gossip_key()),
        )
    }

    /// The gossip key of this run.
    pub(crate) fn gossip_key(&self) -> PathBuf {
        self.dir.join("gossip.key")
    }

    /// All client addresses, as `--endpoints` takes them.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| node.client.to_string())
            .collect()
    }
}

fn record(dir: &Path) -> PathBuf {
    dir.join("demo.json")
}

fn node_names() -> Vec<String> {
    (1..=NODES).map(|n| format!("n{n}")).collect()
}

/// A path as a YAML string, whatever is in it.
fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

fn free_tcp(ip: IpAddr, documented: u16, ports: Ports) -> io::Result<SocketAddr> {
    if ports == Ports::Documented && TcpListener::bind((ip, documented)).is_ok() {
        return Ok((ip, documented).into());
    }
    TcpListener::bind((ip, 0))?.local_addr()
}

fn free_udp(ip: IpAddr, documented: u16, ports: Ports) -> io::Result<SocketAddr> {
    if ports == Ports::Documented && UdpSocket::bind((ip, documented)).is_ok() {
        return Ok((ip, documented).into());
    }
    UdpSocket::bind((ip, 0))?.local_addr()
}

/// A port that is free on each of `ips`.
fn free_everywhere(ips: &[IpAddr], documented: u16, ports: Ports) -> io::Result<u16> {
    let free = |port| ips.iter().all(|&ip| TcpListener::bind((ip, port)).is_ok());
    if ports == Ports::Documented && free(documented) {
        return Ok(documented);
    }
    for _ in 0..100 {
        let port = TcpListener::bind((ips[0], 0))?.local_addr()?.port();
        if free(port) {
            return Ok(port);
        }
    }
    Err(io::Error::other(
        "no port is free on all of 127.0.0.11 to 127.0.0.13",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_the_example_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::choose(dir.path(), Ports::Any).unwrap();
        let text = layout.quickstart();
        for example in [EXAMPLE_WEB, EXAMPLE_RAW]
            .into_iter()
            .chain(EXAMPLE_UPSTREAMS)
        {
            assert!(QUICKSTART.contains(example), "{example} left the example");
            assert!(!text.contains(example), "{example} was not replaced");
        }
        assert!(text.contains(&layout.upstreams[0].address.to_string()));
    }

    /// What the first run in `dir` leaves there.
    fn first_run(dir: &Path) -> Layout {
        let layout = Layout::in_folder(dir, Ports::Any).unwrap();
        std::fs::write(layout.record(), serde_json::to_string(&layout).unwrap()).unwrap();
        layout
    }

    #[test]
    fn a_later_run_has_the_addresses_of_the_first_wherever_the_folder_is() {
        let (dir, moved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = first_run(dir.path());
        // Other tests may take a port meanwhile, so this leaves out whether they are free.
        let text = std::fs::read_to_string(first.record()).unwrap();
        assert_eq!(Layout::recorded(dir.path(), &text).unwrap(), first);

        let elsewhere = Layout::recorded(moved.path(), &text).unwrap();
        assert_eq!(elsewhere.endpoints(), first.endpoints());
        assert!(elsewhere.nodes[2].log.starts_with(moved.path()));
        assert!(elsewhere.config.starts_with(moved.path()));
    }

    #[test]
    fn a_taken_address_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let mut layout = first_run(dir.path());
        // The first that is looked at, so that no port which another test took comes before it.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        layout.nodes[0].client = taken.local_addr().unwrap();
        let failure = layout.check_free().unwrap_err().message;
        let named = format!("{}, the client address of n1 in", layout.nodes[0].client);
        assert!(failure.starts_with(&named), "{failure}");
        assert!(failure.contains("stop what uses it"), "{failure}");
        assert!(failure.contains("another --dir"), "{failure}");
    }

    #[test]
    fn a_record_that_is_not_of_a_demo_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut layout = first_run(dir.path());
        layout.nodes.pop();
        for text in ["{}".to_owned(), serde_json::to_string(&layout).unwrap()] {
            std::fs::write(layout.record(), text).unwrap();
            let failure = Layout::in_folder(dir.path(), Ports::Any).unwrap_err();
            assert!(
                failure.message.contains("demo.json does not describe"),
                "{failure}"
            );
        }
    }
}
