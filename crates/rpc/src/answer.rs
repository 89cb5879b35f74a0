//! The four kinds of methods, from the bytes of a call to those of its answer.
//!
//! Owns the framing of messages (gRPC over HTTP/2: a flag, four bytes of length, the message) where one
//! message makes a call, which is what nearly all calls are: it is decoded where it arrived, and the
//! answer is encoded once, into a buffer of its size. Streams go tonic's way.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use lifecycle::aside;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderMap, HeaderValue, header};
use tonic::metadata::MetadataMap;
use tonic::server::{ClientStreamingService, Grpc, ServerStreamingService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::service::{Answering, Call, MessageLimits};

/// A flag and the length.
const HEAD_BYTES: usize = 5;

/// Encoding so much holds up others.
const LONG_BYTES: usize = 1024 * 1024;

/// The metadata of gRPC in which a caller tells how long it waits.
pub const TIMEOUT: &str = "grpc-timeout";

/// What a method gives.
type Given<A> = Result<Response<A>, Status>;

/// Answers a call of one message with one message.
pub fn unary<Q, A, W, F>(call: Call, limits: MessageLimits, work: W) -> Answering
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    W: FnOnce(Request<Q>) -> F + Send + 'static,
    F: Future<Output = Given<A>> + Send + 'static,
{
    Box::pin(async move {
        let (mut head, body) = call.into_parts();
        let message = match only_message(body, limits.request).await {
            Ok(message) => Q::decode(message).map_err(|fault| {
                Status::internal(format!("failed to decode Protobuf message: {fault}"))
            }),
            Err(status) => Err(status),
        };
        let message = match message {
            Ok(message) => message,
            Err(status) => return status.into_http(),
        };
        let deadline = caller_waits(&head.headers);
        let metadata = MetadataMap::from_headers(std::mem::take(&mut head.headers));
        let working = work(Request::from_parts(metadata, head.extensions, message));
        let given = match deadline {
            None => working.await,
            Some(deadline) => tokio::time::timeout(deadline, working)
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded"))),
        };
        match given.and_then(|response| framed(response, limits.answer)) {
            Ok(response) => response,
            Err(status) => status.into_http(),
        }
    })
}

/// Answers a call of one message with a stream.
pub fn answers_stream<Q, A, S, W, F>(call: Call, limits: MessageLimits, work: W) -> Answering
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
    W: FnOnce(Request<Q>) -> F + Send + 'static,
    F: Future<Output = Given<S>> + Send + 'static,
{
    let mut grpc = grpc::<Q, A>(limits);
    Box::pin(async move { grpc.server_streaming(Once(Some(work)), call).await })
}

/// Answers a stream with one message.
pub fn asks_stream<Q, A, W, F>(call: Call, limits: MessageLimits, work: W) -> Answering
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    W: FnOnce(Request<Streaming<Q>>) -> F + Send + 'static,
    F: Future<Output = Given<A>> + Send + 'static,
{
    let mut grpc = grpc::<Q, A>(limits);
    Box::pin(async move { grpc.client_streaming(Once(Some(work)), call).await })
}

/// Answers a stream with a stream.
pub fn both_stream<Q, A, S, W, F>(call: Call, limits: MessageLimits, work: W) -> Answering
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
    W: FnOnce(Request<Streaming<Q>>) -> F + Send + 'static,
    F: Future<Output = Given<S>> + Send + 'static,
{
    let mut grpc = grpc::<Q, A>(limits);
    Box::pin(async move { grpc.streaming(Once(Some(work)), call).await })
}

fn grpc<Q, A>(limits: MessageLimits) -> Grpc<ProstCodec<A, Q>>
where
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    Grpc::new(ProstCodec::default())
        .apply_max_message_size_config(Some(limits.request), Some(limits.answer))
}

/// What a method does, in the form that tonic wants.
struct Once<W>(Option<W>);

impl<W> Once<W> {
    fn take(&mut self) -> W {
        self.0.take().expect("tonic serves a call once")
    }
}

impl<Q, A, S, W, F> ServerStreamingService<Q> for Once<W>
where
    S: Stream<Item = Result<A, Status>>,
    W: FnOnce(Request<Q>) -> F,
    F: Future<Output = Given<S>>,
{
    type Response = A;
    type ResponseStream = S;
    type Future = F;

    fn call(&mut self, request: Request<Q>) -> F {
        self.take()(request)
    }
}

