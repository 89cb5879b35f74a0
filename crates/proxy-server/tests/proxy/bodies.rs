//! Bodies: large ones, slow ones, and those that never end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::rig::{Backend, PATIENCE, Rig, config, ok, read_head, read_request};

const LARGE: usize = 10 * 1024 * 1024;

/// Bytes that tell when they are shifted.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// An upstream on hyper, an independent reading of HTTP, that sends back what it gets: `/whole` in
/// one piece with its length, `/stream` by chunks while it still comes.
async fn echo() -> Backend {
    async fn answer(
        request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, hyper::Error>>, hyper::Error> {
        if request.uri().path() == "/stream" {
            // Of unknown length, even where the request's is known.
            let body = request.into_body().into_data_stream();
            let frames = body.map_ok(Frame::data);
            return Ok(Response::new(BodyExt::boxed(StreamBody::new(frames))));
        }
        let body = request.into_body().collect().await?.to_bytes();
        let body = Full::new(body).map_err(|never| match never {});
        Ok(Response::new(BodyExt::boxed(body)))
    }
    Backend::raw(|stream, _| async move {
        let service = hyper::service::service_fn(answer);
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    })
    .await
}

#[tokio::test]
async fn large_bodies_come_through_both_ways_in_both_framings() {
    let backend = echo().await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let sent = pattern(LARGE);
    for (chunked, path) in [
        (false, "/whole"),
        (true, "/whole"),
        (false, "/stream"),
        (true, "/stream"),
    ] {
        let stream = TcpStream::connect(rig.address("edge")).await.unwrap();
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let pieces = sent.chunks(if chunked { 70_001 } else { LARGE });
        let frame = |piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece)));
        let frames: Vec<_> = pieces.map(frame).collect();
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let mut request = Request::post(path).header(header::HOST, "a");
        if !chunked {
            request = request.header(header::CONTENT_LENGTH, LARGE);
        }
        let response = sender
            .send_request(request.body(body).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let by_length = response.headers().contains_key(header::CONTENT_LENGTH);
        assert_eq!(by_length, path == "/whole");
        let received = response.into_body().collect().await.unwrap().to_bytes();
        assert!(
            received == sent,
            "{path} {chunked}: {} bytes",
            received.len()
        );
    }
}

#[tokio::test]
async fn trailers_pass_to_those_who_take_them() {
    let backend = Backend::http(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
          2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n"
            .to_vec()
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    for (te, expected) in [
        ("te: trailers\r\n", "2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n"),
        ("", "2\r\nhi\r\n0\r\n\r\n"),
    ] {
        let mut client = rig.connect().await;
        client
            .send(&format!(
                "GET / HTTP/1.1\r\nhost: a\r\n{te}connection: close\r\n\r\n"
            ))
            .await;
        client.head().await.unwrap();
        client.stream.read_to_end(&mut client.buffer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&client.buffer), expected);
    }
}

#[tokio::test]
async fn a_slow_client_holds_the_upstream_back() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let count = count.clone();
        async move {
            read_head(&mut stream, &mut Vec::new()).await;
            let total = 200 * 1024 * 1024;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {total}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![b'a'; 64 * 1024];
            while count.load(Ordering::Relaxed) < total && stream.write_all(&piece).await.is_ok() {
                count.fetch_add(piece.len(), Ordering::Relaxed);
            }
        }
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut client = rig.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.head().await.unwrap();
    // The client reads no more; soon nothing moves, and far from everything was taken.
    let stalled = timeout(PATIENCE, async {
        loop {
            let before = sent.load(Ordering::Relaxed);
            sleep(Duration::from_millis(200)).await;
            if before > 0 && sent.load(Ordering::Relaxed) == before {
                return before;
            }
        }
    });
    let stalled = stalled.await.expect("the upstream to be held back");
    assert!(stalled < 50 * 1024 * 1024, "{stalled} bytes are somewhere");
}

#[tokio::test]
async fn an_upstream_that_dies_mid_body_is_noticed_by_the_client() {
    for head in [
        "content-length: 100",
        "transfer-encoding: chunked",
        "connection: close",
    ] {
        let backend = Backend::raw(move |mut stream, _| async move {
            read_head(&mut stream, &mut Vec::new()).await;
            let bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n");
            stream.write_all(bytes.as_bytes()).await.unwrap();
            if head == "connection: close" {
                // Only a reset tells this from a whole answer.
                sleep(Duration::from_millis(50)).await;
                socket2::SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
        })
        .await;
        let rig = Rig::start(&config("", "", &[backend.address])).await;
        let mut client = rig.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(client.try_response().await.is_none(), "{head}");
        rig.counts("http_downstream_rq_flags_total", "\"UC\"", 1.0)
            .await;
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_becomes_chunks() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream, &mut Vec::new()).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nhello")
            .await
            .unwrap();
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!(response.header("transfer-encoding"), ["chunked"]);
        assert_eq!(response.text(), "hello");
    }
}

