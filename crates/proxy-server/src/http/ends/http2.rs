//! The ends that are streams of HTTP/2.
//!
//! Owns the flow control of one stream: what is received makes room for more only when it was
//! passed on, and no more is sent than the other side has room for. The frames are the crate
//! `h2`'s.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};

use super::{FromClient, FromUpstream, HeadEnd, Sink, Source, ToClient};
use crate::http::headers::{Closing, interim_fields, response_fields};
use crate::http::upgrade::Switch;
use crate::http1::{
    BodyFault, Framing, HeadFault, RequestHead, ResponseHead, Step, without_forbidden,
};

/// A body that arrives on a stream.
#[derive(Debug)]
pub(in crate::http) struct Streamed {
    /// `None`: nothing of it is wanted.
    stream: Option<RecvStream>,
    data: Bytes,
    trailers: Option<HeaderMap>,
    next: Next,
}

/// What a stream brings next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Data,
    Trailers,
    Nothing,
}

impl Streamed {
    pub(in crate::http) fn new(stream: RecvStream) -> Self {
        Self::response(Some(stream))
    }

    /// One whose bytes are not of the request, and wait until both sides agreed about them.
    pub(in crate::http) fn held(stream: RecvStream) -> Self {
        Self {
            next: Next::Nothing,
            ..Self::response(Some(stream))
        }
    }

    fn response(stream: Option<RecvStream>) -> Self {
        Self {
            next: if stream.as_ref().is_none_or(RecvStream::is_end_stream) {
                Next::Nothing
            } else {
                Next::Data
            },
            stream,
            data: Bytes::new(),
            trailers: None,
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyFault>> {
        let broken = |_| BodyFault::Truncated;
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(()));
        };
        while self.next == Next::Data {
            match ready!(stream.poll_data(cx)) {
                Some(data) => {
                    self.data = data.map_err(broken)?;
                    if !self.data.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                }
                None => self.next = Next::Trailers,
            }
        }
        if self.next == Next::Trailers {
            self.trailers = ready!(stream.poll_trailers(cx)).map_err(broken)?;
            self.next = Next::Nothing;
        }
        Poll::Ready(Ok(()))
    }

    fn make_room(&mut self, count: usize) {
        if let Some(stream) = &mut self.stream {
            // It fails when the stream is closed, and then the room is nobody's.
            let _ = stream.flow_control().release_capacity(count);
        }
    }
}

impl Source for Streamed {
    fn step(&mut self) -> Result<Step, BodyFault> {
        if self.data.is_empty() && self.next != Next::Nothing {
            // What is at hand comes without being waited for. Whoever waits asks `more`, which
            // looks again, so nobody needs to be woken by this.
            let looked = self.poll_more(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(result) = looked {
                result?;
            }
        }
        Ok(match (self.data.len(), self.next) {
            (0, Next::Nothing) => Step::End,
            (0, _) => Step::More,
            (count, _) => Step::Data(count),
        })
    }

    async fn more(&mut self) -> Result<(), BodyFault> {
        poll_fn(|cx| self.poll_more(cx)).await
    }

    fn data(&self, count: usize) -> &[u8] {
        &self.data[..count]
    }

    fn consume(&mut self, count: usize) {
        self.data.advance(count);
        self.make_room(count);
    }

    fn take(&mut self, count: usize) -> Bytes {
        self.make_room(count);
        self.data.split_to(count)
    }

    fn is_over(&self) -> bool {
        let ended = || self.stream.as_ref().is_none_or(RecvStream::is_end_stream);
        self.data.is_empty() && (self.next == Next::Nothing || ended())
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }
}

impl FromClient for Streamed {
    fn switch(&mut self) {
        self.next = Next::Data;
    }

    fn is_untouched(&self) -> bool {
        self.data.is_empty()
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        // A reset is seen by whoever answers.
        Poll::Pending
    }
}

/// A body that goes out on a stream.
#[derive(Debug)]
pub(in crate::http) struct Streaming<'a> {
    /// `None`: the stream was closed before.
    stream: Option<SendStream<Bytes>>,
    ended: bool,
    /// The body's end is not that of the stream: both sides may go over to something else.
    held: bool,
    /// Bytes of body sent.
    sent: &'a mut u64,
    /// What the other side is told if the body does not come to its end.
    fault: Reason,
}

