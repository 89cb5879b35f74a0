//! Every route of the gateway: what JSON becomes which message, and back.
//!
//! The messages are made by the generated types, which the gateway does not use.

mod pairs;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use rpc::{Answer, Answering, Call, InProcess};
use serde_json::{Value, json};
use store_api::etcdserverpb as pb;
use store_api::verdict::Proposed;
use store_api::{errors, mvccpb};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Code, Status};

use super::call::call;
use super::fault;
use super::routes::Methods;

/// Stands for all services: takes note of what arrives, and says what it was told to.
#[derive(Clone, Default)]
struct Fake {
    arrived: Arc<Mutex<Vec<Bytes>>>,
    answers: Vec<Bytes>,
    fails: Option<Status>,
}

impl Answer for Fake {
    fn answer(&self, call: Call) -> Answering {
        let fake = self.clone();
        Box::pin(async move {
            let mut body = call.into_body().collect().await.unwrap().to_bytes();
            while !body.is_empty() {
                body.advance(1);
                let length = body.get_u32() as usize;
                fake.arrived.lock().unwrap().push(body.split_to(length));
            }
            let status = fake.fails.unwrap_or_else(|| Status::ok(""));
            let mut end = http::HeaderMap::new();
            status.add_header(&mut end).unwrap();
            let answers = fake.answers.into_iter().map(|answer| {
                let mut frame = BytesMut::new();
                frame.put_u8(0);
                frame.put_u32(u32::try_from(answer.len()).unwrap());
                frame.put(answer);
                Frame::data(frame.freeze())
            });
            let frames = answers.chain([Frame::trailers(end)]);
            let frames = frames.map(Ok::<_, Infallible>).collect::<Vec<_>>();
            http::Response::new(Body::new(StreamBody::new(stream::iter(frames))))
        })
    }
}

/// What came back.
struct Told {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

impl Told {
    fn lines(&self) -> Vec<Value> {
        let lines = self.body.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    }
}

async fn ask(fake: &Fake, path: &str, body: &str) -> Told {
    let services = InProcess(Arc::new(fake.clone()));
    let method = Methods::all().find(path).cloned();
    let method = method.unwrap_or_else(|| panic!("no method at {path}"));
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    let request = http::Request::new(Body::new(body));
    let (head, body) = call(services, method, request).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Told {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

#[tokio::test]
async fn every_route_takes_and_gives_what_its_messages_say() {
    let mut asked = Vec::new();
    for pair in pairs::all() {
        for prefix in ["/v3/", "/v3beta/"] {
            let fake = Fake {
                answers: vec![pair.answer.clone()],
                ..Fake::default()
            };
            let path = format!("{prefix}{}", pair.path);
            let told = ask(&fake, &path, &pair.json.to_string()).await;
            assert_eq!(told.status, 200, "{path}: {}", told.body);
            assert_eq!(told.headers["content-type"], "application/json");
            assert_eq!(
                *fake.arrived.lock().unwrap(),
                std::slice::from_ref(&pair.request),
                "{path}"
            );
            let expected = if pair.streams {
                json!({ "result": pair.told })
            } else {
                pair.told.clone()
            };
            assert_eq!(told.lines(), [expected], "{path}");
        }
        asked.push(pair.path);
    }
    let mut all: Vec<&str> = Methods::all().paths().collect();
    all.sort_unstable();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked, all, "each route has a pair");
}

#[tokio::test]
async fn either_spelling_strings_numbers_and_any_base64_are_taken() {
    let expected = pb::RangeRequest {
        key: Bytes::from_static(b"\xff\xef\xbe"),
        range_end: Bytes::from_static(b"\xff"),
        limit: 5,
        sort_target: 3,
        serializable: true,
        min_mod_revision: i64::MAX,
        ..Default::default()
    };
    let texts = [
        r#"{"key":"/+++","range_end":"/w==","limit":"5","sort_target":"MOD","serializable":true,
            "min_mod_revision":"9223372036854775807"}"#,
        r#"{"key":"_---","rangeEnd":"_w","limit":5,"sortTarget":3,"serializable":true,
            "minModRevision":9223372036854775807,"later":{"a":[1,null]},"sort_order":null}"#,
        r#" {"key":"/+++","range_end":"/w","limit":5.0,"sort_target":3,"serializable":true,
            "minModRevision":"9223372036854775807","revision":0} "#,
    ];
    for text in texts {
        let fake = Fake {
            answers: vec![Bytes::new()],
            ..Fake::default()
        };
        let told = ask(&fake, "/v3/kv/range", text).await;
        assert_eq!((told.status, told.body.as_str()), (200, "{}\n"));
        let expected = prost::Message::encode_to_vec(&expected);
        assert_eq!(*fake.arrived.lock().unwrap(), [expected], "{text}");
    }
}

