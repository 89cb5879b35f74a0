//! Sessions over a hub that follows a state machine's images; no sockets.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use lifecycle::ShutdownTrigger;
use prost::Message;
use store_api::etcdserverpb::watch_create_request::FilterType;
use store_api::etcdserverpb::watch_request::RequestUnion;
use store_api::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchResponse,
};
use store_api::mvccpb::Event;
use store_mvcc::{Caller, Command, DeleteOp, Image, KeyRange, Machine, Op, Proposal, PutOp, TxnOp};
use store_raft::{RaftStatus, Role};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

mod rights;

use super::mailbox::MAILBOX_BATCHES_MAX;
use super::*;
use crate::fixture::leading_status;

/// A store without consensus.
struct Bench {
    machine: Machine,
    images: watch::Sender<Image>,
    status: watch::Sender<RaftStatus>,
    shared: Arc<Shared>,
    trigger: ShutdownTrigger,
}

/// A client of one stream.
struct Client {
    requests: mpsc::Sender<Result<WatchRequest, Status>>,
    session: Session,
}

impl Bench {
    fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Self {
        let machine = Machine::new();
        let images = watch::Sender::new(machine.image());
        let (trigger, shutdown) = ShutdownTrigger::new();
        let status = watch::Sender::new(leading_status());
        let hub = WatchHub::new(images.subscribe(), status.subscribe(), shutdown);
        tokio::spawn(hub.clone().follow());
        let headers = Headers::new(status.subscribe());
        let shared = Arc::new(Shared {
            hub,
            reads: None,
            headers,
            limits,
        });
        Self {
            machine,
            images,
            status,
            shared,
            trigger,
        }
    }

    fn apply(&mut self, command: Command) -> i64 {
        let outcome = self.machine.apply(&Proposal::own(command));
        outcome.result.expect("applies");
        self.images.send_replace(self.machine.image());
        outcome.revision
    }

    fn put(&mut self, key: &str, value: &str) -> i64 {
        self.apply(Command::Put(PutOp::new(key.to_owned(), value.to_owned())))
    }

    fn delete(&mut self, key: &str) -> i64 {
        self.apply(Command::Delete(DeleteOp::new(KeyRange::key(
            key.to_owned(),
        ))))
    }

    /// Waits until the hub has handed out everything.
    async fn published(&self) {
        let revision = self.machine.image().revision();
        let mut published = self.shared.hub.published();
        let reached = published.wait_for(|published| *published >= revision);
        let _ = in_time(reached).await.expect("the hub lives");
    }

    fn client(&self) -> Client {
        self.client_of(false)
    }

    fn client_of(&self, wants_leader: bool) -> Client {
        let (requests, inbound) = mpsc::channel(64);
        let requested = ReceiverStream::new(inbound).boxed();
        let caller = Caller::Nobody;
        let session = Session::open(self.shared.clone(), requested, caller, wants_leader);
        Client { requests, session }
    }

    fn client_by(&self, caller: Caller) -> Client {
        let (requests, inbound) = mpsc::channel(64);
        let requested = ReceiverStream::new(inbound).boxed();
        let session = Session::open(self.shared.clone(), requested, caller, false);
        Client { requests, session }
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .expect("within 10 s")
}

impl Client {
    fn ask(&self, request: RequestUnion) {
        let request = WatchRequest {
            request_union: Some(request),
        };
        self.requests.try_send(Ok(request)).expect("room");
    }

    async fn frame(&mut self) -> Frame {
        in_time(self.session.next_frame()).await.expect("a frame")
    }

    /// The next response, as a client decodes it.
    async fn next(&mut self) -> WatchResponse {
        let frame = self.frame().await;
        let mut bytes = BytesMut::new();
        frame.head.encode(&mut bytes).expect("encodes");
        bytes.put(frame.events);
        WatchResponse::decode(bytes).expect("a watch response")
    }

    /// True if there is nothing to send, although the session had its chance.
    async fn is_quiet(&mut self) -> bool {
        let short = Duration::from_millis(20);
        tokio::time::timeout(short, self.session.next_frame())
            .await
            .is_err()
    }

    async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.ask(RequestUnion::CreateRequest(request));
        self.next().await
    }

