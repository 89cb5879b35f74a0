//! The node's ports: client, peer, admin.
//!
//! Owns their sockets and the services on each. Binds everything before anything is served, so that
//! a port that is taken is one clear line at the start. Then all are served at once: what needs the
//! store is refused until it is open.

mod port;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use admin::{AdminServer, Answers};
use control_api::MESSAGE_BYTES_MAX;
use control_api::v1::config_server::ConfigServer;
use control_api::v1::mesh_server::MeshServer;
use lifecycle::{Shutdown, ShutdownTrigger, Tasks};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use rpc::{MessageLimits, Services, Speaks};
use store_raft::Store;
use store_server::{MetricsText, StoreServer};
use telemetry::Registry;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::admission::ConfigAdmission;
use crate::answers::NodeAnswers;
use crate::control::config::ConfigService;
use crate::control::mesh::MeshService;
use crate::options::NodeOptions;
use crate::parts::Parts;

use port::Port;

/// What the control interface takes and gives.
const CONTROL_MESSAGES: MessageLimits = MessageLimits {
    request: MESSAGE_BYTES_MAX,
    answer: MESSAGE_BYTES_MAX,
};
/// Calls that one client connection may have open at a time, as in etcd: no limit but the type's.
const CLIENT_CALLS_MAX: u32 = u32::MAX;
/// The same for other nodes, which gather what they have to say.
const PEER_CALLS_MAX: u32 = 200;
/// How long clients' connections get to end by themselves when the node stops, after the last of
/// their writes must have been answered: cut before, it would have an unknown outcome.
const CLOSE: Duration = Duration::from_secs(1);
/// The same for those of other nodes: enough for answers under way.
const CLOSE_PEERS: Duration = Duration::from_millis(500);

/// An address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("--{flag} {address}: {source}; stop what uses it (`ss -ltnp`) or give another address")]
pub struct BindError {
    flag: &'static str,
    address: SocketAddr,
    source: std::io::Error,
}

/// The bound sockets of one node.
pub(crate) struct Sockets {
    client: TcpListener,
    peer: TcpListener,
    admin: AdminServer,
}

impl Sockets {
    /// Binds all three.
    pub(crate) async fn bind(options: &NodeOptions) -> Result<Self, crate::RunError> {
        let bind = async |flag, address| {
            let listener = TcpListener::bind(address).await;
            listener.map_err(|source| BindError {
                flag,
                address,
                source,
            })
        };
        Ok(Self {
            client: bind("client-addr", options.client_addr).await?,
            peer: bind("peer-addr", options.peer_addr).await?,
            admin: AdminServer::bind(options.admin_addr).await?,
        })
    }
}

/// The servers, which end one after the other: each receiver hears when its server has.
pub(crate) struct Serving {
    client: oneshot::Receiver<()>,
    peer: oneshot::Receiver<()>,
    stop_peer: ShutdownTrigger,
}

impl Serving {
    /// Waits until clients' connections have ended, which the node's shutdown asks for, or their
    /// time is over: `writes_end`, and a little more.
    pub(crate) async fn clients_ended(&mut self, writes_end: Duration) {
        // Whichever is late ends with the node's other tasks.
        let _ = timeout(writes_end + CLOSE, &mut self.client).await;
    }

    /// Ends the connections of other nodes, and waits for that as long as they have time.
    pub(crate) async fn end_peers(self) {
        self.stop_peer.request();
        let _ = timeout(CLOSE_PEERS, self.peer).await;
    }
}

/// Adds the counters of those who do not speak what a port speaks, by port. Nothing is logged of
/// them: whoever knocks a thousand times a second would fill the disk.
fn strangers(registry: &mut Registry) -> [Counter; 3] {
    let family = Family::<[(&str, &str); 1], Counter>::default();
    registry.register(
        "skein_port_strangers",
        "Connections that did not speak the port's protocol and were closed",
        family.clone(),
    );
    ["client", "peer", "admin"].map(|port| family.get_or_create_owned(&[("port", port)]))
}

