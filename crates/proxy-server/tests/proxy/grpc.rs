//! Calls of gRPC: what comes through, and how Skein answers them itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::server;
use http::Response;

use crate::rig::{Backend, Rig, config, eventually};
use crate::streams::{Answer, Call, Client, answer, ask, echo, fields, read_all, upstream};

async fn rig(backend: &Backend, route: &str) -> Rig {
    let config = config(route, "http: h2", &[backend.address]);
    let defaults = "---\nkind: Defaults\nname: default\naccess_log: json\n";
    Rig::start(&format!("{config}{defaults}")).await
}

fn call() -> http::request::Builder {
    let request = ask("POST", "/shop.Cart/Add").header("te", "trailers");
    request.header("content-type", "application/grpc")
}

/// The status and the message of a call whose answer has no body.
fn trailers_only(answer: &Answer) -> (&str, &str) {
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    assert_eq!(answer.header("content-type"), "application/grpc");
    assert_eq!(
        (answer.header("content-length"), answer.trailers.is_none()),
        ("", true)
    );
    (answer.header("grpc-status"), answer.header("grpc-message"))
}

#[tokio::test]
async fn a_call_comes_through_with_its_status() {
    let backend = upstream(server::Builder::new(), echo).await;
    let rig = rig(&backend, "").await;
    let client = Client::connect(rig.address("edge")).await;
    let message = b"\0\0\0\0\x03abc";
    let status = fields(&[("grpc-status", "5"), ("grpc-message", "none")]);
    let answer = client
        .post(call(), message, Some(status.clone()))
        .await
        .unwrap();
    assert_eq!(
        (&answer.body[..], answer.trailers),
        (&message[..], Some(status))
    );
    eventually("a line", || rig.log.lines().len() == 1).await;
    assert_eq!(rig.log.lines()[0]["grpc_status"], 5);
}

#[tokio::test]
async fn an_answer_without_a_body_stays_one() {
    let backend = upstream(
        server::Builder::new(),
        |(request, mut respond): Call, _| async move {
            let _ = read_all(&mut request.into_body()).await;
            let mut response = Response::new(());
            *response.headers_mut() = fields(&[
                ("content-type", "application/grpc"),
                ("grpc-status", "7"),
                ("grpc-message", "no"),
            ]);
            respond.send_response(response, true).unwrap();
        },
    )
    .await;
    let rig = rig(&backend, "").await;
    let client = Client::connect(rig.address("edge")).await;
    let answer = client.post(call(), b"x", None).await.unwrap();
    assert_eq!(trailers_only(&answer), ("7", "no"));
    eventually("a line", || rig.log.lines().len() == 1).await;
    assert_eq!(rig.log.lines()[0]["grpc_status"], 7);
}

#[tokio::test]
async fn a_status_without_a_body_is_tried_again_if_the_route_says_so() {
    for (condition, code, tries) in [("unavailable", "14", 3), ("internal", "14", 1)] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let answers = move |(request, mut respond): Call, _| {
            let count = counted.clone();
            async move {
                let _ = read_all(&mut request.into_body()).await;
                let again = count.fetch_add(1, Ordering::Relaxed) < 2;
                let status = if again { code } else { "0" };
                let mut response = Response::new(());
                *response.headers_mut() = fields(&[
                    ("content-type", "application/grpc"),
                    ("grpc-status", status),
                ]);
                respond.send_response(response, true).unwrap();
            }
        };
        let backend = upstream(server::Builder::new(), answers).await;
        let retry = format!("retry: {{ when: [{condition}], times: 2 }}");
        let rig = rig(&backend, &retry).await;
        let client = Client::connect(rig.address("edge")).await;
        let answer = client.post(call(), b"x", None).await.unwrap();
        let status = if tries == 3 { "0" } else { code };
        assert_eq!(trailers_only(&answer).0, status, "{condition}");
        assert_eq!(count.load(Ordering::Relaxed), tries);
    }
}

#[tokio::test]
async fn what_skein_answers_itself_is_a_status_of_grpc() {
    let backend = Backend::saying("x").await;
    let yaml = config("", "http: h2", &["127.0.0.1:1".parse().unwrap()]).replace("\"*\"", "a");
    let rig = Rig::start(&format!(
        "{yaml}---\nkind: Defaults\nname: default\naccess_log: json\n"
    ))
    .await;
    drop(backend);
    let client = Client::connect(rig.address("edge")).await;
    let refused = answer(client.begin(call(), true).await.0).await.unwrap();
    assert_eq!(
        trailers_only(&refused),
        ("14", "the upstream cannot be reached")
    );
    assert!(
        refused
            .header("proxy-status")
            .contains("connection_refused")
    );
    let elsewhere = call().uri("http://b/shop.Cart/Add");
    let unknown = answer(client.begin(elsewhere, true).await.0).await.unwrap();
    assert_eq!(trailers_only(&unknown), ("12", "no route matches"));
    eventually("two lines", || rig.log.lines().len() == 2).await;
    assert_eq!(rig.log.lines()[0]["grpc_status"], 14);
    // Others get what HTTP has for it.
    assert_eq!(client.get("/").await.status.as_u16(), 503);
}

#[tokio::test]
async fn a_callers_own_time_counts_and_the_routes_bounds_it() {
    let backend = upstream(server::Builder::new(), |call: Call, _| async move {
        let _open = call;
        std::future::pending::<()>().await;
    })
    .await;
    for (route, timeout) in [
        ("timeout: 0s", "20m"),
        ("timeout: 20ms", "1H"),
        ("timeout: 0s\n    grpc_timeout_max: 20ms", "1H"),
    ] {
        let rig = rig(&backend, route).await;
        let client = Client::connect(rig.address("edge")).await;
        // The call is still being sent: its time counts from its begin.
        let (response, _sending) = client
            .begin(call().header("grpc-timeout", timeout), false)
            .await;
        let late = answer(response).await.unwrap();
        let told = trailers_only(&late);
        assert_eq!(
            told,
            ("4", "the upstream did not answer in time"),
            "{route}"
        );
    }
}

#[tokio::test]
async fn a_call_without_a_time_of_its_own_has_the_routes() {
    let backend = upstream(server::Builder::new(), |call: Call, _| async move {
        let _open = call;
        std::future::pending::<()>().await;
    })
    .await;
    let rig = rig(&backend, "timeout: 20ms\n    grpc_timeout_max: 1h").await;
    let client = Client::connect(rig.address("edge")).await;
    let late = client.post(call(), b"x", None).await.unwrap();
    assert_eq!(trailers_only(&late).0, "14");
}
