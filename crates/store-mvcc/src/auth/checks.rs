//! What a caller may do.
//!
//! Owns the rights that each command and each read needs. Apply asks here, on the state that the
//! command would change, so that no right can be taken away between question and deed. Never looks
//! at a token: whoever made a [`Caller`] did.

use super::key_set::{KeySet, cover};
use super::{Auth, AuthError, ROOT, Role, User};
use crate::{Command, Image, KeyRange, Op, PutOp, TxnOp};

/// In whose name something is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Caller {
    /// A client that did not say who it is.
    #[default]
    Nobody,
    /// A client that proved to be a user.
    User {
        /// The user's name.
        name: String,
        /// The auth revision when that was proved by the password.
        revision: u64,
    },
    /// The mesh itself, looking after its store.
    Own,
}

/// What somebody may do.
enum Rights<'a> {
    All,
    Of(&'a Auth, &'a User),
}

impl Auth {
    /// What the caller may do at all.
    fn rights(&self, caller: &Caller) -> Result<Rights<'_>, AuthError> {
        if !self.is_enabled() {
            return Ok(Rights::All);
        }
        let (name, revision) = match caller {
            Caller::Own => return Ok(Rights::All),
            Caller::Nobody => return Err(AuthError::UserEmpty),
            Caller::User { name, revision } => (name, *revision),
        };
        let user = self.user(name).ok_or(AuthError::InvalidToken)?;
        if revision < user.tokens_from {
            return Err(AuthError::InvalidToken);
        }
        if user.roles.contains(ROOT) {
            return Ok(Rights::All);
        }
        Ok(Rights::Of(self, user))
    }

    /// Whether the caller is somebody, if that is asked.
    ///
    /// # Errors
    /// [`AuthError::UserEmpty`] and [`AuthError::InvalidToken`].
    pub fn check_user(&self, caller: &Caller) -> Result<(), AuthError> {
        self.rights(caller).map(drop)
    }

    /// Whether the caller may do everything.
    ///
    /// # Errors
    /// As [`Auth::check_user`], and [`AuthError::Denied`].
    pub fn check_root(&self, caller: &Caller) -> Result<(), AuthError> {
        self.rights(caller)?.everything()
    }

    /// Whether the caller may read all keys of a range.
    ///
    /// # Errors
    /// As [`Auth::check_root`].
    pub fn check_read(&self, caller: &Caller, range: &KeyRange) -> Result<(), AuthError> {
        self.rights(caller)?.to_read(range)
    }

    /// Whether the caller may know what a user may do: it is that user, or root.
    ///
    /// # Errors
    /// As [`Auth::check_root`].
    pub fn check_see_user(&self, caller: &Caller, user: &str) -> Result<(), AuthError> {
        let own = matches!(caller, Caller::User { name, .. } if name == user);
        let rights = self.rights(caller)?;
        if own { Ok(()) } else { rights.everything() }
    }

    /// Whether the caller may know what a role may do: it has it, or is root.
    ///
    /// # Errors
    /// As [`Auth::check_root`].
    pub fn check_see_role(&self, caller: &Caller, role: &str) -> Result<(), AuthError> {
        match self.rights(caller)? {
            Rights::Of(_, user) if user.roles.contains(role) => Ok(()),
            rights => rights.everything(),
        }
    }
}

impl Rights<'_> {
    fn everything(&self) -> Result<(), AuthError> {
        match self {
            Self::All => Ok(()),
            Self::Of(..) => Err(AuthError::Denied),
        }
    }

    fn to_read(&self, range: &KeyRange) -> Result<(), AuthError> {
        self.cover(|role| &role.readable, range)
    }

    fn to_write(&self, range: &KeyRange) -> Result<(), AuthError> {
        self.cover(|role| &role.writable, range)
    }

    fn cover(&self, keys: fn(&Role) -> &KeySet, range: &KeyRange) -> Result<(), AuthError> {
        let Self::Of(auth, user) = self else {
            return Ok(());
        };
        let roles = user.roles.iter().filter_map(|name| auth.role(name));
        if cover(roles.map(keys), range) {
            Ok(())
        } else {
            Err(AuthError::Denied)
        }
    }
}

impl Image {
    /// Whether the caller may have `command` done.
    ///
    /// # Errors
    /// Why not: it is nobody, it is not who it was, or it lacks a right.
    pub fn check_command(&self, caller: &Caller, command: &Command) -> Result<(), AuthError> {
        match command {
            // Made by members only; keep-alives, for clients who were asked who they are.
            Command::Tick(_) | Command::KeepAlive(_) => return Ok(()),
            _ => {}
        }
        let rights = self.auth().rights(caller)?;
        if matches!(rights, Rights::All) {
            return Ok(());
        }
        match command {
            Command::Put(put) => self.check_put(&rights, put),
            Command::Delete(delete) => check_delete(&rights, delete.prev_kv, &delete.range),
            Command::Txn(txn) => self.check_txn(&rights, txn),
            Command::Revoke { lease } => self.check_lease_writes(&rights, *lease),
            Command::Grant(_) | Command::KeepAlive(_) | Command::Tick(_) => Ok(()),
            Command::Compact { .. } | Command::SetClusterVersion(_) | Command::Auth(_) => {
                rights.everything()
            }
        }
    }

    /// Whether the caller may read all keys that hang on a lease.
    ///
    /// # Errors
    /// As [`Auth::check_root`].
    pub fn check_lease_read(&self, caller: &Caller, lease: i64) -> Result<(), AuthError> {
        let rights = self.auth().rights(caller)?;
        self.lease_keys(lease)
            .try_for_each(|key| rights.to_read(&KeyRange::key(key.clone())))
    }

    fn check_put(&self, rights: &Rights<'_>, put: &PutOp) -> Result<(), AuthError> {
        let key = KeyRange::key(put.key.clone());
        rights.to_write(&key)?;
        if put.prev_kv {
            rights.to_read(&key)?;
        }
        // Who could not end the lease must not hang a key on it.
        self.check_lease_writes(rights, put.lease)
    }

    fn check_lease_writes(&self, rights: &Rights<'_>, lease: i64) -> Result<(), AuthError> {
        if lease == 0 {
            return Ok(());
        }
        self.lease_keys(lease)
            .try_for_each(|key| rights.to_write(&KeyRange::key(key.clone())))
    }

    /// Both branches count, whichever would be taken.
    fn check_txn(&self, rights: &Rights<'_>, txn: &TxnOp) -> Result<(), AuthError> {
        for compare in &txn.compares {
            rights.to_read(&compare.range)?;
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match op {
                Op::Range(range) => rights.to_read(&range.range)?,
                Op::Put(put) => self.check_put(rights, put)?,
                Op::Delete(delete) => check_delete(rights, delete.prev_kv, &delete.range)?,
                Op::Txn(inner) => self.check_txn(rights, inner)?,
            }
        }
        Ok(())
    }
}

fn check_delete(rights: &Rights<'_>, prev_kv: bool, range: &KeyRange) -> Result<(), AuthError> {
    if prev_kv {
        rights.to_read(range)?;
    }
    rights.to_write(range)
}
