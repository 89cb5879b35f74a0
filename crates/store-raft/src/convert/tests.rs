//! Round trips, and refusals of what this version does not know.

use prost::Message;
use store_mvcc::{
    Access, Auth, AuthOp, Caller, GrantOp, Hash, KeepAliveOp, Lease, Permission, Role, TickOp,
    TokenKey, User,
};

use super::leases::{leases_from_pb, leases_to_pb};
use super::*;

fn every_kind_of_op() -> TxnOp {
    let range = KeyRange::from_etcd(Bytes::from_static(b"a"), Bytes::from_static(b"b"));
    let compare = |result, target| Compare {
        range: range.clone(),
        result,
        target,
    };
    let mut sorted = RangeOp::new(KeyRange::all());
    sorted.order = Some((SortTarget::Mod, SortOrder::Descend));
    sorted.limit = 7;
    sorted.keys_only = true;
    sorted.min_mod_revision = 3;
    let put = PutOp {
        lease: 9,
        prev_kv: true,
        ignore_value: true,
        ..PutOp::new("k", "")
    };
    let delete = DeleteOp {
        range: KeyRange::prefix("p"),
        prev_kv: true,
    };
    TxnOp {
        compares: vec![
            compare(CompareResult::Equal, CompareTarget::Version(1)),
            compare(CompareResult::NotEqual, CompareTarget::Create(2)),
            compare(CompareResult::Greater, CompareTarget::Mod(3)),
            compare(CompareResult::Less, CompareTarget::Value("v".into())),
            compare(CompareResult::Equal, CompareTarget::Lease(5)),
        ],
        success: vec![
            Op::Range(sorted),
            Op::Put(put),
            Op::Delete(delete),
            Op::Txn(Box::default()),
        ],
        failure: vec![Op::Range(RangeOp::new(KeyRange::key("k")))],
    }
}

fn every_change_of_users() -> impl Iterator<Item = AuthOp> {
    let permission = Permission {
        access: Access::Write,
        range: KeyRange::prefix("a"),
    };
    let (user, role) = ("u".to_owned(), "r".to_owned());
    let name = user.clone();
    let hash = Hash("$2b$".to_owned());
    [
        AuthOp::Enable {
            key: TokenKey([7; 32]),
        },
        AuthOp::Disable,
        AuthOp::AddUser {
            name: name.clone(),
            hash: None,
        },
        AuthOp::AddUser {
            name: name.clone(),
            hash: Some(hash.clone()),
        },
        AuthOp::DeleteUser { name: name.clone() },
        AuthOp::ChangePassword {
            name: name.clone(),
            hash,
        },
        AuthOp::GrantRole {
            user: user.clone(),
            role: role.clone(),
        },
        AuthOp::RevokeRole {
            user,
            role: role.clone(),
        },
        AuthOp::AddRole { name: name.clone() },
        AuthOp::DeleteRole { name },
        AuthOp::RevokePermission {
            role: role.clone(),
            range: permission.range.clone(),
        },
        AuthOp::GrantPermission { role, permission },
    ]
    .into_iter()
}

#[test]
fn proposals_survive_the_wire() {
    let commands = [
        Command::Put(PutOp::new("k", "v")),
        Command::Delete(DeleteOp::new(KeyRange::all())),
        Command::Txn(every_kind_of_op()),
        Command::Compact { revision: 12 },
        Command::SetClusterVersion(SetVersionOp {
            version: Version { major: 1, minor: 2 },
            downgrade: true,
        }),
        Command::Grant(GrantOp {
            id: -7,
            ttl: 60,
            age_ms: 400,
        }),
        Command::Revoke { lease: 7 },
        Command::KeepAlive(KeepAliveOp {
            ids: vec![7, i64::MAX, i64::MIN],
            age_ms: 1,
        }),
        Command::Tick(TickOp {
            from_ms: 9,
            advance_ms: 500,
            term: 3,
        }),
    ];
    let commands = commands
        .into_iter()
        .chain(every_change_of_users().map(Command::Auth));
    let user = Caller::User {
        name: "u".to_owned(),
        revision: 9,
    };
    for command in commands {
        for config_guard in [None, Some(ConfigRevision(0)), Some(ConfigRevision(4))] {
            for caller in [Caller::Nobody, Caller::Own, user.clone()] {
                let proposal = Proposal {
                    command: command.clone(),
                    caller,
                    config_guard,
                };
                let bytes = proposal_to_pb(&proposal).encode_to_vec();
                let decoded = pb::Proposal::decode(&bytes[..]).unwrap();
                assert_eq!(proposal_from_pb(decoded), Ok(proposal));
            }
        }
    }
}