#[tokio::test]
async fn both_directions_flow_at_once() {
    // The upstream answers each piece as it comes; neither side waits for the other's end.
    let backend = Backend::raw(|mut stream, _| async move {
        let mut buffer = Vec::new();
        read_head(&mut stream, &mut buffer).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n")
            .await
            .unwrap();
        let mut piece = buffer;
        let mut echoed = 0;
        while echoed < 6 {
            if piece.is_empty() {
                stream.read_buf(&mut piece).await.unwrap();
            }
            stream.write_all(&piece).await.unwrap();
            echoed += piece.len();
            piece.clear();
        }
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut client = rig.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n")
        .await;
    client.head().await.unwrap();
    for piece in ["ab", "cd", "ef"] {
        client.send(piece).await;
        let mut echo = [0; 2];
        let read = timeout(PATIENCE, client.stream.read_exact(&mut echo)).await;
        read.expect("an echo in time").unwrap();
        assert_eq!(echo, piece.as_bytes());
    }
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_upstream() {
    let (left, mut told) = tokio::sync::mpsc::channel(1);
    let backend = Backend::raw(move |mut stream, _| {
        let left = left.clone();
        async move {
            let mut buffer = Vec::new();
            read_request(&mut stream, &mut buffer, 0).await;
            // Never answers; waits to be left.
            while let Ok(1..) = stream.read_buf(&mut buffer).await {}
            left.send(()).await.unwrap();
        }
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let mut client = rig.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    crate::rig::eventually("a request upstream", || {
        rig.metric("cluster_upstream_rq_total", "") == 1.0
    })
    .await;
    drop(client);
    timeout(PATIENCE, told.recv())
        .await
        .expect("the upstream to be left")
        .unwrap();
    crate::rig::eventually("the flag", || {
        rig.metric("http_downstream_rq_flags_total", "\"DC\"") == 1.0
    })
    .await;
    rig.counts("cluster_upstream_rq_active", "", 0.0).await;
}

#[tokio::test]
async fn bodies_that_stand_still_are_cut() {
    let backend = Backend::raw(|mut stream, connection| async move {
        let mut buffer = Vec::new();
        read_head(&mut stream, &mut buffer).await;
        if connection == 0 {
            // Waits for a body that does not come.
            while let Ok(1..) = stream.read_buf(&mut buffer).await {}
        } else {
            let mut bytes = ok("hello");
            bytes.truncate(bytes.len() - 2);
            stream.write_all(&bytes).await.unwrap();
            sleep(PATIENCE).await;
        }
    })
    .await;
    let yaml = config("", "", &[backend.address])
        + "---\nkind: Defaults\nname: default\nstream_idle_timeout: 150ms\n";
    let rig = Rig::start(&yaml).await;
    let mut client = rig.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab")
        .await;
    let response = client.response().await;
    assert_eq!(response.status, 408);
    let mut client = rig.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.try_response().await.is_none());
    rig.counts("http_downstream_rq_flags_total", "\"SI\"", 1.0)
        .await;
}

/// A listener whose connections take little before they are read: a body does not fit.
fn narrow_listener() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.set_nonblocking(true).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).unwrap();
    socket.listen(16).unwrap();
    TcpListener::from_std(socket.into()).unwrap()
}

#[tokio::test]
async fn a_connection_that_was_not_given_the_whole_request_serves_no_other() {
    const BODY: usize = 60_000;
    let listener = narrow_listener();
    let address = listener.local_addr().unwrap();
    let heads: Arc<Mutex<Vec<(usize, String)>>> = Arc::default();
    let seen = heads.clone();
    let serving = tokio::spawn(async move {
        let mut open = Vec::new();
        for connection in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = Vec::new();
            let head = read_head(&mut stream, &mut buffer).await.unwrap();
            seen.lock().unwrap().push((connection, head));
            if connection == 0 {
                // All of it is read, and nothing is answered: the request is tried again.
                while buffer.len() < BODY {
                    stream.read_buf(&mut buffer).await.unwrap();
                }
                continue;
            }
            // The answer comes early, and the rest of the body is never read.
            stream.write_all(&ok("early")).await.unwrap();
            open.push(stream);
        }
    });
    let rig = Rig::start(&config("", "", &[address])).await;
    let mut client = rig.connect().await;
    let put = format!("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {BODY}\r\n\r\n");
    client.send(&(put + &"x".repeat(BODY))).await;
    assert_eq!(client.response().await.text(), "early");
    // On that connection this would be read as the rest of the body.
    let mut other = rig.connect().await;
    other.send("GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(other.response().await.text(), "early");
    let heads = heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 3, "{heads:?}");
    assert!(heads[2].1.starts_with("GET /next"), "{heads:?}");
    serving.abort();
}
