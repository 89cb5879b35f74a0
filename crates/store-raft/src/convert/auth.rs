//! Callers, changes of users and roles, and these themselves, to and from protobuf.
//!
//! Owns the mapping in both directions. Never fills in a change of an unknown kind.

use bytes::Bytes;
use store_api::authpb;
use store_api::skeinpb as pb;
use store_mvcc::{Access, Auth, AuthOp, Caller, Hash, KeyRange, Permission, Role, TokenKey, User};

use super::Unknown;

pub(super) fn caller_to_pb(caller: &Caller) -> Option<pb::Caller> {
    match caller {
        Caller::Nobody => None,
        Caller::User { name, revision } => Some(pb::Caller {
            user: name.clone(),
            auth_revision: *revision,
            own: false,
        }),
        Caller::Own => Some(pb::Caller {
            own: true,
            ..pb::Caller::default()
        }),
    }
}

pub(super) fn caller_from_pb(caller: Option<pb::Caller>) -> Caller {
    match caller {
        None => Caller::Nobody,
        Some(caller) if caller.own => Caller::Own,
        Some(caller) => Caller::User {
            name: caller.user,
            revision: caller.auth_revision,
        },
    }
}

pub(super) fn change_to_pb(op: &AuthOp) -> pb::AuthChange {
    use pb::auth_change::Change;
    let hashed = |name: &str, hash: Option<&Hash>| pb::UserHash {
        user: name.to_owned(),
        hash: hash.map(|hash| hash.0.clone()),
    };
    let had = |user: &str, role: &str| pb::UserRole {
        user: user.to_owned(),
        role: role.to_owned(),
    };
    let may = |role: &str, permission: &Permission| pb::RolePermission {
        role: role.to_owned(),
        permission: Some(permission_to_pb(permission)),
    };
    let change = match op {
        AuthOp::Enable { key } => Change::Enable(Bytes::copy_from_slice(&key.0)),
        AuthOp::Disable => Change::Disable(pb::AuthDisable {}),
        AuthOp::AddUser { name, hash } => Change::AddUser(hashed(name, hash.as_ref())),
        AuthOp::DeleteUser { name } => Change::DeleteUser(name.clone()),
        AuthOp::ChangePassword { name, hash } => Change::ChangePassword(hashed(name, Some(hash))),
        AuthOp::GrantRole { user, role } => Change::GrantRole(had(user, role)),
        AuthOp::RevokeRole { user, role } => Change::RevokeRole(had(user, role)),
        AuthOp::AddRole { name } => Change::AddRole(name.clone()),
        AuthOp::DeleteRole { name } => Change::DeleteRole(name.clone()),
        AuthOp::GrantPermission { role, permission } => {
            Change::GrantPermission(may(role, permission))
        }
        AuthOp::RevokePermission { role, range } => {
            let (access, range) = (Access::Read, range.clone());
            Change::RevokePermission(may(role, &Permission { access, range }))
        }
    };
    pb::AuthChange {
        change: Some(change),
    }
}

pub(super) fn change_from_pb(change: pb::AuthChange) -> Result<AuthOp, Unknown> {
    use pb::auth_change::Change;
    let permission = |permission: Option<authpb::Permission>| {
        permission_from_pb(permission.ok_or(Unknown("permission"))?)
    };
    Ok(match change.change.ok_or(Unknown("change of users"))? {
        Change::Enable(key) => AuthOp::Enable {
            key: token_key(&key)?,
        },
        Change::Disable(_) => AuthOp::Disable,
        Change::AddUser(user) => AuthOp::AddUser {
            name: user.user,
            hash: user.hash.map(Hash),
        },
        Change::DeleteUser(name) => AuthOp::DeleteUser { name },
        Change::ChangePassword(user) => AuthOp::ChangePassword {
            name: user.user,
            hash: Hash(user.hash.ok_or(Unknown("hash"))?),
        },
        Change::GrantRole(pb::UserRole { user, role }) => AuthOp::GrantRole { user, role },
        Change::RevokeRole(pb::UserRole { user, role }) => AuthOp::RevokeRole { user, role },
        Change::AddRole(name) => AuthOp::AddRole { name },
        Change::DeleteRole(name) => AuthOp::DeleteRole { name },
        Change::GrantPermission(granted) => AuthOp::GrantPermission {
            permission: permission(granted.permission)?,
            role: granted.role,
        },
        Change::RevokePermission(revoked) => AuthOp::RevokePermission {
            range: permission(revoked.permission)?.range,
            role: revoked.role,
        },
    })
}

/// A permission as etcd's clients see it.
pub fn permission_to_pb(permission: &Permission) -> authpb::Permission {
    use authpb::permission::Type;
    let kind = match permission.access {
        Access::Read => Type::Read,
        Access::Write => Type::Write,
        Access::ReadWrite => Type::Readwrite,
    };
    let (key, range_end) = permission.range.to_etcd();
    authpb::Permission {
        perm_type: kind.into(),
        key,
        range_end,
    }
}

/// The inverse of [`permission_to_pb`].
///
/// # Errors
/// The type is unknown.
pub fn permission_from_pb(permission: authpb::Permission) -> Result<Permission, Unknown> {
    use authpb::permission::Type;
    let access = match Type::try_from(permission.perm_type) {
        Ok(Type::Read) => Access::Read,
        Ok(Type::Write) => Access::Write,
        Ok(Type::Readwrite) => Access::ReadWrite,
        Err(_) => return Err(Unknown("type of permission")),
    };
    // Copies, so that the state does not pin the message that it came in.
    let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    let range = KeyRange::from_etcd(copy(&permission.key), copy(&permission.range_end));
    Ok(Permission { access, range })
}

/// All users and roles.
pub(crate) fn auth_to_pb(auth: &Auth) -> pb::AuthState {
    let user = |(name, user): (&str, &User)| pb::AuthUser {
        name: name.to_owned(),
        hash: user.password_hash.clone(),
        roles: user.roles.iter().cloned().collect(),
        tokens_from: user.tokens_from,
    };
    let role = |(name, role): (&str, &Role)| pb::AuthRole {
        name: name.to_owned(),
        permissions: role.permissions().iter().map(permission_to_pb).collect(),
    };
    let key = auth.token_key();
    pb::AuthState {
        token_key: key.map_or_else(Bytes::new, |key| Bytes::copy_from_slice(&key.0)),
        revision: auth.revision(),
        users: auth.users().map(user).collect(),
        roles: auth.roles().map(role).collect(),
    }
}

/// The inverse of [`auth_to_pb`].
pub(crate) fn auth_from_pb(state: pb::AuthState) -> Result<Auth, Unknown> {
    let key = match &state.token_key[..] {
        [] => None,
        key => Some(token_key(key)?),
    };
    let mut auth = Auth::new(key, state.revision);
    for user in state.users {
        let read = User {
            password_hash: user.hash,
            roles: user.roles.into_iter().collect(),
            tokens_from: user.tokens_from,
        };
        auth.put_user(&user.name, read);
    }
    for role in state.roles {
        let permissions = role.permissions.into_iter().map(permission_from_pb);
        let permissions: Vec<Permission> = permissions.collect::<Result<_, _>>()?;
        auth.put_role(&role.name, Role::new(permissions));
    }
    Ok(auth)
}

fn token_key(key: &[u8]) -> Result<TokenKey, Unknown> {
    let key = key.try_into().map_err(|_| Unknown("token key"))?;
    Ok(TokenKey(key))
}
