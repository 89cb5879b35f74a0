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
use lifecycle::{Shutdown, Tasks};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use store_raft::Store;
use store_server::{MetricsText, Speaks, StoreServer, connections};
use telemetry::Registry;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::admission::ConfigAdmission;
use crate::answers::NodeAnswers;
use crate::control::config::ConfigService;
use crate::control::mesh::MeshService;
use crate::options::NodeOptions;
use crate::parts::Parts;

use port::Port;

/// Streams that one client connection may have open at a time, as in etcd: no limit but the type's.
const CLIENT_STREAMS_MAX: u32 = u32::MAX;
/// A client connection without a sign of life for so long is asked for one.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long clients' connections get to end by themselves when the node stops.
const CLOSE: Duration = Duration::from_secs(2);
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

/// The servers that end on shutdown: each receiver hears when its server has.
pub(crate) struct Serving {
    client: oneshot::Receiver<()>,
    peer: oneshot::Receiver<()>,
}

impl Serving {
    /// Waits until both have ended, or their time is over.
    pub(crate) async fn finished(self) {
        // Whichever is late ends with the node's other tasks.
        let (client, peer) = (timeout(CLOSE, self.client), timeout(CLOSE_PEERS, self.peer));
        let _ = tokio::join!(client, peer);
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
            admission: Arc::new(ConfigAdmission::default()),
        };
        let config = ConfigServer::new(config)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        self.answers
            .add_metrics(|registry| server.register(registry));
        let answers = Arc::clone(&self.answers);
        let metrics: MetricsText = Arc::new(move || answers.metrics());
        let client = server.client_routes(metrics, |routes| {
            routes.add_service(config).add_service(mesh(&self.parts))
        });
        self.client.open(client);
        let peer = Routes::new(store.peer_service());
        let introduced = Arc::clone(&self.parts);
        let introduction = Arc::new(move || introduced.introduction());
        self.peer
            .open(peer.add_service(server.forward_service(introduction)));
    }
}

fn mesh(parts: &Arc<Parts>) -> MeshServer<MeshService> {
    MeshServer::new(MeshService(Arc::clone(parts))).max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Serves every port. What needs the store is refused until [`Ports::open`].
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
        client: Port::for_clients(Arc::clone(parts)).with(mesh(parts)),
        peer: Port::for_peers(Arc::clone(parts)),
    };
    let client = Server::builder()
        // For JSON. hyper tells the two by the first bytes of a connection, and gives a request's
        // head 30 s; gRPC's requests take the same way as without it.
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .max_concurrent_streams(CLIENT_STREAMS_MAX)
        .serve_with_incoming_shutdown(
            ports.client.clone(),
            connections(
                sockets.client,
                Speaks::Http1Or2,
                parts.certificates.client.clone(),
                at_client,
            ),
            requested(shutdown.clone()),
        );
    let peer = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .serve_with_incoming_shutdown(
            ports.peer.clone(),
            connections(
                sockets.peer,
                Speaks::Http2,
                parts.certificates.peer.clone(),
                at_peer,
            ),
            requested(shutdown.clone()),
        );
    let serving = Serving {
        client: spawn(&parts.tasks, "client port", client),
        peer: spawn(&parts.tasks, "peer port", peer),
    };
    (ports, serving)
}

async fn requested(mut shutdown: Shutdown) {
    shutdown.requested().await;
}

fn spawn(
    tasks: &Tasks,
    port: &'static str,
    serving: impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static,
) -> oneshot::Receiver<()> {
    let (ended, hears) = oneshot::channel();
    tasks.spawn(port, async move {
        if let Err(fault) = serving.await {
            tracing::error!(port, %fault, "a port is served no longer");
        }
        // Nobody waits unless the node stops.
        let _ = ended.send(());
    });
    hears
}
