//! Users, roles, and whether callers are asked who they are: etcd's auth, as part of an image.
//!
//! Owns the state and what becomes of it: each change counts up the auth revision, and a change of
//! a user's password makes the tokens from before it worthless. What a caller may do is in
//! `checks`. Never sees a password: it is handed hashes, and compares none.

mod changes;
mod checks;
mod key_set;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;

use self::key_set::KeySet;
use crate::KeyRange;

pub use self::changes::{AuthOp, Hash};
pub use self::checks::Caller;

/// The user without whom auth cannot be enabled, and the role that may do everything.
pub(crate) const ROOT: &str = "root";

/// The auth revision of a new store, as etcd counts.
const FIRST_REVISION: u64 = 1;

/// What a user or role costs in memory beside its text, about.
const ENTRY_BYTES: usize = 128;

/// Why a caller was turned away, or a change of users and roles not made. Each is one of etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no user `root`.
    #[error("root user does not exist: add it first")]
    RootUserMissing,
    /// The user `root` has not the role `root`.
    #[error("root user does not have root role: grant it first")]
    RootRoleMissing,
    /// A caller did not say who it is, or a user would have no name.
    #[error("user name is empty: authenticate, or give a name")]
    UserEmpty,
    /// The name of a new user is taken.
    #[error("user name already exists: choose another")]
    UserExists,
    /// There is no such user.
    #[error("user name not found: add the user first")]
    UserNotFound,
    /// The name of a new role is empty.
    #[error("role name is empty: give one")]
    RoleEmpty,
    /// The name of a new role is taken.
    #[error("role name already exists: choose another")]
    RoleExists,
    /// There is no such role.
    #[error("role name not found: add the role first")]
    RoleNotFound,
    /// The user does not have the role.
    #[error("role is not granted to the user: nothing to revoke")]
    RoleNotGranted,
    /// The role does not have the permission, spelled like this.
    #[error("permission is not granted to the role: name key and range end as they were granted")]
    PermissionNotGranted,
    /// It would lock everybody out, or is no range of keys.
    #[error("invalid auth management: disable auth first, or give a key and an end above it")]
    InvalidManagement,
    /// The caller may not.
    #[error("permission denied: ask a user with the role root for the permission")]
    Denied,
    /// The caller's token was overtaken: the password changed, the user or all of auth is gone.
    #[error("invalid auth token: authenticate anew")]
    InvalidToken,
}

/// What a permission allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To read.
    Read,
    /// To write.
    Write,
    /// Both.
    ReadWrite,
}

/// A range of keys, and what may be done with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// What is allowed.
    pub access: Access,
    /// With which keys.
    pub range: KeyRange,
}

/// One user.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct User {
    /// The hash of the password; `None`: nobody signs in as this user with one.
    pub password_hash: Option<String>,
    /// The names of its roles.
    pub roles: BTreeSet<String>,
    /// Tokens that were issued before this auth revision are worthless.
    pub tokens_from: u64,
}

impl fmt::Debug for User {
    /// Without the hash, which has no business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("roles", &self.roles)
            .field("tokens_from", &self.tokens_from)
            .finish_non_exhaustive()
    }
}

/// One role: permissions, ordered by their keys, and what they come to together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Role {
    permissions: Vec<Permission>,
    readable: KeySet,
    writable: KeySet,
}

impl Role {
    /// A role with these permissions; of two for one range the later counts.
    pub fn new(permissions: impl IntoIterator<Item = Permission>) -> Self {
        let mut role = Self::default();
        for permission in permissions {
            role.set(permission);
        }
        role.merge();
        role
    }

    /// Its permissions, by key.
    pub fn permissions(&self) -> &[Permission] {
        &self.permissions
    }

    fn place(&self, range: &KeyRange) -> Result<usize, usize> {
        let wanted = range.to_etcd();
        self.permissions
            .binary_search_by(|one| one.range.to_etcd().cmp(&wanted))
    }