    /// Reads until `count` events came; answers with them and the number of responses.
    async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.next().await.events);
        }
        assert_eq!(events.len(), count);
        events
    }
}

fn key(key: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

fn everything(start_revision: i64) -> WatchCreateRequest {
    let all = bytes::Bytes::from_static(b"\0");
    WatchCreateRequest {
        key: all.clone(),
        range_end: all,
        start_revision,
        ..Default::default()
    }
}

fn revisions(events: &[Event]) -> Vec<i64> {
    events
        .iter()
        .map(|event| event.kv.as_ref().expect("kv").mod_revision)
        .collect()
}

#[tokio::test]
async fn a_watch_from_now_sees_later_changes_of_its_key_only() {
    let mut bench = Bench::new();
    let before = bench.put("a", "0");
    let mut client = bench.client();
    let created = client.create(key("a")).await;
    let header = created.header.expect("a header");
    assert!(created.created && !created.canceled && created.watch_id == 0);
    assert_eq!(
        (header.cluster_id, header.member_id, header.raft_term),
        (9, 1, 3)
    );
    assert_eq!(header.revision, before);

    bench.put("b", "1");
    let put = bench.put("a", "2");
    let answer = client.next().await;
    assert_eq!(revisions(&answer.events), [put]);
    assert_eq!(answer.header.expect("a header").revision, put);
    let row = answer.events[0].kv.clone().expect("kv");
    assert_eq!(
        (&row.value[..], row.version, row.create_revision),
        (&b"2"[..], 2, before)
    );

    let deleted = bench.delete("a");
    let event = client.events(1).await.remove(0);
    assert_eq!(event.r#type, 1);
    let row = event.kv.expect("kv");
    assert_eq!(
        (row.mod_revision, row.create_revision, row.version),
        (deleted, 0, 0)
    );
    assert!(row.value.is_empty() && event.prev_kv.is_none());
    assert!(client.is_quiet().await);
}

#[tokio::test]
async fn a_watch_from_the_past_goes_over_into_the_present() {
    let mut bench = Bench::new();
    for value in 0..10 {
        bench.put(&format!("k{value}"), "v");
    }
    let mut client = bench.client();
    client.create(everything(4)).await;
    assert_eq!(
        revisions(&client.events(8).await),
        [4, 5, 6, 7, 8, 9, 10, 11]
    );
    bench.put("k", "v");
    bench.put("k", "v");
    assert_eq!(revisions(&client.events(2).await), [12, 13]);
}

#[tokio::test]
async fn filters_and_previous_rows() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    let filtered = |filter: FilterType| WatchCreateRequest {
        filters: vec![filter.into()],
        prev_kv: true,
        ..everything(2)
    };
    let (mut no_put, mut no_delete) = (bench.client(), bench.client());
    no_put.create(filtered(FilterType::Noput)).await;
    no_delete.create(filtered(FilterType::Nodelete)).await;
    bench.put("a", "2");
    bench.delete("a");

    let deleted = no_put.events(1).await.remove(0);
    assert_eq!(&deleted.prev_kv.expect("the deleted row").value[..], b"2");
    let puts = no_delete.events(2).await;
    assert!(puts[0].prev_kv.is_none(), "a created key has no row before");
    assert_eq!(
        &puts[1].prev_kv.as_ref().expect("the row before").value[..],
        b"1"
    );
}

#[tokio::test]
async fn a_transaction_comes_whole_and_in_the_order_of_its_operations() {
    let mut bench = Bench::new();
    let mut client = bench.client();
    client.create(everything(0)).await;
    let put = |key: &'static str| Op::Put(PutOp::new(key, "v"));
    let txn = TxnOp {
        success: vec![put("z"), put("a"), put("m")],
        ..TxnOp::default()
    };
    let revision = bench.apply(Command::Txn(txn));
    let answer = client.next().await;
    assert_eq!(revisions(&answer.events), [revision; 3]);
    let keys: Vec<_> = answer
        .events
        .iter()
        .map(|event| event.kv.clone().expect("kv").key)
        .collect();
    assert_eq!(keys, ["z", "a", "m"]);
}

#[tokio::test]
async fn compacted_history_ends_the_watch_and_says_where_history_begins() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.put("a", "v");
    }
    bench.apply(Command::Compact { revision: 5 });
    let mut client = bench.client();
    assert!(client.create(everything(3)).await.created);
    let answer = client.next().await;
    assert!(answer.canceled && !answer.created && answer.events.is_empty());
    assert_eq!((answer.watch_id, answer.compact_revision), (0, 5));

    assert_eq!(
        client.create(everything(5)).await.watch_id,
        1,
        "ids are not used again"
    );
    assert_eq!(revisions(&client.events(2).await), [5, 6]);
}

