//! The two ends of an exchange: what its flow needs of a client and of an upstream, whatever
//! version of HTTP they speak.
//!
//! Owns the traits between them. They are dispatched statically: an exchange of HTTP/1.1 on both
//! sides is compiled as if there were no other. Never knows a version; those are in the modules
//! below.

mod http1;
mod http2;

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::headers::Closing;
use super::upgrade::Switch;
use crate::http1::{BodyFault, Framing, HeadFault, RequestHead, ResponseHead, Step};

pub(super) use http1::{Received, Sent};
pub(super) use http2::{Asked, Responding, Streamed};

/// A body that is received.
pub(super) trait Source {
    /// What is at hand of it, without waiting.
    fn step(&mut self) -> Result<Step, BodyFault>;

    /// Waits until there is something else at hand.
    async fn more(&mut self) -> Result<(), BodyFault>;

    /// The next `count` bytes, at most as many as the last step told.
    fn data(&self, count: usize) -> &[u8];

    /// They were used. Only this makes room for more, which is the back-pressure.
    fn consume(&mut self, count: usize);

    /// The next `count` bytes, consumed, without a copy.
    fn take(&mut self, count: usize) -> Bytes;

    /// Whether it is known that nothing follows what was consumed, not even trailers.
    fn is_over(&self) -> bool;

    /// The trailers of a body that is over, once.
    fn take_trailers(&mut self) -> Option<HeaderMap>;
}

/// A request's body, which tells of its client too.
pub(super) trait FromClient: Source {
    /// Whether nothing of it arrived yet: then a client that asked for it waits for 100 Continue.
    fn is_untouched(&self) -> bool;

    /// From now on, what comes is the bytes of another protocol.
    fn switch(&mut self);

    /// Ready when the client is gone, after all of the body was received.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// A body that is sent.
pub(super) trait Sink {
    /// Sends data that stays where it is; nothing follows the `last`. Little of it may wait until
    /// [`Sink::flush`].
    async fn send(&mut self, data: &[u8], last: bool) -> io::Result<()>;

    /// Sends what is at hand of `body`, and consumes it.
    async fn pass(&mut self, body: &mut impl Source, count: usize) -> io::Result<()>;

    /// Sends what waits.
    async fn flush(&mut self) -> io::Result<()>;

    /// Ends the body.
    async fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()>;

    /// From now on, what is sent is the bytes of another protocol.
    fn switch(&mut self);

    /// Ready when the other side takes no more, for those who wait for what to send.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// The way back to a client.
pub(super) trait ToClient {
    type Body<'a>: Sink
    where
        Self: 'a;

    /// Tells a client that waits for it to go on (100 Continue).
    async fn go_on(&mut self) -> io::Result<()>;

    /// Sends an interim response.
    async fn interim(&mut self, head: &ResponseHead) -> io::Result<()>;

    /// Makes the head of the response to `request` ready; its body follows.
    fn begin(
        &mut self,
        request: &RequestHead,
        head: &mut ResponseHead,
        closing: Closing<'_>,
    ) -> Self::Body<'_>;

    /// Makes the head of an answer ready that goes over to something else; its bytes follow.
    fn switch(&mut self, head: &ResponseHead, to: Switch<'_>) -> Self::Body<'_>;

    /// Ready when the client is gone, where its request's body does not tell.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// What comes from an upstream.
pub(super) trait FromUpstream {
    type Body<'a>: Source
    where
        Self: 'a;

    /// Waits for the next response head, final or interim; its framing.
    async fn head(&mut self, method: &Method, head: &mut ResponseHead) -> Result<Framing, HeadEnd>;

    /// The body after a final head.
    fn body(&mut self, framing: Framing) -> Self::Body<'_>;

    /// The bytes of another protocol, after the head that agreed to it.
    fn tunnel(&mut self) -> Self::Body<'_>;
}

/// Why a response head did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadEnd {
    /// The connection ended or broke.
    Reset,
    /// What came is no HTTP.
    Malformed(HeadFault),
    /// The connection takes no more requests, and surely did nothing about this one.
    Unsent,
    /// The upstream refused the stream, and surely did nothing about the request.
    Refused,
    /// The upstream reset the stream.
    StreamReset,
}
