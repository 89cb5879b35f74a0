//! gRPC's own health check (`grpc.health.v1`), as etcd serves it for load balancers.
//!
//! Owns the two messages, which need no `.proto` file. Says only whether this node's store runs;
//! whether the mesh has a quorum is what `Maintenance.Status` tells.

use std::convert::Infallible;
use std::task::{Context, Poll};

use store_raft::{RaftStatus, Role};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HealthCheckRequest {
    /// A service's name; every one of this port is as healthy as the store.
    #[prost(string, tag = "1")]
    pub(crate) service: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    pub(crate) status: i32,
}

#[derive(Debug, Clone)]
pub(crate) struct HealthService {
    status: watch::Receiver<RaftStatus>,
}

impl HealthService {
    pub(crate) fn new(status: watch::Receiver<RaftStatus>) -> Self {
        Self { status }
    }
}

impl NamedService for HealthService {
    const NAME: &'static str = "grpc.health.v1.Health";
}

impl UnaryService<HealthCheckRequest> for HealthService {
    type Response = HealthCheckResponse;
    type Future = std::future::Ready<Result<Response<HealthCheckResponse>, Status>>;

    fn call(&mut self, _: Request<HealthCheckRequest>) -> Self::Future {
        let stopped = self.status.borrow().role == Role::Stopped;
        let status = if stopped { NOT_SERVING } else { SERVING };
        std::future::ready(Ok(Response::new(HealthCheckResponse { status })))
    }
}

impl<B> Service<http::Request<B>> for HealthService
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
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/grpc.health.v1.Health/Check" {
                // Clients ask again with Check then, as gRPC's health protocol says.
                return Ok(
                    Status::unimplemented("skein: of the health service only Check").into_http(),
                );
            }
            Ok(Grpc::new(ProstCodec::default())
                .unary(service, request)
                .await)
        })
    }
}
