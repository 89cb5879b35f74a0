//! Watchers whose rights come and go.

use store_mvcc::{Access, AuthOp, Hash, Permission, TokenKey};

use super::*;

const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
const INVALID: &str = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";

impl Bench {
    fn change(&mut self, op: AuthOp) {
        self.apply(Command::Auth(op));
    }

    /// A store in which `u` may read `a/` by one role and `b/` by another, and a session of `u`.
    fn guarded() -> (Self, Client) {
        let mut bench = Self::new();
        let user = |name: &str| AuthOp::AddUser {
            name: name.to_owned(),
            hash: Some(Hash("x".to_owned())),
        };
        bench.change(user("root"));
        bench.change(user("u"));
        bench.change(grant("root", "root"));
        for role in ["a", "b"] {
            let name = role.to_owned();
            bench.change(AuthOp::AddRole { name });
            bench.change(AuthOp::GrantPermission {
                role: role.to_owned(),
                permission: Permission {
                    access: Access::Read,
                    range: KeyRange::prefix(format!("{role}/")),
                },
            });
            bench.change(grant("u", role));
        }
        let key = TokenKey([1; 32]);
        bench.change(AuthOp::Enable { key });
        let revision = bench.machine.image().auth().revision();
        let name = "u".to_owned();
        let client = bench.client_by(Caller::User { name, revision });
        (bench, client)
    }
}

fn grant(user: &str, role: &str) -> AuthOp {
    AuthOp::GrantRole {
        user: user.to_owned(),
        role: role.to_owned(),
    }
}

fn revoke(role: &str) -> AuthOp {
    AuthOp::RevokeRole {
        user: "u".to_owned(),
        role: role.to_owned(),
    }
}

fn below(prefix: &'static str) -> WatchCreateRequest {
    let (key, range_end) = KeyRange::prefix(prefix).to_etcd();
    WatchCreateRequest {
        key,
        range_end,
        ..Default::default()
    }
}

#[tokio::test]
async fn what_may_not_be_read_is_not_watched() {
    let (bench, mut client) = Bench::guarded();
    for request in [key("c"), below("a"), everything(0), key("a0")] {
        let answer = client.create(request).await;
        assert!(answer.created && answer.canceled && answer.watch_id == -1);
        assert_eq!(answer.cancel_reason, DENIED);
    }
    assert!(client.create(below("a/")).await.cancel_reason.is_empty());
    let mut nobody = bench.client_by(Caller::Nobody);
    let answer = nobody.create(key("a/1")).await;
    assert_eq!(
        answer.cancel_reason,
        "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"
    );
}

#[tokio::test]
async fn a_watcher_that_loses_its_right_is_ended_and_gets_nothing_more() {
    let (mut bench, mut client) = Bench::guarded();
    let first = client.create(below("a/")).await.watch_id;
    let second = client.create(below("b/")).await.watch_id;
    bench.put("a/1", "seen");
    let seen = client.next().await;
    assert_eq!((seen.watch_id, seen.events.len()), (first, 1));
    // Made and handed out before the right is gone, and not taken yet.
    bench.put("a/2", "pending");
    bench.published().await;
    bench.change(revoke("a"));
    let ended = client.next().await;
    assert!(ended.canceled && ended.events.is_empty(), "{ended:?}");
    assert_eq!((ended.watch_id, &*ended.cancel_reason), (first, DENIED));
    bench.put("a/3", "secret");
    bench.put("b/1", "public");
    let other = client.next().await;
    assert_eq!((other.watch_id, other.events.len()), (second, 1));
    assert!(client.is_quiet().await);
    bench.change(grant("u", "a"));
    assert!(!client.create(below("a/")).await.canceled, "it may again");
}

#[tokio::test]
async fn an_idle_watcher_hears_of_its_end_at_once_and_history_is_not_read_out() {
    let (mut bench, mut client) = Bench::guarded();
    client.create(below("a/")).await;
    let waits = tokio::spawn(async move {
        let ended = client.next().await;
        (client, ended)
    });
    tokio::task::yield_now().await;
    bench.change(revoke("a"));
    let (mut client, ended) = in_time(waits).await.expect("it ends");
    assert_eq!(ended.cancel_reason, DENIED);

    for n in 0..10 {
        bench.put("b/1", &n.to_string());
    }
    let from_the_past = WatchCreateRequest {
        start_revision: 2,
        ..below("b/")
    };
    assert!(client.create(from_the_past).await.created);
    bench.change(revoke("b"));
    let ended = client.next().await;
    assert!(ended.canceled && ended.events.is_empty(), "{ended:?}");
}

#[tokio::test]
async fn a_password_that_changed_ends_the_watchers_of_its_user() {
    let (mut bench, mut client) = Bench::guarded();
    client.create(below("a/")).await;
    bench.change(AuthOp::ChangePassword {
        name: "u".to_owned(),
        hash: Hash("y".to_owned()),
    });
    assert_eq!(client.next().await.cancel_reason, INVALID);
}
