//! Auth over real connections: who is asked for what, at every node, whatever happens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost_reflect::DescriptorPool;
use store_api::authpb::permission::Type;
use store_api::authpb::{Permission, UserAddOptions};
use store_api::errors;
use store_api::etcdserverpb::alarm_request::AlarmAction;
use store_api::etcdserverpb::auth_client::AuthClient;
use store_api::etcdserverpb::cluster_client::ClusterClient;
use store_api::etcdserverpb::lease_client::LeaseClient;
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;
use store_api::etcdserverpb::watch_client::WatchClient;
use store_api::etcdserverpb::watch_request::RequestUnion;
use store_api::etcdserverpb::*;
use store_api::v3electionpb::election_client::ElectionClient;
use store_api::v3electionpb::{CampaignRequest, LeaderRequest};
use store_api::v3lockpb::lock_client::LockClient;
use store_api::v3lockpb::{LockRequest, UnlockRequest};
use store_api::verdict::Proposed;
use store_client::prefix_end;
use store_server::Limits;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::{Mesh, Node, delete, get, put, until};

const ROOT: (&str, &str) = ("root", "secret of root");
const ANN: (&str, &str) = ("ann", "secret of ann");

pub(crate) fn auth(node: &Node) -> AuthClient<Channel> {
    AuthClient::new(node.channel())
}

/// The request with a token.
pub(crate) fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let token = token.parse().expect("a token is ASCII");
    request.metadata_mut().insert("token", token);
    request
}

pub(crate) async fn sign_in(node: &Node, who: (&str, &str)) -> Result<String, Status> {
    let request = AuthenticateRequest {
        name: who.0.to_owned(),
        password: who.1.to_owned(),
    };
    Ok(auth(node).authenticate(request).await?.into_inner().token)
}

async fn add_user(node: &Node, token: &str, who: (&str, &str)) -> Result<(), Status> {
    let request = AuthUserAddRequest {
        name: who.0.to_owned(),
        password: who.1.to_owned(),
        ..Default::default()
    };
    auth(node).user_add(by(token, request)).await.map(drop)
}

async fn grant(node: &Node, token: &str, user: &str, role: &str) -> Result<(), Status> {
    let request = AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    };
    auth(node)
        .user_grant_role(by(token, request))
        .await
        .map(drop)
}

async fn revoke(node: &Node, token: &str, user: &str, role: &str) -> Result<(), Status> {
    let request = AuthUserRevokeRoleRequest {
        name: user.to_owned(),
        role: role.to_owned(),
    };
    auth(node)
        .user_revoke_role(by(token, request))
        .await
        .map(drop)
}

/// A role of its own for each kind of access to a prefix.
async fn allow(node: &Node, token: &str, kind: Type, prefix: &str) -> Result<(), Status> {
    let (key, range_end) = (prefix.to_owned().into(), prefix_end(prefix.as_bytes()));
    let name = prefix.to_owned();
    let mut client = auth(node);
    let add = AuthRoleAddRequest { name: name.clone() };
    client.role_add(by(token, add)).await?;
    let perm = Some(Permission {
        perm_type: kind.into(),
        key,
        range_end,
    });
    let request = AuthRoleGrantPermissionRequest { name, perm };
    client.role_grant_permission(by(token, request)).await?;
    Ok(())
}

/// `root`, and `ann` who may read `r/`, write `w/` and both `b/`; auth is on. The tokens of both.
pub(crate) async fn guard(node: &Node) -> (String, String) {
    for who in [ROOT, ANN] {
        add_user(node, "", who).await.unwrap();
    }
    grant(node, "", "root", "root").await.unwrap();
    for (kind, prefix) in [
        (Type::Read, "r/"),
        (Type::Write, "w/"),
        (Type::Readwrite, "b/"),
    ] {
        allow(node, "", kind, prefix).await.unwrap();
        grant(node, "", "ann", prefix).await.unwrap();
    }
    auth(node).auth_enable(AuthEnableRequest {}).await.unwrap();
    let root = sign_in(node, ROOT).await.unwrap();
    let ann = sign_in(node, ANN).await.unwrap();
    (root, ann)
}

