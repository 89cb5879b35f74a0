//! Clients that abuse HTTP/2: each flood ends its own connection or is borne, and no other notices.

use h2::Reason;

use crate::rig::{Backend, Rig, config};
use crate::streams::{
    ACK, CONTINUATION, END_HEADERS, END_STREAM, Frame, GET, GOAWAY, HEADERS, PING, RST_STREAM, Raw,
    SETTINGS, block,
};

async fn rig() -> (Rig, Backend) {
    let backend = Backend::saying("x").await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    (rig, backend)
}

/// An upstream that never answers, so that streams stay open.
async fn silent() -> (Rig, Backend) {
    let backend = Backend::raw(|stream, _| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    (rig, backend)
}

fn cancel(stream: u32) -> Frame {
    Frame::new(RST_STREAM, 0, stream, &[0, 0, 0, 8])
}

fn get(stream: u32) -> Frame {
    Frame::new(HEADERS, END_STREAM | END_HEADERS, stream, &block(&GET))
}

async fn goes_away(raw: &mut Raw, why: Reason) {
    let goaway = raw.until(GOAWAY).await.expect("a word of farewell");
    assert_eq!(goaway.code(), why);
    while raw.next().await.is_some() {}
}

async fn serves(rig: &Rig) {
    assert_eq!(rig.get("/").await.text(), "x");
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let (rig, _backend) = rig().await;
    let mut raw = Raw::connect(rig.address("edge")).await;
    let pairs = (0..200).flat_map(|n| [get(2 * n + 1), cancel(2 * n + 1)]);
    raw.send(&pairs.collect::<Vec<_>>()).await;
    goes_away(&mut raw, Reason::ENHANCE_YOUR_CALM).await;
    serves(&rig).await;
}

#[tokio::test]
async fn streams_that_are_reset_soon_end_the_connection_in_the_end() {
    let (rig, _backend) = silent().await;
    let mut raw = Raw::connect(rig.address("edge")).await;
    let mut ended = None;
    for n in 0..600 {
        // The answer to a ping tells that the stream before it was taken, before it is reset.
        let ping = Frame::new(PING, 0, 0, &[7; 8]);
        raw.send(&[get(2 * n + 1), ping.clone()]).await;
        match raw.until(PING).await {
            Some(_) => raw.send(&[cancel(2 * n + 1)]).await,
            None => {
                ended = Some(n);
                break;
            }
        }
    }
    let ended = ended.expect("an end before so many");
    assert!(ended >= 500, "{ended}");
    rig.counts("http_downstream_cx_active", "", 0.0).await;
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_one_by_one() {
    let (rig, _backend) = silent().await;
    let mut raw = Raw::connect(rig.address("edge")).await;
    let frames: Vec<_> = (0..101).map(|n| get(2 * n + 1)).collect();
    // The settings must be known to both before they count.
    raw.send(&[Frame::new(SETTINGS, ACK, 0, &[])]).await;
    raw.send(&frames).await;
    let refused = raw.until(RST_STREAM).await.unwrap();
    assert_eq!(
        (refused.stream, refused.code()),
        (201, Reason::REFUSED_STREAM)
    );
    rig.counts("http_downstream_rq_active", "", 100.0).await;
}

#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let (rig, _backend) = rig().await;
    let mut raw = Raw::connect(rig.address("edge")).await;
    let mut frames = vec![Frame::new(HEADERS, END_STREAM, 1, &block(&GET))];
    frames.extend((0..2000).map(|_| Frame::new(CONTINUATION, 0, 1, &block(&[("a", "b")]))));
    raw.send(&frames).await;
    goes_away(&mut raw, Reason::ENHANCE_YOUR_CALM).await;
    serves(&rig).await;
}

#[tokio::test]
async fn header_lists_have_a_limit_however_small_they_are_packed() {
    let (rig, _backend) = rig().await;
    let mut raw = Raw::connect(rig.address("edge")).await;
    // One long field is put into the table (literal with indexing), then named a thousand times by
    // one byte: 4 MB out of 5 KB.
    let mut bomb = block(&GET);
    let long = block(&[("bomb", &"x".repeat(4000))]);
    bomb.push(0x40);
    bomb.extend(&long[1..]);
    bomb.extend([0x80 | 62].repeat(1000));
    raw.send(&[Frame::new(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)])
        .await;
    goes_away(&mut raw, Reason::ENHANCE_YOUR_CALM).await;
    serves(&rig).await;
}

#[tokio::test]
async fn floods_of_pings_and_settings_are_answered_in_turn_and_no_more() {
    let (rig, _backend) = rig().await;
    let mut raw = Raw::connect(rig.address("edge")).await;
    let pings = (0..1000_u64).map(|n| Frame::new(PING, 0, 0, &n.to_be_bytes()));
    raw.send(&pings.collect::<Vec<_>>()).await;
    for n in 0..1000_u64 {
        let pong = raw.until(PING).await.unwrap();
        assert_eq!((pong.flags, pong.payload), (ACK, n.to_be_bytes().to_vec()));
    }
    raw.send(&vec![Frame::new(SETTINGS, 0, 0, &[]); 1000]).await;
    raw.get(1, &GET).await;
    assert_eq!(raw.until(HEADERS).await.unwrap().stream, 1);
}

#[tokio::test]
async fn a_malformed_head_costs_its_stream_only() {
    let (rig, _backend) = rig().await;
    let mut raw = Raw::connect(rig.address("edge")).await;
    let with = |field| GET.into_iter().chain([field]).collect::<Vec<_>>();
    let without = |name| {
        GET.into_iter()
            .filter(|field| field.0 != name)
            .collect::<Vec<_>>()
    };
    let mut late = GET.to_vec();
    late.insert(1, ("a", "b"));
    let cases = [
        without(":method"),
        without(":path"),
        without(":scheme"),
        late,
        with((":path", "/again")),
        with((":status", "200")),
        with(("connection", "close")),
        with(("transfer-encoding", "chunked")),
        with(("keep-alive", "1")),
        with(("proxy-connection", "close")),
        with(("upgrade", "websocket")),
        with(("te", "gzip")),
        with((":protocol", "websocket")),
    ];
    let mut stream = 1;
    for fields in cases {
        raw.get(stream, &fields).await;
        let reset = raw.next().await.expect("the connection goes on");
        let got = (reset.kind, reset.stream, reset.code());
        assert_eq!(
            got,
            (RST_STREAM, stream, Reason::PROTOCOL_ERROR),
            "{fields:?}"
        );
        stream += 2;
    }
    raw.get(stream, &GET).await;
    assert_eq!(raw.until(HEADERS).await.unwrap().stream, stream);
    // What cannot be a name at all costs the connection.
    for name in [":unknown", "Upper"] {
        let mut raw = Raw::connect(rig.address("edge")).await;
        raw.get(1, &with((name, "x"))).await;
        goes_away(&mut raw, Reason::PROTOCOL_ERROR).await;
    }
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_said_is_refused() {
    let (rig, _backend) = rig().await;
    let mut raw = Raw::connect(rig.address("edge")).await;
    let mut fields = GET.to_vec();
    fields[0].1 = "POST";
    fields.push(("content-length", "5"));
    for (n, data) in [&b"1234"[..], b"123456"].into_iter().enumerate() {
        let stream = 2 * u32::try_from(n).unwrap() + 1;
        raw.send(&[
            Frame::new(HEADERS, END_HEADERS, stream, &block(&fields)),
            Frame::new(0, END_STREAM, stream, data),
        ])
        .await;
        let reset = raw.until(RST_STREAM).await.unwrap();
        assert_eq!(
            (reset.stream, reset.code()),
            (stream, Reason::PROTOCOL_ERROR)
        );
    }
}

#[tokio::test]
async fn a_connection_without_streams_is_closed_in_time() {
    let backend = Backend::saying("x").await;
    let config = config("", "", &[backend.address]);
    let rig = Rig::start(&format!(
        "{config}---\nkind: Defaults\nname: default\nidle_timeout: 30ms\nhead_timeout: 40ms\n"
    ))
    .await;
    // One that never asks, and one that has asked.
    let mut raw = Raw::connect(rig.address("edge")).await;
    goes_away(&mut raw, Reason::NO_ERROR).await;
    let mut raw = Raw::connect(rig.address("edge")).await;
    raw.get(1, &GET).await;
    goes_away(&mut raw, Reason::NO_ERROR).await;
}

#[tokio::test]
async fn a_stream_that_stands_still_is_ended() {
    let backend = Backend::saying("x").await;
    let config = config("", "", &[backend.address]);
    let rig = Rig::start(&format!(
        "{config}---\nkind: Defaults\nname: default\nstream_idle_timeout: 30ms\n"
    ))
    .await;
    let mut raw = Raw::connect(rig.address("edge")).await;
    let mut fields = GET.to_vec();
    fields[0].1 = "POST";
    // Half a body, and nothing more.
    raw.send(&[
        Frame::new(HEADERS, END_HEADERS, 1, &block(&fields)),
        Frame::new(0, 0, 1, b"half"),
    ])
    .await;
    let head = raw.until(HEADERS).await.unwrap();
    assert_eq!(head.stream, 1);
    rig.counts("http_downstream_rq_refused_total", "timeout", 1.0)
        .await;
    raw.get(3, &GET).await;
    assert_eq!(raw.until(HEADERS).await.unwrap().stream, 3);
}
