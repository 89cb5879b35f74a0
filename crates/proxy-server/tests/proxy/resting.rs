//! Connections that wait for long: they rest, and go on as if nothing had been.

use crate::certificates::{Authority, connect};
use crate::rig::{Backend, Rig, config, eventually};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const RESTING: &str = "http_downstream_cx_resting";

#[tokio::test]
async fn a_connection_rests_between_requests_and_until_a_drain() {
    let backend = Backend::saying("hi").await;
    let mut rig = Rig::start(&config("", "", &[backend.address])).await;
    let (mut silent, mut client) = (rig.connect().await, rig.connect().await);
    for _ in 0..2 {
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "hi");
        rig.counts(RESTING, "edge", 1.0).await;
    }
    // What comes in pieces is waited for as ever.
    client.send(&GET[..7]).await;
    rig.counts(RESTING, "edge", 0.0).await;
    client.send(&GET[7..]).await;
    assert_eq!(client.response().await.text(), "hi");
    rig.counts(RESTING, "edge", 1.0).await;
    assert_eq!(rig.metric("http_downstream_cx_active", "edge"), 2.0);

    // A listener that goes takes them along.
    let yaml = config("", "", &[backend.address]);
    let (_listener, others) = yaml.split_once("---\n").unwrap();
    rig.apply(others).await;
    assert!(client.ends().await && silent.ends().await);
}

#[tokio::test]
async fn one_over_tls_rests_too_and_ends_with_a_word_when_its_time_is_over() {
    let (ca, backend) = (Authority::new(), Backend::saying("hi").await);
    let pair = ca.issue("a", &["a"]);
    let tls = format!("protocol: http\ntls:\n  certificates: [{}]", pair.yaml());
    let yaml = config("", "", &[backend.address]).replace("protocol: http", &tls);
    let rig = Rig::start(&(yaml + "---\nkind: Defaults\nidle_timeout: 2s\n")).await;
    let mut client = connect(ca.client(None), rig.address("edge"), "a").await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "hi");
    rig.counts(RESTING, "edge", 1.0).await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "hi");
    // Without the word, the client's end of TLS would say that something was cut off.
    assert!(client.ends_whole().await);
    eventually("it is gone", || {
        rig.metric("http_downstream_cx_active", "edge") == 0.0
    })
    .await;
}
