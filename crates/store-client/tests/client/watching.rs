//! A watch goes on elsewhere without loss, duplicate or torn revision.

use std::time::Duration;

use store_api::etcdserverpb::{WatchCreateRequest, WatchResponse};
use store_client::{WatchBatch, WatchError, Watcher};
use tokio::sync::mpsc;
use tonic::Status;

use crate::fake::{Fake, WatchScript, client, closed_port, created, events, header};

/// Answers each watch with what `say` gives for it, then ends that stream or keeps it open.
fn script(
    say: impl Fn(&WatchCreateRequest) -> (Vec<WatchResponse>, After) + Send + 'static,
) -> WatchScript {
    let mut kept = Vec::new();
    Box::new(move |create, answers| {
        let (responses, after) = say(&create);
        for response in responses {
            answers.try_send(Ok(response)).expect("room");
        }
        match after {
            After::Keep => kept.push(answers),
            After::Fail => answers
                .try_send(Err(Status::unavailable("going away")))
                .expect("room"),
        }
    })
}

enum After {
    Keep,
    Fail,
}

fn revisions(batch: &WatchBatch) -> Vec<i64> {
    batch
        .events
        .iter()
        .map(|event| event.kv.as_ref().expect("kv").mod_revision)
        .collect()
}

async fn next(watcher: &mut Watcher) -> Result<WatchBatch, WatchError> {
    tokio::time::timeout(Duration::from_secs(10), watcher.next())
        .await
        .expect("in time")
}

fn from(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: "k".into(),
        start_revision,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_watch_resumes_on_the_next_endpoint_after_the_last_revision() {
    let first = Fake::watch(script(|_| {
        (vec![created(9), events(&[5, 5]), events(&[7])], After::Fail)
    }));
    let (seen, mut asked) = mpsc::channel(4);
    let second = Fake::watch(script(move |create| {
        seen.try_send(create.start_revision).expect("room");
        // A server that sends more than it was asked for does not bring duplicates.
        (
            vec![created(20), events(&[7, 8]), events(&[9])],
            After::Keep,
        )
    }));
    let client = client(&[first.address, second.address], Duration::from_secs(10));
    let mut watcher = client.watch(from(5));
    let mut got = Vec::new();
    while got.len() < 5 {
        got.extend(revisions(&next(&mut watcher).await.expect("events")));
    }
    assert_eq!(got, [5, 5, 7, 8, 9]);
    assert_eq!(asked.recv().await, Some(8));
    assert_eq!(watcher.next_revision(), 10);
}

#[tokio::test]
async fn a_watch_from_now_keeps_the_now_of_its_first_endpoint() {
    let first = Fake::watch(script(|_| (vec![created(41)], After::Fail)));
    let (seen, mut asked) = mpsc::channel(4);
    let second = Fake::watch(script(move |create| {
        seen.try_send(create.start_revision).expect("room");
        (vec![created(50), events(&[42, 50])], After::Keep)
    }));
    let client = client(&[first.address, second.address], Duration::from_secs(10));
    let mut watcher = client.watch(from(0));
    let batch = next(&mut watcher).await.expect("events");
    assert_eq!(revisions(&batch), [42, 50]);
    assert_eq!(
        asked.recv().await,
        Some(42),
        "events of the gap are asked for"
    );
}

#[tokio::test]
async fn fragments_are_one_batch_and_a_broken_one_is_fetched_again() {
    let fragment = |revisions: &[i64], fragment| WatchResponse {
        fragment,
        ..events(revisions)
    };
    let first = Fake::watch(script(move |_| {
        (vec![created(5), fragment(&[5], true)], After::Fail)
    }));
    let second = Fake::watch(script(move |create| {
        assert_eq!(create.start_revision, 5);
        (
            vec![created(5), fragment(&[5], true), fragment(&[5, 5], false)],
            After::Keep,
        )
    }));
    let client = client(&[first.address, second.address], Duration::from_secs(10));
    let mut watcher = client.watch(from(5));
    assert_eq!(
        revisions(&next(&mut watcher).await.expect("events")),
        [5, 5, 5]
    );
}

#[tokio::test]
async fn progress_moves_the_position_and_old_progress_does_not() {
    let progress = |revision| WatchResponse {
        header: header(revision),
        ..Default::default()
    };
    let first = Fake::watch(script(move |_| {
        (vec![created(9), progress(30), progress(12)], After::Fail)
    }));
    let second = Fake::watch(script(|create| {
        assert_eq!(create.start_revision, 31);
        (vec![created(31), events(&[31])], After::Keep)
    }));
    let client = client(&[first.address, second.address], Duration::from_secs(10));
    let mut watcher = client.watch(from(5));
    let batch = next(&mut watcher).await.expect("progress");
    assert_eq!((batch.revision, batch.events.len()), (30, 0));
    assert_eq!(revisions(&next(&mut watcher).await.expect("events")), [31]);
}

#[tokio::test]
async fn compaction_and_refusal_end_the_watch_with_their_reason() {
    let compacted = WatchResponse {
        canceled: true,
        compact_revision: 77,
        header: header(90),
        ..Default::default()
    };
    let server = Fake::watch(script(move |_| {
        (vec![created(90), compacted.clone()], After::Keep)
    }));
    let error = next(&mut client(&[server.address], Duration::from_secs(5)).watch(from(3))).await;
    assert_eq!(
        error,
        Err(WatchError::Compacted {
            compact_revision: 77
        })
    );

    let canceled = WatchResponse {
        canceled: true,
        cancel_reason: "permission denied".into(),
        ..created(90)
    };
    let server = Fake::watch(script(move |_| (vec![canceled.clone()], After::Keep)));
    let error = next(&mut client(&[server.address], Duration::from_secs(5)).watch(from(3))).await;
    assert_eq!(
        error,
        Err(WatchError::Canceled {
            reason: "permission denied".into()
        })
    );
}

#[tokio::test]
async fn a_watch_that_nobody_takes_says_so_and_can_go_on() {
    let silent = Fake::silent();
    let client = client(&[closed_port(), silent.address], Duration::from_millis(900));
    let mut watcher = client.watch(from(3));
    let error = next(&mut watcher).await.expect_err("nobody");
    let text = error.to_string();
    assert!(
        text.contains("refused") && text.contains(&silent.address.to_string()),
        "{text}"
    );
    assert_eq!(watcher.next_revision(), 3);
}
