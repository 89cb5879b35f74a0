//! A request and an answer for each route, as JSON and as the generated types have them.

use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::watch_request::RequestUnion;
use store_api::{authpb, mvccpb, v3electionpb, v3lockpb};

pub(super) struct Pair {
    pub(super) path: &'static str,
    pub(super) json: Value,
    pub(super) request: Bytes,
    pub(super) answer: Bytes,
    pub(super) told: Value,
    pub(super) streams: bool,
}

fn pair(
    path: &'static str,
    (json, request): (Value, impl Message),
    (answer, told): (impl Message, Value),
) -> Pair {
    Pair {
        path,
        json,
        request: request.encode_to_vec().into(),
        answer: answer.encode_to_vec().into(),
        told,
        streams: [
            "watch",
            "lease/keepalive",
            "maintenance/snapshot",
            "election/observe",
        ]
        .contains(&path),
    }
}

/// Numbers that no double holds.
fn header() -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: u64::MAX,
        member_id: (1 << 53) + 1,
        revision: 7,
        raft_term: 2,
    })
}

fn head() -> Value {
    json!({
        "cluster_id": "18446744073709551615", "member_id": "9007199254740993",
        "revision": "7", "raft_term": "2",
    })
}

/// The answer that is only a header, whatever it is called.
fn only_header() -> (pb::PutResponse, Value) {
    let answer = pb::PutResponse {
        header: header(),
        prev_kv: None,
    };
    (answer, json!({ "header": head() }))
}

fn row() -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: "foo".into(),
        create_revision: 2,
        mod_revision: 7,
        version: 3,
        value: "bar".into(),
        lease: 9,
    }
}

fn row_json() -> Value {
    json!({
        "key": "Zm9v", "create_revision": "2", "mod_revision": "7", "version": "3",
        "value": "YmFy", "lease": "9",
    })
}

fn key(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.into(),
        ..Default::default()
    }
}

pub(super) fn all() -> Vec<Pair> {
    let groups = [
        ranges_and_writes(),
        vec![txn()],
        watches(),
        leases(),
        locks(),
        elections(),
        members(),
        states(),
        chores(),
        sign_in(),
        users(),
        roles(),
    ];
    groups.into_iter().flatten().collect()
}

fn range() -> (Value, pb::RangeRequest) {
    let request = pb::RangeRequest {
        range_end: "fop".into(),
        limit: 3,
        revision: 6,
        sort_order: 2,
        sort_target: 4,
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 1,
        max_mod_revision: 2,
        min_create_revision: 3,
        max_create_revision: 4,
        ..key("foo")
    };
    let json = json!({
        "key": "Zm9v", "range_end": "Zm9w", "limit": "3", "revision": "6",
        "sort_order": "DESCEND", "sort_target": "VALUE", "serializable": true,
        "keys_only": true, "count_only": true, "min_mod_revision": "1",
        "max_mod_revision": "2", "min_create_revision": "3", "max_create_revision": "4",
    });
    (json, request)
}

fn put() -> (Value, pb::PutRequest) {
    let request = pb::PutRequest {
        key: "foo".into(),
        value: "bar".into(),
        lease: 9,
        prev_kv: true,
        ignore_value: true,
        ignore_lease: true,
    };
    let json = json!({
        "key": "Zm9v", "value": "YmFy", "lease": "9", "prev_kv": true, "ignore_value": true,
        "ignore_lease": true,
    });
    (json, request)
}

fn delete() -> (Value, pb::DeleteRangeRequest) {
    let request = pb::DeleteRangeRequest {
        key: "foo".into(),
        range_end: "fop".into(),
        prev_kv: true,
    };
    let json = json!({ "key": "Zm9v", "range_end": "Zm9w", "prev_kv": true });
    (json, request)
}

fn deleted() -> (pb::DeleteRangeResponse, Value) {
    let answer = pb::DeleteRangeResponse {
        header: header(),
        deleted: 1,
        prev_kvs: vec![row()],
    };
    let told = json!({ "header": head(), "deleted": "1", "prev_kvs": [row_json()] });
    (answer, told)
}

