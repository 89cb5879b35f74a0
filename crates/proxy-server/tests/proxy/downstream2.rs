//! Clients that speak HTTP/2 to an upstream that speaks HTTP/1.1.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::rig::{Backend, Rig, config, eventually, ok, read_head, read_request, status};
use crate::streams::{Answer, Client, Raw, answer, ask, fields, send_all};

/// More than all windows and buffers on the way hold.
const LARGE: usize = 3 * 1024 * 1024;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

async fn rig(backend: &Backend) -> Rig {
    let config = config("", "", &[backend.address]);
    Rig::start(&format!(
        "{config}---\nkind: Defaults\nname: default\naccess_log: json\n"
    ))
    .await
}

#[tokio::test]
async fn streams_share_a_connection_and_are_logged_as_http2() {
    let backend = Backend::http(|seen| ok(seen.head.split(' ').nth(1).unwrap())).await;
    let rig = rig(&backend).await;
    let client = Client::connect(rig.address("edge")).await;
    let mut responses = Vec::new();
    for n in 0..50 {
        let request = ask("GET", &format!("/{n}?q")).header("cookie", "a=1");
        let request = request.header("cookie", "b=2").header("te", "trailers");
        responses.push(client.begin(request, true).await.0);
    }
    for (n, response) in responses.into_iter().enumerate() {
        let answer = answer(response).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, &*format!("/{n}?q"))
        );
        assert_eq!(
            answer.header("content-length"),
            answer.body.len().to_string()
        );
        assert!(!answer.header("date").is_empty());
    }
    let seen = &backend.seen()[0];
    assert_eq!(seen.header("host"), ["a"]);
    assert_eq!(seen.header("cookie"), ["a=1; b=2"]);
    assert_eq!(seen.header("te"), ["trailers"]);
    assert_eq!(seen.header("x-forwarded-for"), ["127.0.0.1"]);
    eventually("50 lines", || rig.log.lines().len() == 50).await;
    assert_eq!(rig.log.lines()[0]["protocol"], "HTTP/2");
    assert_eq!(rig.log.lines()[0]["host"], "a");
    rig.counts("http_downstream_cx_total", "", 1.0).await;
    rig.counts("http_downstream_rq_active", "", 0.0).await;
}

/// Sends back what it gets, at once and in whole, with the request's trailers.
async fn echo() -> Backend {
    Backend::http(|seen| {
        let mut answer = ok("");
        answer.truncate(0);
        answer.extend(
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                seen.body.len()
            )
            .bytes(),
        );
        answer.extend(&seen.body);
        answer
    })
    .await
}

#[tokio::test]
async fn bodies_of_all_sizes_come_through_both_ways() {
    let backend = echo().await;
    let rig = rig(&backend).await;
    let client = Client::connect(rig.address("edge")).await;
    for size in [0, 1, 16_384, 65_536, LARGE] {
        let body = pattern(size);
        for sized in [true, false] {
            let mut request = ask("POST", "/");
            if sized {
                request = request.header("content-length", size);
            }
            let answer = client.post(request, &body, None).await.unwrap();
            assert!(answer.body == body, "{size} {sized}");
        }
    }
    let seen = backend.seen();
    assert_eq!(seen[2].header("content-length"), ["1"]);
    assert_eq!(seen[3].header("transfer-encoding"), ["chunked"]);
}

