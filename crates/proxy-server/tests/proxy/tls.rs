//! Listeners that speak TLS: who is shown what, who may come in, what is cut and what is whole.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::HandshakeKind;

use crate::certificates::{Authority, Pair, connect, shown, try_connect};
use crate::rig::{Backend, Client, PATIENCE, Rig, config, eventually, ok};
use crate::streams;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// An http listener with these certificates and settings.
fn listener(pairs: &[&Pair], settings: &str, backend: &Backend) -> String {
    let pairs: Vec<_> = pairs.iter().map(|pair| pair.yaml()).collect();
    let tls = format!(
        "protocol: http\ntls:\n  certificates: [{}]\n{settings}",
        pairs.join(", ")
    );
    config("timeout: 0s", "", &[backend.address]).replace("protocol: http", &tls)
}

fn leaf(pair: &Pair) -> tokio_rustls::rustls::pki_types::CertificateDer<'static> {
    pair.read().0.remove(0)
}

#[tokio::test]
async fn the_name_that_is_asked_for_chooses_the_certificate() {
    let ca = Authority::new();
    let first = ca.issue("first", &["first.example"]);
    let exact = ca.issue("exact", &["www.shop.example"]);
    let wild = ca.issue("wild", &["*.shop.example"]);
    let backend = Backend::saying("hi").await;
    let pairs = [&first, &wild, &exact];
    let mut rig = Rig::start(&listener(&pairs, "", &backend)).await;
    let edge = rig.address("edge");
    for (name, pair) in [
        ("first.example", &first),
        ("www.shop.example", &exact),
        ("WWW.Shop.Example", &exact),
        ("api.shop.example", &wild),
    ] {
        let mut client = connect(ca.client(None), edge, name).await;
        assert_eq!(shown(&client), leaf(pair), "{name}");
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "hi");
    }
    let seen = backend.seen();
    assert_eq!(seen[0].header("x-forwarded-proto"), ["https"]);
    // A wildcard stands for one label, and the first certificate for all other names.
    for name in ["a.b.shop.example", "shop.example", "127.0.0.1"] {
        let refused = try_connect(ca.client(None), edge, name).await;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("first.example"), "{name}: {text}");
    }
    assert_eq!(rig.metric("listener_ssl_handshake_total", ""), 4.0);
    rig.counts("listener_ssl_connection_error_total", "\"alert\"", 3.0)
        .await;

    // Or nobody who asks for another name.
    rig.apply(&listener(&pairs, "  strict_sni: true", &backend))
        .await;
    let refused = try_connect(ca.client(None), edge, "other.example").await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("AccessDenied"), "{text}");
    rig.counts(
        "listener_ssl_connection_error_total",
        "\"unknown_name\"",
        1.0,
    )
    .await;
    connect(ca.client(None), edge, "api.shop.example").await;
}

#[tokio::test]
async fn clients_show_a_certificate_where_they_have_to() {
    let (ca, foreign) = (Authority::new(), Authority::new());
    let own = ca.issue("own", &["a.example"]);
    let backend = Backend::saying("hi").await;
    let asks = |mode: &str, names: &str| {
        let settings = format!(
            "  client_certificate: {{ trusted_ca: {}, mode: {mode}, subject_alt_names: [{names}] }}\n",
            ca.ca().display()
        );
        listener(&[&own], &settings, &backend)
    };
    let mut rig = Rig::start(&asks("required", "")).await;
    let edge = rig.address("edge");
    let comes_in = async |own: Option<&Pair>| {
        // TLS 1.3 tells a client with its first answer.
        let Ok(stream) = try_connect(ca.client(own), edge, "a.example").await else {
            return false;
        };
        let mut client = Client::on(stream);
        let sent = client.stream.write_all(GET.as_bytes()).await;
        sent.is_ok() && client.try_response().await.is_some()
    };
    let good = ca.issue("good", &["client.example", "spiffe://mesh/ns/shop"]);
    let expired = ca.issue_expired("expired", &["client.example"]);
    let strange = foreign.issue("strange", &["client.example"]);
    assert!(comes_in(Some(&good)).await);
    assert!(!comes_in(None).await);
    assert!(!comes_in(Some(&expired)).await);
    assert!(!comes_in(Some(&strange)).await);
    for reason in [
        "no_certificate",
        "certificate_expired",
        "certificate_untrusted",
    ] {
        let reason = format!("\"{reason}\"");
        rig.counts("listener_ssl_connection_error_total", &reason, 1.0)
            .await;
    }
    for (names, may) in [
        ("client.example", true),
        ("other.example, spiffe://mesh/ns/shop", true),
        ("\"spiffe://mesh/ns/*\"", true),
        ("other.example, spiffe://mesh/ns/sho", false),
    ] {
        rig.apply(&asks("required", names)).await;
        assert_eq!(comes_in(Some(&good)).await, may, "{names}");
    }
    rig.apply(&asks("optional", "")).await;
    assert!(comes_in(None).await);
    assert!(!comes_in(Some(&strange)).await);
}

