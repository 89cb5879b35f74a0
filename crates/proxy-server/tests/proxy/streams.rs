//! Clients and upstreams that speak HTTP/2, by the crate `h2` or frame by frame.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::rig::{Backend, PATIENCE};

/// A client's connection.
pub(crate) struct Client {
    pub(crate) send: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A response as the client saw it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A header's value; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

/// A request for this path at the host `a`.
pub(crate) fn ask(method: &str, path: &str) -> http::request::Builder {
    let uri = format!("http://a{path}");
    Request::builder().method(method).uri(uri)
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::on(stream).await
    }

    /// A client on a connection that was opened.
    pub(crate) async fn on<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        Self {
            send,
            connection: tokio::spawn(connection),
        }
    }

    /// Begins a request; `whole`: it has no body.
    pub(crate) async fn begin(
        &self,
        request: http::request::Builder,
        whole: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut send = self.send.clone().ready().await.unwrap();
        send.send_request(request.body(()).unwrap(), whole).unwrap()
    }

    /// The answer to a request without a body.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        let (response, _) = self.begin(ask("GET", path), true).await;
        answer(response).await.unwrap()
    }

    /// The answer to a request with this body, and perhaps trailers.
    pub(crate) async fn post(
        &self,
        request: http::request::Builder,
        body: &[u8],
        trailers: Option<HeaderMap>,
    ) -> Result<Answer, h2::Error> {
        let (response, stream) = self.begin(request, false).await;
        let sending = send_all(stream, Bytes::copy_from_slice(body), trailers);
        let (answer, ()) = tokio::join!(answer(response), sending);
        answer
    }

    /// How the connection ended.
    pub(crate) async fn end(self) -> Result<(), h2::Error> {
        drop(self.send);
        let end = timeout(PATIENCE, self.connection).await;
        end.expect("an end in time").unwrap()
    }
}

/// Sends a whole body as the other side takes it; a reset ends it.
pub(crate) async fn send_all(
    mut stream: SendStream<Bytes>,
    mut body: Bytes,
    trailers: Option<HeaderMap>,
) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else { return };
        let piece = body.split_to(room.min(body.len()));
        if stream.send_data(piece, false).is_err() {
            return;
        }
    }
    let _ = match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    };
}

/// Reads a whole body; its trailers.
pub(crate) async fn read_all(
    stream: &mut RecvStream,
) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        body.extend_from_slice(&data);
        let _ = stream.flow_control().release_capacity(data.len());
    }
    Ok((body, stream.trailers().await?))
}

/// The whole of a response.
pub(crate) async fn answer(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let whole = async {
        let (parts, mut stream) = response.await?.into_parts();
        let (body, trailers) = read_all(&mut stream).await?;
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
            trailers,
        })
    };
    timeout(PATIENCE, whole).await.expect("an answer in time")
}

/// A request on its way, and where its answer goes.
pub(crate) type Call = (Request<RecvStream>, h2::server::SendResponse<Bytes>);

/// An upstream that does with each request what it is told; it gets the connection's number too.
pub(crate) async fn upstream<F, W>(builder: h2::server::Builder, serve: F) -> Backend
where
    F: Fn(Call, usize) -> W + Send + Sync + Clone + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    Backend::raw(move |stream, number| {
        let (builder, serve) = (builder.clone(), serve.clone());
        async move {
            stream.set_nodelay(true).unwrap();
            let Ok(mut connection) = builder.handshake(stream).await else {
                return;
            };
            while let Some(Ok(call)) = connection.accept().await {
                tokio::spawn(serve(call, number));
            }
        }
    })
    .await
}

/// Sends back all of a request's body, then its trailers.
pub(crate) async fn echo((request, mut respond): Call, _: usize) {
    let mut body = request.into_body();
    let Ok((data, trailers)) = read_all(&mut body).await else {
        return;
    };
    let Ok(stream) = respond.send_response(Response::new(()), false) else {
        return;
    };
    send_all(stream, data.into(), trailers).await;
}

/// Answers with this text.
pub(crate) fn say(mut respond: h2::server::SendResponse<Bytes>, text: &'static str) {
    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
        let _ = stream.send_data(Bytes::from_static(text.as_bytes()), true);
    }
}

/// Fields as a map.
pub(crate) fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    let fields = fields.iter().map(|(name, value)| {
        let name = http::HeaderName::from_static(name);
        (name, value.parse().unwrap())
    });
    fields.collect()
}

/// Kinds of frames (RFC 9113, 6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
/// Flags of frames.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const ACK: u8 = 1;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.to_vec(),
        }
    }

    /// The code of a RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> Reason {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let code = self.payload[at..at + 4].try_into().unwrap();
        Reason::from(u32::from_be_bytes(code))
    }

    fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// Fields as literals that are never indexed (RFC 7541, 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        // Lengths from 127 take more bytes; seven bits each, the lowest first.
        match text.len() {
            short @ 0..127 => bytes.push(u8::try_from(short).unwrap()),
            long => {
                bytes.push(127);
                let mut rest = long - 127;
                while rest >= 128 {
                    bytes.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                bytes.push(u8::try_from(rest).unwrap());
            }
        }
        bytes.extend(text.as_bytes());
    };
    for (name, value) in fields {
        bytes.push(0x10);
        text(&mut bytes, name);
        text(&mut bytes, value);
    }
    bytes
}

/// The pseudo fields of a GET.
pub(crate) const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a"),
    (":path", "/"),
];

/// A connection on which frames are written and read one by one.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

impl Raw {
    /// A client that has sent its preface and settings.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        stream.write_all(preface).await.unwrap();
        let mut raw = Self { stream };
        raw.send(&[Frame::new(SETTINGS, 0, 0, &[])]).await;
        raw
    }

    /// An upstream's end of a connection, after the preface.
    pub(crate) async fn accept(mut stream: TcpStream) -> Self {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        let mut raw = Self { stream };
        raw.send(&[Frame::new(SETTINGS, 0, 0, &[])]).await;
        raw
    }

    /// Writes frames; what cannot be written meets a closed connection.
    pub(crate) async fn send(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        let _ = self.stream.write_all(&bytes).await;
    }

    /// A request without a body on this stream.
    pub(crate) async fn get(&mut self, stream: u32, fields: &[(&str, &str)]) {
        let flags = END_STREAM | END_HEADERS;
        let frame = Frame::new(HEADERS, flags, stream, &block(fields));
        self.send(&[frame]).await;
    }

    /// The next frame that is not about settings and windows; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = timeout(PATIENCE, self.read()).await;
            let frame = frame.expect("a frame in time")?;
            if !matches!(frame.kind, SETTINGS | 8) {
                return Some(frame);
            }
        }
    }

    /// The next frame of this kind, whatever comes before it.
    pub(crate) async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, s, t, u, v] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([s, t, u, v]),
            payload,
        })
    }
}
