//! Changes in etcd's order of refusals, and who may do what at which moment.

use super::*;
use crate::{
    Command, CommandError, Compare, CompareResult, CompareTarget, DeleteOp, GrantOp, Image,
    KeepAliveOp, Machine, Op, Proposal, PutOp, RangeOp, SetVersionOp, TickOp, TxnOp,
};

fn change(machine: &mut Machine, op: AuthOp) -> Result<(), AuthError> {
    let before = machine.image();
    let outcome = machine.apply(&Proposal::own(Command::Auth(op)));
    assert_eq!(outcome.revision, before.revision(), "no key changed");
    match outcome.result {
        Ok(_) => Ok(()),
        Err(CommandError::Auth(error)) => {
            assert_eq!(machine.image(), before);
            Err(error)
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn add_user(name: &str) -> AuthOp {
    AuthOp::AddUser {
        name: name.to_owned(),
        hash: Some(Hash(format!("hash of {name}"))),
    }
}

fn add_role(name: &str) -> AuthOp {
    AuthOp::AddRole {
        name: name.to_owned(),
    }
}

fn grant(user: &str, role: &str) -> AuthOp {
    AuthOp::GrantRole {
        user: user.to_owned(),
        role: role.to_owned(),
    }
}

fn revoke(user: &str, role: &str) -> AuthOp {
    AuthOp::RevokeRole {
        user: user.to_owned(),
        role: role.to_owned(),
    }
}

fn allow(role: &str, access: Access, range: KeyRange) -> AuthOp {
    AuthOp::GrantPermission {
        role: role.to_owned(),
        permission: Permission { access, range },
    }
}

const ENABLE: AuthOp = AuthOp::Enable {
    key: TokenKey([1; 32]),
};

/// A user `u`, who may read `r/`, write `w/` and both `b/`; `root`; and auth is on.
fn machine() -> Machine {
    let mut machine = Machine::new();
    for op in [
        add_user("root"),
        grant("root", "root"),
        add_user("u"),
        add_role("some"),
        add_role("more"),
        grant("u", "some"),
        grant("u", "more"),
        allow("some", Access::Read, KeyRange::prefix("r/")),
        allow("some", Access::Write, KeyRange::prefix("w/")),
        allow("more", Access::ReadWrite, KeyRange::prefix("b/")),
        ENABLE,
    ] {
        change(&mut machine, op).unwrap();
    }
    machine
}

fn user(machine: &Machine, name: &str) -> Caller {
    Caller::User {
        name: name.to_owned(),
        revision: machine.image().auth().revision(),
    }
}

fn key(key: &'static str) -> KeyRange {
    KeyRange::key(key)
}

fn put(key: &'static str, prev_kv: bool) -> PutOp {
    PutOp {
        prev_kv,
        ..PutOp::new(key, "v")
    }
}

fn delete(range: KeyRange, prev_kv: bool) -> DeleteOp {
    DeleteOp { range, prev_kv }
}

fn txn(ops: Vec<Op>) -> TxnOp {
    TxnOp {
        failure: ops,
        ..TxnOp::default()
    }
}

fn compare(range: KeyRange) -> TxnOp {
    let (result, target) = (CompareResult::Equal, CompareTarget::Version(0));
    TxnOp {
        compares: vec![Compare {
            range,
            result,
            target,
        }],
        ..TxnOp::default()
    }
}

/// Everything that is asked by key, with what `u` is answered.
fn by_key() -> Vec<(Command, bool)> {
    let range = |range| Op::Range(RangeOp::new(range));
    let deep = |op: Op| {
        let inner = Op::Txn(Box::new(txn(vec![op])));
        Command::Txn(txn(vec![Op::Txn(Box::new(TxnOp {
            success: vec![inner],
            ..TxnOp::default()
        }))]))
    };
    let ops = [
        (Op::Put(put("w/1", false)), true),
        (Op::Put(put("w/1", true)), false),
        (Op::Put(put("b/1", true)), true),
        (Op::Put(put("r/1", false)), false),
        (Op::Put(put("x", false)), false),
        (Op::Delete(delete(KeyRange::prefix("w/"), false)), true),
        (Op::Delete(delete(KeyRange::prefix("w/"), true)), false),
        (Op::Delete(delete(KeyRange::prefix("b/"), true)), true),
        (Op::Delete(delete(KeyRange::prefix("w"), false)), false),
        (Op::Delete(delete(KeyRange::all(), false)), false),
        (range(KeyRange::prefix("r/")), true),
        (range(key("r/1")), true),
        (range(KeyRange::prefix("w/")), false),
        (range(KeyRange::from_etcd("r/".into(), "\0".into())), false),
        (range(KeyRange::from_etcd("r/".into(), "a".into())), true),
        (range(KeyRange::from_etcd("x".into(), "a".into())), false),
    ];
    let mut all = Vec::new();
    for (op, allowed) in ops {
        match &op {
            Op::Put(put) => all.push((Command::Put(put.clone()), allowed)),
            Op::Delete(delete) => all.push((Command::Delete(delete.clone()), allowed)),
            Op::Range(_) | Op::Txn(_) => {}
        }
        all.push((Command::Txn(txn(vec![op.clone()])), allowed));
        all.push((deep(op), allowed));
    }
    for (range, allowed) in [(key("r/1"), true), (key("w/1"), false)] {
        all.push((Command::Txn(compare(range.clone())), allowed));
        all.push((deep(Op::Txn(Box::new(compare(range)))), allowed));
    }
    all
}

#[test]
fn changes_are_refused_as_etcd_refuses_them_and_counted_as_it_counts() {
    use AuthError::*;
    let mut machine = Machine::new();
    let none = |name: &str| AuthOp::DeleteRole {
        name: name.to_owned(),
    };
    let user_gone = |name: &str| AuthOp::DeleteUser {
        name: name.to_owned(),
    };
    let passwd = |name: &str| AuthOp::ChangePassword {
        name: name.to_owned(),
        hash: Hash("new".to_owned()),
    };
    let disallow = |role: &str, range| AuthOp::RevokePermission {
        role: role.to_owned(),
        range,
    };
    let inverted = KeyRange::from_etcd("b".into(), "a".into());
    let (read, write) = (Access::Read, Access::Write);
    // Each with what comes of it, and the auth revision afterwards.
    for (op, result, revision) in [
        (ENABLE, Err(RootUserMissing), 1),
        (AuthOp::Disable, Ok(()), 1),
        (add_user(""), Err(UserEmpty), 1),
        (add_user("root"), Ok(()), 2),
        (add_user("root"), Err(UserExists), 2),
        (ENABLE, Err(RootRoleMissing), 2),
        (grant("root", "root"), Ok(()), 3),
        (grant("root", "root"), Ok(()), 3),
        (grant("nobody", "root"), Err(UserNotFound), 3),
        (grant("root", "r"), Err(RoleNotFound), 3),
        (add_role(""), Err(RoleEmpty), 3),
        (add_role("r"), Ok(()), 4),
        (add_role("r"), Err(RoleExists), 4),
        (grant("root", "r"), Ok(()), 5),
        (allow("no", read, key("a")), Err(RoleNotFound), 5),
        (allow("r", read, inverted), Err(InvalidManagement), 5),
        (allow("r", read, key("")), Err(InvalidManagement), 5),
        (allow("r", read, key("a")), Ok(()), 6),
        (allow("r", write, key("a")), Ok(()), 7),
        (disallow("no", key("a")), Err(RoleNotFound), 7),
        (
            disallow("r", KeyRange::prefix("a")),
            Err(PermissionNotGranted),
            7,
        ),
        (disallow("r", key("a")), Ok(()), 8),
        (revoke("root", "x"), Err(RoleNotGranted), 8),
        (revoke("no", "x"), Err(UserNotFound), 8),
        (passwd("no"), Err(UserNotFound), 8),
        (passwd("root"), Ok(()), 9),
        (ENABLE, Ok(()), 9),
        (ENABLE, Ok(()), 9),
        (user_gone("root"), Err(InvalidManagement), 9),
        (revoke("root", "root"), Err(InvalidManagement), 9),
        (none("root"), Err(InvalidManagement), 9),
        (revoke("root", "r"), Ok(()), 10),
        (none("r"), Ok(()), 11),
        (none("r"), Err(RoleNotFound), 11),
        (user_gone("no"), Err(UserNotFound), 11),
        (AuthOp::Disable, Ok(()), 12),
        (user_gone("root"), Ok(()), 13),
    ] {
        assert_eq!(change(&mut machine, op.clone()), result, "{op:?}");
        assert_eq!(machine.image().auth().revision(), revision, "{op:?}");
    }
    let empty = machine.image();
    assert_eq!(empty.auth().resident_bytes(), 0, "all is gone again");
}

#[test]
fn a_role_that_is_deleted_is_nobodys() {
    let mut machine = machine();
    let name = "some".to_owned();
    change(&mut machine, AuthOp::DeleteRole { name }).unwrap();
    let image = machine.image();
    let roles = &image.auth().user("u").unwrap().roles;
    assert_eq!(roles.iter().collect::<Vec<_>>(), ["more"]);
    change(&mut machine, add_role("some")).unwrap();
    let caller = user(&machine, "u");
    let read = machine.image().auth().check_read(&caller, &key("r/1"));
    assert_eq!(read, Err(AuthError::Denied));
}

#[test]
fn every_key_of_every_branch_is_judged() {
    let machine = machine();
    let image = machine.image();
    let (plain, root) = (user(&machine, "u"), user(&machine, "root"));
    for (command, allowed) in by_key() {
        let expected = if allowed {
            Ok(())
        } else {
            Err(AuthError::Denied)
        };
        assert_eq!(
            image.check_command(&plain, &command),
            expected,
            "{command:?}"
        );
        assert_eq!(image.check_command(&root, &command), Ok(()), "{command:?}");
        assert_eq!(image.check_command(&Caller::Own, &command), Ok(()));
        let nobody = image.check_command(&Caller::Nobody, &command);
        assert_eq!(nobody, Err(AuthError::UserEmpty), "{command:?}");
        let off = Image::default().check_command(&Caller::Nobody, &command);
        assert_eq!(off, Ok(()), "auth is off");
    }
}

#[test]
fn what_names_no_key_is_roots_or_anybodys() {
    let machine = machine();
    let image = machine.image();
    let (plain, root) = (user(&machine, "u"), user(&machine, "root"));
    let version = SetVersionOp {
        version: model::Version::FIRST,
        downgrade: true,
    };
    for (command, allowed) in [
        (Command::Compact { revision: 1 }, false),
        (Command::SetClusterVersion(version), false),
        (Command::Auth(add_role("x")), false),
        (Command::Auth(AuthOp::Disable), false),
        (Command::Grant(GrantOp::default()), true),
        (Command::Revoke { lease: 99 }, true),
    ] {
        let expected = if allowed {
            Ok(())
        } else {
            Err(AuthError::Denied)
        };
        assert_eq!(
            image.check_command(&plain, &command),
            expected,
            "{command:?}"
        );
        assert_eq!(image.check_command(&root, &command), Ok(()));
        let nobody = image.check_command(&Caller::Nobody, &command);
        assert_eq!(nobody, Err(AuthError::UserEmpty), "{command:?}");
    }
    // The clock of leases goes on, and keep-alives of many callers are one command.
    for command in [
        Command::Tick(TickOp::default()),
        Command::KeepAlive(KeepAliveOp::default()),
    ] {
        assert_eq!(image.check_command(&Caller::Nobody, &command), Ok(()));
    }
}

#[test]
fn a_lease_is_as_closed_as_its_keys() {
    let mut machine = machine();
    let lease = 7;
    let op = GrantOp {
        id: lease,
        ttl: 60,
        age_ms: 0,
    };
    let leased = |key| PutOp {
        lease,
        ..put(key, false)
    };
    let mut by = |caller: &Caller, command| {
        let result = machine.apply(&Proposal {
            caller: caller.clone(),
            ..Proposal::new(command)
        });
        result.result.map(drop)
    };
    let (plain, root) = (
        Caller::User {
            name: "u".to_owned(),
            revision: u64::MAX,
        },
        Caller::Own,
    );
    by(&plain, Command::Grant(op)).unwrap();
    by(&plain, Command::Put(leased("w/1"))).unwrap();
    by(&root, Command::Put(leased("r/1"))).unwrap();
    let denied = Err(CommandError::Auth(AuthError::Denied));
    assert_eq!(by(&plain, Command::Put(leased("w/2"))), denied);
    let hidden = Command::Txn(txn(vec![Op::Put(leased("w/2"))]));
    assert_eq!(by(&plain, hidden), denied);
    assert_eq!(by(&plain, Command::Revoke { lease }), denied);
    by(&root, Command::Delete(delete(key("r/1"), false))).unwrap();
    let read = machine.image().check_lease_read(&plain, lease);
    assert_eq!(read, Err(AuthError::Denied), "w/1 can be written only");
    let mut by_plain = |command| {
        machine.apply(&Proposal {
            caller: plain.clone(),
            ..Proposal::new(command)
        })
    };
    assert!(by_plain(Command::Revoke { lease }).result.is_ok());
}

#[test]
fn a_right_that_was_taken_away_is_gone_when_the_command_comes() {
    let mut machine = machine();
    let caller = user(&machine, "u");
    let command = Command::Put(put("w/1", false));
    assert_eq!(machine.image().check_command(&caller, &command), Ok(()));
    let proposal = Proposal {
        caller,
        ..Proposal::new(command)
    };
    change(&mut machine, revoke("u", "some")).unwrap();
    let before = machine.image();
    let outcome = machine.apply(&proposal);
    assert_eq!(outcome.result, Err(AuthError::Denied.into()));
    assert_eq!(machine.image(), before);
    change(&mut machine, grant("u", "some")).unwrap();
    assert!(
        machine.apply(&proposal).result.is_ok(),
        "the token still counts"
    );

    let name = "u".to_owned();
    let hash = Hash("new".to_owned());
    change(&mut machine, AuthOp::ChangePassword { name, hash }).unwrap();
    let outcome = machine.apply(&proposal);
    assert_eq!(outcome.result, Err(AuthError::InvalidToken.into()));
    let caller = user(&machine, "u");
    let newer = Proposal { caller, ..proposal };
    assert!(machine.apply(&newer).result.is_ok());

    let name = "u".to_owned();
    change(&mut machine, AuthOp::DeleteUser { name }).unwrap();
    change(&mut machine, add_user("u")).unwrap();
    change(&mut machine, grant("u", "root")).unwrap();
    let outcome = machine.apply(&newer);
    assert_eq!(
        outcome.result,
        Err(AuthError::InvalidToken.into()),
        "another u"
    );
}

#[test]
fn everybody_may_see_themselves_and_root_sees_all() {
    let machine = machine();
    let image = machine.image();
    let (plain, root) = (user(&machine, "u"), user(&machine, "root"));
    let auth = image.auth();
    assert_eq!(auth.check_see_user(&plain, "u"), Ok(()));
    assert_eq!(auth.check_see_user(&plain, "root"), Err(AuthError::Denied));
    assert_eq!(auth.check_see_role(&plain, "some"), Ok(()));
    assert_eq!(auth.check_see_role(&plain, "root"), Err(AuthError::Denied));
    assert_eq!(auth.check_see_user(&root, "u"), Ok(()));
    assert_eq!(auth.check_see_role(&root, "some"), Ok(()));
    assert_eq!(auth.check_root(&plain), Err(AuthError::Denied));
    assert_eq!(auth.check_root(&root), Ok(()));
    assert_eq!(auth.check_user(&plain), Ok(()));
    assert_eq!(auth.check_user(&Caller::Nobody), Err(AuthError::UserEmpty));
}

#[test]
fn secrets_are_not_shown() {
    let machine = machine();
    let shown = format!("{:?}", machine.image().auth());
    assert!(
        shown.contains("some") && !shown.contains("hash of"),
        "{shown}"
    );
    let op = format!("{:?}", add_user("u"));
    assert!(!op.contains("hash of"), "{op}");
}