#[tokio::test]
async fn trailers_come_through_both_ways() {
    let backend = Backend::raw(|mut stream, _| async move {
        let mut buffer = Vec::new();
        read_head(&mut stream, &mut buffer).await.unwrap();
        let trailers = loop {
            match read_head(&mut stream, &mut buffer).await {
                Some(text) if text.contains("x-sum") => break text,
                Some(_) => {}
                None => return,
            }
        };
        let sum = trailers.rsplit(": ").next().unwrap();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\nx-back: {sum}\r\nhost: evil\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let rig = rig(&backend).await;
    let client = Client::connect(rig.address("edge")).await;
    let trailers = Some(fields(&[("x-sum", "7")]));
    let answer = client.post(ask("POST", "/"), b"abc", trailers).await;
    let answer = answer.unwrap();
    assert_eq!(answer.text(), "hi");
    assert_eq!(answer.trailers, Some(fields(&[("x-back", "7")])));
}

#[tokio::test]
async fn what_skein_answers_itself_says_why() {
    let backend = Backend::saying("x").await;
    let yaml = config("", "", &[backend.address]).replace("\"*\"", "shop.example");
    let rig = Rig::start(&yaml).await;
    let client = Client::connect(rig.address("edge")).await;
    let says = |answer: &Answer, status: u16, details: &str| {
        assert_eq!(answer.status.as_u16(), status);
        let told = answer.header("proxy-status");
        assert!(told.contains(&format!("details=\"{details}\"")), "{told}");
        assert_eq!(answer.text(), format!("{details}\n"));
        assert!(!answer.header("x-request-id").is_empty());
        assert_eq!(answer.header("connection"), "");
    };
    says(&client.get("/").await, 404, "no route matches");
    says(&client.get("/%00").await, 400, "the path is malformed");
    let request = ask("GET", "/").header("host", "b");
    let refused = answer(client.begin(request, true).await.0).await.unwrap();
    says(&refused, 400, "the host header differs from :authority");
    let request = ask("GET", "/").header("a", "v".repeat(61 * 1024));
    let refused = answer(client.begin(request, true).await.0).await.unwrap();
    says(&refused, 431, "the header section is too large");
    let mut connect = ask("CONNECT", "/");
    connect = connect.uri("shop.example:80");
    let refused = answer(client.begin(connect, false).await.0).await.unwrap();
    says(&refused, 405, "CONNECT is not served");
    let head = answer(client.begin(ask("HEAD", "/"), true).await.0)
        .await
        .unwrap();
    assert_eq!((head.status.as_u16(), head.text()), (404, ""));
    rig.counts("http_downstream_rq_refused_total", "", 4.0)
        .await;
}

#[tokio::test]
async fn interim_answers_come_before_the_final_one() {
    let backend = Backend::http(|_| {
        let mut bytes = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nconnection: x\r\n\r\n".to_vec();
        bytes.extend(ok("x"));
        bytes
    })
    .await;
    let rig = rig(&backend).await;
    let client = Client::connect(rig.address("edge")).await;
    let (mut response, _) = client.begin(ask("GET", "/"), true).await;
    let interim = poll_fn(|cx| response.poll_informational(cx)).await;
    let interim = interim.unwrap().unwrap();
    assert_eq!(interim.status().as_u16(), 103);
    assert_eq!(interim.headers(), &fields(&[("link", "</a>")]));
    assert_eq!(answer(response).await.unwrap().text(), "x");
}

#[tokio::test]
async fn an_upload_that_waits_is_told_to_go_on() {
    let backend = echo().await;
    let rig = rig(&backend).await;
    let client = Client::connect(rig.address("edge")).await;
    let request = ask("POST", "/").header("expect", "100-continue");
    let (mut response, stream) = client.begin(request, false).await;
    let interim = poll_fn(|cx| response.poll_informational(cx)).await;
    assert_eq!(interim.unwrap().unwrap().status().as_u16(), 100);
    send_all(stream, Bytes::from_static(b"now"), None).await;
    assert_eq!(answer(response).await.unwrap().text(), "now");
}

#[tokio::test]
async fn an_early_answer_ends_the_upload_without_a_fault() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_head(&mut stream, &mut Vec::new()).await;
        let _ = stream.write_all(&status(413, "no")).await;
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
    })
    .await;
    let rig = rig(&backend).await;
    let client = Client::connect(rig.address("edge")).await;
    let (response, mut stream) = client.begin(ask("POST", "/"), false).await;
    stream
        .send_data(Bytes::from_static(b"begun"), false)
        .unwrap();
    let early = answer(response).await.unwrap();
    assert_eq!((early.status.as_u16(), early.text()), (413, "no"));
    let reset = poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
    assert_eq!(reset, Reason::NO_ERROR);
    // The connection goes on.
    let (response, _) = client.begin(ask("POST", "/"), true).await;
    assert_eq!(answer(response).await.unwrap().status.as_u16(), 413);
}