#[tokio::test]
async fn files_that_change_are_taken_over_and_bad_ones_are_not() {
    let ca = Authority::new();
    let old = ca.issue("own", &["a.example"]);
    let was = leaf(&old);
    let backend = Backend::saying("hi").await;
    let rig = Rig::start(&listener(&[&old], "", &backend)).await;
    let edge = rig.address("edge");
    let mut open = connect(ca.client(None), edge, "a.example").await;
    open.send(GET).await;
    assert_eq!(open.response().await.text(), "hi");

    let new = leaf(&ca.issue("own", &["a.example"]));
    assert_ne!(new, was);
    rig.counts("listener_ssl_reload_total", "", 1.0).await;
    let client = connect(ca.client(None), edge, "a.example").await;
    assert_eq!(shown(&client), new);

    // A key that belongs to another certificate changes nothing, and is told.
    std::fs::write(
        &old.key,
        std::fs::read(ca.issue("other", &["b"]).key).unwrap(),
    )
    .unwrap();
    rig.counts("listener_ssl_refused", "", 1.0).await;
    let client = connect(ca.client(None), edge, "a.example").await;
    assert_eq!(shown(&client), new);
    // The connection that stood has seen nothing of all that.
    open.send(GET).await;
    assert_eq!(open.response().await.text(), "hi");
    let left = rig.metric("listener_ssl_certificate_expires_in_seconds", "own.crt");
    assert!(left > 86_400.0, "{left}");
}

#[tokio::test]
async fn a_listener_whose_files_are_no_good_stays_as_it_was() {
    let ca = Authority::new();
    let own = ca.issue("own", &["a.example"]);
    let backend = Backend::saying("hi").await;
    let mut rig = Rig::start(&listener(&[&own], "", &backend)).await;
    let mixed = Pair {
        key: ca.issue("other", &["b.example"]).key,
        ..own.clone()
    };
    let outcomes = rig.apply(&listener(&[&mixed], "", &backend)).await;
    let fault = outcomes[0].result.as_ref().unwrap_err().to_string();
    assert!(
        fault.starts_with("private_key ") && fault.contains("not the key of the certificate"),
        "{fault}"
    );
    let secret = std::fs::read_to_string(&mixed.key).unwrap();
    assert!(!fault.contains(secret.lines().nth(1).unwrap()));
    let edge = outcomes[0].bind;
    let mut client = connect(ca.client(None), edge, "a.example").await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "hi");

    // One that was never good is not there at all, and comes when its files do.
    let late = Pair {
        certificate: ca.path().join("late.crt"),
        key: ca.path().join("late.key"),
    };
    let mut rig = Rig::start("kind: Defaults\nname: default\n").await;
    let outcomes = rig.apply(&listener(&[&late], "", &backend)).await;
    let fault = outcomes[0].result.as_ref().unwrap_err().to_string();
    assert!(
        fault.contains("late.crt") && fault.contains("; give"),
        "{fault}"
    );
    assert!(TcpStream::connect(outcomes[0].bind).await.is_err());
    ca.issue("late", &["a.example"]);
    let outcomes = rig.apply(&listener(&[&late], "", &backend)).await;
    let edge = *outcomes[0].result.as_ref().unwrap();
    connect(ca.client(None), edge, "a.example").await;
}