impl Streaming<'_> {
    /// Leaves the stream open behind the body, until [`Sink::switch`].
    pub(in crate::http) fn hold(&mut self) {
        self.held = true;
    }

    /// Sends `data`; nothing follows the `last`.
    async fn put(&mut self, mut data: Bytes, last: bool) -> io::Result<()> {
        let stream = self.stream.as_mut().ok_or_else(closed)?;
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let room = match stream.capacity() {
                0 => poll_fn(|cx| poll_room(stream, cx)).await?,
                room => room,
            };
            let piece = data.split_to(room.min(data.len()));
            *self.sent += piece.len() as u64;
            let end = last && data.is_empty();
            stream.send_data(piece, end).map_err(|_| closed())?;
            self.ended |= end;
        }
        Ok(())
    }
}

fn poll_room(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    Poll::Ready(match ready!(stream.poll_capacity(cx)) {
        Some(Ok(room)) => Ok(room),
        Some(Err(_)) | None => Err(closed()),
    })
}

fn closed() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.stream
            && !self.ended
        {
            stream.send_reset(self.fault);
        }
    }
}

impl Sink for Streaming<'_> {
    async fn send(&mut self, data: &[u8], last: bool) -> io::Result<()> {
        self.put(Bytes::copy_from_slice(data), last).await
    }

    async fn pass(&mut self, body: &mut impl Source, count: usize) -> io::Result<()> {
        let data = body.take(count);
        let last = body.is_over();
        self.put(data, last).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        if self.held || mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let stream = self.stream.as_mut().ok_or_else(closed)?;
        let sent = match trailers.map(without_forbidden) {
            Some(trailers) if !trailers.is_empty() => stream.send_trailers(trailers),
            _ => stream.send_data(Bytes::new(), true),
        };
        sent.map_err(|_| closed())
    }

    fn switch(&mut self) {
        self.held = false;
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.stream {
            Some(stream) if !self.ended => stream.poll_reset(cx).map(|_| ()),
            _ => Poll::Pending,
        }
    }
}

/// The way back to a client on its stream.
#[derive(Debug)]
pub(in crate::http) struct Responding {
    stream: SendResponse<Bytes>,
    /// Bytes of body sent.
    pub(in crate::http) sent: u64,
}

impl Responding {
    pub(in crate::http) fn new(stream: SendResponse<Bytes>) -> Self {
        Self { stream, sent: 0 }
    }

    /// Begins a response, with which the stream ends if `whole`.
    pub(in crate::http) fn head(
        &mut self,
        status: StatusCode,
        headers: HeaderMap,
        whole: bool,
    ) -> Streaming<'_> {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        let stream = self.stream.send_response(response, whole).ok();
        Streaming {
            ended: whole && stream.is_some(),
            held: false,
            stream,
            sent: &mut self.sent,
            fault: Reason::INTERNAL_ERROR,
        }
    }

    /// Ends the stream without a response.
    pub(in crate::http) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    fn informational(&mut self, status: StatusCode, headers: HeaderMap) -> io::Result<()> {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        let sent = self.stream.send_informational(response);
        sent.map_err(|_| closed())
    }
}

/// A request on its stream to an upstream, whose response is awaited.
#[derive(Debug)]
pub(in crate::http) struct Asked {
    response: ResponseFuture,
    body: Option<RecvStream>,
}

