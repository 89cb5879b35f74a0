//! One JSON call: read, made into a gRPC call, answered in JSON.
//!
//! Owns what travels with a call (token, metadata, deadline) and the streams. The gRPC call stays
//! inside the process: it goes to the services directly, through no socket. Never runs ahead of the
//! client: the next message of a stream is made when the last one was taken.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use futures_util::future::{Fuse, FutureExt};
use futures_util::stream::{self, Stream, StreamExt};
use http_body::Frame;
use http_body_util::StreamBody;
use rpc::InProcess;
use store_api::errors;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{self, HeaderMap, HeaderName, StatusCode, header};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status, Streaming};

use super::fault;
use super::objects::{self, Objects};
use super::routes::{Method, Shape};
use crate::patience;

/// What grpc-gateway puts before the name of metadata in a header.
const METADATA_PREFIX: &str = "grpc-metadata-";
const TOKEN: HeaderName = HeaderName::from_static("token");

/// Answers one JSON call.
pub(super) async fn call(
    services: InProcess,
    method: Arc<Method>,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let (head, body) = request.into_parts();
    // The method ends a call at the caller's deadline, in gRPC's form: be ahead of it.
    let deadline = patience::told(&head.headers);
    let work = async {
        match method.shape {
            Shape::Unary => unary(services, &method, head, body).await,
            Shape::AnswersStream | Shape::BothStream => {
                streaming(services, method, head, body).await
            }
        }
    };
    let done = match deadline {
        None => work.await,
        Some(deadline) => {
            let done = tokio::time::timeout(deadline, work).await;
            done.unwrap_or_else(|_| Err(errors::deadline_exceeded()))
        }
    };
    done.unwrap_or_else(|status| fault::answer(&status))
}

async fn unary(
    services: InProcess,
    method: &Method,
    head: Parts,
    body: Body,
) -> Result<http::Response<Body>, Status> {
    let json = objects::whole(&head.headers, body).await?;
    let message = method.request.to_protobuf(&json)?;
    let path = method.grpc_path.clone();
    let answer = client(services)
        .unary(open(head, message), path, Encoded)
        .await?;
    let mut json = method.answer.to_json(answer.into_inner())?;
    json.push(b'\n');
    Ok(fault::json_answer(StatusCode::OK, json))
}

async fn streaming(
    services: InProcess,
    method: Arc<Method>,
    head: Parts,
    body: Body,
) -> Result<http::Response<Body>, Status> {
    let (tell, fault) = oneshot::channel();
    let requests = match method.shape {
        Shape::BothStream => {
            let mut objects = Objects::new(body);
            let first = objects.next().await?.ok_or_else(|| {
                Status::invalid_argument("skein: the body is empty; it needs a JSON object")
            })?;
            let first = method.request.to_protobuf(&first)?;
            let first = stream::once(std::future::ready(first));
            first.chain(rest(objects, method.clone(), tell)).boxed()
        }
        Shape::Unary | Shape::AnswersStream => {
            let json = objects::whole(&head.headers, body).await?;
            let message = method.request.to_protobuf(&json)?;
            stream::once(std::future::ready(message)).boxed()
        }
    };
    let path = method.grpc_path.clone();
    let answers = client(services)
        .streaming(open(head, requests), path, Encoded)
        .await?
        .into_inner();
    let mut answers = Answers {
        method,
        answers,
        fault: fault.fuse(),
    };
    // An error before the first message still has the status of the answer to itself.
    let first = answers.next().await.transpose()?;
    let rest = stream::unfold(Some(answers), async |answers| {
        let mut answers = answers?;
        match answers.next().await? {
            Ok(line) => Some((line, Some(answers))),
            Err(status) => Some((fault::line(&status), None)),
        }
    });
    let lines = stream::iter(first).chain(rest);
    let frames = lines.map(|line| Ok::<_, Status>(Frame::data(Bytes::from(line))));
    let mut response = http::Response::new(Body::new(StreamBody::new(frames)));
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// The messages after the first. What is wrong with one is told to the answering side, and ends
/// them.
fn rest(
    objects: Objects,
    method: Arc<Method>,
    tell: oneshot::Sender<Status>,
) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(
        (objects, method, tell),
        async |(mut objects, method, tell)| {
            let message = match objects.next().await {
                Ok(None) => return None,
                Ok(Some(json)) => method.request.to_protobuf(&json),
                Err(status) => Err(status),
            };
            match message {
                Ok(message) => Some((message, (objects, method, tell))),
                Err(status) => {
                    // Nobody listens if the call is over.
                    let _ = tell.send(status);
                    None
                }
            }
        },
    )
}

