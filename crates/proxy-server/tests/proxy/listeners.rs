//! Listeners come, stay and go while there is traffic.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mesh_health::{Health, HealthView};
use proxy_server::BindError;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::rig::{
    Backend, Client, PATIENCE, Rig, config, eventually, fresh_address, ok, read_request,
};

/// Listeners with these names and addresses, all leading to one backend.
fn listeners(listeners: &[(&str, SocketAddr)], backend: SocketAddr, drain: &str) -> String {
    let mut yaml = format!(
        "kind: VirtualHost\nname: all\ndomains: [\"*\"]\nroutes:\n- to: web\n\
         ---\nkind: Cluster\nname: web\nendpoints: [\"{backend}\"]\n\
         ---\nkind: Defaults\nname: default\ndrain_timeout: {drain}\n"
    );
    for (name, bind) in listeners {
        yaml += &format!("---\nkind: Listener\nname: {name}\nbind: \"{bind}\"\nprotocol: http\n");
    }
    yaml
}

#[tokio::test]
async fn changes_of_others_disturb_no_request() {
    let backend = Backend::saying("hi").await;
    let (kept, other) = (fresh_address(), fresh_address());
    let mut rig = Rig::start(&listeners(&[("kept", kept)], backend.address, "1s")).await;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for number in 0..4 {
        let (stop, served) = (stop.clone(), served.clone());
        clients.spawn(async move {
            let mut client = Client::connect(kept).await;
            while !stop.load(Ordering::Relaxed) {
                if number % 2 == 0 {
                    client = Client::connect(kept).await;
                }
                client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
                assert_eq!(client.response().await.status, 200);
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for round in 0..10 {
        let both = [("kept", kept), ("other", other)];
        let shown = if round % 2 == 0 {
            &both[..]
        } else {
            &both[..1]
        };
        let outcomes = rig.apply(&listeners(shown, backend.address, "1s")).await;
        assert!(
            outcomes.iter().all(|outcome| outcome.result.is_ok()),
            "{outcomes:?}"
        );
        assert_eq!(TcpStream::connect(other).await.is_ok(), round % 2 == 0);
        let goal = served.load(Ordering::Relaxed) + 50;
        eventually("traffic goes on", || served.load(Ordering::Relaxed) >= goal).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_closing_listener_ends_its_connections_in_good_order() {
    let (open, gate) = watch::channel(false);
    let asked = Arc::<AtomicUsize>::default();
    let backend = Backend::raw(move |mut stream, _| {
        let (mut gate, asked) = (gate.clone(), asked.clone());
        async move {
            let mut buffer = Vec::new();
            while read_request(&mut stream, &mut buffer, 0).await.is_some() {
                // All but the first wait until the listener is gone.
                if asked.fetch_add(1, Ordering::Relaxed) > 0 {
                    gate.wait_for(|open| *open).await.unwrap();
                }
                if stream.write_all(&ok("late")).await.is_err() {
                    break;
                }
            }
        }
    })
    .await;
    let gone = fresh_address();
    let mut rig = Rig::start(&listeners(&[("gone", gone)], backend.address, "5s")).await;
    let ask = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut busy = Client::connect(gone).await;
    let mut kept_alive = Client::connect(gone).await;
    kept_alive.send(ask).await;
    assert!(kept_alive.response().await.header("connection").is_empty());
    busy.send(ask).await;
    eventually("two requests", || {
        rig.metric("cluster_upstream_rq_total", "") == 2.0
    })
    .await;

    rig.apply(&listeners(&[], backend.address, "5s")).await;
    assert!(TcpStream::connect(gone).await.is_err());
    // The one under way is answered, and so is the next one on the connection that was idle.
    kept_alive.send(ask).await;
    open.send_replace(true);
    for client in [&mut busy, &mut kept_alive] {
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, "late"));
        assert_eq!(response.header("connection"), ["close"]);
        assert!(client.ends().await);
    }
}

#[tokio::test]
async fn idle_connections_of_a_closed_listener_end_while_it_drains() {
    let backend = Backend::saying("hi").await;
    let gone = fresh_address();
    let mut rig = Rig::start(&listeners(&[("gone", gone)], backend.address, "1h")).await;
    let mut idle = Client::connect(gone).await;
    rig.apply(&listeners(&[], backend.address, "1h")).await;
    assert!(idle.ends().await);
}

#[tokio::test]
async fn stuck_connections_of_a_closed_listener_end_at_its_deadline() {
    let backend = Backend::raw(|mut stream, _| async move {
        read_request(&mut stream, &mut Vec::new(), 0).await;
        sleep(PATIENCE * 2).await;
    })
    .await;
    let gone = fresh_address();
    let mut rig = Rig::start(&listeners(&[("gone", gone)], backend.address, "2s")).await;
    let mut stuck = Client::connect(gone).await;
    stuck.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    eventually("a request", || {
        rig.metric("cluster_upstream_rq_total", "") == 1.0
    })
    .await;
    let began = Instant::now();
    rig.apply(&listeners(&[], backend.address, "2s")).await;
    assert!(stuck.ends().await);
    assert!(began.elapsed() >= Duration::from_millis(1900));
}

#[tokio::test]
async fn draining_the_proxy_ends_everything() {
    let backend = Backend::saying("hi").await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let address = rig.address("edge");
    let mut client = rig.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    // Nothing is under way, so it does not take its hour.
    let drained = timeout(PATIENCE, rig.proxy.drain(Duration::from_secs(3600)));
    drained.await.expect("an idle proxy drains at once");
    assert!(client.ends().await);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_taken_address_is_named_and_hinders_no_other() {
    let backend = Backend::saying("hi").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let fine = fresh_address();
    let both = listeners(&[("bad", address), ("good", fine)], backend.address, "1s");
    let mut rig = Rig::start(&listeners(&[], backend.address, "1s")).await;
    let outcomes = rig.apply(&both).await;
    assert_eq!(outcomes[0].result, Err(BindError::InUse(address)));
    assert_eq!(outcomes[1].result, Ok(fine));
    let text = outcomes[0].result.as_ref().unwrap_err().to_string();
    assert!(text.contains(&address.to_string()) && text.contains("stop the process"));
    assert_eq!(rig.proxy.listeners(), outcomes);

    // A second proxy cannot share what the first one has, although both would allow it.
    let mut second = Rig::start(&listeners(&[], backend.address, "1s")).await;
    let outcomes = second
        .apply(&listeners(&[("x", fine)], backend.address, "1s"))
        .await;
    assert_eq!(outcomes[0].result, Err(BindError::InUse(fine)));

    // Once the address is free, the same config opens the listener.
    drop(taken);
    let outcomes = rig.apply(&both).await;
    assert!(
        outcomes.iter().all(|outcome| outcome.result.is_ok()),
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn a_listener_that_cannot_move_stays_where_it_is() {
    let backend = Backend::saying("hi").await;
    let old = fresh_address();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let wanted = taken.local_addr().unwrap();
    let mut rig = Rig::start(&listeners(&[("edge", old)], backend.address, "1s")).await;
    let outcomes = rig
        .apply(&listeners(&[("edge", wanted)], backend.address, "1s"))
        .await;
    assert_eq!(outcomes[0].result, Err(BindError::InUse(wanted)));
    let mut client = Client::connect(old).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    drop(taken);
    let outcomes = rig
        .apply(&listeners(&[("edge", wanted)], backend.address, "1s"))
        .await;
    assert_eq!(outcomes[0].result, Ok(wanted));
    assert!(TcpStream::connect(old).await.is_err());
}

#[tokio::test]
async fn an_address_can_widen_to_all_interfaces() {
    let backend = Backend::saying("hi").await;
    // A port that is free on all interfaces.
    let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let narrow = SocketAddr::from(([127, 0, 0, 1], free.local_addr().unwrap().port()));
    drop(free);
    let wide = SocketAddr::from(([0, 0, 0, 0], narrow.port()));
    let mut rig = Rig::start(&listeners(&[("edge", narrow)], backend.address, "1s")).await;
    for bind in [wide, narrow, wide] {
        let outcomes = rig
            .apply(&listeners(&[("edge", bind)], backend.address, "1s"))
            .await;
        assert_eq!(outcomes[0].result, Ok(bind));
        let mut client = Client::connect(narrow).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
    }
}

#[tokio::test]
async fn an_unhealthy_endpoint_leaves_rotation_and_returns() {
    let (one, two) = (Backend::saying("one").await, Backend::saying("two").await);
    let probed = "probe: { tcp: true }\npanic_threshold: 0";
    let rig = Rig::start(&config("", probed, &[one.address, two.address])).await;
    let view = |version, health: Health| {
        let endpoints = BTreeMap::from([(one.address, health)]);
        Arc::new(HealthView {
            version,
            clusters: BTreeMap::from([("default/web".into(), endpoints)]),
        })
    };
    rig.proxy.set_health(view(1, Health::Unhealthy));
    rig.counts("cluster_membership_healthy", "", 1.0).await;
    // Both workers have it with their next turn.
    let deadline = Instant::now() + PATIENCE;
    let mut in_a_row = 0;
    while in_a_row < 20 {
        assert!(Instant::now() < deadline, "it never left");
        in_a_row = if rig.get("/").await.text() == "two" {
            in_a_row + 1
        } else {
            0
        };
    }
    rig.proxy.set_health(view(2, Health::Healthy));
    let deadline = Instant::now() + PATIENCE;
    while rig.get("/").await.text() != "one" {
        assert!(Instant::now() < deadline, "it never returned");
    }
}

#[tokio::test]
async fn workers_serve_on_when_their_control_is_gone() {
    let backend = Backend::saying("hi").await;
    let rig = Rig::start(&config("", "", &[backend.address])).await;
    let address = rig.address("edge");
    drop(rig);
    for _ in 0..20 {
        let mut client = Client::connect(address).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
    }
}
