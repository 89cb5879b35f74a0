//! Errors as grpc-gateway tells them.
//!
//! Owns the HTTP status of each gRPC code and the two forms of the body: `error` as a text beside
//! `code` and `message` for old clients and new, and `error` as an object inside a stream.

use bytes::Bytes;
use http_body_util::Full;
use serde_json::json;
use store_api::verdict::PROPOSED_KEY;
use tonic::body::Body;
use tonic::codegen::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use tonic::{Code, Status};

/// Where a JSON client finds whether its write was proposed.
const PROPOSED: HeaderName = HeaderName::from_static("grpc-metadata-skein-proposed");

/// The HTTP status that grpc-gateway gives a gRPC code.
pub(super) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).expect("499 is a status"),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The answer to a call that failed.
pub(super) fn answer(status: &Status) -> Response<Body> {
    let http = http_status(status.code());
    let mut response = json_answer(http, told(status.code(), status.message()));
    if let Some(word) = status.metadata().get(PROPOSED_KEY)
        && let Ok(word) = HeaderValue::from_bytes(word.as_encoded_bytes())
    {
        response.headers_mut().insert(PROPOSED, word);
    }
    response
}

fn told(code: Code, message: &str) -> Vec<u8> {
    let body = json!({ "error": message, "code": i32::from(code), "message": message });
    format!("{body}\n").into_bytes()
}

/// The last line of a stream that failed.
pub(super) fn line(status: &Status) -> Vec<u8> {
    let http = http_status(status.code());
    let (code, message) = (i32::from(status.code()), status.message());
    let error = json!({
        "code": code,
        "message": message,
        "grpc_code": code,
        "http_code": http.as_u16(),
        "http_status": http.canonical_reason().unwrap_or_default(),
    });
    format!("{}\n", json!({ "error": error })).into_bytes()
}

/// Nothing is at this path.
pub(super) fn not_found(path: &str) -> Response<Body> {
    let message = format!(
        "Not Found: nothing is at {path}; there are POST /v3/kv/range and etcd's other JSON calls, \
         GET /version, /health, /livez, /readyz and /metrics, and gRPC"
    );
    json_answer(StatusCode::NOT_FOUND, told(Code::NotFound, &message))
}

/// The path is asked with another method.
pub(super) fn method_not_allowed(allow: &'static str) -> Response<Body> {
    let body = told(
        Code::Unimplemented,
        &format!("Method Not Allowed: use {allow}"),
    );
    let mut response = json_answer(StatusCode::METHOD_NOT_ALLOWED, body);
    let allow = HeaderValue::from_static(allow);
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

/// A browser asks for a page of some site.
pub(super) fn from_a_web_page() -> Response<Body> {
    answer(&Status::permission_denied(
        "skein: calls from web pages (with the header `origin`) are not taken",
    ))
}

/// An answer with a JSON body.
pub(super) fn json_answer(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    whole(status, "application/json", body.into())
}

/// An answer with this body.
pub(super) fn whole(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
