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

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::{self, BoxStream, StreamExt};
use store_api::etcdserverpb::{WatchRequest, watch_server};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, StreamingService};
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

impl NamedService for WatchService {
    const NAME: &'static str = watch_server::SERVICE_NAME;
}

/// The service's only method.
struct OpenSession(Arc<Shared>);

impl StreamingService<WatchRequest> for OpenSession {
    type Response = Frame;
    type ResponseStream = BoxStream<'static, Result<Frame, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<WatchRequest>>) -> Self::Future {
        let wants_leader = require_leader::is_asked(request.metadata());
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

impl<B> Service<http::Request<B>> for WatchService
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            if request.uri().path() != "/etcdserverpb.Watch/Watch" {
                return Ok(
                    Status::unimplemented("the service Watch has one method, Watch").into_http(),
                );
            }
            let mut grpc = Grpc::new(WatchCodec).apply_max_message_size_config(
                Some(shared.limits.request_bytes + REQUEST_SLACK),
                None,
            );
            Ok(grpc.streaming(OpenSession(shared), request).await)
        })
    }
}

#[cfg(test)]
mod tests;
