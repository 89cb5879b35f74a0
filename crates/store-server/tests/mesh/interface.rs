//! etcd's interface, on one node: answers, limits, literal errors, garbage.

use bytes::Bytes;
use http::uri::PathAndQuery;
use store_api::errors;
use store_api::etcdserverpb::cluster_client::ClusterClient;
use store_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;
use store_api::etcdserverpb::request_op::Request as Op;
use store_api::etcdserverpb::response_op::Response as Part;
use store_api::etcdserverpb::*;
use store_api::verdict::Proposed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Status};

use crate::harness::{MESH, Mesh, delete, get, put};

fn all() -> RangeRequest {
    let zero = Bytes::from_static(b"\0");
    RangeRequest {
        key: zero.clone(),
        range_end: zero,
        ..Default::default()
    }
}

fn op(request: Op) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

#[track_caller]
fn assert_same(got: &Status, expected: &Status) {
    assert_eq!(
        (got.code(), got.message()),
        (expected.code(), expected.message())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn put_get_delete_and_their_headers() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let mut kv = node.kv();
    let answer = kv.put(put("a", "1")).await.unwrap().into_inner();
    let header = answer.header.unwrap();
    assert_eq!(
        (header.cluster_id, header.member_id),
        (MESH.0, node.store.id().0)
    );
    assert_eq!(header.revision, 2);
    assert!(header.raft_term > 0);

    let again = PutRequest {
        prev_kv: true,
        ..put("a", "2")
    };
    let answer = kv.put(again).await.unwrap().into_inner();
    assert_eq!(answer.prev_kv.unwrap().value, "1");
    kv.put(put("b", "1")).await.unwrap();

    let page = RangeRequest { limit: 1, ..all() };
    let answer = kv.range(page).await.unwrap().into_inner();
    assert!(answer.more);
    assert_eq!((answer.count, answer.kvs.len()), (2, 1));
    let row = &answer.kvs[0];
    assert_eq!(
        (row.create_revision, row.mod_revision, row.version),
        (2, 3, 2)
    );

    let past = RangeRequest {
        revision: 2,
        ..get("a")
    };
    let answer = kv.range(past).await.unwrap().into_inner();
    assert_eq!(answer.kvs[0].value, "1");
    assert_eq!(
        answer.header.unwrap().revision,
        4,
        "the header tells the present"
    );

    let answer = kv.delete_range(delete("a")).await.unwrap().into_inner();
    assert_eq!((answer.deleted, answer.header.unwrap().revision), (1, 5));
    let answer = kv.delete_range(delete("a")).await.unwrap().into_inner();
    assert_eq!((answer.deleted, answer.header.unwrap().revision), (0, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_compare_and_nest() {
    let mesh = Mesh::form(1).await;
    let mut kv = mesh.node(0).kv();
    let absent = Compare {
        key: "lock".into(),
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        target_union: Some(TargetUnion::CreateRevision(0)),
        ..Default::default()
    };
    let inner = TxnRequest {
        success: vec![op(Op::RequestPut(put("in", "1")))],
        ..Default::default()
    };
    let take = TxnRequest {
        compare: vec![absent],
        success: vec![
            op(Op::RequestPut(put("lock", "me"))),
            op(Op::RequestTxn(inner)),
            op(Op::RequestRange(get("lock"))),
        ],
        failure: vec![op(Op::RequestRange(RangeRequest {
            serializable: true,
            ..get("lock")
        }))],
    };
    let first = kv.txn(take.clone()).await.unwrap().into_inner();
    assert!(first.succeeded);
    assert_eq!(first.header.unwrap().revision, 2);
    let Some(Part::ResponseRange(read)) = &first.responses[2].response else {
        panic!("a range")
    };
    assert_eq!(
        read.kvs[0].value, "me",
        "a read sees the transaction's own write"
    );
    assert_eq!(read.header.unwrap().revision, 2);
    let second = kv.txn(take).await.unwrap().into_inner();
    assert!(!second.succeeded);
    assert_eq!(second.header.unwrap().revision, 2, "it changed nothing");

    let reading = TxnRequest {
        success: vec![op(Op::RequestRange(all()))],
        ..Default::default()
    };
    let read = kv.txn(reading).await.unwrap().into_inner();
    let Some(Part::ResponseRange(read)) = &read.responses[0].response else {
        panic!("a range")
    };
    assert_eq!(read.count, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_in_etcds_words_and_surely_not_proposed() {
    let mesh = Mesh::form(1).await;
    let mut kv = mesh.node(0).kv();
    let puts = [
        (put("", "v"), errors::empty_key()),
        (
            PutRequest {
                ignore_value: true,
                ..put("a", "v")
            },
            errors::value_provided(),
        ),
        (
            PutRequest {
                ignore_lease: true,
                lease: 1,
                ..put("a", "v")
            },
            errors::lease_provided(),
        ),
        (
            put("a", &"x".repeat(1536 * 1024)),
            errors::request_too_large(),
        ),
    ];
    for (request, expected) in puts {
        let error = kv.put(request).await.unwrap_err();
        assert_same(&error, &expected);
        assert_eq!(Proposed::of(&error), Some(Proposed::No), "{expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_store_can_tell_is_said_in_etcds_words_too() {
    let mesh = Mesh::form(1).await;
    let mut kv = mesh.node(0).kv();
    let twice = vec![
        op(Op::RequestPut(put("a", "1"))),
        op(Op::RequestPut(put("a", "2"))),
    ];
    let many = |count: usize| TxnRequest {
        success: (0..count)
            .map(|n| op(Op::RequestPut(put(&n.to_string(), ""))))
            .collect(),
        ..Default::default()
    };
    let error = kv.txn(many(129)).await.unwrap_err();
    assert_same(&error, &errors::too_many_ops());
    kv.txn(many(128)).await.unwrap();
    let error = kv
        .txn(TxnRequest {
            success: twice,
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_same(&error, &errors::duplicate_key());

    let error = kv
        .put(PutRequest {
            lease: 5,
            ..put("a", "v")
        })
        .await
        .unwrap_err();
    assert_same(&error, &errors::lease_not_found());
    let error = kv
        .put(PutRequest {
            ignore_value: true,
            ..put("no", "")
        })
        .await
        .unwrap_err();
    assert_same(&error, &errors::key_not_found());
    assert_same(&kv.range(get("")).await.unwrap_err(), &errors::empty_key());
    assert_same(
        &kv.delete_range(delete("")).await.unwrap_err(),
        &errors::empty_key(),
    );
    let order = RangeRequest {
        sort_order: 9,
        ..get("a")
    };
    assert_same(
        &kv.range(order).await.unwrap_err(),
        &errors::invalid_sort_option(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_that_are_gone_or_to_come() {
    let mesh = Mesh::form(1).await;
    let mut kv = mesh.node(0).kv();
    for _ in 0..4 {
        kv.put(put("a", "v")).await.unwrap();
    }
    let at = |revision| RangeRequest {
        revision,
        ..get("a")
    };
    let compact = |revision| CompactionRequest {
        revision,
        physical: true,
    };
    assert_same(
        &kv.range(at(6)).await.unwrap_err(),
        &errors::future_revision(),
    );
    assert_same(
        &kv.compact(compact(6)).await.unwrap_err(),
        &errors::future_revision(),
    );
    kv.compact(compact(4)).await.unwrap();
    assert_same(&kv.range(at(3)).await.unwrap_err(), &errors::compacted());
    assert_same(
        &kv.compact(compact(4)).await.unwrap_err(),
        &errors::compacted(),
    );
    kv.range(at(4)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_range_is_the_range_in_pieces() {
    let mesh = Mesh::form(1).await;
    let mut kv = mesh.node(0).kv();
    let value = "x".repeat(20_000);
    for n in 0..120 {
        kv.put(put(&format!("k{n:03}"), &value)).await.unwrap();
    }
    let mut stream = kv.range_stream(all()).await.unwrap().into_inner();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.message().await.unwrap() {
        pieces.push(piece.range_response.unwrap());
    }
    assert_eq!(pieces[0].kvs.len(), 10);
    assert!(pieces.len() > 3, "{}", pieces.len());
    let last = pieces.pop().unwrap();
    assert_eq!((last.count, last.header.unwrap().revision), (120, 121));
    assert!(
        pieces
            .iter()
            .all(|piece| piece.header.is_none() && piece.count == 0)
    );
    let keys: Vec<_> = pieces
        .iter()
        .chain([&last])
        .flat_map(|piece| &piece.kvs)
        .collect();
    assert!(keys.len() == 120 && keys.is_sorted_by_key(|row| &row.key));

    let nothing = kv
        .range_stream(get("none"))
        .await
        .unwrap()
        .into_inner()
        .message()
        .await;
    let nothing = nothing.unwrap().unwrap().range_response.unwrap();
    assert!(nothing.header.is_some() && nothing.kvs.is_empty());
    let sorted = RangeRequest {
        sort_target: 3,
        sort_order: 1,
        ..all()
    };
    assert_eq!(
        kv.range_stream(sorted).await.unwrap_err().code(),
        Code::Unimplemented
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn members_status_and_chores() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    node.kv().put(put("a", "v")).await.unwrap();
    let request = MemberListRequest { linearizable: true };
    let members = ClusterClient::new(node.channel())
        .member_list(request)
        .await
        .unwrap();
    let member = members.into_inner().members.remove(0);
    assert_eq!((member.id, member.is_learner), (node.store.id().0, false));
    assert_eq!(member.client_ur_ls, [format!("http://{}", node.client)]);

    let mut maintenance = MaintenanceClient::new(node.channel());
    let status = maintenance
        .status(StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.leader, status.is_learner),
        (node.store.id().0, false)
    );
    assert!(status.db_size > 0 && status.raft_index > 0 && status.errors.is_empty());
    assert!(
        maintenance
            .alarm(AlarmRequest::default())
            .await
            .unwrap()
            .into_inner()
            .alarms
            .is_empty()
    );
    maintenance.defragment(DefragmentRequest {}).await.unwrap();

    let at = |revision| HashKvRequest { revision };
    let before = maintenance.hash_kv(at(0)).await.unwrap().into_inner();
    node.kv().put(put("b", "v")).await.unwrap();
    assert_eq!(
        maintenance.hash_kv(at(2)).await.unwrap().into_inner().hash,
        before.hash
    );
    assert_ne!(
        maintenance.hash_kv(at(0)).await.unwrap().into_inner().hash,
        before.hash
    );
    assert_same(
        &maintenance.hash_kv(at(9)).await.unwrap_err(),
        &errors::future_revision(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_answers_as_grpcs_own() {
    let mesh = Mesh::form(1).await;
    let mut raw = tonic::client::Grpc::new(mesh.node(0).channel());
    raw.ready().await.unwrap();
    // The two messages are made of a string 1 and a number 1, as these are.
    let codec = tonic_prost::ProstCodec::<AuthRoleAddRequest, MemberListRequest>::default();
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(AuthRoleAddRequest {
        name: "etcdserverpb.KV".into(),
    });
    assert!(
        raw.unary(request, path, codec)
            .await
            .unwrap()
            .into_inner()
            .linearizable,
        "serving"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_own_request_or_connection_only() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let mut kv = node.kv();
    kv.put(put("a", "1")).await.unwrap();

    // Not HTTP/2 at all.
    let mut socket = tokio::net::TcpStream::connect(node.client).await.unwrap();
    socket
        .write_all(b"\x16\x03\x01 this is no preface \r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let closed = socket.read_to_end(&mut rest);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(10), closed)
        .await
        .unwrap();

    // Valid gRPC around bytes that are no PutRequest: its field 1 is no number.
    let mut raw = tonic::client::Grpc::new(node.channel());
    raw.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<MemberListRequest, PutResponse>::default();
    let request = tonic::Request::new(MemberListRequest { linearizable: true });
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let error = raw.unary(request, path, codec).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error}");

    // Far too large: the transport's error, on this request only.
    let error = kv.put(put("a", &"x".repeat(5 << 20))).await.unwrap_err();
    assert!(
        matches!(error.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{error}"
    );

    let answer = kv.range(get("a")).await.unwrap().into_inner();
    assert_eq!(answer.kvs[0].value, "1", "the same connection goes on");
}
