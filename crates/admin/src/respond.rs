//! One request to one answer.
//!
//! Owns paths, methods and content types. Never touches a socket.

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};

/// What the node tells about itself. Called where blocking is allowed, a few at a time.
pub trait Answers: Send + Sync + 'static {
    /// All metrics in OpenMetrics text.
    fn metrics(&self) -> String;
    /// Whether this node should be sent traffic.
    fn readiness(&self) -> Readiness;
    /// The compiled config in force.
    fn config_dump(&self) -> Value;
    /// Every node of the mesh as this node knows it.
    fn status(&self) -> Value;
}

/// Whether this node should be sent traffic, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Traffic is welcome.
    Ready {
        /// What is wrong with this node all the same.
        fault: Option<String>,
    },
    /// Traffic should go elsewhere.
    NotReady(String),
}

const INDEX: &str = "\
skein admin (read-only)

/ready        200 when this node should be sent traffic, with what is wrong all the same; else 503 and why
/metrics      OpenMetrics, for Prometheus
/config_dump  the compiled config in force, JSON
/status       every node of the mesh as this node knows it, JSON
";

/// Answers one request.
pub(crate) fn respond(method: &Method, path: &str, node: &dyn Answers) -> Response<Full<Bytes>> {
    if !matches!(
        path,
        "/" | "/ready" | "/metrics" | "/config_dump" | "/status"
    ) {
        let fault = json!({ "error": format!("nothing is at {path}; see / for what is") });
        return answer(StatusCode::NOT_FOUND, JSON, fault.to_string());
    }
    if method != Method::GET && method != Method::HEAD {
        let fault = json!({ "error": "the admin address is read-only; use GET" });
        let mut refusal = answer(StatusCode::METHOD_NOT_ALLOWED, JSON, fault.to_string());
        refusal
            .headers_mut()
            .insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match path {
        "/" => answer(StatusCode::OK, TEXT, INDEX.to_owned()),
        "/ready" => match node.readiness() {
            Readiness::Ready { fault } => answer(
                StatusCode::OK,
                JSON,
                json!({ "ready": true, "fault": fault }).to_string(),
            ),
            Readiness::NotReady(why) => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                JSON,
                json!({ "ready": false, "why": why }).to_string(),
            ),
        },
        "/metrics" => answer(StatusCode::OK, OPEN_METRICS, node.metrics()),
        "/config_dump" => answer(StatusCode::OK, JSON, pretty(&node.config_dump())),
        _ => answer(StatusCode::OK, JSON, pretty(&node.status())),
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Readiness);

    impl Answers for Fixed {
        fn metrics(&self) -> String {
            "skein_up 1\n# EOF\n".to_owned()
        }
        fn readiness(&self) -> Readiness {
            self.0.clone()
        }
        fn config_dump(&self) -> Value {
            json!({ "config_revision": 7 })
        }
        fn status(&self) -> Value {
            json!({ "nodes": [] })
        }
    }

    fn ask(method: Method, path: &str, node: &Fixed) -> StatusCode {
        respond(&method, path, node).status()
    }

    #[test]
    fn readiness_is_the_status_code() {
        let ready = |fault: Option<&str>| {
            let fault = fault.map(str::to_owned);
            Fixed(Readiness::Ready { fault })
        };
        assert_eq!(ask(Method::GET, "/ready", &ready(None)), 200);
        assert_eq!(ask(Method::GET, "/ready", &ready(Some("no store"))), 200);
        let starting = Fixed(Readiness::NotReady("no config yet".into()));
        assert_eq!(ask(Method::GET, "/ready", &starting), 503);
    }

    #[test]
    fn nothing_can_be_changed_and_unknown_paths_are_named() {
        let node = Fixed(Readiness::Ready { fault: None });
        for path in ["/", "/ready", "/metrics", "/config_dump", "/status"] {
            assert_eq!(ask(Method::GET, path, &node), 200, "{path}");
            assert_eq!(ask(Method::POST, path, &node), 405, "{path}");
        }
        assert_eq!(ask(Method::GET, "/quitquitquit", &node), 404);
    }
}
