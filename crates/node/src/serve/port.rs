//! What one gRPC port answers before the store is open, and what from then on.
//!
//! Owns the change from one to the other. A peer is told at once that it must ask another node; a
//! client's call waits a moment first, since most stores open within one.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::service::Routes;

use crate::parts::Parts;
use crate::store_state::StoreState;

/// How long a client's call waits for the store to open. Then the client asks another node.
const CLIENT_WAIT: Duration = Duration::from_secs(2);

/// The services of one port. A clone is the same port.
#[derive(Clone)]
pub(super) struct Port {
    parts: Arc<Parts>,
    /// What needs no store, and the beginning of its paths.
    always: Option<(String, Routes)>,
    /// Everything, once the store is open...
    all: Arc<OnceLock<Routes>>,
    /// ...which this tells those who wait.
    opened: watch::Sender<bool>,
    /// How long a call waits for that.
    wait: Duration,
}

impl Port {
    /// A port for peers, which answers nothing yet.
    pub(super) fn for_peers(parts: Arc<Parts>) -> Self {
        Self {
            parts,
            always: None,
            all: Arc::default(),
            opened: watch::Sender::new(false),
            wait: Duration::ZERO,
        }
    }

    /// A port for clients, which answers nothing yet.
    pub(super) fn for_clients(parts: Arc<Parts>) -> Self {
        Self {
            wait: CLIENT_WAIT,
            ..Self::for_peers(parts)
        }
    }

    /// Answers `service` from the start.
    pub(super) fn with<S>(self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let prefix = format!("/{}/", S::NAME);
        Self {
            always: Some((prefix, Routes::new(service).prepare())),
            ..self
        }
    }

    /// From now on answers `routes`, on connections that are open already, too.
    pub(super) fn open(&self, routes: Routes) {
        // A port opens once: the store does.
        let _ = self.all.set(routes.prepare());
        self.opened.send_replace(true);
    }

    fn routes(&self, path: &str) -> Option<&Routes> {
        let always = || {
            let (prefix, routes) = self.always.as_ref()?;
            path.starts_with(prefix).then_some(routes)
        };
        self.all.get().or_else(always)
    }

    /// Answers a call that came before the store was open.
    async fn wait(self, request: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
        let (mut opened, mut states) = (self.opened.subscribe(), self.parts.store.subscribe());
        tokio::select! {
            _ = opened.wait_for(|opened| *opened) => {}
            _ = states.wait_for(|state| matches!(state, StoreState::Failed(_))) => {}
            () = tokio::time::sleep(self.wait) => {}
        }
        match self.all.get() {
            Some(routes) => routes.clone().call(request).await,
            None => Ok(self.refuse(&request)),
        }
    }

    fn refuse(&self, request: &http::Request<Body>) -> http::Response<Body> {
        let status = self.parts.store.borrow().refusal();
        let kind = request.headers().get(http::header::CONTENT_TYPE);
        let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if grpc {
            return status.into_http();
        }
        let mut response = http::Response::new(Body::new(status.message().to_owned()));
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        response
    }
}

impl Service<http::Request<Body>> for Port {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<
        <Routes as Service<http::Request<Body>>>::Future,
        BoxFuture<'static, Result<Self::Response, Infallible>>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.routes(request.uri().path()) {
            Some(routes) => Either::Left(routes.clone().call(request)),
            None => Either::Right(self.clone().wait(request).boxed()),
        }
    }
}
