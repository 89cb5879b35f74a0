//! Changes of users, roles and of auth itself.
//!
//! Owns what etcd allows and in which order it looks. A change that is refused changes nothing.
//! Who may ask for one is in `checks`.

use super::{Auth, AuthError, Permission, ROOT, Role, TokenKey, User};
use crate::{KeyRange, RangeEnd};

/// A change of users, roles, or of whether they count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthOp {
    /// From now on callers are asked who they are. Does nothing if they are already.
    Enable {
        /// What tokens are sealed with from now on.
        key: TokenKey,
    },
    /// From now on nobody is asked. Does nothing if nobody is.
    Disable,
    /// Adds a user without roles.
    AddUser {
        /// Its name.
        name: String,
        /// The hash of its password; `None`: it has none.
        hash: Option<Hash>,
    },
    /// Removes a user.
    DeleteUser {
        /// Its name.
        name: String,
    },
    /// Sets a user's password; one that has none keeps none.
    ChangePassword {
        /// The user.
        name: String,
        /// The hash of the password.
        hash: Hash,
    },
    /// Gives a role to a user. Does nothing if it has it.
    GrantRole {
        /// The user.
        user: String,
        /// The role; `root` need not exist.
        role: String,
    },
    /// Takes a role from a user.
    RevokeRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// Adds a role without permissions.
    AddRole {
        /// Its name.
        name: String,
    },
    /// Removes a role, also from those who have it.
    DeleteRole {
        /// Its name.
        name: String,
    },
    /// Gives a permission to a role, in place of one for the very same range.
    GrantPermission {
        /// The role.
        role: String,
        /// The permission.
        permission: Permission,
    },
    /// Takes the permission for the very same range from a role.
    RevokePermission {
        /// The role.
        role: String,
        /// The range, as it was granted.
        range: KeyRange,
    },
}

/// The hash of a password. Not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash(pub String);

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash")
    }
}

impl AuthOp {
    /// Whether it could take more memory than there was taken.
    pub(crate) fn could_grow(&self) -> bool {
        match self {
            Self::AddUser { .. }
            | Self::ChangePassword { .. }
            | Self::GrantRole { .. }
            | Self::AddRole { .. }
            | Self::GrantPermission { .. } => true,
            Self::Enable { .. }
            | Self::Disable
            | Self::DeleteUser { .. }
            | Self::RevokeRole { .. }
            | Self::DeleteRole { .. }
            | Self::RevokePermission { .. } => false,
        }
    }
}

impl Auth {
    /// Makes a change.
    pub(crate) fn change(&mut self, op: &AuthOp) -> Result<(), AuthError> {
        match op {
            AuthOp::Enable { key } => self.enable(*key),
            AuthOp::Disable => {
                if self.token_key.take().is_some() {
                    self.revision += 1;
                }
                Ok(())
            }
            AuthOp::AddUser { name, hash } => self.add_user(name, hash.as_ref()),
            AuthOp::DeleteUser { name } => self.delete_user(name),
            AuthOp::ChangePassword { name, hash } => self.change_password(name, hash),
            AuthOp::GrantRole { user, role } => self.grant_role(user, role),
            AuthOp::RevokeRole { user, role } => self.revoke_role(user, role),
            AuthOp::AddRole { name } => self.add_role(name),
            AuthOp::DeleteRole { name } => self.delete_role(name),
            AuthOp::GrantPermission { role, permission } => {
                check_range(&permission.range)?;
                let mut changed = self.role_to_change(role)?;
                changed.set(permission.clone());
                self.replace_role(role, changed);
                Ok(())
            }
            AuthOp::RevokePermission { role, range } => {
                let mut changed = self.role_to_change(role)?;
                let place = changed.place(range);
                let place = place.map_err(|_| AuthError::PermissionNotGranted)?;
                changed.permissions.remove(place);
                self.replace_role(role, changed);
                Ok(())
            }
        }
    }

    fn enable(&mut self, key: TokenKey) -> Result<(), AuthError> {
        if self.is_enabled() {
            return Ok(());
        }
        let root = self.user(ROOT).ok_or(AuthError::RootUserMissing)?;
        if !root.roles.contains(ROOT) {
            return Err(AuthError::RootRoleMissing);
        }
        // Not a change of its own to etcd's clients, who read the revision.
        self.token_key = Some(key);
        Ok(())
    }

    fn add_user(&mut self, name: &str, hash: Option<&Hash>) -> Result<(), AuthError> {
        if name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.user(name).is_some() {
            return Err(AuthError::UserExists);
        }
        self.revision += 1;
        let user = User {
            password_hash: hash.map(|hash| hash.0.clone()),
            // One of the same name may have had tokens.
            tokens_from: self.revision,
            ..User::default()
        };
        self.put_user(name, user);
        Ok(())
    }

    fn delete_user(&mut self, name: &str) -> Result<(), AuthError> {
        if self.is_enabled() && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        if !self.remove_user(name) {
            return Err(AuthError::UserNotFound);
        }
        self.revision += 1;
        Ok(())
    }

    fn change_password(&mut self, name: &str, hash: &Hash) -> Result<(), AuthError> {
        let mut user = self.user_to_change(name)?;
        self.revision += 1;
        if user.password_hash.is_some() {
            user.password_hash = Some(hash.0.clone());
        }
        user.tokens_from = self.revision;
        self.put_user(name, user);
        Ok(())
    }

    fn grant_role(&mut self, name: &str, role: &str) -> Result<(), AuthError> {
        let mut user = self.user_to_change(name)?;
        if role != ROOT && self.role(role).is_none() {
            return Err(AuthError::RoleNotFound);
        }
        if user.roles.insert(role.to_owned()) {
            self.revision += 1;
            self.put_user(name, user);
        }
        Ok(())
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<(), AuthError> {
        if self.is_enabled() && name == ROOT && role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let mut user = self.user_to_change(name)?;
        if !user.roles.remove(role) {
            return Err(AuthError::RoleNotGranted);
        }
        self.revision += 1;
        self.put_user(name, user);
        Ok(())
    }

    fn add_role(&mut self, name: &str) -> Result<(), AuthError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        if self.role(name).is_some() {
            return Err(AuthError::RoleExists);
        }
        self.revision += 1;
        self.put_role(name, Role::default());
        Ok(())
    }

    fn delete_role(&mut self, name: &str) -> Result<(), AuthError> {
        if self.is_enabled() && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        if !self.remove_role(name) {
            return Err(AuthError::RoleNotFound);
        }
        self.revision += 1;
        let had: Vec<(String, User)> = self
            .users()
            .filter(|(_, user)| user.roles.contains(name))
            .map(|(user_name, user)| (user_name.to_owned(), user.clone()))
            .collect();
        for (user_name, mut user) in had {
            user.roles.remove(name);
            self.put_user(&user_name, user);
        }
        Ok(())
    }

    fn user_to_change(&self, name: &str) -> Result<User, AuthError> {
        self.user(name).cloned().ok_or(AuthError::UserNotFound)
    }

    fn role_to_change(&self, name: &str) -> Result<Role, AuthError> {
        self.role(name).cloned().ok_or(AuthError::RoleNotFound)
    }

    fn replace_role(&mut self, name: &str, mut role: Role) {
        role.merge();
        self.revision += 1;
        self.put_role(name, role);
    }
}

/// The permission of a range that holds no key, or of no key, says nothing.
fn check_range(range: &KeyRange) -> Result<(), AuthError> {
    let empty = matches!(range.end(), RangeEnd::Before(end) if end <= range.start());
    if range.start().is_empty() || empty {
        return Err(AuthError::InvalidManagement);
    }
    Ok(())
}