#[tokio::test]
async fn no_body_and_an_empty_one_are_an_empty_message() {
    for body in ["", " \n", "{}"] {
        let fake = Fake {
            answers: vec![Bytes::new()],
            ..Fake::default()
        };
        let told = ask(&fake, "/v3/maintenance/status", body).await;
        assert_eq!((told.status, told.body.as_str()), (200, "{}\n"));
        assert_eq!(*fake.arrived.lock().unwrap(), [Bytes::new()]);
    }
}

/// A path, a body that is no message of it, and a part of what is said about it.
const MALFORMED: &[(&str, &str, &str)] = &[
    (
        "/v3/kv/range",
        "garbage",
        "expected value at line 1 column 1",
    ),
    (
        "/v3/kv/range",
        "[]",
        "invalid type: sequence, expected a map",
    ),
    ("/v3/kv/range", "{\"key\":\"YQ==\"", "EOF while parsing"),
    (
        "/v3/kv/range",
        "{} {}",
        "trailing characters at line 1 column 4",
    ),
    (
        "/v3/kv/range",
        "{\"key\":1}",
        "invalid type: integer `1`, expected a base64-encoded string",
    ),
    (
        "/v3/kv/range",
        "{\"key\":\"a key\"}",
        "; bytes, such as keys, are base64",
    ),
    ("/v3/kv/range", "{\"limit\":\"ten\"}", "invalid digit"),
    ("/v3/kv/range", "{\"limit\":1.5}", "expected integer value"),
    (
        "/v3/kv/range",
        "{\"limit\":\"9223372036854775808\"}",
        "number too large",
    ),
    (
        "/v3/kv/range",
        "{\"serializable\":\"yes\"}",
        "expected a boolean",
    ),
    ("/v3/kv/range", "{\"key\":\"\u{1}\"}", "control character"),
    (
        "/v3/kv/txn",
        r#"{"compare":[{"version":"1","value":"YQ=="}]}"#,
        "oneof 'target_union'",
    ),
    ("/v3/watch", "", "the body is empty"),
    ("/v3/watch", "xx", "begins with `{`, not with `x`"),
    (
        "/v3/watch",
        "{\"create_request\":",
        "ends within a JSON object",
    ),
    ("/v3/watch", "{\"create_request\":1}", "expected a map"),
    ("/v3/lease/keepalive", "{\"ID\":\"x\"}", "invalid digit"),
];