fn ranges_and_writes() -> Vec<Pair> {
    let found = pb::RangeResponse {
        header: header(),
        kvs: vec![row(), mvccpb::KeyValue::default()],
        more: true,
        count: 4,
    };
    let found_json =
        json!({ "header": head(), "kvs": [row_json(), {}], "more": true, "count": "4" });
    let written = pb::PutResponse {
        header: header(),
        prev_kv: Some(row()),
    };
    let written_json = json!({ "header": head(), "prev_kv": row_json() });
    let compact = pb::CompactionRequest {
        revision: 5,
        physical: true,
    };
    let compact_json = json!({ "revision": "5", "physical": true });
    vec![
        pair("kv/range", range(), (found, found_json)),
        pair("kv/put", put(), (written, written_json)),
        pair("kv/deleterange", delete(), deleted()),
        pair("kv/compaction", (compact_json, compact), only_header()),
    ]
}

fn txn() -> Pair {
    use pb::compare::TargetUnion;
    use pb::request_op::Request as Op;
    use pb::response_op::Response as Part;

    let op = |request| pb::RequestOp {
        request: Some(request),
    };
    let part = |response| pb::ResponseOp {
        response: Some(response),
    };
    let nested = pb::TxnRequest {
        success: vec![op(Op::RequestDeleteRange(delete().1))],
        ..Default::default()
    };
    let request = pb::TxnRequest {
        compare: vec![pb::Compare {
            result: 3,
            target: 2,
            key: "foo".into(),
            // Set to zero, which is not the same as not set.
            target_union: Some(TargetUnion::ModRevision(0)),
            range_end: "fop".into(),
        }],
        success: vec![op(Op::RequestPut(put().1))],
        failure: vec![op(Op::RequestRange(key("foo"))), op(Op::RequestTxn(nested))],
    };
    let json = json!({
        "compare": [{
            "result": "NOT_EQUAL", "target": "MOD", "key": "Zm9v", "mod_revision": "0",
            "range_end": "Zm9w",
        }],
        "success": [{ "request_put": put().0 }],
        "failure": [
            { "request_range": { "key": "Zm9v" } },
            { "request_txn": { "success": [{ "request_delete_range": delete().0 }] } },
        ],
    });
    let nested = pb::TxnResponse {
        responses: vec![part(Part::ResponseDeleteRange(deleted().0))],
        ..Default::default()
    };
    let answer = pb::TxnResponse {
        header: header(),
        succeeded: true,
        responses: vec![
            part(Part::ResponsePut(pb::PutResponse::default())),
            part(Part::ResponseTxn(nested)),
        ],
    };
    let told = json!({
        "header": head(), "succeeded": true,
        "responses": [
            { "response_put": {} },
            { "response_txn": { "responses": [{ "response_delete_range": deleted().1 }] } },
        ],
    });
    pair("kv/txn", (json, request), (answer, told))
}

fn watches() -> Vec<Pair> {
    let watch = |request| pb::WatchRequest {
        request_union: Some(request),
    };
    let create = watch(RequestUnion::CreateRequest(pb::WatchCreateRequest {
        key: "foo".into(),
        range_end: "fop".into(),
        start_revision: 5,
        progress_notify: true,
        filters: vec![0, 1],
        prev_kv: true,
        watch_id: 8,
        fragment: true,
    }));
    let create_json = json!({ "create_request": {
        "key": "Zm9v", "range_end": "Zm9w", "start_revision": "5", "progress_notify": true,
        "filters": ["NOPUT", "NODELETE"], "prev_kv": true, "watch_id": "8", "fragment": true,
    }});
    let cancel = watch(RequestUnion::CancelRequest(pb::WatchCancelRequest {
        watch_id: 8,
    }));
    let put = mvccpb::Event {
        kv: Some(row()),
        ..Default::default()
    };
    let delete = mvccpb::Event {
        r#type: 1,
        kv: None,
        prev_kv: Some(row()),
    };
    let events = pb::WatchResponse {
        header: header(),
        watch_id: -1,
        created: true,
        canceled: true,
        compact_revision: 4,
        cancel_reason: "why".to_owned(),
        fragment: true,
        events: vec![put, delete],
    };
    let events_json = json!({
        "header": head(), "watch_id": "-1", "created": true, "canceled": true,
        "compact_revision": "4", "cancel_reason": "why", "fragment": true,
        "events": [{ "kv": row_json() }, { "type": "DELETE", "prev_kv": row_json() }],
    });
    let cancel_json = json!({ "cancelRequest": { "watchId": 8 } });
    let nothing = (pb::WatchResponse::default(), json!({}));
    vec![
        pair("watch", (create_json, create), (events, events_json)),
        pair("watch", (cancel_json, cancel), nothing),
    ]
}

