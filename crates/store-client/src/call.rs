//! The connection to one endpoint, for one call.
//!
//! Owns the words to the server how long the caller waits (`grpc-timeout`), so that a node that
//! finds no leader answers in time instead of leaving the caller in doubt, and who it is (`token`). Never ends a call: the
//! client does.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::HeaderValue;
use tonic::codegen::{Service, http};
use tonic::transport::Channel;

/// The metadata of gRPC that tells a deadline.
const TIMEOUT_KEY: &str = "grpc-timeout";
/// The metadata that carries a token, as etcd's clients send it.
pub(crate) const TOKEN_KEY: &str = "token";
/// Told beyond the deadline. The transport enforces what is told, too, and would say less about
/// it than the client.
const BEYOND: Duration = Duration::from_millis(100);
/// The longest time that the metadata has digits for, in milliseconds.
const TOLD_MS_MAX: u128 = 99_999_999;

/// A channel whose calls tell the server until when the caller waits.
#[derive(Debug, Clone)]
pub struct CallChannel {
    channel: Channel,
    deadline: Instant,
    token: Option<HeaderValue>,
}

impl CallChannel {
    pub(crate) fn new(channel: Channel, deadline: Instant, token: Option<HeaderValue>) -> Self {
        Self {
            channel,
            deadline,
            token,
        }
    }
}

impl Service<http::Request<Body>> for CallChannel {
    type Response = <Channel as Service<http::Request<Body>>>::Response;
    type Error = <Channel as Service<http::Request<Body>>>::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let left = self.deadline.saturating_duration_since(Instant::now()) + BEYOND;
        let told = format!("{}m", left.as_millis().min(TOLD_MS_MAX));
        let told = told
            .parse()
            .expect("digits and a letter are a header value");
        request.headers_mut().insert(TIMEOUT_KEY, told);
        if let Some(token) = &self.token {
            request.headers_mut().insert(TOKEN_KEY, token.clone());
        }
        self.channel.call(request)
    }
}