#[tokio::test]
async fn what_is_no_handshake_is_counted_by_why() {
    let ca = Authority::new();
    let own = ca.issue("own", &["a.example"]);
    let backend = Backend::saying("hi").await;
    let settings = "  handshake_timeout: 50ms\n  minimum_version: TLSv1_3\n";
    let rig = Rig::start(&listener(&[&own], settings, &backend)).await;
    let edge = rig.address("edge");
    let fails = async |bytes: &[u8], reason: &str| {
        let mut stream = TcpStream::connect(edge).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        if reason == "closed" {
            stream.shutdown().await.unwrap();
        }
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        let _ = read.expect("an end in time");
        let reason = format!("\"{reason}\"");
        rig.counts("listener_ssl_connection_error_total", &reason, 1.0)
            .await;
    };
    fails(GET.as_bytes(), "not_tls").await;
    // The head of a record, and half of what it announces.
    fails(&[0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc], "timeout").await;
    fails(&[0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc], "closed").await;
    let old = try_connect(ca.old_client(), edge, "a.example").await;
    assert!(old.unwrap_err().to_string().contains("ProtocolVersion"));
    rig.counts("listener_ssl_connection_error_total", "\"version\"", 1.0)
        .await;
    // Whoever only looks whether somebody is here is no failure.
    drop(TcpStream::connect(edge).await.unwrap());
    let mut client = connect(ca.client(None), edge, "a.example").await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "hi");
    assert_eq!(rig.metric("listener_ssl_connection_error_total", ""), 4.0);
}

#[tokio::test]
async fn a_session_goes_on_at_either_worker() {
    let ca = Authority::new();
    let own = ca.issue("own", &["a.example"]);
    let backend = Backend::saying("hi").await;
    let rig = Rig::start(&listener(&[&own], "", &backend)).await;
    let config = Arc::new(ca.client(None));
    let mut kinds = Vec::new();
    for _ in 0..8 {
        let mut client = connect(config.clone(), rig.address("edge"), "a.example").await;
        // Tickets come behind the handshake.
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "hi");
        kinds.push(client.stream.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds[0], HandshakeKind::Full);
    assert!(
        kinds[1..]
            .iter()
            .all(|kind| *kind == HandshakeKind::Resumed),
        "{kinds:?}"
    );
    assert_eq!(rig.metric("listener_ssl_session_reused_total", ""), 7.0);
}