fn leases() -> Vec<Pair> {
    let id = || (json!({ "ID": "9" }), pb::LeaseRevokeRequest { id: 9 });
    let grant = pb::LeaseGrantRequest { ttl: 5, id: 9 };
    let granted = pb::LeaseGrantResponse {
        header: header(),
        id: 9,
        ttl: 5,
        error: "why".to_owned(),
    };
    let granted_json = json!({ "header": head(), "ID": "9", "TTL": "5", "error": "why" });
    let ask_left = || {
        let request = pb::LeaseTimeToLiveRequest { id: 9, keys: true };
        (json!({ "ID": "9", "keys": true }), request)
    };
    let left = || {
        let answer = pb::LeaseTimeToLiveResponse {
            header: header(),
            id: 9,
            ttl: -1,
            granted_ttl: 5,
            keys: vec!["foo".into()],
        };
        let told = json!({
            "header": head(), "ID": "9", "TTL": "-1", "grantedTTL": "5", "keys": ["Zm9v"],
        });
        (answer, told)
    };
    let all = || {
        let answer = pb::LeaseLeasesResponse {
            header: header(),
            leases: vec![pb::LeaseStatus { id: 9 }],
        };
        (
            answer,
            json!({ "header": head(), "leases": [{ "ID": "9" }] }),
        )
    };
    let alive = pb::LeaseKeepAliveResponse {
        header: header(),
        id: 9,
        ttl: 5,
    };
    let alive_json = json!({ "header": head(), "ID": "9", "TTL": "5" });
    let grant_json = json!({ "TTL": "5", "ID": "9" });
    let nothing = || (json!({}), ());
    vec![
        pair("lease/grant", (grant_json, grant), (granted, granted_json)),
        pair("lease/revoke", id(), only_header()),
        pair("kv/lease/revoke", id(), only_header()),
        pair("lease/keepalive", id(), (alive, alive_json)),
        pair("lease/timetolive", ask_left(), left()),
        pair("kv/lease/timetolive", ask_left(), left()),
        pair("lease/leases", nothing(), all()),
        pair("kv/lease/leases", nothing(), all()),
    ]
}

fn locks() -> Vec<Pair> {
    let lock = v3lockpb::LockRequest {
        name: "foo".into(),
        lease: 9,
    };
    let locked = v3lockpb::LockResponse {
        header: header(),
        key: "bar".into(),
    };
    let unlock = v3lockpb::UnlockRequest { key: "bar".into() };
    vec![
        pair(
            "lock/lock",
            (json!({ "name": "Zm9v", "lease": "9" }), lock),
            (locked, json!({ "header": head(), "key": "YmFy" })),
        ),
        pair(
            "lock/unlock",
            (json!({ "key": "YmFy" }), unlock),
            only_header(),
        ),
    ]
}