impl Asked {
    /// Sends a request's head; `whole`: it has no body. What sends the body needs a place for the
    /// number of bytes sent.
    pub(in crate::http) fn new<'a>(
        mut send: SendRequest<Bytes>,
        request: Request<()>,
        whole: bool,
        sent: &'a mut u64,
    ) -> Result<(Self, Streaming<'a>), h2::Error> {
        let (response, stream) = send.send_request(request, whole)?;
        let body = Streaming {
            stream: Some(stream),
            ended: whole,
            held: false,
            sent,
            fault: Reason::CANCEL,
        };
        let asked = Self {
            response,
            body: None,
        };
        Ok((asked, body))
    }

    /// The next response, final or interim.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, h2::Error>> {
        if let Some(interim) = ready!(self.response.poll_informational(cx)) {
            return Poll::Ready(interim);
        }
        let response = ready!(Pin::new(&mut self.response).poll(cx))?;
        let (parts, body) = response.into_parts();
        self.body = Some(body);
        Poll::Ready(Ok(Response::from_parts(parts, ())))
    }

    fn framing(&self, method: &Method, status: StatusCode, headers: &HeaderMap) -> Framing {
        let bodyless = method == Method::HEAD || matches!(status.as_u16(), 100..=199 | 204 | 304);
        if bodyless || self.body.as_ref().is_none_or(RecvStream::is_end_stream) {
            return Framing::Empty;
        }
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        match length {
            // `h2` sees to it that it is true. Trailers may follow no bytes at all.
            Some(length @ 1..) => Framing::Length(length),
            _ => Framing::Chunked,
        }
    }
}

impl FromUpstream for Asked {
    type Body<'a> = Streamed;

    async fn head(&mut self, method: &Method, head: &mut ResponseHead) -> Result<Framing, HeadEnd> {
        let response = poll_fn(|cx| self.poll_response(cx)).await;
        let (parts, ()) = response.map_err(|error| end_of(&error))?.into_parts();
        let framing = self.framing(method, parts.status, &parts.headers);
        head.status = parts.status;
        let reason = parts.status.canonical_reason().unwrap_or_default();
        head.reason = Bytes::from_static(reason.as_bytes());
        head.version = Version::HTTP_2;
        head.headers = parts.headers;
        Ok(framing)
    }

    fn body(&mut self, framing: Framing) -> Streamed {
        Streamed::response(self.body.take().filter(|_| framing != Framing::Empty))
    }

    fn tunnel(&mut self) -> Streamed {
        Streamed::response(self.body.take())
    }
}

/// What an error means for a request whose response has not begun.
fn end_of(error: &h2::Error) -> HeadEnd {
    if error.is_remote() && error.is_go_away() {
        // Only streams above the last one that the upstream looked at end like this.
        HeadEnd::Unsent
    } else if error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM) {
        HeadEnd::Refused
    } else if error.is_remote() {
        HeadEnd::StreamReset
    } else if error.is_library() {
        tracing::debug!(%error, "an upstream's answer is malformed");
        HeadEnd::Malformed(HeadFault::Malformed("it breaks the rules of HTTP/2"))
    } else {
        HeadEnd::Reset
    }
}

impl ToClient for Responding {
    type Body<'a> = Streaming<'a>;

    async fn go_on(&mut self) -> io::Result<()> {
        self.informational(StatusCode::CONTINUE, HeaderMap::new())
    }

    async fn interim(&mut self, head: &ResponseHead) -> io::Result<()> {
        let mut headers = HeaderMap::new();
        interim_fields(&mut headers, head);
        self.informational(head.status, headers)
    }

    fn begin(
        &mut self,
        request: &RequestHead,
        head: &mut ResponseHead,
        closing: Closing<'_>,
    ) -> Streaming<'_> {
        let whole = closing.framing == Framing::Empty;
        let mut headers = HeaderMap::with_capacity(head.headers.len() + 2);
        response_fields(&mut headers, &request.method, head, closing);
        let whole = whole || request.method == Method::HEAD;
        self.head(head.status, headers, whole)
    }

    fn switch(&mut self, head: &ResponseHead, to: Switch<'_>) -> Streaming<'_> {
        let mut headers = HeaderMap::new();
        interim_fields(&mut headers, head);
        let mut streaming = self.head(StatusCode::OK, headers, false);
        // What a connection that broke is told by (RFC 9113, 8.5; RFC 8441, 5).
        streaming.fault = match to {
            Switch::Protocol(_) => Reason::CANCEL,
            Switch::Connect => Reason::CONNECT_ERROR,
        };
        streaming
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_| ())
    }
}