#[tokio::test]
async fn a_watch_from_the_future_waits_for_it() {
    let mut bench = Bench::new();
    let mut client = bench.client();
    client.create(everything(5)).await;
    for _ in 2..=6 {
        bench.put("a", "v");
        bench.published().await;
    }
    assert_eq!(revisions(&client.events(2).await), [5, 6]);
}

#[tokio::test]
async fn a_watch_that_cannot_be_is_created_and_canceled_in_one_answer() {
    let bench = Bench::new();
    let mut client = bench.client();
    let named = WatchCreateRequest {
        watch_id: 7,
        ..key("a")
    };
    assert_eq!(client.create(named.clone()).await.watch_id, 7);
    let empty = WatchCreateRequest {
        range_end: "a".into(),
        ..key("b")
    };
    let negative = WatchCreateRequest {
        start_revision: -1,
        ..key("a")
    };
    for (request, reason) in [
        (
            named,
            "mvcc: duplicate watch ID provided on the WatchStream",
        ),
        (empty, "mvcc: watcher range is empty"),
        (
            negative,
            "etcdserver: mvcc: required revision has been compacted",
        ),
    ] {
        let answer = client.create(request).await;
        assert!(answer.created && answer.canceled && answer.watch_id == -1);
        assert_eq!(answer.cancel_reason, reason);
    }
    assert_eq!(client.create(key("a")).await.watch_id, 0);
}

#[tokio::test]
async fn a_cancelled_watch_is_silent_and_the_others_of_its_stream_are_not() {
    let mut bench = Bench::new();
    let mut client = bench.client();
    client.create(key("a")).await;
    client.create(key("a")).await;
    client.ask(RequestUnion::CancelRequest(WatchCancelRequest {
        watch_id: 0,
    }));
    client.ask(RequestUnion::CancelRequest(WatchCancelRequest {
        watch_id: 99,
    }));
    let answer = client.next().await;
    assert!(answer.canceled && answer.watch_id == 0 && answer.compact_revision == 0);
    bench.put("a", "v");
    let answer = client.next().await;
    assert_eq!((answer.watch_id, answer.events.len()), (1, 1));
    assert!(client.is_quiet().await);
}

#[tokio::test]
async fn watchers_with_equal_wants_share_the_encoded_bytes() {
    let mut bench = Bench::new();
    let (mut one, mut two, mut other) = (bench.client(), bench.client(), bench.client());
    one.create(everything(0)).await;
    two.create(everything(0)).await;
    other
        .create(WatchCreateRequest {
            prev_kv: true,
            ..everything(0)
        })
        .await;
    for client in [&mut one, &mut two, &mut other] {
        assert!(client.is_quiet().await, "registered");
    }
    bench.put("a", "v");
    let (one, two, other) = (one.frame().await, two.frame().await, other.frame().await);
    assert_eq!(one.events.as_ptr(), two.events.as_ptr());
    assert_ne!(one.events.as_ptr(), other.events.as_ptr());
}

#[tokio::test]
async fn a_slow_watcher_loses_nothing_and_holds_nobody_up() {
    let mut bench = Bench::new();
    let (mut slow, mut quick) = (bench.client(), bench.client());
    slow.create(key("a")).await;
    quick.create(key("a")).await;
    assert!(
        slow.is_quiet().await && quick.is_quiet().await,
        "registered"
    );
    let count = MAILBOX_BATCHES_MAX * 3;
    let mut expected = Vec::new();
    for value in 0..count {
        expected.push(bench.put("a", &value.to_string()));
        bench.put("b", "noise");
        bench.published().await;
        assert_eq!(revisions(&quick.next().await.events), expected[value..]);
    }
    assert_eq!(revisions(&slow.events(count).await), expected);
    let after = bench.put("a", "after");
    assert_eq!(revisions(&slow.events(1).await), [after]);
}