impl<Q, A, W, F> ClientStreamingService<Q> for Once<W>
where
    W: FnOnce(Request<Streaming<Q>>) -> F,
    F: Future<Output = Given<A>>,
{
    type Response = A;
    type Future = F;

    fn call(&mut self, request: Request<Streaming<Q>>) -> F {
        self.take()(request)
    }
}

impl<Q, A, S, W, F> StreamingService<Q> for Once<W>
where
    S: Stream<Item = Result<A, Status>>,
    W: FnOnce(Request<Streaming<Q>>) -> F,
    F: Future<Output = Given<S>>,
{
    type Response = A;
    type ResponseStream = S;
    type Future = F;

    fn call(&mut self, request: Request<Streaming<Q>>) -> F {
        self.take()(request)
    }
}

/// How long the caller waits, if it says so.
pub fn caller_waits(headers: &HeaderMap) -> Option<Duration> {
    parse_timeout(headers.get(TIMEOUT)?.to_str().ok()?)
}

/// Up to eight digits and a unit, as the gRPC protocol has it.
fn parse_timeout(told: &str) -> Option<Duration> {
    let (digits, unit) = told.split_at_checked(told.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The one message of a body, of at most `limit` bytes.
async fn only_message(mut body: Body, limit: usize) -> Result<Bytes, Status> {
    // Nearly always all of it arrives at once, and is taken as it lies there.
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let so_far: &[u8] = if all.is_empty() { &first } else { &all };
        let whole = message_bytes(so_far, limit)?;
        if whole.is_some_and(|whole| so_far.len() > HEAD_BYTES + whole) {
            return Err(Status::internal(
                "skein: more than one message where the method takes one",
            ));
        }
        if body.is_end_stream() {
            break;
        }
        let Some(frame) = body.frame().await else {
            break;
        };
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.reserve(whole.map_or(0, |whole| HEAD_BYTES + whole));
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
    }
    let mut bytes = if all.is_empty() { first } else { all.freeze() };
    match message_bytes(&bytes, limit)? {
        Some(whole) if bytes.len() == HEAD_BYTES + whole => Ok(bytes.split_off(HEAD_BYTES)),
        None if bytes.is_empty() => Err(Status::internal("Missing request message.")),
        _ => Err(Status::internal("Unexpected EOF decoding stream.")),
    }
}

/// The length of the message that begins here; `None` before its head is whole.
fn message_bytes(bytes: &[u8], limit: usize) -> Result<Option<usize>, Status> {
    let Some(&[flag, a, b, c, d]) = bytes.first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    if flag != 0 {
        return Err(Status::unimplemented(
            "skein: compressed messages are not understood; send them as they are",
        ));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > limit {
        return Err(Status::out_of_range(format!(
            "Error, decoded message length too large: found {length} bytes, the limit is: {limit} bytes"
        )));
    }
    Ok(Some(length))
}

/// The answer with its message.
fn framed<A: Message>(response: Response<A>, limit: usize) -> Result<http::Response<Body>, Status> {
    let (metadata, message, extensions) = response.into_parts();
    let length = message.encoded_len();
    let told = u32::try_from(length).ok().filter(|_| length <= limit);
    let Some(told) = told else {
        return Err(Status::out_of_range(format!(
            "Error, encoded message length too large: found {length} bytes, the limit is: {limit} bytes"
        )));
    };
    let encode = || {
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + length);
        bytes.put_u8(0);
        bytes.put_u32(told);
        message
            .encode(&mut bytes)
            .expect("the buffer grows as needed");
        bytes
    };
    let bytes = if length < LONG_BYTES {
        encode()
    } else {
        aside(encode)
    };
    let mut response = http::Response::new(Body::new(OneMessage(Left::Message(bytes.freeze()))));
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    *response.extensions_mut() = extensions;
    Ok(response)
}

/// The body of an answer that went well.
struct OneMessage(Left);

/// What is still to be sent.
enum Left {
    Message(Bytes),
    Trailers,
    Nothing,
}

impl http_body::Body for OneMessage {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(match std::mem::replace(&mut self.0, Left::Nothing) {
            Left::Message(bytes) => {
                self.0 = Left::Trailers;
                Some(Ok(Frame::data(bytes)))
            }
            Left::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
                Some(Ok(Frame::trailers(trailers)))
            }
            Left::Nothing => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Left::Nothing)
    }
}

#[cfg(test)]
mod tests;
