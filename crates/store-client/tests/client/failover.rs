//! Which failures let a call go on to the next endpoint.

use std::time::Duration;

use store_api::errors;
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::{PutRequest, RangeRequest};
use store_api::verdict::{CONFIG_REFUSED, Proposed};
use store_client::{Client, ClientError, ClientOptions};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::fake::{Behaviour, Fake, client, closed_port};

const DEADLINE: Duration = Duration::from_secs(10);

fn range() -> RangeRequest {
    RangeRequest {
        key: "k".into(),
        ..Default::default()
    }
}

fn put() -> PutRequest {
    PutRequest {
        key: "k".into(),
        value: "v".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_write_goes_past_a_closed_port_and_remembers_who_answered() {
    let good = Fake::store(Behaviour::Answer);
    let client = client(&[closed_port(), good.address], DEADLINE);
    client
        .put(put())
        .await
        .expect("the second endpoint answers");
    client.put(put()).await.expect("again");
    assert_eq!(good.calls(), 2);
}

#[tokio::test]
async fn a_write_goes_on_when_surely_not_proposed() {
    let behind = Fake::store(Behaviour::Fail(Proposed::No.mark(errors::no_leader())));
    let good = Fake::store(Behaviour::Answer);
    let client = client(&[behind.address, good.address], DEADLINE);
    client
        .put(put())
        .await
        .expect("the second endpoint answers");
    assert_eq!((behind.calls(), good.calls()), (1, 1));
}

#[tokio::test]
async fn a_write_whose_fate_is_unknown_is_never_sent_twice() {
    let fates = [
        Proposed::Unknown.mark(errors::timeout()),
        // A store that says nothing about it, as etcd itself.
        errors::timeout(),
        Status::internal("broken"),
        Status::deadline_exceeded("late"),
    ];
    for fate in fates {
        let lost = Fake::store(Behaviour::Fail(fate.clone()));
        let other = Fake::store(Behaviour::Answer);
        let client = client(&[lost.address, other.address], DEADLINE);
        let error = client.put(put()).await.expect_err("unknown");
        assert!(
            matches!(error, ClientError::OutcomeUnknown { .. }),
            "{fate}: {error}"
        );
        assert!(
            error.to_string().contains(&lost.address.to_string()),
            "{error}"
        );
        assert_eq!(other.calls(), 0, "{fate}");
    }
}

#[tokio::test]
async fn a_write_cut_off_after_sending_is_unknown_and_the_next_one_fails_over() {
    let mut first = Fake::store(Behaviour::Hang);
    let second = Fake::store(Behaviour::Answer);
    let client = client(&[first.address, second.address], DEADLINE);
    let writing = tokio::spawn({
        let client = client.clone();
        async move { client.put(put()).await }
    });
    first.wait_for_calls(1).await;
    first.kill();
    let error = writing
        .await
        .expect("joined")
        .expect_err("the connection was cut");
    assert!(
        matches!(error, ClientError::OutcomeUnknown { .. }),
        "{error}"
    );
    assert_eq!(second.calls(), 0);

    // A write may enter a connection whose end is not noticed yet; that would be unknown again.
    // A read that may not fail over notices.
    let noticed = client.read(|channel| async move {
        let answer = KvClient::new(channel).range(range()).await;
        answer.map_err(|_| Status::not_found("down"))
    });
    assert!(matches!(noticed.await, Err(ClientError::NotFound { .. })));
    client
        .put(put())
        .await
        .expect("a dead connection is no reason to stop");
    assert_eq!(second.calls(), 1);
}

#[tokio::test]
async fn a_write_that_hangs_is_unknown_at_the_deadline() {
    let hangs = Fake::store(Behaviour::Hang);
    let other = Fake::store(Behaviour::Answer);
    let client = client(&[hangs.address, other.address], Duration::from_millis(300));
    let error = client.put(put()).await.expect_err("no answer");
    assert!(
        matches!(error, ClientError::OutcomeUnknown { .. }),
        "{error}"
    );
    assert_eq!(other.calls(), 0);
}

#[tokio::test]
async fn a_refusal_is_final_and_keeps_its_words() {
    let words = format!("{CONFIG_REFUSED}: Cluster/web: endpoints: empty; add one");
    let refuses = Fake::store(Behaviour::Fail(Status::invalid_argument(words.clone())));
    let other = Fake::store(Behaviour::Answer);
    let client = client(&[refuses.address, other.address], DEADLINE);
    let error = client.put(put()).await.expect_err("refused");
    assert_eq!(error, ClientError::Refused { message: words });
    assert_eq!(other.calls(), 0);
}

#[tokio::test]
async fn answers_of_the_store_are_not_taken_for_failures_of_the_endpoint() {
    let compacted = Fake::store(Behaviour::Fail(errors::compacted()));
    let client1 = client(&[compacted.address], DEADLINE);
    let error = client1.range(range()).await.expect_err("compacted");
    let message = errors::compacted().message().to_owned();
    assert_eq!(
        error,
        ClientError::Answered {
            code: Code::OutOfRange,
            message
        }
    );

    let missing = Fake::store(Behaviour::Fail(Status::not_found("no such member")));
    let client2 = client(&[missing.address], DEADLINE);
    let error = client2.range(range()).await.expect_err("not found");
    assert!(matches!(error, ClientError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_read_goes_past_every_kind_of_dead_endpoint() {
    let silent = Fake::silent();
    let garbage = Fake::garbage();
    let hangs = Fake::store(Behaviour::Hang);
    let leaderless = Fake::store(Behaviour::Fail(errors::no_leader()));
    let good = Fake::store(Behaviour::Answer);
    let endpoints = [
        closed_port(),
        silent.address,
        garbage.address,
        hangs.address,
        leaderless.address,
        good.address,
    ];
    let client = client(&endpoints, Duration::from_secs(6));
    client
        .range(range())
        .await
        .expect("the last endpoint answers");
    assert_eq!(good.calls(), 1);
    assert_eq!(leaderless.calls(), 1);
}

#[tokio::test]
async fn when_nobody_answers_every_endpoint_and_its_reason_is_named() {
    let (closed, silent, garbage) = (closed_port(), Fake::silent(), Fake::garbage());
    let endpoints = [closed, silent.address, garbage.address];
    let client = client(&endpoints, Duration::from_secs(2));
    let asked = timeout(DEADLINE, client.range(range()));
    let error = asked
        .await
        .expect("the deadline holds")
        .expect_err("nobody");
    let ClientError::Unavailable { tried } = &error else {
        panic!("{error}")
    };
    let named: Vec<&str> = tried.iter().map(|tried| tried.endpoint.as_str()).collect();
    assert_eq!(named, endpoints.map(|endpoint| endpoint.to_string()));
    assert!(tried[0].reason.contains("refused"), "{error}");
    assert!(tried[1].reason.contains("no answer within"), "{error}");
    assert!(error.to_string().contains("--endpoints"), "{error}");
}

#[tokio::test]
async fn a_write_to_closed_ports_only_is_surely_not_done() {
    let endpoints = [closed_port(), closed_port()];
    let error = client(&endpoints, DEADLINE)
        .put(put())
        .await
        .expect_err("nobody");
    let ClientError::Unavailable { tried } = &error else {
        panic!("{error}")
    };
    assert_eq!(tried.len(), 2);
}

#[tokio::test]
async fn endpoints_must_be_named() {
    let none: [&str; 0] = [];
    let error = Client::new(none, ClientOptions::default()).expect_err("none");
    assert_eq!(error, ClientError::NoEndpoint);
}