#[tokio::test]
async fn a_slow_watcher_whose_history_is_gone_is_told_so() {
    let mut bench = Bench::new();
    let mut slow = bench.client();
    slow.create(key("a")).await;
    assert!(slow.is_quiet().await, "registered");
    for _ in 0..=MAILBOX_BATCHES_MAX {
        bench.put("a", "v");
        bench.published().await;
    }
    let revision = bench.put("a", "last");
    bench.apply(Command::Compact { revision });
    let events = slow.events(MAILBOX_BATCHES_MAX).await;
    assert_eq!(
        revisions(&events).last(),
        Some(&(MAILBOX_BATCHES_MAX as i64 + 1))
    );
    let answer = slow.next().await;
    assert!(answer.canceled);
    assert_eq!(answer.compact_revision, revision);
}

#[tokio::test]
async fn progress_is_told_after_all_events_up_to_it() {
    let mut bench = Bench::new();
    let mut client = bench.client();
    client.create(everything(2)).await;
    let mut last = 0;
    for _ in 0..50 {
        last = bench.put("a", "v");
    }
    client.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    let mut seen = 1;
    loop {
        let answer = client.next().await;
        let revision = answer.header.expect("a header").revision;
        if answer.events.is_empty() {
            assert_eq!(answer.watch_id, -1);
            assert!(
                revision >= last && seen == revision,
                "{revision} {seen} {last}"
            );
            break;
        }
        seen = *revisions(&answer.events).last().expect("events");
    }
}

#[tokio::test]
async fn a_quiet_watcher_that_asked_for_it_gets_progress_notices() {
    let every = Duration::from_millis(20);
    let limits = Limits {
        watch_progress_every: every,
        ..Limits::default()
    };
    let mut bench = Bench::with_limits(limits);
    let mut client = bench.client();
    client.create(key("elsewhere")).await;
    client
        .create(WatchCreateRequest {
            progress_notify: true,
            ..key("a")
        })
        .await;
    let revision = bench.put("b", "v");
    loop {
        let notice = client.next().await;
        assert!(notice.watch_id == 1 && notice.events.is_empty() && !notice.created);
        if notice.header.expect("a header").revision == revision {
            break;
        }
    }
}

