//! Clusters whose endpoints speak TLS: whom Skein believes, what it shows, what it reuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_health::{EndpointKey, Verdict};
use proxy_server::probe::Prober;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::HandshakeKind;

use crate::certificates::{Authority, Pair};
use crate::rig::{Backend, Rig, config, eventually, ok};

/// A server that says hi.
async fn saying_hi(acceptor: TlsAcceptor) -> Backend {
    let open = move |stream| {
        let accept = acceptor.accept(stream);
        async move { accept.await.ok() }
    };
    Backend::http_over(open, |_| ok("hi")).await
}

/// A cluster with these settings of `tls`.
fn calling(settings: &str, backend: &Backend) -> String {
    let cluster = format!("tls: {{ {settings} }}");
    config("", &cluster, &[backend.address])
}

fn trusting(ca: &Authority) -> String {
    format!("trusted_ca: {}", ca.ca().display())
}

#[tokio::test]
async fn connections_are_made_with_tls_and_used_again() {
    let ca = Authority::new();
    let own = ca.issue("own", &["api.example"]);
    let backend = saying_hi(ca.server(&own, false)).await;
    let settings = format!("{}, sni: api.example", trusting(&ca));
    let rig = Rig::start(&calling(&settings, &backend)).await;
    let mut client = rig.connect().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "hi");
    }
    assert!(backend.seen().iter().all(|seen| seen.connection == 0));
    assert_eq!(rig.metric("cluster_upstream_cx_total", ""), 1.0);
    // What is spoken to the client is told, not what is spoken to the upstream.
    assert_eq!(backend.seen()[0].header("x-forwarded-proto"), ["http"]);
}

#[tokio::test]
async fn who_cannot_prove_its_name_gets_no_request() {
    let (ca, foreign) = (Authority::new(), Authority::new());
    let own = ca.issue("own", &["api.example", "spiffe://mesh/api"]);
    let backend = saying_hi(ca.server(&own, false)).await;
    let trusting_ca = trusting(&ca);
    let mut rig = Rig::start(&calling(&trusting_ca, &backend)).await;
    for (settings, status, said) in [
        // Called by its address, it would have to have that in its certificate.
        (trusting_ca.clone(), 503, "another name"),
        (
            format!("{trusting_ca}, sni: other.example"),
            503,
            "another name",
        ),
        (
            format!("{}, sni: api.example", trusting(&foreign)),
            503,
            "no trusted CA",
        ),
        (
            format!("{trusting_ca}, subject_alt_names: [spiffe://mesh/db]"),
            503,
            "another name",
        ),
        (
            format!("{trusting_ca}, subject_alt_names: [spiffe://mesh/api]"),
            200,
            "",
        ),
        (
            format!("{trusting_ca}, sni: other.example, subject_alt_names: [api.example]"),
            200,
            "",
        ),
    ] {
        rig.apply(&calling(&settings, &backend)).await;
        let response = rig.get("/").await;
        assert_eq!(response.status, status, "{settings}");
        if status == 503 {
            let why = response.header("proxy-status").concat();
            assert!(
                why.contains("tls_certificate_error") && why.contains(said),
                "{why}"
            );
        }
    }
    let expired = ca.issue_expired("expired", &["api.example"]);
    let backend = saying_hi(ca.server(&expired, false)).await;
    rig.apply(&calling(
        &format!("{trusting_ca}, sni: api.example"),
        &backend,
    ))
    .await;
    let response = rig.get("/").await;
    let why = response.header("proxy-status").concat();
    assert!(why.contains("not valid now"), "{why}");
    eventually("all five to be counted", || {
        rig.metric("cluster_ssl_connection_error_total", "") >= 5.0
            && rig.metric("http_downstream_rq_flags_total", "\"UF\"") == 5.0
    })
    .await;
}

#[tokio::test]
async fn a_plain_endpoint_is_told_from_one_that_is_down() {
    let ca = Authority::new();
    let backend = Backend::saying("hi").await;
    // What a plain server says to a handshake is no TLS.
    let plain = Backend::raw(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 64]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 What\r\n\r\n").await;
    })
    .await;
    let mut rig = Rig::start(&calling(&trusting(&ca), &plain)).await;
    let response = rig.get("/").await;
    let why = response.header("proxy-status").concat();
    assert!(
        response.status == 503 && why.contains("tls_protocol_error"),
        "{why}"
    );
    // Without TLS in the config nothing of the old way of calling stays.
    rig.apply(&config("", "", &[backend.address])).await;
    assert_eq!(rig.get("/").await.text(), "hi");
}

#[tokio::test]
async fn skein_shows_its_own_certificate() {
    let ca = Authority::new();
    let own = ca.issue("own", &["api.example"]);
    let client = ca.issue("client", &["skein.example"]);
    let backend = saying_hi(ca.server(&own, true)).await;
    let settings = format!("{}, sni: api.example", trusting(&ca));
    let mut rig = Rig::start(&calling(&settings, &backend)).await;
    let refused = rig.get("/").await;
    assert!(matches!(refused.status, 502 | 503), "{}", refused.head);
    let settings = format!("{settings}, certificate: {}", client.yaml());
    rig.apply(&calling(&settings, &backend)).await;
    assert_eq!(rig.get("/").await.text(), "hi");
}