#[test]
fn a_command_of_a_newer_version_is_an_error() {
    // Field 14 does not exist here: it decodes as a proposal without a command.
    let newer = pb::Proposal::decode(&b"\x72\x03abc"[..]).unwrap();
    assert_eq!(proposal_from_pb(newer), Err(Unknown("command")));
}

#[test]
fn unknown_kinds_inside_a_transaction_are_errors() {
    let no_op = etcd::TxnRequest {
        success: vec![etcd::RequestOp::default()],
        ..Default::default()
    };
    assert!(txn_from_pb(no_op).is_err());
    let strange = etcd::Compare {
        result: 99,
        ..Default::default()
    };
    let strange = etcd::TxnRequest {
        compare: vec![strange],
        ..Default::default()
    };
    assert!(txn_from_pb(strange).is_err());
    let order = etcd::RangeRequest {
        sort_order: 99,
        ..Default::default()
    };
    assert!(range_from_pb(order).is_err());
}

#[test]
fn transactions_nest_only_so_deep() {
    let nest = |depth: usize| {
        (1..depth).fold(TxnOp::default(), |inner, _| TxnOp {
            success: vec![Op::Txn(Box::new(inner))],
            ..TxnOp::default()
        })
    };
    for (depth, fits) in [(1, true), (TXN_DEPTH_MAX, true), (TXN_DEPTH_MAX + 1, false)] {
        let txn = nest(depth);
        assert_eq!(txn_from_pb(txn_to_pb(&txn)).is_ok(), fits, "{depth}");
        assert_eq!(is_shallow(&Command::Txn(txn)), fits, "{depth}");
    }
}

#[test]
fn a_compare_without_a_value_compares_with_nothing() {
    let compare = etcd::Compare {
        target: 2,
        key: "k".into(),
        ..Default::default()
    };
    let request = etcd::TxnRequest {
        compare: vec![compare],
        ..Default::default()
    };
    assert_eq!(
        txn_from_pb(request).unwrap().compares[0].target,
        CompareTarget::Mod(0)
    );
}

#[test]
fn a_keep_alive_costs_eight_bytes_a_lease() {
    let keep_alive = |count: i64| {
        let ids = (0..count).map(|n| i64::MAX - n).collect();
        let op = KeepAliveOp { ids, age_ms: 0 };
        proposal_to_pb(&Proposal::new(Command::KeepAlive(op))).encoded_len()
    };
    assert_eq!(keep_alive(2_000) - keep_alive(1_000), 8_000);
}

#[test]
fn a_page_of_leases_whose_lists_differ_in_length_is_an_error() {
    let lease = |id| Lease {
        expires_at_ms: 5,
        id,
        ttl: 2,
    };
    let leases = [lease(-1), lease(1)];
    let page = leases_to_pb(&leases, &[3]);
    assert_eq!(leases_from_pb(&page), Ok(leases.to_vec()));
    let mut short = page.clone();
    short.ttls.pop();
    assert!(leases_from_pb(&short).is_err());
    let mut short = page;
    short.expires_at_ms.pop();
    assert!(leases_from_pb(&short).is_err());
}

#[test]
fn users_and_roles_survive_a_round_trip_and_damage_shows() {
    let permission = |key: &'static str, access| Permission {
        access,
        range: KeyRange::prefix(key),
    };
    let mut auth = Auth::new(Some(TokenKey([3; 32])), 17);
    let user = User {
        password_hash: Some("$2b$10$abc".to_owned()),
        roles: ["root".to_owned(), "r".to_owned()].into(),
        tokens_from: 5,
    };
    auth.put_user("root", user);
    auth.put_user("nobody", User::default());
    let permissions = [
        permission("a", Access::Read),
        permission("b", Access::Write),
    ];
    auth.put_role("r", Role::new(permissions));
    let encoded = auth::auth_to_pb(&auth);
    assert_eq!(auth::auth_from_pb(encoded.clone()), Ok(auth));
    let mut damaged = encoded;
    damaged.token_key = Bytes::from_static(b"short");
    assert!(auth::auth_from_pb(damaged).is_err());
}