/// The ports that need the store for most of what they answer.
pub(crate) struct Ports {
    parts: Arc<Parts>,
    answers: Arc<NodeAnswers>,
    client: Port,
    peer: Port,
}

impl Ports {
    /// Serves the store, which has just opened.
    pub(crate) fn open(&self, store: &Store, server: &StoreServer) {
        let config = ConfigService {
            server: server.clone(),
            admission: Arc::new(ConfigAdmission::new(self.parts.committed.clone())),
        };
        let config = ConfigServer::new(config).with_limits(CONTROL_MESSAGES);
        self.answers
            .add_metrics(|registry| server.register(registry));
        let answers = Arc::clone(&self.answers);
        let metrics: MetricsText = Arc::new(move || answers.metrics());
        let own = Services::default().with(config).with(mesh(&self.parts));
        self.client.open(server.client_services(metrics, own));
        let introduced = Arc::clone(&self.parts);
        let introduction = Arc::new(move || introduced.introduction());
        let peer = Services::default()
            .with(store.peer_service())
            .with(server.forward_service(introduction));
        self.peer.open(Arc::new(peer));
    }
}

#[cfg(test)]
impl Ports {
    /// Answers clients so instead.
    pub(crate) fn answer_clients(&self, answer: Arc<dyn rpc::Answer>) {
        self.client.open(answer);
    }
}

fn mesh(parts: &Arc<Parts>) -> MeshServer<MeshService> {
    MeshServer::new(MeshService(Arc::clone(parts))).with_limits(CONTROL_MESSAGES)
}

/// Serves every port. What needs the store is refused until [`Ports::open`]. The client port ends on
/// `shutdown`, the peer port after it, by [`Serving::end_peers`].
pub(crate) fn start(
    parts: &Arc<Parts>,
    sockets: Sockets,
    mut registry: Registry,
    shutdown: &Shutdown,
) -> (Ports, Serving) {
    let [at_client, at_peer, at_admin] = strangers(&mut registry);
    let answers = Arc::new(NodeAnswers::new(parts, registry));
    let admin = sockets.admin.serve(answers.clone(), at_admin);
    parts.tasks.spawn("admin", admin);
    let ports = Ports {
        parts: Arc::clone(parts),
        answers,
        client: Port::for_clients(Arc::clone(parts), Services::default().with(mesh(parts))),
        peer: Port::for_peers(Arc::clone(parts)),
    };
    let client = rpc::serve(
        sockets.client,
        rpc::Port {
            // hyper tells JSON's HTTP/1.1 from gRPC by the first bytes of a connection.
            speaks: Speaks::Http1Or2,
            tls: parts.certificates.client.clone(),
            calls_max: CLIENT_CALLS_MAX,
            strangers: at_client,
        },
        Arc::new(ports.client.clone()),
        shutdown.clone(),
    );
    let (stop_peer, peer_shutdown) = ShutdownTrigger::new();
    let peer = rpc::serve(
        sockets.peer,
        rpc::Port {
            speaks: Speaks::Http2,
            tls: parts.certificates.peer.clone(),
            calls_max: PEER_CALLS_MAX,
            strangers: at_peer,
        },
        Arc::new(ports.peer.clone()),
        peer_shutdown,
    );
    let serving = Serving {
        client: spawn(&parts.tasks, "client port", client),
        peer: spawn(&parts.tasks, "peer port", peer),
        stop_peer,
    };
    (ports, serving)
}

fn spawn(
    tasks: &Tasks,
    port: &'static str,
    serving: impl Future<Output = ()> + Send + 'static,
) -> oneshot::Receiver<()> {
    let (ended, hears) = oneshot::channel();
    tasks.spawn(port, async move {
        serving.await;
        // Nobody waits unless the node stops.
        let _ = ended.send(());
    });
    hears
}