#[tokio::test]
async fn files_that_come_late_are_used_when_they_are_there() {
    let ca = Authority::new();
    let own = ca.issue("own", &["api.example"]);
    let backend = saying_hi(ca.server(&own, false)).await;
    let late = ca.path().join("late.pem");
    let settings = format!("trusted_ca: {}, sni: api.example", late.display());
    let rig = Rig::start(&calling(&settings, &backend)).await;
    let response = rig.get("/").await;
    assert_eq!(response.status, 503, "{}", response.head);
    std::fs::copy(ca.ca(), &late).unwrap();
    let deadline = tokio::time::Instant::now() + crate::rig::PATIENCE;
    while rig.get("/").await.status != 200 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the file is never read"
        );
    }
}

#[tokio::test]
async fn sessions_with_an_upstream_are_resumed() {
    let ca = Authority::new();
    let own = ca.issue("own", &["api.example"]);
    let acceptor = ca.server(&own, false);
    let resumed = Arc::<AtomicUsize>::default();
    let count = resumed.clone();
    let open = move |stream| {
        let (accept, count) = (acceptor.accept(stream), count.clone());
        async move {
            let stream = accept.await.ok()?;
            if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            Some(stream)
        }
    };
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let backend = Backend::http_over(open, |_| answer.to_vec()).await;
    let settings = format!("{}, sni: api.example", trusting(&ca));
    let rig = Rig::start(&calling(&settings, &backend)).await;
    for _ in 0..4 {
        assert_eq!(rig.get("/").await.status, 200);
    }
    assert_eq!(resumed.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn an_answer_that_is_cut_is_not_passed_on_as_whole() {
    let ca = Authority::new();
    let own = ca.issue("own", &["api.example"]);
    let acceptor = ca.server(&own, false);
    let backend = Backend::raw(move |stream, _| {
        let accept = acceptor.accept(stream);
        async move {
            let mut stream = accept.await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            // Until the end of the connection; which ends, while TLS does not.
            stream
                .write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf")
                .await
                .unwrap();
            stream.flush().await.unwrap();
            let (mut socket, _) = stream.into_inner();
            socket.shutdown().await.unwrap();
        }
    })
    .await;
    let settings = format!("{}, sni: api.example", trusting(&ca));
    let rig = Rig::start(&calling(&settings, &backend)).await;
    let mut client = rig.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.try_response().await.is_none());
    rig.counts("http_downstream_rq_flags_total", "\"UC\"", 1.0)
        .await;
}

#[tokio::test]
async fn http2_is_spoken_to_who_agrees_to_it() {
    let ca = Authority::new();
    let own = ca.issue("own", &["api.example"]);
    let tls = format!("http: h2\ntls: {{ {}, sni: api.example }}", trusting(&ca));
    let agrees = ca.server_of(&own, &["h2"]);
    let speaking = Backend::raw(move |stream, _| {
        let accept = agrees.accept(stream);
        async move {
            let stream = accept.await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.version(), http::Version::HTTP_2);
                assert_eq!(request.uri().scheme_str(), Some("https"));
                respond
                    .send_response(http::Response::new(()), true)
                    .unwrap();
            }
        }
    })
    .await;
    let mut rig = Rig::start(&config("", &tls, &[speaking.address])).await;
    assert_eq!(rig.get("/").await.status, 200);
    // Whoever says nothing of HTTP/2 may not know it.
    let silent = saying_hi(ca.server(&own, false)).await;
    rig.apply(&config("", &tls, &[silent.address])).await;
    let response = rig.get("/").await;
    let why = response.header("proxy-status").concat();
    assert!(
        response.status == 503 && why.contains("does not speak the HTTP"),
        "{why}"
    );
}

#[tokio::test]
async fn which_http_is_spoken_can_be_agreed_on() {
    let ca = Authority::new();
    let own = ca.issue("own", &["api.example"]);
    let agrees = ca.server_of(&own, &["h2", "http/1.1"]);
    let new = Backend::raw(move |stream, number| {
        let accept = agrees.accept(stream);
        async move {
            let Ok(stream) = accept.await else { return };
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                let answer = http::Response::new(());
                let mut body = respond.send_response(answer, false).unwrap();
                body.send_data(format!("h2 {number}").into(), true).unwrap();
            }
        }
    })
    .await;
    let tls = format!("tls: {{ {}, sni: api.example }}", trusting(&ca));
    let mut rig = Rig::start(&config("", &format!("http: auto\n{tls}"), &[new.address])).await;
    let mut client = rig.connect().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "h2 0");
    }
    rig.counts("cluster_upstream_cx_total", "", 1.0).await;
    // Who says nothing, and who says HTTP/1.1, is spoken to by that; many at once, too.
    for acceptor in [ca.server(&own, false), ca.server_of(&own, &["http/1.1"])] {
        let old = saying_hi(acceptor).await;
        rig.apply(&config("", &format!("http: auto\n{tls}"), &[old.address]))
            .await;
        let mut client = rig.connect().await;
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert_eq!(client.response().await.text(), "hi");
        }
        assert!(old.seen().iter().all(|seen| seen.connection == 0));
        let client = crate::streams::Client::connect(rig.address("edge")).await;
        let mut answers = Vec::new();
        for _ in 0..20 {
            let ask = crate::streams::ask("GET", "/");
            answers.push(client.begin(ask, true).await.0);
        }
        for answer in answers {
            assert_eq!(crate::streams::answer(answer).await.unwrap().text(), "hi");
        }
    }
}

