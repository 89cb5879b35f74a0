//! A node that answers what a test tells it to, on a real socket.
//!
//! Owns the two services of `skein.v1` and the store's keys in a map. Never replicates, admits or
//! routes anything: the tests of the whole mesh do that with real nodes.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use control_api::v1::config_server::{Config, ConfigServer};
use control_api::v1::mesh_server::{Mesh, MeshServer};
use control_api::v1::{self, ApplyRequest, ExplainRequest};
use lifecycle::ShutdownTrigger;
use rpc::{Port, Services, Speaks};
use store_api::etcdserverpb::kv_server::{Kv, KvServer};
use store_api::etcdserverpb::maintenance_server::{Maintenance, MaintenanceServer};
use store_api::etcdserverpb::{self as pb, ResponseHeader};
use store_api::mvccpb::KeyValue;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

/// What the node will answer, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) apply: Option<Result<v1::ApplyResponse, Status>>,
    /// Answered in turn; the last one again and again.
    pub(crate) statuses: VecDeque<v1::StatusResponse>,
    pub(crate) explain: Bytes,
    pub(crate) graph: Bytes,
    pub(crate) keys: BTreeMap<Bytes, Bytes>,
    /// The pieces of a snapshot, and how its stream goes on after them.
    pub(crate) snapshot: (Vec<Bytes>, Ending),
    pub(crate) applied: Vec<ApplyRequest>,
    pub(crate) explained: Vec<ExplainRequest>,
}

/// How a stream goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It ends.
    #[default]
    End,
    /// The node stops.
    Stop,
    /// Nothing more comes, ever.
    Silence,
}

/// A running node; it ends when dropped.
pub(crate) struct FakeNode {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    _runtime: Runtime,
}

impl FakeNode {
    /// A node that follows `script`.
    pub(crate) fn start(script: Script) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let script = Arc::new(Mutex::new(script));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service(Arc::clone(&script));
        let services = Services::default()
            .with(ConfigServer::new(service.clone()))
            .with(MeshServer::new(service.clone()))
            .with(MaintenanceServer::new(service.clone()))
            .with(KvServer::new(service));
        runtime.spawn(async move {
            // Nobody asks it to stop: it goes with the runtime.
            let (_stop, shutdown) = ShutdownTrigger::new();
            let port = Port::plain(Speaks::Http2);
            rpc::serve(listener, port, Arc::new(services), shutdown).await;
        });
        Self {
            address,
            script,
            _runtime: runtime,
        }
    }

    /// Reads or changes the script while the node runs.
    pub(crate) fn script<T>(&self, read: impl FnOnce(&mut Script) -> T) -> T {
        read(&mut self.script.lock().unwrap())
    }
}

#[derive(Clone)]
struct Service(Arc<Mutex<Script>>);

const REVISION: i64 = 7;

#[allow(clippy::unnecessary_wraps, reason = "the form of the messages' field")]
fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision: REVISION,
        ..Default::default()
    })
}

impl Config for Service {
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let mut script = self.0.lock().unwrap();
        script.applied.push(request.into_inner());
        let unplanned = || Status::internal("no answer to apply was planned");
        script
            .apply
            .clone()
            .ok_or_else(unplanned)?
            .map(Response::new)
    }
}

impl Mesh for Service {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let statuses = &mut self.0.lock().unwrap().statuses;
        let next = if statuses.len() > 1 {
            statuses.pop_front()
        } else {
            statuses.front().cloned()
        };
        next.map(Response::new)
            .ok_or_else(|| Status::internal("no status was planned"))
    }

    async fn peers(
        &self,
        _: Request<v1::PeersRequest>,
    ) -> Result<Response<v1::PeersResponse>, Status> {
        Ok(Response::new(v1::PeersResponse::default()))
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let mut script = self.0.lock().unwrap();
        script.explained.push(request.into_inner());
        let json = script.explain.clone();
        Ok(Response::new(v1::ExplainResponse {
            json,
            answered_by: "fake".into(),
        }))
    }

    async fn graph(
        &self,
        _: Request<v1::GraphRequest>,
    ) -> Result<Response<v1::GraphResponse>, Status> {
        let json = self.0.lock().unwrap().graph.clone();
        Ok(Response::new(v1::GraphResponse {
            json,
            answered_by: "fake".into(),
        }))
    }
}

impl Kv for Service {
    type RangeStreamStream = tokio_stream::Empty<Result<pb::RangeStreamResponse, Status>>;

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let asked = request.into_inner();
        let script = self.0.lock().unwrap();
        let within = |key: &Bytes| match asked.range_end.is_empty() {
            true => *key == asked.key,
            false => *key >= asked.key && *key < asked.range_end,
        };
        let rows = script.keys.iter().filter(|(key, _)| within(key));
        let row = |(key, value): (&Bytes, &Bytes)| KeyValue {
            key: key.clone(),
            value: value.clone(),
            mod_revision: REVISION,
            ..Default::default()
        };
        let kvs: Vec<_> = rows.map(row).collect();
        let count = kvs.len().try_into().unwrap();
        Ok(Response::new(pb::RangeResponse {
            header: header(),
            kvs,
            more: false,
            count,
        }))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let pb::PutRequest { key, value, .. } = request.into_inner();
        self.0.lock().unwrap().keys.insert(key, value);
        Ok(Response::new(pb::PutResponse {
            header: header(),
            ..Default::default()
        }))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let removed = self
            .0
            .lock()
            .unwrap()
            .keys
            .remove(&request.into_inner().key);
        let deleted = i64::from(removed.is_some());
        Ok(Response::new(pb::DeleteRangeResponse {
            header: header(),
            deleted,
            ..Default::default()
        }))
    }

    async fn range_stream(
        &self,
        _: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("no command uses it"))
    }

    async fn txn(&self, _: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        Err(Status::unimplemented("no command uses it"))
    }

    async fn compact(
        &self,
        _: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        Err(Status::unimplemented("no command uses it"))
    }
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("no command uses it"))
}

impl Maintenance for Service {
    type SnapshotStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let (pieces, ending) = self.0.lock().unwrap().snapshot.clone();
        let answer = |blob| {
            Ok(pb::SnapshotResponse {
                header: header(),
                blob,
                ..Default::default()
            })
        };
        let pieces = tokio_stream::iter(pieces).map(answer);
        Ok(Response::new(match ending {
            Ending::End => Box::pin(pieces),
            Ending::Stop => {
                let stopped = Status::unavailable("etcdserver: server stopped");
                Box::pin(pieces.chain(tokio_stream::once(Err(stopped))))
            }
            Ending::Silence => Box::pin(pieces.chain(tokio_stream::pending())),
        }))
    }

    async fn alarm(
        &self,
        _: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        unused()
    }

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        unused()
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        unused()
    }

    async fn hash(
        &self,
        _: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        unused()
    }

    async fn hash_kv(
        &self,
        _: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        unused()
    }

    async fn move_leader(
        &self,
        _: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        unused()
    }

    async fn downgrade(
        &self,
        _: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        unused()
    }
}
