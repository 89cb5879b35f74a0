//! The commands about users, roles, and whether they count.
//!
//! Owns their names and examples. Never does a command's work.

use std::process::ExitCode;

use clap::Subcommand;

use super::Remote;
use crate::{auth, role, user};

/// Every command about auth itself.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// From now on ask every caller who it is; needs the user `root` with the role `root`
    #[command(after_help = "\
Example:
  skein user add root --new-password-file root.password
  skein user grant-role root root
  skein auth enable
  export SKEIN_USER=root SKEIN_PASSWORD_FILE=root.password

Every command then needs a user: --user, SKEIN_USER.")]
    Enable(Remote<auth::Enable>),

    /// From now on ask nobody
    #[command(after_help = "\
Example:
  skein auth disable --user root --password-file root.password")]
    Disable(Remote<auth::Disable>),

    /// Show whether callers are asked
    #[command(after_help = "\
Example:
  skein auth status -o json")]
    Status(Remote<auth::Status>),
}

/// Every command about users.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user, without roles
    #[command(after_help = "\
Examples:
  skein user add ann --new-password-file ann.password
  pwgen 20 1 | tee ann.password | skein user add ann --new-password-file -")]
    Add(Remote<user::Add>),

    /// List the users
    #[command(after_help = "\
Example:
  skein user list")]
    List(Remote<user::List>),

    /// Show the roles of a user
    #[command(after_help = "\
Example:
  skein user get ann")]
    Get(Remote<user::Get>),

    /// Delete a user; its tokens are worthless at once
    #[command(after_help = "\
Example:
  skein user delete ann")]
    Delete(Remote<user::Delete>),

    /// Change a password; tokens from before are worthless at once
    #[command(after_help = "\
Example:
  skein user passwd ann --new-password-file ann.password")]
    Passwd(Remote<user::Passwd>),

    /// Give a role to a user
    #[command(after_help = "\
Examples:
  skein user grant-role ann shop
  skein user grant-role bob root       # may do everything")]
    GrantRole(Remote<user::GrantRole>),

    /// Take a role from a user; watches that need it end
    #[command(after_help = "\
Example:
  skein user revoke-role ann shop")]
    RevokeRole(Remote<user::RevokeRole>),
}

/// Every command about roles.
#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// Add a role, without permissions
    #[command(after_help = "\
Example:
  skein role add shop")]
    Add(Remote<role::Add>),

    /// List the roles
    #[command(after_help = "\
Example:
  skein role list")]
    List(Remote<role::List>),

    /// Show the permissions of a role
    #[command(after_help = "\
Example:
  skein role get shop -o json")]
    Get(Remote<role::Get>),

    /// Delete a role; whoever had it has it no more
    #[command(after_help = "\
Example:
  skein role delete shop")]
    Delete(Remote<role::Delete>),

    /// Allow a role to read or write a key or a range
    #[command(after_help = "\
Examples:
  skein role grant-permission shop readwrite shop/ --prefix
  skein role grant-permission ops readwrite /skein/config/ --prefix   # what `skein apply` needs
  skein role grant-permission audit read '' --prefix                  # all keys")]
    GrantPermission(Remote<role::GrantPermission>),

    /// Take a permission back; the range is named as it was granted
    #[command(after_help = "\
Example:
  skein role revoke-permission shop shop/ --prefix")]
    RevokePermission(Remote<role::RevokePermission>),
}

impl AuthCommand {
    pub(super) fn run(self) -> ExitCode {
        match self {
            Self::Enable(command) => command.run(),
            Self::Disable(command) => command.run(),
            Self::Status(command) => command.run(),
        }
    }
}

impl UserCommand {
    pub(super) fn run(self) -> ExitCode {
        match self {
            Self::Add(command) => command.run(),
            Self::List(command) => command.run(),
            Self::Get(command) => command.run(),
            Self::Delete(command) => command.run(),
            Self::Passwd(command) => command.run(),
            Self::GrantRole(command) => command.run(),
            Self::RevokeRole(command) => command.run(),
        }
    }
}

impl RoleCommand {
    pub(super) fn run(self) -> ExitCode {
        match self {
            Self::Add(command) => command.run(),
            Self::List(command) => command.run(),
            Self::Get(command) => command.run(),
            Self::Delete(command) => command.run(),
            Self::GrantPermission(command) => command.run(),
            Self::RevokePermission(command) => command.run(),
        }
    }
}
