//! Endpoints that come and go while the config stays.

use std::net::SocketAddr;
use std::sync::Arc;

use proxy_config::compiled::{Endpoint, Origin, ResourceName, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::rig::{Backend, PATIENCE, Rig, eventually, fresh_address, ok, status};

const EDGE: &str = "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: http\n\
    ---\nkind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes:\n  - to: web\n    \
    retry: { when: [connect-failure], times: 0 }\n\
    ---\nkind: Cluster\nname: web\nservice: shop\n";

fn service(name: &str) -> Origin {
    Origin::Service(ResourceName {
        namespace: "default".into(),
        name: name.into(),
    })
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        address,
        socket: None,
        weight: 1,
        zone: None,
        priority: 0,
        labels: Default::default(),
        hostname: None,
        source: Source::Registered("1".into()),
    }
}

/// Tells the proxy that these are there now, and waits until both workers serve by it: until so many
/// requests in a row were answered by one of them.
async fn found(rig: &Rig, addresses: &[SocketAddr]) {
    let endpoints: Arc<[Endpoint]> = addresses.iter().copied().map(endpoint).collect();
    let wanted = endpoints.len();
    rig.proxy.set_found([(service("shop"), endpoints)]);
    let served = || {
        let cluster = rig.proxy.cluster("default/web").unwrap();
        cluster.endpoints.len() == wanted
    };
    eventually("they are in force", served).await;
}

/// The body of the answer to a request, once it is another one than before.
async fn answered(rig: &Rig, expected: (u16, &str)) {
    let deadline = Instant::now() + PATIENCE;
    // Connections fall to either worker; a row of them falls to both.
    let mut row = 0;
    while row < 16 {
        let response = rig.get("/").await;
        let good = (response.status, response.text()) == expected
            || response.status == 503 && expected.0 == 503;
        row = if good { row + 1 } else { 0 };
        assert!(
            Instant::now() < deadline,
            "{} {}",
            response.status,
            response.text()
        );
    }
}

#[tokio::test]
async fn an_endpoint_serves_from_when_it_is_found_until_it_is_gone() {
    let [blue, green] = [
        Backend::saying("blue").await,
        Backend::saying("green").await,
    ];
    let rig = Rig::start(EDGE).await;
    // Nobody is there yet.
    let response = rig.get("/").await;
    assert_eq!(response.status, 503);
    assert!(
        response.header("proxy-status")[0].contains("destination_unavailable"),
        "{}",
        response.head
    );
    found(&rig, &[blue.address]).await;
    answered(&rig, (200, "blue")).await;
    assert_eq!(
        rig.metric("cluster_membership_endpoints", "default/web"),
        1.0
    );
    found(&rig, &[green.address]).await;
    answered(&rig, (200, "green")).await;
    // What was found for others changes nothing.
    rig.proxy
        .set_found([(service("other"), [endpoint(blue.address)].into())]);
    answered(&rig, (200, "green")).await;
    found(&rig, &[]).await;
    answered(&rig, (503, "")).await;
    assert_eq!(
        rig.metric("cluster_membership_endpoints", "default/web"),
        0.0
    );
}

#[tokio::test]
async fn a_cluster_that_comes_later_has_what_was_found_before() {
    let [blue, green] = [
        Backend::saying("blue").await,
        Backend::saying("green").await,
    ];
    let mut rig = Rig::start(&EDGE.replace("service: shop", "endpoints: [10.255.255.1:1]")).await;
    rig.proxy.set_found([
        (service("shop"), [endpoint(blue.address)].into()),
        (service("other"), [endpoint(green.address)].into()),
    ]);
    rig.apply(EDGE).await;
    assert_eq!(rig.get("/").await.text(), "blue", "with its first request");
    // Another service, then a list, then the service again.
    rig.apply(&EDGE.replace("service: shop", "service: other"))
        .await;
    assert_eq!(rig.get("/").await.text(), "green");
    let list = format!("endpoints: [\"{}\"]", green.address);
    rig.apply(&EDGE.replace("service: shop", &list)).await;
    rig.proxy.set_found([(service("shop"), [].into())]);
    assert_eq!(rig.get("/").await.text(), "green");
    rig.apply(EDGE).await;
    assert_eq!(rig.get("/").await.status, 503);
}

#[tokio::test]
async fn written_and_found_endpoints_serve_side_by_side_each_address_once() {
    let [blue, green] = [
        Backend::saying("blue").await,
        Backend::saying("green").await,
    ];
    let list = format!(
        "service: shop\nbalance: round_robin\nendpoints: [\"{}\"]",
        blue.address
    );
    let rig = Rig::start(&EDGE.replace("service: shop", &list)).await;
    assert_eq!(rig.get("/").await.text(), "blue");
    rig.proxy.set_found([(
        service("shop"),
        [
            endpoint(blue.address),
            endpoint(green.address),
            endpoint(green.address),
        ]
        .into(),
    )]);
    let two = || rig.proxy.cluster("default/web").unwrap().endpoints.len() == 2;
    eventually("there are two", two).await;
    let cluster = rig.proxy.cluster("default/web").unwrap();
    let sources: Vec<String> = cluster
        .endpoints
        .iter()
        .map(|e| e.source.to_string())
        .collect();
    assert_eq!(sources, ["written", "registered as 1"]);
    for wanted in ["green", "blue"] {
        let deadline = Instant::now() + PATIENCE;
        while rig.get("/").await.text() != wanted {
            assert!(Instant::now() < deadline, "never {wanted}");
        }
    }
}