#[tokio::test]
async fn a_client_that_resets_ends_the_upstreams_request() {
    // Before the answer, and in its midst.
    let ended = Arc::new(Semaphore::new(0));
    let told = ended.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let told = told.clone();
        async move {
            let mut buffer = Vec::new();
            let head = read_head(&mut stream, &mut buffer).await.unwrap();
            if head.starts_with("GET /midst") {
                let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
                stream.write_all(begun).await.unwrap();
            }
            if tokio::io::AsyncReadExt::read_buf(&mut stream, &mut buffer)
                .await
                .unwrap_or(0)
                == 0
            {
                told.add_permits(1);
            }
        }
    })
    .await;
    let rig = rig(&backend).await;
    let client = Client::connect(rig.address("edge")).await;
    let (response, mut stream) = client.begin(ask("GET", "/before"), true).await;
    rig.counts("cluster_upstream_rq_total", "", 1.0).await;
    stream.send_reset(Reason::CANCEL);
    assert!(answer(response).await.is_err());
    ended.acquire().await.unwrap().forget();

    let (response, mut stream) = client.begin(ask("GET", "/midst"), true).await;
    let mut begun = response.await.unwrap().into_body();
    assert_eq!(begun.data().await.unwrap().unwrap(), "half");
    stream.send_reset(Reason::CANCEL);
    ended.acquire().await.unwrap().forget();
    eventually("two lines", || rig.log.lines().len() == 2).await;
    for line in rig.log.lines() {
        assert_eq!(line["flags"], "DC", "{line}");
    }
    rig.counts("http_downstream_rq_active", "", 0.0).await;
}

#[tokio::test]
async fn an_upstream_that_breaks_off_costs_one_stream() {
    let backend = Backend::raw(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while let Some(seen) = read_request(&mut stream, &mut buffer, 0).await {
            if seen.head.starts_with("GET /cut") {
                let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
                stream.write_all(begun).await.unwrap();
                return;
            }
            stream.write_all(&ok("whole")).await.unwrap();
        }
    })
    .await;
    let rig = rig(&backend).await;
    let client = Client::connect(rig.address("edge")).await;
    let (response, _) = client.begin(ask("GET", "/cut"), true).await;
    let cut = answer(response).await.unwrap_err();
    assert_eq!(cut.reason(), Some(Reason::INTERNAL_ERROR));
    assert_eq!(client.get("/").await.text(), "whole");
}

#[tokio::test]
async fn a_client_that_does_not_read_one_stream_gets_the_others() {
    let backend = Backend::http(|seen| {
        let size = if seen.head.starts_with("GET /large") {
            LARGE
        } else {
            5
        };
        ok(&"x".repeat(size))
    })
    .await;
    let rig = rig(&backend).await;
    let client = Client::connect(rig.address("edge")).await;
    let (response, _) = client.begin(ask("GET", "/large"), true).await;
    let stuck = response.await.unwrap().into_body();
    // Its window is 64 KiB, and nobody takes from it; only the connection's window is made larger.
    for _ in 0..20 {
        let (response, _) = client.begin(ask("HEAD", "/"), true).await;
        assert_eq!(answer(response).await.unwrap().status.as_u16(), 200);
    }
    drop(stuck);
    assert_eq!(client.get("/").await.text(), "xxxxx");
}

#[tokio::test]
async fn a_drain_lets_streams_end_and_takes_no_new_ones() {
    let gate = Arc::new(Semaphore::new(0));
    let open = gate.clone();
    let backend = Backend::raw(move |mut stream, _| {
        let gate = gate.clone();
        async move {
            read_head(&mut stream, &mut Vec::new()).await;
            gate.acquire().await.unwrap().forget();
            let _ = stream.write_all(&ok("late")).await;
        }
    })
    .await;
    let mut rig = rig(&backend).await;
    let mut client = Client::connect(rig.address("edge")).await;
    let (response, _) = client.begin(ask("GET", "/"), true).await;
    rig.counts("cluster_upstream_rq_total", "", 1.0).await;
    rig.apply("kind: Defaults\nname: default\n").await;
    // GOAWAY arrives, and with it the end of new streams.
    eventually("no new streams", || {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        matches!(
            client.send.poll_ready(&mut cx),
            std::task::Poll::Ready(Err(_))
        ) || client
            .send
            .clone()
            .send_request(ask("GET", "/").body(()).unwrap(), true)
            .is_err()
    })
    .await;
    open.add_permits(8);
    assert_eq!(answer(response).await.unwrap().text(), "late");
    client.end().await.unwrap();
}

