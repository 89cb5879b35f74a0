//! Services of etcd's interface that are not there yet: each call is told so by name, instead of
//! the transport's bare "unimplemented".
//!
//! Owns the list. A service leaves it when it arrives.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

macro_rules! not_yet {
    ($($(#[$doc:meta])* $name:ident = $service:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $name;

        impl NamedService for $name {
            const NAME: &'static str = $service;
        }

        impl<B> Service<http::Request<B>> for $name {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = std::future::Ready<Result<Self::Response, Infallible>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<B>) -> Self::Future {
                std::future::ready(Ok(refuse(request.uri().path())))
            }
        }
    )*};
}

not_yet! {
    /// Users, roles, permissions.
    AuthNotYet = "etcdserverpb.Auth";
}

fn refuse(path: &str) -> http::Response<Body> {
    Status::unimplemented(format!("skein: {path} is not supported yet")).into_http()
}