#[tokio::test]
async fn a_request_under_way_outlives_its_endpoint_and_connections_of_those_that_stay_are_kept() {
    let gate = Arc::new(Semaphore::new(0));
    let (held, begun) = (gate.clone(), Arc::new(Semaphore::new(0)));
    let begins = begun.clone();
    let slow = Backend::raw(move |mut stream: TcpStream, number| {
        let (held, begins) = (held.clone(), begins.clone());
        async move {
            let mut request = [0; 512];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            begins.add_permits(1);
            // A worker that has not heard yet may send more here: those are not held.
            if number == 0 {
                held.acquire().await.unwrap().forget();
            }
            stream.write_all(&ok("slow")).await.unwrap();
        }
    })
    .await;
    let stays = Backend::saying("stays").await;
    let rig = Rig::start(EDGE).await;
    found(&rig, &[slow.address]).await;
    let under_way = async {
        let response = rig.get("/").await;
        assert_eq!((response.status, response.text()), (200, "slow"));
    };
    let change = async {
        let _permit = timeout(PATIENCE, begun.acquire()).await.unwrap().unwrap();
        found(&rig, &[stays.address]).await;
        answered(&rig, (200, "stays")).await;
        gate.add_permits(1);
    };
    tokio::join!(under_way, change);
    // One connection of a client is of one worker, and so are those that it uses.
    let mut client = rig.connect().await;
    let mut ask = async || {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        client.response().await.text().to_owned()
    };
    assert_eq!(ask().await, "stays");
    let before = stays.seen().last().unwrap().connection;
    let count = rig.metric("cluster_upstream_cx_total", "default/web");
    // Another one comes that nothing is sent to, for its priority.
    let mut far = endpoint(fresh_address());
    far.priority = 1;
    rig.proxy
        .set_found([(service("shop"), [endpoint(stays.address), far].into())]);
    let two = || rig.proxy.cluster("default/web").unwrap().endpoints.len() == 2;
    eventually("there are two", two).await;
    for _ in 0..8 {
        assert_eq!(ask().await, "stays");
    }
    assert_eq!(stays.seen().last().unwrap().connection, before);
    assert_eq!(
        rig.metric("cluster_upstream_cx_total", "default/web"),
        count
    );
}

#[tokio::test]
async fn who_is_ejected_stays_so_when_another_one_is_found() {
    let bad = Backend::http(|_| status(500, "")).await;
    let good = Backend::saying("good").await;
    let outlier = "service: shop\npanic_threshold: 0\noutlier: { base_ejection_time: 300s }";
    let rig = Rig::start(&EDGE.replace("service: shop", outlier)).await;
    found(&rig, &[bad.address]).await;
    let active = "cluster_outlier_detection_ejections_active";
    let deadline = Instant::now() + PATIENCE;
    while rig.metric(active, "") != 1.0 {
        assert!(Instant::now() < deadline, "never ejected");
        rig.get("/").await;
    }
    found(&rig, &[bad.address, good.address]).await;
    answered(&rig, (200, "good")).await;
    assert!(rig.proxy.ejection("default/web", bad.address).is_some());
    // Who left and came back begins anew.
    found(&rig, &[good.address]).await;
    assert!(rig.proxy.ejection("default/web", bad.address).is_none());
}

#[tokio::test]
async fn tables_of_hashing_balancers_follow() {
    let [blue, green] = [
        Backend::saying("blue").await,
        Backend::saying("green").await,
    ];
    for balance in ["maglev", "ring_hash"] {
        let rig = Rig::start(&EDGE.replace(
            "service: shop",
            &format!("service: shop\nbalance: {balance}"),
        ))
        .await;
        assert_eq!(rig.get("/").await.status, 503);
        found(&rig, &[blue.address]).await;
        answered(&rig, (200, "blue")).await;
        found(&rig, &[green.address]).await;
        answered(&rig, (200, "green")).await;
    }
}

#[tokio::test]
async fn a_tcp_session_outlives_its_endpoint() {
    let echo = Backend::raw(|mut stream: TcpStream, _| async move {
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() {
            stream.write_all(&byte).await.unwrap();
        }
    })
    .await;
    let yaml = "kind: Listener\nname: edge\nbind: \"EDGE\"\nprotocol: tcp\nto: web\n\
        ---\nkind: Cluster\nname: web\nservice: shop\n";
    let rig = Rig::start(yaml).await;
    found(&rig, &[echo.address]).await;
    // Both workers have it when this one's session stands.
    let deadline = Instant::now() + PATIENCE;
    let mut session = loop {
        let mut stream = TcpStream::connect(rig.address("edge")).await.unwrap();
        let sent = stream.write_all(b"a").await;
        let mut byte = [0];
        if sent.is_ok() && stream.read_exact(&mut byte).await.is_ok() {
            break stream;
        }
        assert!(Instant::now() < deadline, "no session");
    };
    found(&rig, &[]).await;
    // Nobody gets a new one.
    loop {
        let mut stream = TcpStream::connect(rig.address("edge")).await.unwrap();
        let mut byte = [0];
        let sent = stream.write_all(b"a").await;
        if sent.is_err() || stream.read_exact(&mut byte).await.is_err() {
            break;
        }
        assert!(Instant::now() < deadline, "still served");
    }
    let mut byte = [0];
    session.write_all(b"z").await.unwrap();
    timeout(PATIENCE, session.read_exact(&mut byte))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&byte, b"z");
}