#[tokio::test]
async fn bodies_pass_both_ways_and_an_end_is_said() {
    let ca = Authority::new();
    let own = ca.issue("own", &["a.example"]);
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let backend = Backend::http(|request| {
        let mut answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n".to_vec();
        let head = format!("content-length: {}\r\n\r\n", request.body.len());
        answer.extend_from_slice(head.as_bytes());
        answer.extend(request.body.iter().rev());
        answer
    })
    .await;
    let rig = Rig::start(&listener(&[&own], "", &backend)).await;
    for config in [ca.client(None), ca.old_client()] {
        let client = connect(config, rig.address("edge"), "a.example").await;
        let (mut read, mut write) = tokio::io::split(client.stream);
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let send = async {
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(&body).await.unwrap();
            write.flush().await.unwrap();
        };
        let mut answer = Vec::new();
        // Without a close_notify, reading to the end would fail.
        let (_, read) = tokio::join!(send, timeout(PATIENCE, read.read_to_end(&mut answer)));
        read.expect("an answer in time")
            .expect("an end that was said");
        let at = answer.len() - body.len();
        assert!(answer[at..].iter().rev().eq(body.iter()));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let ca = Authority::new();
    let own = ca.issue("own", &["a.example"]);
    let backend = Backend::raw(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
        stream.write_all(half).await.unwrap();
    })
    .await;
    let rig = Rig::start(&listener(&[&own], "", &backend)).await;
    // HTTP/1.0 without a length is the case where only the end of the connection tells.
    for request in [GET, "GET / HTTP/1.0\r\nhost: a\r\n\r\n"] {
        let mut client = connect(ca.client(None), rig.address("edge"), "a.example").await;
        client.send(request).await;
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, client.stream.read_to_end(&mut answer)).await;
        let read = read.expect("an end in time");
        assert!(read.is_err(), "{request:?} gives {answer:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_cut_is_not_taken_for_whole() {
    let ca = Authority::new();
    let own = ca.issue("own", &["a.example"]);
    let backend = Backend::saying("hi").await;
    let rig = Rig::start(&listener(&[&own], "", &backend)).await;
    let mut client = connect(ca.client(None), rig.address("edge"), "a.example").await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf")
        .await;
    rig.counts("cluster_upstream_rq_total", "", 1.0).await;
    // The socket ends, and TLS does not.
    let (mut socket, _) = client.stream.into_inner();
    socket.shutdown().await.unwrap();
    rig.counts("http_downstream_rq_flags_total", "\"DC\"", 1.0)
        .await;
    assert!(backend.seen().is_empty());
}

#[tokio::test]
async fn a_slow_client_holds_its_upstream_up() {
    let ca = Authority::new();
    let own = ca.issue("own", &["a.example"]);
    let written = Arc::<std::sync::atomic::AtomicUsize>::default();
    let count = written.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let count = count.clone();
        async move {
            let _ = stream.read(&mut [0; 1024]).await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let piece = vec![0; 64 * 1024];
            while stream.write_all(&piece).await.is_ok() {
                count.fetch_add(piece.len(), std::sync::atomic::Ordering::Relaxed);
            }
        }
    })
    .await;
    let rig = Rig::start(&listener(&[&own], "", &backend)).await;
    let mut client = connect(ca.client(None), rig.address("edge"), "a.example").await;
    client.send(GET).await;
    client.head().await.unwrap();
    // It reads no more; what all sockets on the way hold is far less than the body.
    let so_far = || written.load(std::sync::atomic::Ordering::Relaxed);
    let mut before = usize::MAX;
    eventually("the upstream stands still", || {
        std::thread::sleep(Duration::from_millis(20));
        let now = so_far();
        std::mem::replace(&mut before, now) == now
    })
    .await;
    assert!(so_far() < 100_000_000, "{}", so_far());
}

#[tokio::test]
async fn http2_is_spoken_where_both_want_it() {
    let ca = Authority::new();
    let own = ca.issue("own", &["a.example"]);
    let backend = Backend::http(|seen| ok(std::str::from_utf8(&seen.body).unwrap())).await;
    let rig = Rig::start(&listener(&[&own], "", &backend)).await;
    let mut config = ca.client(None);
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let stream = try_connect(config, rig.address("edge"), "a.example").await;
    let stream = stream.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let client = streams::Client::on(stream).await;
    // More than a record, a frame and a window hold.
    let body = "0123456789".repeat(100_000);
    let (response, sending) = client.begin(streams::ask("POST", "/"), false).await;
    let sent = streams::send_all(sending, body.clone().into(), None);
    let (_, answer) = tokio::join!(sent, streams::answer(response));
    let answer = answer.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text()), (200, &*body));
    assert_eq!(backend.seen()[0].header("x-forwarded-proto"), ["https"]);
}

#[tokio::test]
async fn a_tcp_listener_takes_tls_off() {
    let ca = Authority::new();
    let own = ca.issue("own", &["db.example"]);
    let backend = Backend::raw(|mut stream, _| async move {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes.reverse();
        stream.write_all(&bytes).await.unwrap();
    })
    .await;
    let rig = Rig::start(&format!(
        "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: tcp\nto: db\n\
         tls: {{ alpn: [postgresql], certificates: [{}] }}\n\
         ---\nkind: Cluster\nname: db\nendpoints: [\"{}\"]\n",
        own.yaml(),
        backend.address
    ))
    .await;
    let mut config = ca.client(None);
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let mut client = connect(config, rig.address("edge"), "db.example").await;
    let spoken = client.stream.get_ref().1.alpn_protocol();
    assert_eq!(spoken, Some(&b"postgresql"[..]));
    client.stream.write_all(b"abc").await.unwrap();
    // close_notify ends one direction, and the other goes on.
    client.stream.shutdown().await.unwrap();
    let mut answer = String::new();
    let read = timeout(PATIENCE, client.stream.read_to_string(&mut answer)).await;
    read.expect("an answer in time")
        .expect("an end that was said");
    assert_eq!(answer, "cba");
}
