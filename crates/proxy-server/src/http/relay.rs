//! A response's body on its way from the upstream to the client.
//!
//! Owns the copying from one end to the other. Reads no more than the client takes.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::ends::{Sink, Source};
use super::grpc;
use crate::deadline::Progress;
use crate::http1::Step;

/// Why a response body did not come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayFault {
    /// The upstream broke off.
    Upstream,
    /// The client takes no more.
    Client,
}

/// Copies a response body; what is pending at the client (the head) goes with its first bytes. Tells
/// the status that the trailers of a call of gRPC have.
pub(super) async fn relay(
    upstream: &mut impl Source,
    client: &mut impl Sink,
    progress: &Progress,
) -> Result<Option<u16>, RelayFault> {
    loop {
        match upstream.step() {
            Ok(Step::Data(count)) => {
                let sent = client.pass(upstream, count).await;
                sent.map_err(|_| RelayFault::Client)?;
            }
            Ok(Step::More) => {
                client.flush().await.map_err(|_| RelayFault::Client)?;
                progress.mark();
                more(upstream, client).await?;
                progress.mark();
            }
            Ok(Step::End) => break,
            Err(_) => return Err(RelayFault::Upstream),
        }
    }
    let trailers = upstream.take_trailers();
    let status = trailers.as_ref().and_then(grpc::status);
    let finished = client.finish(trailers).await;
    finished.map_err(|_| RelayFault::Client)?;
    Ok(status)
}

/// Waits for more of the body, or for the client to take no more.
pub(super) async fn more(
    upstream: &mut impl Source,
    client: &mut impl Sink,
) -> Result<(), RelayFault> {
    let mut more = pin!(upstream.more());
    poll_fn(|cx| {
        if let Poll::Ready(more) = more.as_mut().poll(cx) {
            return Poll::Ready(more.map_err(|_| RelayFault::Upstream));
        }
        client.poll_broken(cx).map(|()| Err(RelayFault::Client))
    })
    .await
}
