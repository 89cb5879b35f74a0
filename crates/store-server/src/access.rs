//! Who calls, and whether they may: asked of every call on the client port.
//!
//! Owns the rule of each path; a path without one needs a user. The rights by key are judged where
//! the keys are: on the image that a read is answered from, and in apply. Never turns a caller away
//! for what this node has not heard yet: a refusal is looked at again on a linearizable image.

use std::sync::Arc;

use model::CONFIG_PREFIX;
use rpc::{Answer, Answering, Call, Services};
use store_api::errors;
use store_api::verdict::Proposed;
use store_mvcc::{Auth, AuthError, Caller, Command, Image, KeyRange};
use store_raft::Store;
use tonic::codegen::http::{HeaderMap, header};
use tonic::{Request, Status};

use crate::answer::auth_error;
use crate::damaged;
use crate::limits::Limits;
use crate::patience::Patience;
use crate::reads::Reads;
use crate::require_leader::RequireLeader;
use crate::tokens::{Tokens, now_ms};

/// The metadata that carries a token.
const TOKEN: &str = "token";

/// What a path asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Nothing.
    Open,
    /// To be a user.
    User,
    /// To have the role root, by this node's image.
    Root,
    /// The same, by a linearizable image: nothing asks again behind it.
    RootNow,
    /// To be able to read all config.
    Config,
}

/// The rule of a path.
fn rule(path: &str) -> Rule {
    match path {
        "/etcdserverpb.Auth/Authenticate"
        | "/grpc.health.v1.Health/Check"
        | "/grpc.health.v1.Health/Watch" => Rule::Open,
        // The services ask on.
        "/etcdserverpb.Auth/UserGet"
        | "/etcdserverpb.Auth/RoleGet"
        | "/etcdserverpb.Cluster/MemberList"
        | "/etcdserverpb.Maintenance/Alarm"
        | "/etcdserverpb.Maintenance/Status" => Rule::User,
        "/etcdserverpb.Maintenance/Defragment"
        | "/etcdserverpb.Maintenance/Hash"
        | "/etcdserverpb.Maintenance/HashKV"
        | "/etcdserverpb.Maintenance/Snapshot" => Rule::Root,
        "/skein.v1.Mesh/Explain" | "/skein.v1.Mesh/Graph" => Rule::Config,
        // Changes of users are judged by apply, too, but not before a password is hashed.
        _ if path.starts_with("/etcdserverpb.Auth/") => Rule::Root,
        _ if path.starts_with("/etcdserverpb.Cluster/")
            || path.starts_with("/etcdserverpb.Maintenance/") =>
        {
            Rule::RootNow
        }
        _ => Rule::User,
    }
}

impl Rule {
    fn judge(self, auth: &Auth, caller: &Caller) -> Result<(), AuthError> {
        match self {
            Self::Open => Ok(()),
            Self::User => auth.check_user(caller),
            Self::Root | Self::RootNow => auth.check_root(caller),
            Self::Config => auth.check_read(caller, &KeyRange::prefix(CONFIG_PREFIX)),
        }
    }
}

/// Judges calls. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Access {
    store: Store,
    reads: Reads,
    tokens: Arc<Tokens>,
    limits: Limits,
}

impl Access {
    pub(crate) fn new(store: Store, reads: Reads, limits: Limits) -> Self {
        let tokens = Arc::new(Tokens::new(limits.auth_token_ttl));
        Self {
            store,
            reads,
            tokens,
            limits,
        }
    }

    /// The store that is asked.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Refuses, before it is proposed, what its caller may not.
    ///
    /// # Errors
    /// etcd's.
    pub(crate) async fn admit(
        &self,
        caller: &Caller,
        command: &Command,
        patience: Patience,
    ) -> Result<(), Status> {
        let judge = |image: &Image| {
            let judged = image.check_command(caller, command);
            judged.map_err(auth_error)
        };
        self.twice(&self.store.image(), judge, patience).await
    }

    /// Whether the caller has the role root, by now.
    ///
    /// # Errors
    /// etcd's, and `Unavailable` when no leader answered in time.
    pub(crate) async fn check_root(
        &self,
        caller: &Caller,
        patience: Patience,
    ) -> Result<(), Status> {
        let image = self.reads.linearizable(patience).await?;
        image.auth().check_root(caller).map_err(auth_error)
    }

    /// Whether whoever calls `path` may, as nobody, so that [`Access::enter`] need not be asked.
    fn is_open(&self, path: &str, headers: &HeaderMap) -> bool {
        match rule(path) {
            Rule::Open => true,
            Rule::RootNow => false,
            Rule::User | Rule::Root | Rule::Config => {
                !self.store.image().auth().is_enabled() && token(headers).is_none()
            }
        }
    }