fn elections() -> Vec<Pair> {
    let place = || {
        Some(v3electionpb::LeaderKey {
            name: "foo".into(),
            key: "bar".into(),
            rev: 7,
            lease: 9,
        })
    };
    let place_json = || json!({ "name": "Zm9v", "key": "YmFy", "rev": "7", "lease": "9" });
    let campaign = v3electionpb::CampaignRequest {
        name: "foo".into(),
        lease: 9,
        value: "bar".into(),
    };
    let elected = v3electionpb::CampaignResponse {
        header: header(),
        leader: place(),
    };
    let proclaim = v3electionpb::ProclaimRequest {
        leader: place(),
        value: "bar".into(),
    };
    let resign = v3electionpb::ResignRequest { leader: place() };
    let who = || {
        let request = v3electionpb::LeaderRequest { name: "foo".into() };
        (json!({ "name": "Zm9v" }), request)
    };
    let leader = || {
        let answer = v3electionpb::LeaderResponse {
            header: header(),
            kv: Some(row()),
        };
        (answer, json!({ "header": head(), "kv": row_json() }))
    };
    vec![
        pair(
            "election/campaign",
            (
                json!({ "name": "Zm9v", "lease": "9", "value": "YmFy" }),
                campaign,
            ),
            (elected, json!({ "header": head(), "leader": place_json() })),
        ),
        pair(
            "election/proclaim",
            (json!({ "leader": place_json(), "value": "YmFy" }), proclaim),
            only_header(),
        ),
        pair("election/leader", who(), leader()),
        pair("election/observe", who(), leader()),
        pair(
            "election/resign",
            (json!({ "leader": place_json() }), resign),
            only_header(),
        ),
    ]
}

fn members() -> Vec<Pair> {
    let urls = || vec!["http://a:2380".to_owned(), "http://b:2380".to_owned()];
    let member = || pb::Member {
        id: 3,
        name: "n3".to_owned(),
        peer_ur_ls: urls(),
        client_ur_ls: vec!["http://a:2379".to_owned()],
        is_learner: true,
    };
    let member_json = json!({
        "ID": "3", "name": "n3", "peerURLs": urls(), "clientURLs": ["http://a:2379"],
        "isLearner": true,
    });
    let list = || {
        let answer = pb::MemberListResponse {
            header: header(),
            members: vec![member()],
        };
        (
            answer,
            json!({ "header": head(), "members": [member_json] }),
        )
    };
    let add = pb::MemberAddRequest {
        peer_ur_ls: urls(),
        is_learner: true,
    };
    let added = pb::MemberAddResponse {
        header: header(),
        member: Some(member()),
        members: vec![member()],
    };
    let added_json = json!({ "header": head(), "member": member_json, "members": [member_json] });
    let update = pb::MemberUpdateRequest {
        id: 3,
        peer_ur_ls: urls(),
    };
    let linearizable = pb::MemberListRequest { linearizable: true };
    let id = || (json!({ "ID": "3" }), pb::MemberRemoveRequest { id: 3 });
    let add_json = json!({ "peerURLs": urls(), "isLearner": true });
    let update_json = json!({ "ID": "3", "peerURLs": urls() });
    vec![
        pair("cluster/member/add", (add_json, add), (added, added_json)),
        pair("cluster/member/remove", id(), list()),
        pair("cluster/member/update", (update_json, update), list()),
        pair(
            "cluster/member/list",
            (json!({ "linearizable": true }), linearizable),
            list(),
        ),
        pair("cluster/member/promote", id(), list()),
    ]
}