/// The answers of a stream, as lines.
struct Answers {
    method: Arc<Method>,
    answers: Streaming<Bytes>,
    fault: Fuse<oneshot::Receiver<Status>>,
}

impl Answers {
    async fn next(&mut self) -> Option<Result<Vec<u8>, Status>> {
        let message = tokio::select! {
            biased;
            Ok(status) = &mut self.fault => return Some(Err(status)),
            message = self.answers.message() => message.transpose()?,
        };
        let json = match message {
            Ok(message) => self.method.answer.to_json(message),
            Err(status) => Err(status),
        };
        Some(json.map(|json| [b"{\"result\":", &json[..], b"}\n"].concat()))
    }
}

/// A client of the services in this process. Their answers may be of any size, as in etcd.
fn client(services: InProcess) -> Grpc<InProcess> {
    Grpc::new(services).max_decoding_message_size(usize::MAX)
}

/// The gRPC request with what the HTTP request says beside its body.
fn open<T>(mut head: Parts, message: T) -> Request<T> {
    let metadata = MetadataMap::from_headers(metadata(&head.headers));
    // Who calls, and over which connection, is known by them.
    let extensions = std::mem::take(&mut head.extensions);
    Request::from_parts(metadata, extensions, message)
}

/// Metadata as etcd's gateway takes it from headers.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        let name = name.as_str().strip_prefix(METADATA_PREFIX);
        if let Some(name) = name.and_then(|name| HeaderName::try_from(name).ok()) {
            metadata.append(name, value.clone());
        }
    }
    if let Some(deadline) = headers.get(rpc::TIMEOUT) {
        metadata.insert(rpc::TIMEOUT, deadline.clone());
    }
    if let Some(token) = headers.get(header::AUTHORIZATION) {
        // etcd takes the bare token; some clients cannot help saying what it is.
        let bare = token.to_str().ok().and_then(|token| {
            let (kind, bare) = token.split_once(' ')?;
            kind.eq_ignore_ascii_case("bearer")
                .then(|| bare.parse().ok())?
        });
        metadata.insert(TOKEN, bare.unwrap_or_else(|| token.clone()));
    }
    metadata
}

/// The codec of messages that are encoded already.
#[derive(Debug, Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(headers: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let headers = headers.iter().map(|&(name, value)| {
            let value = header::HeaderValue::from_static(value);
            (HeaderName::from_static(name), value)
        });
        let seen = metadata(&headers.collect());
        let text = |value: &header::HeaderValue| value.to_str().unwrap().to_owned();
        seen.iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect()
    }

    #[test]
    fn headers_become_the_metadata_that_etcds_gateway_makes_of_them() {
        let one = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert_eq!(seen(&[("authorization", "abc.7")]), one("token", "abc.7"));
        assert_eq!(
            seen(&[("authorization", "Bearer abc.7")]),
            one("token", "abc.7")
        );
        assert_eq!(
            seen(&[("authorization", "bearer a b")]),
            one("token", "a b")
        );
        assert_eq!(
            seen(&[("authorization", "Basic eA==")]),
            one("token", "Basic eA==")
        );
        assert_eq!(
            seen(&[("grpc-metadata-hasleader", "true")]),
            one("hasleader", "true")
        );
        assert_eq!(seen(&[("grpc-timeout", "5S")]), one("grpc-timeout", "5S"));
        assert_eq!(
            seen(&[
                ("content-type", "x/y"),
                ("token", "t"),
                ("grpc-metadata-", "")
            ]),
            []
        );
    }
}