#[tokio::test]
async fn the_newest_config_decides_for_each_stream() {
    let (old, new) = (Backend::saying("old").await, Backend::saying("new").await);
    let mut rig = rig(&old).await;
    let client = Client::connect(rig.address("edge")).await;
    assert_eq!(client.get("/").await.text(), "old");
    rig.apply(&config("", "", &[new.address])).await;
    assert_eq!(client.get("/").await.text(), "new");
    rig.counts("http_downstream_cx_total", "", 1.0).await;
}

#[tokio::test]
async fn the_preface_is_known_in_pieces_too() {
    let backend = Backend::saying("x").await;
    let rig = rig(&backend).await;
    let mut stream = tokio::net::TcpStream::connect(rig.address("edge"))
        .await
        .unwrap();
    for piece in ["P", "RI * HTTP/2.0\r\n\r\n", "SM\r\n\r", "\n"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut raw = Raw { stream };
    raw.send(&[crate::streams::Frame::new(
        crate::streams::SETTINGS,
        0,
        0,
        &[],
    )])
    .await;
    raw.get(1, &crate::streams::GET).await;
    assert!(raw.until(crate::streams::DATA).await.is_some());
    // What begins alike and is HTTP/1.1 stays that.
    let mut client = rig.connect().await;
    client.send("PROPFIND / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
}

/// A request of each version is begun, `ready` is awaited, and its client leaves.
async fn leave(rig: &Rig, what: &str, ready: impl AsyncFn(&Rig)) {
    let client = Client::connect(rig.address("edge")).await;
    let (_response, mut stream) = client.begin(ask("GET", "/"), true).await;
    ready(rig).await;
    stream.send_reset(Reason::CANCEL);
    eventually(what, || rig.log.lines().len() == 1).await;
    rig.counts("http_downstream_rq_active", "", 0.0).await;
    let mut old = rig.connect().await;
    old.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    ready(rig).await;
    drop(old);
    eventually(what, || rig.log.lines().len() == 2).await;
    for line in rig.log.lines() {
        assert_eq!(
            (&line["flags"], &line["status"]),
            (&"DC".into(), &0.into()),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_its_request_is_sent_is_noticed_at_once() {
    let backend = Backend::http(|_| {
        b"HTTP/1.1 503 Later\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n".into()
    })
    .await;
    let defaults = "---\nkind: Defaults\nname: default\naccess_log: json\n";
    // While it waits for the next try.
    let retry = "retry: { when: [5xx], times: 1, retry_after: 60s }\n    timeout: 0s";
    let yaml = config(retry, "", &[backend.address]);
    let rig = Rig::start(&format!("{yaml}{defaults}")).await;
    leave(&rig, "pauses", async |rig| {
        let paused = rig.log.lines().len() + 1;
        rig.counts("cluster_upstream_rq_retry_total", "", paused as f64)
            .await;
    })
    .await;
    // While it waits for a connection.
    let stuck = Backend::raw(|stream, _| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    for http in ["", "http: h2\n"] {
        let cluster = format!("{http}tls: {{ sni: a }}\nconnect_timeout: 60s");
        let yaml = config("timeout: 0s", &cluster, &[stuck.address]);
        let rig = Rig::start(&format!("{yaml}{defaults}")).await;
        leave(&rig, "connects", async |rig| {
            let begun = rig.log.lines().len() + 1;
            rig.counts("cluster_upstream_cx_total", "", begun as f64)
                .await;
        })
        .await;
    }
}
