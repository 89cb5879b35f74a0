//! Which JSON path stands for which gRPC method, as in etcd.
//!
//! Owns the table. What a method takes and gives is read from the descriptors.

use std::collections::HashMap;
use std::sync::Arc;

use prost_reflect::{DescriptorPool, MethodDescriptor};
use tonic::codegen::http::uri::PathAndQuery;

use super::transcode::Transcoder;

/// What a path of the table begins with: now, and in etcd up to 3.4.
const PREFIXES: [&str; 2] = ["/v3/", "/v3beta/"];

/// Service, method, and its paths below a prefix. `KV.RangeStream` has none in etcd either.
const TABLE: &[(&str, &str, &[&str])] = &[
    ("etcdserverpb.KV", "Range", &["kv/range"]),
    ("etcdserverpb.KV", "Put", &["kv/put"]),
    ("etcdserverpb.KV", "DeleteRange", &["kv/deleterange"]),
    ("etcdserverpb.KV", "Txn", &["kv/txn"]),
    ("etcdserverpb.KV", "Compact", &["kv/compaction"]),
    ("etcdserverpb.Watch", "Watch", &["watch"]),
    ("etcdserverpb.Lease", "LeaseGrant", &["lease/grant"]),
    (
        "etcdserverpb.Lease",
        "LeaseRevoke",
        &["lease/revoke", "kv/lease/revoke"],
    ),
    ("etcdserverpb.Lease", "LeaseKeepAlive", &["lease/keepalive"]),
    (
        "etcdserverpb.Lease",
        "LeaseTimeToLive",
        &["lease/timetolive", "kv/lease/timetolive"],
    ),
    (
        "etcdserverpb.Lease",
        "LeaseLeases",
        &["lease/leases", "kv/lease/leases"],
    ),
    ("etcdserverpb.Cluster", "MemberAdd", &["cluster/member/add"]),
    (
        "etcdserverpb.Cluster",
        "MemberRemove",
        &["cluster/member/remove"],
    ),
    (
        "etcdserverpb.Cluster",
        "MemberUpdate",
        &["cluster/member/update"],
    ),
    (
        "etcdserverpb.Cluster",
        "MemberList",
        &["cluster/member/list"],
    ),
    (
        "etcdserverpb.Cluster",
        "MemberPromote",
        &["cluster/member/promote"],
    ),
    ("etcdserverpb.Maintenance", "Alarm", &["maintenance/alarm"]),
    (
        "etcdserverpb.Maintenance",
        "Status",
        &["maintenance/status"],
    ),
    (
        "etcdserverpb.Maintenance",
        "Defragment",
        &["maintenance/defragment"],
    ),
    ("etcdserverpb.Maintenance", "Hash", &["maintenance/hash"]),
    (
        "etcdserverpb.Maintenance",
        "HashKV",
        &["maintenance/hashkv"],
    ),
    (
        "etcdserverpb.Maintenance",
        "Snapshot",
        &["maintenance/snapshot"],
    ),
    (
        "etcdserverpb.Maintenance",
        "MoveLeader",
        &["maintenance/transfer-leadership"],
    ),
    (
        "etcdserverpb.Maintenance",
        "Downgrade",
        &["maintenance/downgrade"],
    ),
    ("etcdserverpb.Auth", "AuthEnable", &["auth/enable"]),
    ("etcdserverpb.Auth", "AuthDisable", &["auth/disable"]),
    ("etcdserverpb.Auth", "AuthStatus", &["auth/status"]),
    ("etcdserverpb.Auth", "Authenticate", &["auth/authenticate"]),
    ("etcdserverpb.Auth", "UserAdd", &["auth/user/add"]),
    ("etcdserverpb.Auth", "UserGet", &["auth/user/get"]),
    ("etcdserverpb.Auth", "UserList", &["auth/user/list"]),
    ("etcdserverpb.Auth", "UserDelete", &["auth/user/delete"]),
    (
        "etcdserverpb.Auth",
        "UserChangePassword",
        &["auth/user/changepw"],
    ),
    ("etcdserverpb.Auth", "UserGrantRole", &["auth/user/grant"]),
    ("etcdserverpb.Auth", "UserRevokeRole", &["auth/user/revoke"]),
    ("etcdserverpb.Auth", "RoleAdd", &["auth/role/add"]),
    ("etcdserverpb.Auth", "RoleGet", &["auth/role/get"]),
    ("etcdserverpb.Auth", "RoleList", &["auth/role/list"]),
    ("etcdserverpb.Auth", "RoleDelete", &["auth/role/delete"]),
    (
        "etcdserverpb.Auth",
        "RoleGrantPermission",
        &["auth/role/grant"],
    ),
    (
        "etcdserverpb.Auth",
        "RoleRevokePermission",
        &["auth/role/revoke"],
    ),
    ("v3lockpb.Lock", "Lock", &["lock/lock"]),
    ("v3lockpb.Lock", "Unlock", &["lock/unlock"]),
    ("v3electionpb.Election", "Campaign", &["election/campaign"]),
    ("v3electionpb.Election", "Proclaim", &["election/proclaim"]),
    ("v3electionpb.Election", "Leader", &["election/leader"]),
    ("v3electionpb.Election", "Observe", &["election/observe"]),
    ("v3electionpb.Election", "Resign", &["election/resign"]),
];

/// A gRPC method that has a JSON path.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) grpc_path: PathAndQuery,
    pub(super) request: Transcoder,
    pub(super) answer: Transcoder,
    pub(super) shape: Shape,
}

/// How many messages go each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One, and one back.
    Unary,
    /// One, and any number back.
    AnswersStream,
    /// Any number both ways.
    BothStream,
}

/// All methods, by path.
pub(super) struct Methods(HashMap<&'static str, Arc<Method>>);

impl Methods {
    pub(super) fn all() -> Self {
        let pool = DescriptorPool::decode(store_api::DESCRIPTORS)
            .expect("descriptors that the build wrote can be read");
        let mut methods = HashMap::new();
        for &(service, name, paths) in TABLE {
            let descriptor = pool
                .get_service_by_name(service)
                .and_then(|service| service.methods().find(|method| method.name() == name))
                .expect("the table names methods of the .proto files, as a test shows");
            let method = Arc::new(Method::new(service, &descriptor));
            methods.extend(paths.iter().map(|&path| (path, method.clone())));
        }
        Self(methods)
    }

    /// The method that `path` stands for.
    pub(super) fn find(&self, path: &str) -> Option<&Arc<Method>> {
        let mut prefixes = PREFIXES.iter();
        let below = prefixes.find_map(|prefix| path.strip_prefix(prefix))?;
        self.0.get(below)
    }

    #[cfg(test)]
    pub(super) fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}

impl Method {
    fn new(service: &str, descriptor: &MethodDescriptor) -> Self {
        let path = format!("/{service}/{}", descriptor.name());
        let streams = (
            descriptor.is_client_streaming(),
            descriptor.is_server_streaming(),
        );
        Self {
            grpc_path: path.parse().expect("names of methods are good paths"),
            request: Transcoder::new(descriptor.input()),
            answer: Transcoder::new(descriptor.output()),
            shape: match streams {
                (false, false) => Shape::Unary,
                (false, true) => Shape::AnswersStream,
                (true, _) => Shape::BothStream,
            },
        }
    }
}