fn states() -> Vec<Pair> {
    let status = pb::StatusResponse {
        header: header(),
        version: "3.7.0".to_owned(),
        db_size: 1,
        leader: 3,
        raft_index: 4,
        raft_term: 5,
        raft_applied_index: 6,
        errors: vec!["why".to_owned()],
        db_size_in_use: 7,
        is_learner: true,
        storage_version: "3.7.0".to_owned(),
        db_size_quota: 8,
        downgrade_info: Some(pb::DowngradeInfo {
            enabled: true,
            target_version: "3.6.0".to_owned(),
        }),
    };
    let status_json = json!({
        "header": head(), "version": "3.7.0", "dbSize": "1", "leader": "3", "raftIndex": "4",
        "raftTerm": "5", "raftAppliedIndex": "6", "errors": ["why"], "dbSizeInUse": "7",
        "isLearner": true, "storageVersion": "3.7.0", "dbSizeQuota": "8",
        "downgradeInfo": { "enabled": true, "targetVersion": "3.6.0" },
    });
    let hash_kv = pb::HashKvResponse {
        header: header(),
        hash: u32::MAX,
        compact_revision: 4,
        hash_revision: 6,
    };
    let hash_kv_json = json!({
        "header": head(), "hash": 4_294_967_295_u32, "compact_revision": "4", "hash_revision": "6",
    });
    let hash = pb::HashResponse {
        header: header(),
        hash: 1,
    };
    let revision = pb::HashKvRequest { revision: 6 };
    let revision_json = json!({ "revision": "6" });
    let nothing = || (json!({}), ());
    let hashed = (hash, json!({ "header": head(), "hash": 1 }));
    vec![
        pair("maintenance/status", nothing(), (status, status_json)),
        pair("maintenance/hash", nothing(), hashed),
        pair(
            "maintenance/hashkv",
            (revision_json, revision),
            (hash_kv, hash_kv_json),
        ),
    ]
}

fn chores() -> Vec<Pair> {
    let alarm = pb::AlarmRequest {
        action: 2,
        member_id: 3,
        alarm: 1,
    };
    let alarms = pb::AlarmResponse {
        header: header(),
        alarms: vec![pb::AlarmMember {
            member_id: 3,
            alarm: 2,
        }],
    };
    let alarms_json =
        json!({ "header": head(), "alarms": [{ "memberID": "3", "alarm": "CORRUPT" }] });
    let alarm_json = json!({ "action": "DEACTIVATE", "memberID": "3", "alarm": "NOSPACE" });
    let piece = pb::SnapshotResponse {
        header: header(),
        remaining_bytes: 5,
        blob: "bar".into(),
        version: "3.7.0".to_owned(),
    };
    let piece_json = json!({
        "header": head(), "remaining_bytes": "5", "blob": "YmFy", "version": "3.7.0",
    });
    let downgrade = pb::DowngradeRequest {
        action: 1,
        version: "3.6".to_owned(),
    };
    let downgraded = pb::DowngradeResponse {
        header: header(),
        version: "3.6.0".to_owned(),
    };
    let nothing = || (json!({}), ());
    let target = pb::MoveLeaderRequest { target_id: 3 };
    vec![
        pair(
            "maintenance/alarm",
            (alarm_json, alarm),
            (alarms, alarms_json),
        ),
        pair("maintenance/defragment", nothing(), only_header()),
        pair("maintenance/snapshot", nothing(), (piece, piece_json)),
        pair(
            "maintenance/transfer-leadership",
            (json!({ "targetID": "3" }), target),
            only_header(),
        ),
        pair(
            "maintenance/downgrade",
            (json!({ "action": "ENABLE", "version": "3.6" }), downgrade),
            (downgraded, json!({ "header": head(), "version": "3.6.0" })),
        ),
    ]
}

fn sign_in() -> Vec<Pair> {
    let nothing = || (json!({}), ());
    let status = pb::AuthStatusResponse {
        header: header(),
        enabled: true,
        auth_revision: 4,
    };
    let sign_in = pb::AuthenticateRequest {
        name: "u".to_owned(),
        password: "p".to_owned(),
    };
    let token = pb::AuthenticateResponse {
        header: header(),
        token: "abc.7".to_owned(),
    };
    let status_json = json!({ "header": head(), "enabled": true, "authRevision": "4" });
    let token_json = json!({ "header": head(), "token": "abc.7" });
    let sign_in_json = json!({ "name": "u", "password": "p" });
    vec![
        pair("auth/enable", nothing(), only_header()),
        pair("auth/disable", nothing(), only_header()),
        pair("auth/status", nothing(), (status, status_json)),
        pair(
            "auth/authenticate",
            (sign_in_json, sign_in),
            (token, token_json),
        ),
    ]
}

