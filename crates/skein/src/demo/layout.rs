//! Where everything of the demo lives: folder, addresses, ports, files.
//!
//! Owns the choice of free ports and `demo.json`. Never starts anything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Nodes of the demo.
pub(crate) const NODES: u8 = 3;
/// The config that the demo applies: the example of the same name, with the ports of this run.
const QUICKSTART: &str = include_str!("../../../../config-examples/quickstart.yaml");
/// The addresses in the example that a run replaces by its own.
const EXAMPLE_WEB: &str = "\":8080\"";
const EXAMPLE_RAW: &str = "\":9000\"";
const EXAMPLE_UPSTREAMS: [&str; 2] = ["127.0.0.1:18081", "127.0.0.1:18082"];

/// Whether well-known ports are tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// The documented ports, any free one where one is taken: for people.
    Documented,
    /// Any free port: many runs at one time do not meet.
    Any,
}

/// One node of the demo.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NodeLayout {
    pub(crate) name: String,
    pub(crate) proxy_ip: IpAddr,
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) gossip: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Its bootstrap file: `skein node --config FILE` starts it.
    pub(crate) bootstrap: PathBuf,
    /// Its log.
    pub(crate) log: PathBuf,
}

/// One upstream of the demo.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct UpstreamLayout {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
}

/// Everything of one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
    /// The port of the http listener on every node's proxy address.
    pub(crate) web_port: u16,
    /// The port of the tcp listener.
    pub(crate) raw_port: u16,
    pub(crate) nodes: Vec<NodeLayout>,
    pub(crate) upstreams: Vec<UpstreamLayout>,
    /// The resources that were applied.
    pub(crate) config: PathBuf,
}

impl Layout {
    /// Chooses addresses for a run in `dir`, which must exist.
    pub(crate) fn choose(dir: &Path, ports: Ports) -> std::io::Result<Self> {
        let ips: Vec<IpAddr> = (1..=NODES)
            .map(|n| Ipv4Addr::new(127, 0, 0, 10 + n).into())
            .collect();
        let nodes = ips
            .iter()
            .enumerate()
            .map(|(i, &ip)| {
                let name = format!("n{}", i + 1);
                Ok(NodeLayout {
                    proxy_ip: ip,
                    client: free_tcp(ip, 2379, ports)?,
                    peer: free_tcp(ip, 2380, ports)?,
                    gossip: free_udp(ip, 7946, ports)?,
                    admin: free_tcp(ip, 9901, ports)?,
                    bootstrap: dir.join(&name).join("node.yaml"),
                    log: dir.join(&name).join("node.log"),
                    name,
                })
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let upstreams = [("blue", 18081), ("green", 18082)]
            .into_iter()
            .map(|(name, port)| {
                Ok(UpstreamLayout {
                    name,
                    address: free_tcp(local, port, ports)?,
                })
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self {
            dir: dir.to_owned(),
            web_port: free_everywhere(&ips, 8080, ports)?,
            raw_port: free_everywhere(&ips, 9000, ports)?,
            nodes,
            upstreams,
            config: dir.join("quickstart.yaml"),
        })
    }

    /// The http listener's address on `node`.
    pub(crate) fn web(&self, node: usize) -> SocketAddr {
        SocketAddr::new(self.nodes[node].proxy_ip, self.web_port)
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

/// A path as a YAML string, whatever is in it.
fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

fn free_tcp(ip: IpAddr, documented: u16, ports: Ports) -> std::io::Result<SocketAddr> {
    if ports == Ports::Documented && TcpListener::bind((ip, documented)).is_ok() {
        return Ok((ip, documented).into());
    }
    TcpListener::bind((ip, 0))?.local_addr()
}

fn free_udp(ip: IpAddr, documented: u16, ports: Ports) -> std::io::Result<SocketAddr> {
    if ports == Ports::Documented && UdpSocket::bind((ip, documented)).is_ok() {
        return Ok((ip, documented).into());
    }
    UdpSocket::bind((ip, 0))?.local_addr()
}

/// A port that is free on each of `ips`.
fn free_everywhere(ips: &[IpAddr], documented: u16, ports: Ports) -> std::io::Result<u16> {
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
    Err(std::io::Error::other(
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
}