#[tokio::test]
async fn probes_speak_tls_too() {
    let (ca, foreign) = (Authority::new(), Authority::new());
    let own = ca.issue("own", &["127.0.0.1"]);
    let backend = saying_hi(ca.server(&own, false)).await;
    for (trusted, expected) in [(&ca, Verdict::Healthy), (&foreign, Verdict::Unhealthy)] {
        let cluster = format!(
            "tls: {{ {} }}\nprobe: {{ http: /, every: 50ms, unhealthy_after: 1, healthy_after: 1 }}",
            trusting(trusted)
        );
        let probe = crate::rig::compiled(&config("", &cluster, &[backend.address]));
        let probe = probe
            .clusters
            .values()
            .next()
            .unwrap()
            .probe
            .clone()
            .unwrap();
        let key = EndpointKey {
            cluster: "default/web".into(),
            address: backend.address,
        };
        let mut prober = Prober::new();
        prober.assign([(key, probe)].into());
        let reports = prober.reports();
        eventually("a verdict", || {
            let reports = reports.borrow();
            let verdicts = reports.get("default/web").map(|report| &report.verdicts);
            verdicts.and_then(|v| v.get(&backend.address)).copied() == Some(expected)
        })
        .await;
    }
}

#[tokio::test]
async fn an_idle_connection_that_is_given_up_ends_as_tls_does() {
    let ca = Authority::new();
    let own = ca.issue("own", &["api.example"]);
    let acceptor = ca.server(&own, false);
    let (ended, mut ends) = tokio::sync::mpsc::channel(8);
    let backend = Backend::raw(move |stream, _| {
        let (accept, ended) = (acceptor.accept(stream), ended.clone());
        async move {
            let mut stream = accept.await.unwrap();
            loop {
                let mut room = [0; 4096];
                match stream.read(&mut room).await {
                    // Without `close_notify` this would be an error.
                    Ok(0) => return ended.try_send(Ok(())).unwrap(),
                    Ok(_) => stream.write_all(&ok("hi")).await.unwrap(),
                    Err(error) => return ended.try_send(Err(error.to_string())).unwrap(),
                }
            }
        }
    })
    .await;
    let settings = format!("{}, sni: api.example", trusting(&ca));
    let mut rig = Rig::start(&calling(&settings, &backend)).await;
    assert_eq!(rig.get("/").await.text(), "hi");
    // The endpoint goes, and its idle connections with it.
    let other = Backend::saying("other").await;
    rig.apply(&config("", "", &[other.address])).await;
    assert_eq!(ends.recv().await, Some(Ok(())));
    // One that served as often as it may.
    let spent = "\nconnections: { max_requests_per_connection: 1 }";
    let cluster = format!("tls: {{ {settings} }}{spent}");
    rig.apply(&config("", &cluster, &[backend.address])).await;
    assert_eq!(rig.get("/").await.text(), "hi");
    assert_eq!(ends.recv().await, Some(Ok(())));
    // One that nobody used for long.
    let cluster = format!("tls: {{ {settings} }}\nidle_timeout: 20ms");
    rig.apply(&config("", &cluster, &[backend.address])).await;
    assert_eq!(rig.get("/").await.text(), "hi");
    assert_eq!(ends.recv().await, Some(Ok(())));
}

#[tokio::test]
async fn tls_on_both_sides_carries_large_bodies() {
    let ca = Authority::new();
    let own = ca.issue("own", &["api.example", "edge.example"]);
    let acceptor = ca.server(&own, false);
    let open = move |stream| {
        let accept = acceptor.accept(stream);
        async move { accept.await.ok() }
    };
    let backend = Backend::http_over(open, |seen| {
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            seen.body.len()
        );
        answer.push_str(std::str::from_utf8(&seen.body).unwrap());
        answer.into_bytes()
    })
    .await;
    let settings = format!("{}, sni: api.example", trusting(&ca));
    let both = |own: &Pair| {
        let tls = format!("protocol: http\ntls: {{ certificates: [{}] }}", own.yaml());
        calling(&settings, &backend).replace("protocol: http", &tls)
    };
    let rig = Rig::start(&both(&own)).await;
    let edge = rig.address("edge");
    let mut client = crate::certificates::connect(ca.client(None), edge, "edge.example").await;
    let body = "0123456789".repeat(300_000);
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for _ in 0..2 {
        client.send(&head).await;
        client.send(&body).await;
        assert_eq!(client.response().await.text(), body);
    }
}
