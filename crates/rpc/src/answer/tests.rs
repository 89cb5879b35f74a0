//! Messages as clients frame them, well and badly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream;
use http_body_util::StreamBody;
use tonic::Code;

use super::*;

#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

fn text(text: &str) -> Text {
    Text {
        text: text.to_owned(),
    }
}

fn framed_bytes(flag: u8, message: &Text) -> Vec<u8> {
    let length = u32::try_from(message.encoded_len()).unwrap();
    let mut bytes = vec![flag];
    bytes.extend(length.to_be_bytes());
    bytes.extend(message.encode_to_vec());
    bytes
}

/// A call whose body arrives in these pieces.
fn call(pieces: Vec<Vec<u8>>) -> Call {
    let frames = pieces.into_iter().map(|piece| {
        let frame = Frame::data(Bytes::from(piece));
        Ok::<_, Status>(frame)
    });
    http::Request::new(Body::new(StreamBody::new(stream::iter(frames))))
}

/// Says back what it is told, and what came of that.
async fn echo(call: Call, limits: MessageLimits) -> Result<Text, Status> {
    let echo = |request: Request<Text>| async { Ok(Response::new(request.into_inner())) };
    told(unary(call, limits, echo)).await
}

async fn told(answering: Answering) -> Result<Text, Status> {
    let (head, body) = answering.await.into_parts();
    assert_eq!(head.headers["content-type"], "application/grpc");
    if let Some(status) = Status::from_header_map(&head.headers) {
        return Err(status);
    }
    let body = body.collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    let bytes = body.to_bytes();
    let length = u32::from_be_bytes(bytes[1..HEAD_BYTES].try_into().unwrap());
    assert_eq!(bytes.len(), HEAD_BYTES + length as usize);
    Ok(Text::decode(&bytes[HEAD_BYTES..]).unwrap())
}

#[tokio::test]
async fn a_message_is_read_in_whatever_pieces_it_comes() {
    let message = text("0123456789");
    let bytes = framed_bytes(0, &message);
    for at in 0..=bytes.len() {
        for then in at..=bytes.len() {
            let pieces = vec![
                bytes[..at].to_vec(),
                bytes[at..then].to_vec(),
                bytes[then..].to_vec(),
            ];
            let answer = echo(call(pieces), MessageLimits::default()).await;
            assert_eq!(answer.unwrap(), message, "in pieces up to {at} and {then}");
        }
    }
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_the_reason_told() {
    let whole = framed_bytes(0, &text("abc"));
    let cut = whole[..whole.len() - 1].to_vec();
    let twice = [whole.clone(), whole.clone()];
    let faults = [
        (vec![], Code::Internal, "Missing request message."),
        (vec![vec![0, 0]], Code::Internal, "Unexpected EOF"),
        (vec![cut], Code::Internal, "Unexpected EOF"),
        (twice.to_vec(), Code::Internal, "more than one message"),
        (
            vec![twice.concat()],
            Code::Internal,
            "more than one message",
        ),
        (
            vec![framed_bytes(1, &text("abc"))],
            Code::Unimplemented,
            "compressed",
        ),
        (
            // Field 1, a string, of more bytes than there are.
            vec![vec![0, 0, 0, 0, 2, 0x0a, 0x7f]],
            Code::Internal,
            "failed to decode",
        ),
    ];
    for (pieces, code, reason) in faults {
        let refused = echo(call(pieces.clone()), MessageLimits::default())
            .await
            .unwrap_err();
        assert_eq!(refused.code(), code, "{pieces:?}: {refused}");
        assert!(refused.message().contains(reason), "{pieces:?}: {refused}");
    }
}

#[tokio::test]
async fn messages_above_the_limits_are_refused_a_request_by_its_head() {
    let message = text(&"x".repeat(100));
    let limits = |request, answer| MessageLimits { request, answer };
    let length = message.encoded_len();
    let bytes = framed_bytes(0, &message);
    let answer = echo(call(vec![bytes.clone()]), limits(length, length)).await;
    assert_eq!(answer.unwrap(), message);
    for (pieces, limits) in [
        // Nothing but the head has arrived yet.
        (vec![bytes[..5].to_vec()], limits(length - 1, length)),
        (vec![bytes], limits(length, length - 1)),
    ] {
        let refused = echo(call(pieces), limits).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange);
        assert!(refused.message().contains("message length too large"));
    }
}

#[tokio::test]
async fn a_call_ends_at_its_callers_deadline() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let mut call = call(vec![framed_bytes(0, &text(""))]);
    let soon = HeaderValue::from_static("1m");
    call.headers_mut().insert(TIMEOUT, soon);
    let ended = Arc::<AtomicBool>::default();
    let held = Dropped(Arc::clone(&ended));
    let answering = unary(call, MessageLimits::default(), |_: Request<Text>| async {
        let _held = held;
        std::future::pending::<Given<Text>>().await
    });
    let late = told(answering).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert!(ended.load(Ordering::Relaxed), "the work goes on");
}

#[tokio::test]
async fn metadata_goes_both_ways_and_a_refusal_keeps_its_own() {
    let mut call = call(vec![framed_bytes(0, &text("hi"))]);
    let name = HeaderValue::from_static("ann");
    call.headers_mut().insert("name", name);
    let answering = unary(
        call,
        MessageLimits::default(),
        |request: Request<Text>| async move {
            let mut response = Response::new(text("ok"));
            let name = request.metadata().get("name").unwrap().clone();
            response.metadata_mut().insert("greets", name);
            Ok(response)
        },
    );
    assert_eq!(answering.await.headers()["greets"], "ann");

    let refusing = unary(
        self::call(vec![framed_bytes(0, &text("hi"))]),
        MessageLimits::default(),
        |_: Request<Text>| async {
            let mut refused = Status::not_found("nobody: \u{e4}");
            refused
                .metadata_mut()
                .insert("why", "gone".parse().unwrap());
            Err::<Response<Text>, _>(refused)
        },
    );
    let refused = told(refusing).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(refused.message(), "nobody: \u{e4}");
    assert_eq!(refused.metadata().get("why").unwrap(), "gone");
}

#[test]
fn deadlines_are_read_as_grpc_writes_them() {
    let parse = parse_timeout;
    assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
    assert_eq!(parse("4999977u"), Some(Duration::from_micros(4_999_977)));
    assert_eq!(
        parse("99999999H"),
        Some(Duration::from_secs(359_999_996_400))
    );
    for bad in ["", "5", "S", "5s", "-5S", "123456789S", "5\u{e4}", "\u{e4}"] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}
