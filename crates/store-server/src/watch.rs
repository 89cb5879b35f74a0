//! etcd's Watch service.
//!
//! Owns the gRPC shell: one [`Session`] per stream, polled by the connection itself, so a client
//! that does not read stops its own session and nothing else. It is not the generated service,
//! because that would encode every event anew for every watcher.

mod batch;
mod frame;
mod hub;
mod mailbox;
mod session;
mod waiting;
mod watcher;

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};
use rpc::{Answering, Call, Service};
use store_api::etcdserverpb::WatchRequest;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

pub(crate) use self::batch::Wants;
pub use self::hub::WatchHub;

use self::frame::{Frame, WatchCodec};
use self::session::Session;
use crate::access::caller_of;
use crate::header::Headers;
use crate::limits::{Limits, REQUEST_SLACK};
use crate::reads::Reads;
use crate::require_leader;

/// The service for the client port. A clone serves the same hub.
#[derive(Clone)]
pub(crate) struct WatchService {
    shared: Arc<Shared>,
}

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) hub: Arc<WatchHub>,
    /// Where a right is looked for that this node may not have heard of yet.
    pub(crate) reads: Option<Reads>,
    pub(crate) headers: Headers,
    pub(crate) limits: Limits,
}

impl WatchService {
    pub(crate) fn new(
        hub: Arc<WatchHub>,
        reads: Option<Reads>,
        headers: Headers,
        limits: Limits,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                hub,
                reads,
                headers,
                limits,
            }),
        }
    }
}

/// The service's only method.
struct OpenSession(Arc<Shared>);

impl StreamingService<WatchRequest> for OpenSession {
    type Response = Frame;
    type ResponseStream = BoxStream<'static, Result<Frame, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<WatchRequest>>) -> Self::Future {
        let wants_leader = require_leader::is_asked(request.metadata().as_ref());
        let caller = caller_of(&request);
        let requests = request.into_inner().boxed();
        let session = Session::open(self.0.clone(), requests, caller, wants_leader);
        let frames = stream::unfold(Some(session), async |session| {
            let mut session = session?;
            match session.next_frame().await {
                Ok(frame) => Some((Ok(frame), Some(session))),
                Err(status) => Some((Err(status), None)),
            }
        });
        std::future::ready(Ok(Response::new(frames.boxed())))
    }
}

impl Service for WatchService {
    const NAME: &'static str = "etcdserverpb.Watch";

    fn call(&self, call: Call) -> Answering {
        if rpc::method(&call) != "Watch" {
            return rpc::no_such_method(&call);
        }
        let shared = self.shared.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(WatchCodec).apply_max_message_size_config(
                Some(shared.limits.request_bytes + REQUEST_SLACK),
                None,
            );
            grpc.streaming(OpenSession(shared), call).await
        })
    }
}

#[cfg(test)]
mod tests;