fn users() -> Vec<Pair> {
    let nothing = || (json!({}), ());
    let name = || {
        let request = pb::AuthUserGetRequest {
            name: "u".to_owned(),
        };
        (json!({ "name": "u" }), request)
    };
    let add = pb::AuthUserAddRequest {
        name: "u".to_owned(),
        password: "p".to_owned(),
        options: Some(authpb::UserAddOptions { no_password: true }),
        hashed_password: "h".to_owned(),
    };
    let add_json = json!({
        "name": "u", "password": "p", "options": { "no_password": true }, "hashedPassword": "h",
    });
    let roles = pb::AuthUserGetResponse {
        header: header(),
        roles: vec!["r".to_owned()],
    };
    let users = pb::AuthUserListResponse {
        header: header(),
        users: vec!["u".to_owned()],
    };
    let change = pb::AuthUserChangePasswordRequest {
        name: "u".to_owned(),
        password: "p".to_owned(),
        hashed_password: "h".to_owned(),
    };
    let change_json = json!({ "name": "u", "password": "p", "hashedPassword": "h" });
    let grant = pb::AuthUserGrantRoleRequest {
        user: "u".to_owned(),
        role: "r".to_owned(),
    };
    let revoke = pb::AuthUserRevokeRoleRequest {
        name: "u".to_owned(),
        role: "r".to_owned(),
    };
    vec![
        pair("auth/user/add", (add_json, add), only_header()),
        pair(
            "auth/user/get",
            name(),
            (roles, json!({ "header": head(), "roles": ["r"] })),
        ),
        pair(
            "auth/user/list",
            nothing(),
            (users, json!({ "header": head(), "users": ["u"] })),
        ),
        pair("auth/user/delete", name(), only_header()),
        pair("auth/user/changepw", (change_json, change), only_header()),
        pair(
            "auth/user/grant",
            (json!({ "user": "u", "role": "r" }), grant),
            only_header(),
        ),
        pair(
            "auth/user/revoke",
            (json!({ "name": "u", "role": "r" }), revoke),
            only_header(),
        ),
    ]
}

fn roles() -> Vec<Pair> {
    let permission = || authpb::Permission {
        perm_type: 2,
        key: "foo".into(),
        range_end: Bytes::from_static(b"\0"),
    };
    let permission_json = json!({ "permType": "READWRITE", "key": "Zm9v", "range_end": "AA==" });
    let name = || {
        let request = pb::AuthRoleGetRequest {
            role: "r".to_owned(),
        };
        (json!({ "role": "r" }), request)
    };
    let add = pb::AuthRoleAddRequest {
        name: "r".to_owned(),
    };
    let found = pb::AuthRoleGetResponse {
        header: header(),
        perm: vec![permission()],
    };
    let roles = pb::AuthRoleListResponse {
        header: header(),
        roles: vec!["r".to_owned()],
    };
    let grant = pb::AuthRoleGrantPermissionRequest {
        name: "r".to_owned(),
        perm: Some(permission()),
    };
    let revoke = pb::AuthRoleRevokePermissionRequest {
        role: "r".to_owned(),
        key: "foo".into(),
        range_end: "fop".into(),
    };
    let grant_json = json!({ "name": "r", "perm": permission_json });
    let revoke_json = json!({ "role": "r", "key": "Zm9v", "range_end": "Zm9w" });
    let found_json = json!({ "header": head(), "perm": [permission_json] });
    vec![
        pair(
            "auth/role/add",
            (json!({ "name": "r" }), add),
            only_header(),
        ),
        pair("auth/role/get", name(), (found, found_json)),
        pair(
            "auth/role/list",
            (json!({}), ()),
            (roles, json!({ "header": head(), "roles": ["r"] })),
        ),
        pair("auth/role/delete", name(), only_header()),
        pair("auth/role/grant", (grant_json, grant), only_header()),
        pair("auth/role/revoke", (revoke_json, revoke), only_header()),
    ]
}