    /// Who calls `path`, if they may.
    async fn enter(&self, path: &str, headers: &HeaderMap) -> Result<Caller, Status> {
        let rule = rule(path);
        if rule == Rule::Open {
            return Ok(Caller::Nobody);
        }
        let patience = Patience::of_headers(headers, &self.limits);
        let token = token(headers);
        let judge = |image: &Image| {
            let caller = self.caller(image.auth(), token)?;
            rule.judge(image.auth(), &caller).map_err(auth_error)?;
            Ok(caller)
        };
        let here = self.store.image();
        if rule == Rule::RootNow {
            let read = self.reads.linearizable(patience).await;
            let judged = read.and_then(|image| judge(&image));
            return judged.map_err(|status| Proposed::No.mark(status));
        }
        // Whoever has a token got it where auth is on: that is news here.
        if token.is_some() && !here.auth().is_enabled() {
            let read = self.reads.linearizable(patience).await;
            let judged = judge(&read.unwrap_or(here));
            return judged.map_err(|status| Proposed::No.mark(status));
        }
        self.twice(&here, judge, patience).await
    }

    fn caller(&self, auth: &Auth, token: Option<&[u8]>) -> Result<Caller, Status> {
        let Some(key) = auth.token_key() else {
            return Ok(Caller::Nobody);
        };
        let Some(token) = token else {
            return Err(errors::user_empty());
        };
        let caller = self.tokens.open(key, token, now_ms());
        caller.ok_or_else(errors::invalid_auth_token)
    }

    /// Judges on this node's own image, and before it refuses, on a linearizable one, if there is one.
    async fn twice<T>(
        &self,
        here: &Image,
        judge: impl Fn(&Image) -> Result<T, Status>,
        patience: Patience,
    ) -> Result<T, Status> {
        let refused = match judge(here) {
            Ok(found) => return Ok(found),
            Err(refused) => refused,
        };
        match self.reads.linearizable(patience).await {
            Ok(image) => judge(&image),
            Err(_) => Err(refused),
        }
        .map_err(|status| Proposed::No.mark(status))
    }
}

/// The token that a call brings; the second name is the one of etcd's gateway.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let token = headers
        .get(TOKEN)
        .or_else(|| headers.get(header::AUTHORIZATION));
    token.map(|token| {
        let bytes = token.as_bytes();
        let bare = bytes.split_at_checked("bearer ".len());
        match bare {
            Some((kind, bare)) if kind.eq_ignore_ascii_case(b"bearer ") => bare,
            _ => bytes,
        }
    })
}

/// Who makes a call that came through the client port.
pub fn caller_of<T>(request: &Request<T>) -> Caller {
    // A call that was not asked comes as nobody's.
    let caller = request.extensions().get::<Caller>();
    caller.cloned().unwrap_or_default()
}

/// Services that ask every call who makes it. A clone is the same.
#[derive(Clone)]
pub(crate) struct Guarded(Arc<Behind>);

/// What is behind the guard, and whom the guard asks.
struct Behind {
    services: Services,
    access: Access,
    required: RequireLeader,
}

impl Guarded {
    pub(crate) fn new(services: Services, access: Access, required: RequireLeader) -> Self {
        Self(Arc::new(Behind {
            services,
            access,
            required,
        }))
    }

    /// Whether gRPC has the service that `call` names.
    pub(crate) fn have(&self, call: &Call) -> bool {
        self.0.services.have(call)
    }
}

impl Answer for Guarded {
    fn answer(&self, mut call: Call) -> Answering {
        let behind = &self.0;
        if let Err(status) = behind.required.check(call.headers()) {
            return rpc::refuse(status);
        }
        let path = call.uri().path();
        if let Err(status) = damaged::check_path(&behind.access.store, path) {
            return rpc::refuse(status);
        }
        // Nearly always nobody need be asked.
        if behind.access.is_open(call.uri().path(), call.headers()) {
            return behind.services.answer(call);
        }
        let behind = Arc::clone(behind);
        Box::pin(async move {
            let access = &behind.access;
            match access.enter(call.uri().path(), call.headers()).await {
                Ok(caller) => {
                    call.extensions_mut().insert(caller);
                    behind.services.answer(call).await
                }
                Err(status) => status.into_http(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_rule_names_needs_a_user() {
        assert_eq!(rule("/etcdserverpb.KV/Range"), Rule::User);
        assert_eq!(rule("/some.new.Service/Method"), Rule::User);
        assert_eq!(rule("/etcdserverpb.Auth/SomethingNew"), Rule::Root);
        assert_eq!(
            rule("/etcdserverpb.Maintenance/SomethingNew"),
            Rule::RootNow
        );
        assert_eq!(rule("/etcdserverpb.Auth/AuthStatus"), Rule::Root);
        assert_eq!(rule("/grpc.health.v1.Health/Other"), Rule::User);
    }

    #[test]
    fn tokens_come_by_two_names_bare_or_not() {
        let told = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            token(&headers).map(<[u8]>::to_vec)
        };
        for value in ["abc", "Bearer abc", "bearer abc"] {
            for name in ["token", "authorization"] {
                assert_eq!(told(name, value).as_deref(), Some(&b"abc"[..]));
            }
        }
        assert_eq!(told("other", "abc"), None);
    }
}