#[tokio::test]
async fn a_large_revision_comes_in_fragments_if_they_were_asked_for() {
    let mut bench = Bench::new();
    let value = "x".repeat(400 * 1024);
    let put = |key: usize| Op::Put(PutOp::new(key.to_string(), value.clone()));
    let txn = TxnOp {
        success: (0..8).map(put).collect(),
        ..TxnOp::default()
    };
    bench.apply(Command::Txn(txn));
    let mut client = bench.client();
    client
        .create(WatchCreateRequest {
            fragment: true,
            ..everything(2)
        })
        .await;
    client.create(everything(2)).await;
    let mut fragments = Vec::new();
    let mut whole = 0;
    while fragments.iter().sum::<usize>() + whole < 16 {
        let answer = client.next().await;
        if answer.watch_id == 1 {
            assert!(!answer.fragment);
            whole += answer.events.len();
            continue;
        }
        fragments.push(answer.events.len());
        assert_eq!(answer.fragment, fragments.iter().sum::<usize>() < 8);
    }
    assert_eq!(whole, 8);
    assert!(fragments.len() > 2, "{fragments:?}");
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_nothing_behind() {
    let mut bench = Bench::new();
    for request in [key("a"), everything(0)] {
        let mut client = bench.client();
        client.create(request).await;
        assert!(client.is_quiet().await, "registered");
        assert_eq!(bench.shared.hub.watchers(), 1);
        drop(client);
        assert_eq!(bench.shared.hub.watchers(), 0);
    }
    // Nor does one that goes before it had its turn to register.
    let mut client = bench.client();
    client.create(key("never registered")).await;
    drop(client);
    assert_eq!(bench.shared.hub.keys(), 0);
    bench.put("a", "v");
    bench.published().await;
}

#[tokio::test]
async fn a_half_closed_stream_goes_on_and_a_broken_one_ends() {
    let mut bench = Bench::new();
    let mut client = bench.client();
    client.create(key("a")).await;
    client.requests = mpsc::channel(1).0;
    assert!(client.is_quiet().await);
    bench.put("a", "v");
    client.events(1).await;

    let mut broken = bench.client();
    broken
        .requests
        .try_send(Err(Status::internal("garbage")))
        .expect("room");
    assert!(in_time(broken.session.next_frame()).await.is_err());
}

#[tokio::test]
async fn a_node_that_stops_ends_its_streams() {
    let bench = Bench::new();
    let mut client = bench.client();
    client.create(key("a")).await;
    bench.trigger.request();
    let status = in_time(client.session.next_frame())
        .await
        .expect_err("ended");
    assert_eq!(status.code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn a_store_that_stops_ends_its_streams_and_those_that_come() {
    let bench = Bench::new();
    let mut client = bench.client();
    client.create(key("a")).await;
    bench
        .status
        .send_modify(|status| status.role = Role::Stopped);
    let status = in_time(client.session.next_frame()).await;
    let status = status.expect_err("a store that stopped has no more events");
    assert_eq!(status.message(), "etcdserver: server stopped");
    let mut late = bench.client();
    late.create(key("a")).await;
    assert!(in_time(late.session.next_frame()).await.is_err());
}

#[tokio::test]
async fn streams_end_where_the_images_do_not_go_on() {
    let mut bench = Bench::new();
    let mut old = bench.client();
    assert!(old.create(key("a")).await.created);
    let sound = bench.machine.image();
    // A state that ran ahead with what never was.
    bench.put("a", "wrong");
    bench.put("a", "worse");
    bench.published().await;
    bench.machine = Machine::from_image(sound);
    bench.images.send_replace(bench.machine.image());
    bench.shared.hub.begin_anew();
    assert!(in_time(old.session.next_frame()).await.is_err());

    let mut new = bench.client();
    assert!(new.create(key("a")).await.created);
    let revision = bench.put("a", "right");
    let events = new.events(1).await;
    assert_eq!(revisions(&events), [revision]);
    let row = events[0].kv.as_ref().unwrap();
    assert_eq!(&row.value[..], b"right");
}

#[tokio::test]
async fn without_a_leader_the_streams_end_that_want_one() {
    let bench = Bench::new();
    let (mut wants, mut patient) = (bench.client_of(true), bench.client());
    wants.create(key("a")).await;
    patient.create(key("a")).await;
    bench.status.send_modify(|status| status.quorum = false);
    let ended = in_time(wants.session.next_frame()).await;
    let ended = ended.expect_err("it asked for a leader");
    assert_eq!(ended.message(), "etcdserver: no leader");
    assert!(patient.is_quiet().await);
}

/// Watchers come at any time, from any revision, read at any speed; all see the same history.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_pace_every_watcher_sees_every_revision_once_and_in_order() {
    const LAST: i64 = 3000;
    let mut bench = Bench::new();
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..40 {
        let mut client = bench.client();
        let range = if reader % 2 == 0 {
            everything(1 + reader)
        } else {
            key("k1")
        };
        let request = WatchCreateRequest {
            start_revision: 2 + reader,
            ..range
        };
        client.ask(RequestUnion::CreateRequest(request));
        readers.spawn(async move {
            let mut seen = Vec::new();
            while seen.last() != Some(&LAST) {
                seen.extend(revisions(&client.next().await.events));
                if reader % 5 == 0 {
                    tokio::time::sleep(Duration::from_millis(reader.unsigned_abs() % 4)).await;
                }
            }
            let step = if reader % 2 == 0 { 1 } else { 3 };
            let first = seen[0];
            let expected: Vec<i64> = (first..=LAST).step_by(step).collect();
            assert_eq!(seen, expected, "reader {reader}");
            assert!(
                first - (2 + reader) < step as i64,
                "reader {reader} begins at {first}"
            );
        });
    }
    for revision in 2..=LAST {
        // Every third revision, the last included, is of k1.
        bench.put(if revision % 3 == LAST % 3 { "k1" } else { "k2" }, "v");
        if revision % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    while let Some(reader) = in_time(readers.join_next()).await {
        reader.expect("the reader is content");
    }
}
