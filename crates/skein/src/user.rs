//! `skein user`: who may sign in, and with which roles.
//!
//! Owns where a new password comes from. Never shows one.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;
use store_api::authpb::UserAddOptions;
use store_api::etcdserverpb::{
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
};

use crate::auth::{Done, Names};
use crate::failure::Failure;
use crate::options::password_in;
use crate::output::{Output, Report};
use crate::session::{MeshCommand, Session};

/// The options of `skein user add`.
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// The name of the user
    name: String,
    #[command(flatten)]
    password: NewPassword,
    /// The user has no password, so that nobody signs in as it with one
    #[arg(long, conflicts_with_all = ["new_password", "new_password_file"])]
    no_password: bool,
}

/// The options of `skein user passwd`.
#[derive(Debug, clap::Args)]
pub(crate) struct Passwd {
    /// The name of the user
    name: String,
    #[command(flatten)]
    password: NewPassword,
}

/// Where a new password is.
#[derive(Debug, clap::Args)]
struct NewPassword {
    /// The new password; others on this machine can see it here
    #[arg(long, value_name = "TEXT", conflicts_with = "new_password_file")]
    new_password: Option<String>,
    /// A file whose first line is the new password; `-` is standard input
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
}

/// The options of `skein user list`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {}

/// The options of `skein user get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The name of the user
    name: String,
}

/// The options of `skein user delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// The name of the user
    name: String,
}

/// The options of `skein user grant-role`.
#[derive(Debug, clap::Args)]
pub(crate) struct GrantRole {
    /// The name of the user
    name: String,
    /// The role; `root` may do everything
    role: String,
}

/// The options of `skein user revoke-role`.
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeRole {
    /// The name of the user
    name: String,
    /// The role
    role: String,
}

impl NewPassword {
    fn read(self) -> Result<String, Failure> {
        match (self.new_password, self.new_password_file) {
            (Some(password), _) => Ok(password),
            (None, Some(file)) => password_in(&file),
            (None, None) => Err(Failure::usage(
                "the new password is missing; name a file with --new-password-file (`-` is \
                 standard input)",
            )),
        }
    }
}

impl MeshCommand for Add {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let password = match self.no_password {
            true => String::new(),
            false => self.password.read()?,
        };
        let request = AuthUserAddRequest {
            name: self.name.clone(),
            password,
            options: Some(UserAddOptions {
                no_password: self.no_password,
            }),
            ..Default::default()
        };
        session.store().user_add(request).await?;
        output.show(&done("added", &self.name))
    }
}

impl MeshCommand for Passwd {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let request = AuthUserChangePasswordRequest {
            name: self.name.clone(),
            password: self.password.read()?,
            ..Default::default()
        };
        session.store().user_change_password(request).await?;
        output.show(&done("password changed", &self.name))
    }
}

impl MeshCommand for List {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let users = session.store().user_list(AuthUserListRequest {}).await?;
        output.show(&Names::users(users.users))
    }
}

impl MeshCommand for Get {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let name = self.name;
        let request = AuthUserGetRequest { name: name.clone() };
        let user = session.store().user_get(request).await?;
        output.show(&UserReport {
            user: name,
            roles: user.roles,
        })
    }
}

impl MeshCommand for Delete {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let name = self.name.clone();
        let request = AuthUserDeleteRequest { name };
        session.store().user_delete(request).await?;
        output.show(&done("deleted", &self.name))
    }
}

impl MeshCommand for GrantRole {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let request = AuthUserGrantRoleRequest {
            user: self.name.clone(),
            role: self.role.clone(),
        };
        session.store().user_grant_role(request).await?;
        output.show(&Done {
            role: Some(&self.role),
            ..done("granted", &self.name)
        })
    }
}

impl MeshCommand for RevokeRole {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let request = AuthUserRevokeRoleRequest {
            name: self.name.clone(),
            role: self.role.clone(),
        };
        session.store().user_revoke_role(request).await?;
        output.show(&Done {
            role: Some(&self.role),
            ..done("revoked", &self.name)
        })
    }
}

fn done<'a>(done: &'static str, user: &'a str) -> Done<'a> {
    Done {
        done,
        user: Some(user),
        role: None,
    }
}

#[derive(Debug, Serialize)]
struct UserReport {
    user: String,
    roles: Vec<String>,
}

impl Report for UserReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let roles = match self.roles.is_empty() {
            true => "none".to_owned(),
            false => self.roles.join(", "),
        };
        writeln!(out, "user {}, roles: {roles}", self.user)
    }
}