#[track_caller]
fn assert_same(got: &Status, expected: &Status) {
    assert_eq!(
        (got.code(), got.message()),
        (expected.code(), expected.message())
    );
}

#[track_caller]
fn assert_denied<T: std::fmt::Debug>(got: Result<T, Status>) {
    assert_same(&got.unwrap_err(), &errors::permission_denied());
}

/// Calls a method with an empty message.
async fn call(node: &Node, path: &str, token: Option<&str>) -> Result<(), Status> {
    let mut raw = tonic::client::Grpc::new(node.channel());
    raw.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let mut request = Request::new(tokio_stream::once(()));
    if let Some(token) = token {
        let token = token.parse().unwrap();
        request.metadata_mut().insert("token", token);
    }
    let path = PathAndQuery::try_from(path).unwrap();
    let mut answers = raw.streaming(request, path, codec).await?.into_inner();
    answers.message().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_that_there_is_asks_who_calls() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let (_, ann) = guard(node).await;
    let pool = DescriptorPool::decode(store_api::DESCRIPTORS).unwrap();
    let mut roots = BTreeSet::new();
    let mut methods = 0;
    for service in pool.services() {
        // The peer port's.
        if service.full_name().starts_with("skeinpb.") {
            continue;
        }
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            if path == "/etcdserverpb.Auth/Authenticate" {
                let wrong = call(node, &path, None).await.unwrap_err();
                assert_same(&wrong, &errors::auth_failed());
                continue;
            }
            methods += 1;
            let nobody = call(node, &path, None).await.expect_err(&path);
            assert_eq!(nobody.message(), errors::user_empty().message(), "{path}");
            assert_eq!(nobody.code(), Code::InvalidArgument, "{path}");
            assert_eq!(Proposed::of(&nobody), Some(Proposed::No), "{path}");
            let false_one = call(node, &path, Some("abc.7")).await.expect_err(&path);
            assert_same(&false_one, &errors::invalid_auth_token());
            // What would wait for more requests needs no root.
            let waits = ["Watch", "Observe"].contains(&method.name());
            if !waits
                && let Err(status) = call(node, &path, Some(&ann)).await
                && status.code() == Code::PermissionDenied
            {
                roots.insert(method.name().to_owned());
            }
        }
    }
    assert!(methods > 40, "{methods}");
    let expected = [
        "AuthEnable AuthDisable AuthStatus UserAdd UserGet UserList UserDelete UserChangePassword",
        "UserGrantRole UserRevokeRole RoleAdd RoleGet RoleList RoleDelete RoleGrantPermission",
        "RoleRevokePermission MemberAdd MemberRemove MemberUpdate MemberPromote Defragment Hash",
        "HashKV Snapshot MoveLeader Downgrade Compact",
        // By their keys, which are none of hers.
        "Lock Campaign Leader",
    ];
    let expected: BTreeSet<String> = expected
        .iter()
        .flat_map(|line| line.split(' '))
        .map(str::to_owned)
        .collect();
    assert_eq!(roots, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_open_to_whom_they_were_granted_at_every_node() {
    let mesh = Mesh::form(3).await;
    let (root, ann) = guard(mesh.node(0)).await;
    let (root, ann) = (&*root, &*ann);
    for key in ["r/1", "w/1", "b/1", "x"] {
        mesh.node(1)
            .kv()
            .put(by(root, put(key, "v")))
            .await
            .unwrap();
    }
    for node in mesh.running() {
        let mut kv = node.kv();
        kv.range(by(ann, get("r/1"))).await.unwrap();
        assert_denied(kv.range(by(ann, get("w/1"))).await);
        assert_denied(kv.range(by(ann, get("x"))).await);
        let wide = |key: &'static str, end: &'static str| RangeRequest {
            range_end: end.into(),
            ..get(key)
        };
        kv.range(by(ann, wide("r/", "r0"))).await.unwrap();
        assert_denied(kv.range(by(ann, wide("r/", "\0"))).await);
        assert_denied(kv.range(by(ann, wide("r/", "r1"))).await);
        let local = RangeRequest {
            serializable: true,
            ..get("x")
        };
        assert_denied(kv.range(by(ann, local)).await);
        assert_denied(kv.range_stream(by(ann, get("x"))).await);
        kv.range_stream(by(ann, get("b/1"))).await.unwrap();

        kv.put(by(ann, put("w/1", "2"))).await.unwrap();
        assert_denied(kv.put(by(ann, put("r/1", "2"))).await);
        let telling = |key| PutRequest {
            prev_kv: true,
            ..put(key, "3")
        };
        assert_denied(kv.put(by(ann, telling("w/1"))).await);
        kv.put(by(ann, telling("b/1"))).await.unwrap();
        assert_denied(kv.delete_range(by(ann, delete("r/1"))).await);
        let telling = DeleteRangeRequest {
            prev_kv: true,
            ..delete("w/none")
        };
        assert_denied(kv.delete_range(by(ann, telling)).await);
        kv.delete_range(by(ann, delete("w/none"))).await.unwrap();

        let refused = kv.put(put("b/1", "v")).await.unwrap_err();
        assert_same(&refused, &errors::user_empty());
        assert_eq!(Proposed::of(&refused), Some(Proposed::No));
        let compaction = CompactionRequest {
            revision: 2,
            physical: false,
        };
        assert_denied(kv.compact(by(ann, compaction)).await);
    }
    assert_eq!(mesh.node(0).value("x").as_deref(), Some(&b"v"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_a_transaction_counts_at_every_node() {
    let mesh = Mesh::form(3).await;
    let (root, ann) = guard(mesh.node(0)).await;
    let ann = &*ann;
    for node in mesh.running() {
        let mut kv = node.kv();
        let op = |request| RequestOp {
            request: Some(request),
        };
        let range = |key| op(request_op::Request::RequestRange(get(key)));
        let txn = |success, failure| TxnRequest {
            compare: vec![],
            success,
            failure,
        };
        kv.txn(by(ann, txn(vec![range("r/1")], vec![])))
            .await
            .unwrap();
        assert_denied(kv.txn(by(ann, txn(vec![], vec![range("x")]))).await);
        let write = op(request_op::Request::RequestPut(put("b/2", "v")));
        let hidden = op(request_op::Request::RequestTxn(txn(
            vec![range("x")],
            vec![],
        )));
        let deep = txn(vec![write.clone()], vec![hidden]);
        assert_denied(kv.txn(by(ann, deep)).await);
        kv.txn(by(ann, txn(vec![write], vec![range("r/1")])))
            .await
            .unwrap();
    }
    let found = mesh.node(2).kv().range(by(&root, get("b/2"))).await;
    assert_eq!(found.unwrap().into_inner().count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn chores_ask_for_a_user_or_for_root() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let (root, ann) = guard(node).await;
    let (root, ann) = (&*root, &*ann);
    let mut cluster = ClusterClient::new(node.channel());
    cluster
        .member_list(by(ann, MemberListRequest::default()))
        .await
        .unwrap();
    let remove = MemberRemoveRequest { id: 7 };
    assert_denied(cluster.member_remove(by(ann, remove)).await);
    let gone = cluster.member_remove(by(root, remove)).await.unwrap_err();
    assert_same(&gone, &errors::member_not_found());

    let mut chores = MaintenanceClient::new(node.channel());
    chores
        .status(by(ann, StatusRequest::default()))
        .await
        .unwrap();
    let alarm = |action: AlarmAction| AlarmRequest {
        action: action.into(),
        ..Default::default()
    };
    chores
        .alarm(by(ann, alarm(AlarmAction::Get)))
        .await
        .unwrap();
    assert_denied(chores.alarm(by(ann, alarm(AlarmAction::Deactivate))).await);
    let disarm = alarm(AlarmAction::Deactivate);
    chores.alarm(by(root, disarm)).await.unwrap();
    chores
        .hash_kv(by(root, HashKvRequest { revision: 0 }))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_locks_and_elections_are_as_open_as_their_keys() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let (root, ann) = guard(node).await;
    let (root, ann) = (&*root, &*ann);
    let mut leases = LeaseClient::new(node.channel());
    let grant = LeaseGrantRequest { id: 7, ttl: 600 };
    leases.lease_grant(by(ann, grant)).await.unwrap();
    let leased = |key| PutRequest {
        lease: 7,
        ..put(key, "v")
    };
    node.kv().put(by(ann, leased("b/1"))).await.unwrap();
    let left = LeaseTimeToLiveRequest { id: 7, keys: true };
    leases.lease_time_to_live(by(ann, left)).await.unwrap();
    node.kv().put(by(root, leased("x"))).await.unwrap();
    assert_denied(leases.lease_time_to_live(by(ann, left)).await);
    let without = LeaseTimeToLiveRequest { id: 7, keys: false };
    leases.lease_time_to_live(by(ann, without)).await.unwrap();
    assert_denied(node.kv().put(by(ann, leased("b/2"))).await);
    let end = LeaseRevokeRequest { id: 7 };
    assert_denied(leases.lease_revoke(by(ann, end)).await);
    leases.lease_revoke(by(root, end)).await.unwrap();

    let mut locks = LockClient::new(node.channel());
    let lock = |name: &'static str| LockRequest {
        name: name.into(),
        lease: 0,
    };
    assert_denied(locks.lock(by(ann, lock("w/lock"))).await);
    let held = locks.lock(by(ann, lock("b/lock"))).await.unwrap();
    let key = held.into_inner().key;
    let mut elections = ElectionClient::new(node.channel());
    let stand = |name: &'static str| CampaignRequest {
        name: name.into(),
        lease: 0,
        value: "me".into(),
    };
    assert_denied(elections.campaign(by(ann, stand("r/who"))).await);
    elections.campaign(by(ann, stand("b/who"))).await.unwrap();
    let who = |name: &'static str| LeaderRequest { name: name.into() };
    elections.leader(by(ann, who("b/who"))).await.unwrap();
    assert_denied(elections.leader(by(ann, who("w/who"))).await);
    assert_denied(elections.observe(by(ann, who("w/who"))).await);
    assert_denied(
        locks
            .unlock(by(ann, UnlockRequest { key: "x".into() }))
            .await,
    );
    locks.unlock(by(ann, UnlockRequest { key })).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_counts_at_every_node_and_outlives_the_leader() {
    let mut mesh = Mesh::form(3).await;
    let leader = mesh.leader().await;
    let (_, ann) = guard(mesh.node(leader)).await;
    for node in mesh.running() {
        node.kv().put(by(&ann, put("b/1", "v"))).await.unwrap();
    }
    mesh.kill(leader);
    mesh.leader().await;
    mesh.settle().await;
    for node in mesh.running() {
        node.kv().put(by(&ann, put("b/2", "v"))).await.unwrap();
        assert_denied(node.kv().put(by(&ann, put("x", "v"))).await);
        sign_in(node, ANN).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_tokens_outlive_a_restart() {
    let mut mesh = Mesh::form(1).await;
    let (root, ann) = guard(mesh.node(0)).await;
    mesh.node(0)
        .kv()
        .put(by(&ann, put("b/1", "v")))
        .await
        .unwrap();
    mesh.restart(0).await;
    mesh.leader().await;
    let node = mesh.node(0);
    let read = node.kv().range(by(&ann, get("b/1"))).await.unwrap();
    assert_eq!(read.into_inner().count, 1);
    assert_denied(node.kv().range(by(&ann, get("x"))).await);
    let nobody = node.kv().range(get("b/1")).await.unwrap_err();
    assert_same(&nobody, &errors::user_empty());
    sign_in(node, ANN).await.unwrap();
    let users = auth(node)
        .user_list(by(&root, AuthUserListRequest {}))
        .await;
    assert_eq!(users.unwrap().into_inner().users, ["ann", "root"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_by_time() {
    let limits = Limits {
        auth_token_ttl: Duration::from_millis(600),
        ..Limits::default()
    };
    let mesh = Mesh::form_with(1, limits).await;
    let node = mesh.node(0);
    let (_, ann) = guard(node).await;
    // Not used meanwhile.
    until("the token to end", async || {
        tokio::time::sleep(Duration::from_millis(800)).await;
        let refused = node.kv().range(by(&ann, get("b/1"))).await.err()?;
        assert_same(&refused, &errors::invalid_auth_token());
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_by_what_becomes_of_their_user() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let (root, ann) = guard(node).await;
    let change = AuthUserChangePasswordRequest {
        name: "ann".to_owned(),
        password: "another".to_owned(),
        ..Default::default()
    };
    let mut client = auth(node);
    assert_denied(client.user_change_password(by(&ann, change.clone())).await);
    client
        .user_change_password(by(&root, change))
        .await
        .unwrap();
    let refused = node.kv().range(by(&ann, get("b/1"))).await.unwrap_err();
    assert_same(&refused, &errors::invalid_auth_token());
    let old = sign_in(node, ANN).await.unwrap_err();
    assert_same(&old, &errors::auth_failed());
    let ann = sign_in(node, ("ann", "another")).await.unwrap();
    node.kv().range(by(&ann, get("b/1"))).await.unwrap();

    let root = sign_in(node, ROOT).await.unwrap();
    client
        .auth_disable(by(&root, AuthDisableRequest {}))
        .await
        .unwrap();
    node.kv().put(put("x", "open to all")).await.unwrap();
    let off = sign_in(node, ANN).await.unwrap_err();
    assert_same(&off, &errors::auth_not_enabled());
    client.auth_enable(AuthEnableRequest {}).await.unwrap();
    let refused = node.kv().range(by(&ann, get("b/1"))).await.unwrap_err();
    assert_same(&refused, &errors::invalid_auth_token());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_gets_through_once_a_revocation_is_answered() {
    let mesh = Arc::new(Mesh::form(3).await);
    let (root, ann) = guard(mesh.node(0)).await;
    let revoked = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for place in 0..3 {
        let (mesh, ann, revoked) = (mesh.clone(), ann.clone(), revoked.clone());
        writers.push(tokio::spawn(async move {
            let mut kv = mesh.node(place).kv();
            let mut allowed = 0_u32;
            loop {
                let too_late = revoked.load(Ordering::SeqCst);
                match kv.put(by(&ann, put("b/1", "v"))).await {
                    Ok(_) => assert!(!too_late, "it was told to be revoked"),
                    Err(status) => {
                        assert_same(&status, &errors::permission_denied());
                        return allowed;
                    }
                }
                allowed += 1;
            }
        }));
    }
    until("some writes", async || {
        let written = mesh.node(0).store.image().revision() > 20;
        written.then_some(())
    })
    .await;
    revoke(mesh.node(1), &root, "ann", "b/").await.unwrap();
    revoked.store(true, Ordering::SeqCst);
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
    // And a right counts at every node as soon as it is answered.
    for round in 0..10 {
        grant(mesh.node(round % 3), &root, "ann", "b/")
            .await
            .unwrap();
        let mut kv = mesh.node((round + 1) % 3).kv();
        kv.put(by(&ann, put("b/1", "v"))).await.unwrap();
        kv.range(by(&ann, get("b/1"))).await.unwrap();
        revoke(mesh.node((round + 2) % 3), &root, "ann", "b/")
            .await
            .unwrap();
        assert_denied(kv.range(by(&ann, get("b/1"))).await);
        assert_denied(kv.put(by(&ann, put("b/1", "v"))).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_its_right_on_every_node() {
    let mesh = Mesh::form(3).await;
    let (root, ann) = guard(mesh.node(0)).await;
    let create = |key: &'static str| WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
            key: key.into(),
            ..Default::default()
        })),
    };
    let mut watches = Vec::new();
    for node in mesh.running() {
        let mut client = WatchClient::new(node.channel());
        let requests = tokio_stream::iter([create("x"), create("b/1")]);
        let mut answers = client.watch(by(&ann, requests)).await.unwrap().into_inner();
        let refused = answers.message().await.unwrap().unwrap();
        assert!(refused.created && refused.canceled, "{refused:?}");
        assert!(refused.cancel_reason.contains("permission denied"));
        assert!(!answers.message().await.unwrap().unwrap().canceled);
        watches.push(answers);
    }
    mesh.node(0)
        .kv()
        .put(by(&root, put("b/1", "1")))
        .await
        .unwrap();
    for answers in &mut watches {
        let seen = answers.message().await.unwrap().unwrap();
        assert_eq!(seen.events.len(), 1);
    }
    revoke(mesh.node(0), &root, "ann", "b/").await.unwrap();
    mesh.node(0)
        .kv()
        .put(by(&root, put("b/1", "2")))
        .await
        .unwrap();
    for answers in &mut watches {
        let ended = answers.message().await.unwrap().unwrap();
        assert!(ended.canceled && ended.events.is_empty(), "{ended:?}");
        assert_eq!(
            ended.cancel_reason,
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_roles_are_told_to_root_and_to_themselves() {
    let mesh = Mesh::form(1).await;
    let node = mesh.node(0);
    let refused = auth(node).auth_enable(AuthEnableRequest {}).await;
    assert_same(&refused.unwrap_err(), &errors::root_user_not_exist());
    add_user(node, "", ROOT).await.unwrap();
    let refused = auth(node).auth_enable(AuthEnableRequest {}).await;
    assert_same(&refused.unwrap_err(), &errors::root_role_not_exist());
    let user = AuthUserDeleteRequest {
        name: "root".to_owned(),
    };
    auth(node).user_delete(user.clone()).await.unwrap();
    let (root, ann) = guard(node).await;
    let mut client = auth(node);
    let refused = client.user_delete(by(&root, user)).await.unwrap_err();
    assert_same(&refused, &errors::invalid_auth_management());

    let user = |name: &str| AuthUserGetRequest {
        name: name.to_owned(),
    };
    let role = |name: &str| AuthRoleGetRequest {
        role: name.to_owned(),
    };
    let own = client.user_get(by(&ann, user("ann"))).await.unwrap();
    assert_eq!(own.into_inner().roles, ["b/", "r/", "w/"]);
    assert_denied(client.user_get(by(&ann, user("root"))).await);
    let own = client.role_get(by(&ann, role("r/"))).await.unwrap();
    let own = own.into_inner().perm;
    assert_eq!(
        (&own[0].key[..], &own[0].range_end[..]),
        (&b"r/"[..], &b"r0"[..])
    );
    assert_denied(client.role_get(by(&ann, role("root"))).await);
    let none = client.user_get(by(&root, user("bob"))).await.unwrap_err();
    assert_same(&none, &errors::user_not_found());
    let none = client.role_get(by(&root, role("no"))).await.unwrap_err();
    assert_same(&none, &errors::role_not_found());
    let status = client.auth_status(by(&root, AuthStatusRequest {})).await;
    let status = status.unwrap().into_inner();
    assert!(status.enabled && status.auth_revision > 10, "{status:?}");
    let roles = client.role_list(by(&root, AuthRoleListRequest {})).await;
    assert_eq!(roles.unwrap().into_inner().roles, ["b/", "r/", "w/"]);

    // Without a password nobody signs in; an empty one is no password.
    let passwordless = AuthUserAddRequest {
        name: "cert".to_owned(),
        options: Some(UserAddOptions { no_password: true }),
        ..Default::default()
    };
    client.user_add(by(&root, passwordless)).await.unwrap();
    for password in ["", "x"] {
        let refused = sign_in(node, ("cert", password)).await.unwrap_err();
        assert_same(&refused, &errors::auth_failed());
    }
    let refused = add_user(node, &root, ("bob", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = sign_in(node, ("none", "x")).await.unwrap_err();
    assert_same(&refused, &errors::auth_failed());
    let taken = add_user(node, &root, ANN).await.unwrap_err();
    assert_same(&taken, &errors::user_already_exists());
    let no_perm = AuthRoleGrantPermissionRequest {
        name: "r/".to_owned(),
        perm: None,
    };
    let refused = client.role_grant_permission(by(&root, no_perm)).await;
    assert_same(&refused.unwrap_err(), &errors::permission_not_given());
}