    fn set(&mut self, permission: Permission) {
        match self.place(&permission.range) {
            Ok(place) => self.permissions[place] = permission,
            Err(place) => self.permissions.insert(place, permission),
        }
    }

    fn merge(&mut self) {
        let may = |wanted: Access| {
            let able = self
                .permissions
                .iter()
                .filter(move |one| one.access == wanted || one.access == Access::ReadWrite);
            let mut keys = KeySet::default();
            able.for_each(|one| keys.add(&one.range));
            keys
        };
        (self.readable, self.writable) = (may(Access::Read), may(Access::Write));
    }

    fn bytes(&self) -> usize {
        let keys = self.permissions.iter().map(|one| {
            let (key, end) = one.range.to_etcd();
            // In the list, and again in what it comes to.
            2 * (key.len() + end.len() + size_of::<Permission>())
        });
        keys.sum()
    }
}

/// What tokens are sealed with: made when auth is enabled, known to every member.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenKey(pub [u8; 32]);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey")
    }
}

/// All users and roles, and whether they count. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// The key while auth is enabled.
    token_key: Option<TokenKey>,
    revision: u64,
    users: OrdMap<String, Arc<User>>,
    roles: OrdMap<String, Arc<Role>>,
    bytes: u64,
}

impl Default for Auth {
    fn default() -> Self {
        Self::new(None, FIRST_REVISION)
    }
}

impl Auth {
    /// Without users and roles; with a key, enabled.
    pub fn new(token_key: Option<TokenKey>, revision: u64) -> Self {
        Self {
            token_key,
            revision,
            users: OrdMap::new(),
            roles: OrdMap::new(),
            bytes: 0,
        }
    }

    /// Whether callers are asked who they are.
    pub fn is_enabled(&self) -> bool {
        self.token_key.is_some()
    }

    /// What tokens are sealed with; `None` while auth is disabled.
    pub fn token_key(&self) -> Option<TokenKey> {
        self.token_key
    }

    /// Counts the changes.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The user `name`.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(|user| &**user)
    }

    /// All users, by name.
    pub fn users(&self) -> impl Iterator<Item = (&str, &User)> {
        self.users.iter().map(|(name, user)| (&**name, &**user))
    }

    /// The role `name`.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name).map(|role| &**role)
    }

    /// All roles, by name.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &Role)> {
        self.roles.iter().map(|(name, role)| (&**name, &**role))
    }

    /// Sets a user, in place of one of the same name.
    pub fn put_user(&mut self, name: &str, user: User) {
        self.bytes += user_bytes(name, &user);
        if let Some(old) = self.users.insert(name.to_owned(), Arc::new(user)) {
            self.bytes -= user_bytes(name, &old);
        }
    }

    /// Sets a role, in place of one of the same name.
    pub fn put_role(&mut self, name: &str, role: Role) {
        self.bytes += role_bytes(name, &role);
        if let Some(old) = self.roles.insert(name.to_owned(), Arc::new(role)) {
            self.bytes -= role_bytes(name, &old);
        }
    }

    pub(crate) fn resident_bytes(&self) -> u64 {
        self.bytes
    }

    fn remove_user(&mut self, name: &str) -> bool {
        let removed = self.users.remove(name);
        self.bytes -= removed.as_ref().map_or(0, |user| user_bytes(name, user));
        removed.is_some()
    }

    fn remove_role(&mut self, name: &str) -> bool {
        let removed = self.roles.remove(name);
        self.bytes -= removed.as_ref().map_or(0, |role| role_bytes(name, role));
        removed.is_some()
    }
}

fn user_bytes(name: &str, user: &User) -> u64 {
    let roles: usize = user.roles.iter().map(|role| role.len() + 32).sum();
    let hash = user.password_hash.as_ref().map_or(0, String::len);
    (ENTRY_BYTES + name.len() + hash + roles) as u64
}

fn role_bytes(name: &str, role: &Role) -> u64 {
    (ENTRY_BYTES + name.len() + role.bytes()) as u64
}

#[cfg(test)]
mod tests;
