//! The node's ports: client, peer, admin.
//!
//! Owns their sockets and the services on each. Binds everything before anything is served, so that
//! a port that is taken is one clear line at the start.

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
use store_server::{Speaks, connections};
use telemetry::Registry;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::transport::Server;

use crate::admission::ConfigAdmission;
use crate::answers::NodeAnswers;
use crate::control::config::ConfigService;
use crate::control::mesh::MeshService;
use crate::options::NodeOptions;
use crate::parts::Parts;

/// Streams that one client connection may have open at a time, as in etcd: no limit but the type's.
const CLIENT_STREAMS_MAX: u32 = u32::MAX;
/// A client connection without a sign of life for so long is asked for one.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long clients' connections get to end by themselves when the node stops.
const CLOSE: Duration = Duration::from_secs(2);
/// The same for those of other nodes: enough for answers under way. The leader's stream of appends
/// does not end by itself, so every stop of a follower waits this long.
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

/// Serves every port.
pub(crate) fn start(
    parts: &Arc<Parts>,
    sockets: Sockets,
    mut registry: Registry,
    shutdown: &Shutdown,
) -> Serving {
    let [at_client, at_peer, at_admin] = strangers(&mut registry);
    let config = ConfigService {
        parts: Arc::clone(parts),
        admission: Arc::new(ConfigAdmission::default()),
    };
    let config = ConfigServer::new(config)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mesh = MeshServer::new(MeshService(Arc::clone(parts)))
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let answers = Arc::new(NodeAnswers::new(parts, registry));
    let metrics = {
        let answers = Arc::clone(&answers);
        Arc::new(move || answers.metrics())
    };
    let client_routes = parts
        .server
        .client_routes(metrics)
        .add_service(config)
        .add_service(mesh);
    let client = Server::builder()
        // For JSON. hyper tells the two by the first bytes of a connection, and gives a request's
        // head 30 s; gRPC's requests take the same way as without it.
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .max_concurrent_streams(CLIENT_STREAMS_MAX)
        .add_routes(client_routes);
    let peer = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(parts.store.peer_service())
        .add_service(parts.server.forward_service());
    parts
        .tasks
        .spawn("admin", sockets.admin.serve(answers, at_admin));
    Serving {
        client: {
            let incoming = connections(sockets.client, Speaks::Http1Or2, at_client);
            let stop = requested(shutdown.clone());
            spawn(
                &parts.tasks,
                "client port",
                client.serve_with_incoming_shutdown(incoming, stop),
            )
        },
        peer: {
            let incoming = connections(sockets.peer, Speaks::Http2, at_peer);
            let stop = requested(shutdown.clone());
            spawn(
                &parts.tasks,
                "peer port",
                peer.serve_with_incoming_shutdown(incoming, stop),
            )
        },
    }
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
