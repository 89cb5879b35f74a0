//! gRPC's own health check (`grpc.health.v1`), as etcd serves it for load balancers.
//!
//! Owns the two messages, which need no `.proto` file. Says only whether this node's store runs and is sound;
//! whether the mesh has a quorum is what `Maintenance.Status` tells.

use rpc::{Answering, Call, MessageLimits, Service};
use store_raft::{RaftStatus, Role, Soundness};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

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
    soundness: watch::Receiver<Soundness>,
}

impl HealthService {
    pub(crate) fn new(
        status: watch::Receiver<RaftStatus>,
        soundness: watch::Receiver<Soundness>,
    ) -> Self {
        Self { status, soundness }
    }
}

impl Service for HealthService {
    const NAME: &'static str = "grpc.health.v1.Health";

    fn call(&self, call: Call) -> Answering {
        if rpc::method(&call) != "Check" {
            // Clients ask again with Check then, as gRPC's health protocol says.
            return rpc::refuse(Status::unimplemented(
                "skein: of the health service only Check",
            ));
        }
        let stopped = self.status.borrow().role == Role::Stopped;
        let damaged = self.soundness.borrow().damage.is_some();
        let status = if stopped || damaged {
            NOT_SERVING
        } else {
            SERVING
        };
        rpc::unary(
            call,
            MessageLimits::default(),
            move |_: Request<HealthCheckRequest>| {
                std::future::ready(Ok(Response::new(HealthCheckResponse { status })))
            },
        )
    }
}
