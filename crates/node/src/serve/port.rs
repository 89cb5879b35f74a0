//! What one gRPC port answers before the store is open, and what from then on.
//!
//! Owns the change from one to the other. A peer is told at once that it must ask another node; a
//! client's call waits a moment first, since most stores open within one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rpc::{Answer, Answering, Call, Services};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::http;

use crate::parts::Parts;
use crate::store_state::StoreState;

/// How long a client's call waits for the store to open. Then the client asks another node.
const CLIENT_WAIT: Duration = Duration::from_secs(2);

/// What one port answers. A clone is the same port.
#[derive(Clone)]
pub(super) struct Port {
    parts: Arc<Parts>,
    /// What needs no store.
    always: Arc<Services>,
    /// Everything, once the store is open...
    all: Arc<OnceLock<Arc<dyn Answer>>>,
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
            always: Arc::default(),
            all: Arc::default(),
            opened: watch::Sender::new(false),
            wait: Duration::ZERO,
        }
    }

    /// A port for clients, which answers only what `always` can.
    pub(super) fn for_clients(parts: Arc<Parts>, always: Services) -> Self {
        Self {
            wait: CLIENT_WAIT,
            always: Arc::new(always),
            ..Self::for_peers(parts)
        }
    }

    /// From now on answers with `services`, on connections that are open already, too.
    pub(super) fn open(&self, services: Arc<dyn Answer>) {
        // A port opens once: the store does.
        let _ = self.all.set(services);
        self.opened.send_replace(true);
    }

    /// Answers a call that came before the store was open.
    async fn wait(self, call: Call) -> http::Response<Body> {
        let (mut opened, mut states) = (self.opened.subscribe(), self.parts.store.subscribe());
        tokio::select! {
            _ = opened.wait_for(|opened| *opened) => {}
            _ = states.wait_for(|state| matches!(state, StoreState::Failed(_))) => {}
            () = tokio::time::sleep(self.wait) => {}
        }
        match self.all.get() {
            Some(services) => services.answer(call).await,
            None => self.refuse(&call),
        }
    }

    fn refuse(&self, call: &Call) -> http::Response<Body> {
        let status = self.parts.store.borrow().refusal();
        let kind = call.headers().get(http::header::CONTENT_TYPE);
        let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if grpc {
            return status.into_http();
        }
        let mut response = http::Response::new(Body::new(status.message().to_owned()));
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        response
    }
}

impl Answer for Port {
    fn answer(&self, call: Call) -> Answering {
        match self.all.get() {
            Some(services) => services.answer(call),
            None if self.always.have(&call) => self.always.answer(call),
            None => Box::pin(self.clone().wait(call)),
        }
    }
}