#[tokio::test]
async fn what_is_no_such_message_is_said_and_goes_nowhere() {
    let deep = format!(
        "{}1{}",
        r#"{"success":[{"requestTxn":"#.repeat(80),
        "}]}".repeat(80)
    );
    let deep = [("/v3/kv/txn", deep.as_str(), "recursion limit exceeded")];
    for &(path, body, says) in MALFORMED.iter().chain(&deep) {
        let fake = Fake::default();
        let told = ask(&fake, path, body).await;
        assert_eq!(told.status, 400, "{body}: {}", told.body);
        let [told] = &told.lines()[..] else {
            panic!("one line");
        };
        assert_eq!(told["code"], 3);
        assert_eq!(told["error"], told["message"]);
        let message = told["message"].as_str().unwrap();
        assert!(message.contains(says), "{body}: {message}");
        assert!(fake.arrived.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn errors_have_grpc_gateways_form_and_status() {
    let fake = Fake {
        fails: Some(Proposed::No.mark(errors::compacted())),
        ..Fake::default()
    };
    let told = ask(&fake, "/v3/kv/range", "{}").await;
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(told.status, 400);
    assert_eq!(told.headers["grpc-metadata-skein-proposed"], "no");
    assert_eq!(
        told.lines(),
        [json!({"error": text, "code": 11, "message": text})]
    );

    let statuses = [
        (Code::Cancelled, 499),
        (Code::Unknown, 500),
        (Code::InvalidArgument, 400),
        (Code::DeadlineExceeded, 504),
        (Code::NotFound, 404),
        (Code::AlreadyExists, 409),
        (Code::PermissionDenied, 403),
        (Code::ResourceExhausted, 429),
        (Code::FailedPrecondition, 400),
        (Code::Aborted, 409),
        (Code::OutOfRange, 400),
        (Code::Unimplemented, 501),
        (Code::Internal, 500),
        (Code::Unavailable, 503),
        (Code::DataLoss, 500),
        (Code::Unauthenticated, 401),
    ];
    for (code, http) in statuses {
        assert_eq!(fault::http_status(code), http, "{code:?}");
    }
}

#[tokio::test]
async fn an_error_in_a_stream_is_its_last_line_and_before_it_the_status() {
    let created = prost::Message::encode_to_vec(&pb::WatchResponse {
        created: true,
        ..Default::default()
    });
    let mut fake = Fake {
        answers: vec![created.into()],
        fails: Some(errors::no_leader()),
        ..Fake::default()
    };
    let request = r#"{"create_request":{}} {"progress_request":{}}"#;
    let told = ask(&fake, "/v3/watch", request).await;
    assert_eq!(told.status, 200);
    assert_eq!(fake.arrived.lock().unwrap().len(), 2);
    let error = json!({
        "code": 14, "message": "etcdserver: no leader",
        "grpc_code": 14, "http_code": 503, "http_status": "Service Unavailable",
    });
    assert_eq!(
        told.lines(),
        [
            json!({"result": {"created": true}}),
            json!({ "error": error })
        ]
    );

    fake.answers.clear();
    let told = ask(&fake, "/v3/watch", request).await;
    assert_eq!(told.status, 503);
    assert_eq!(told.lines()[0]["message"], "etcdserver: no leader");
}

#[tokio::test]
async fn a_large_message_goes_both_ways() {
    let value = Bytes::from(vec![7; 1 << 20]);
    let kvs = (0..4).map(|_| mvccpb::KeyValue {
        value: value.clone(),
        ..Default::default()
    });
    let answer = pb::RangeResponse {
        kvs: kvs.collect(),
        ..Default::default()
    };
    let fake = Fake {
        answers: vec![prost::Message::encode_to_vec(&answer).into()],
        ..Fake::default()
    };
    let key = "B".repeat(2 << 20);
    let told = ask(&fake, "/v3/kv/range", &json!({ "key": key }).to_string()).await;
    assert_eq!(told.status, 200);
    let told = told.lines();
    let text = told[0]["kvs"][3]["value"].as_str().unwrap();
    assert_eq!(text.len(), (1_usize << 20).div_ceil(3) * 4);
    assert!(fake.arrived.lock().unwrap()[0].len() > 1_500_000);

    let key = "B".repeat(6 << 20);
    for path in ["/v3/kv/range", "/v3/watch"] {
        let told = ask(&fake, path, &json!({ "key": key }).to_string()).await;
        assert_eq!(told.status, 400);
        assert_eq!(
            told.lines()[0]["message"],
            "etcdserver: request is too large"
        );
    }
}
