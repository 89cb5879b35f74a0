//! `skein auth`: whether callers are asked who they are.
//!
//! Owns the words for it. Never sees a password: the session signs in.

use std::io::{self, Write};

use serde::Serialize;
use store_api::etcdserverpb::{AuthDisableRequest, AuthEnableRequest, AuthStatusRequest};

use crate::failure::Failure;
use crate::output::{Output, Report};
use crate::session::{MeshCommand, Session};

/// The options of `skein auth enable`.
#[derive(Debug, clap::Args)]
pub(crate) struct Enable {}

/// The options of `skein auth disable`.
#[derive(Debug, clap::Args)]
pub(crate) struct Disable {}

/// The options of `skein auth status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {}

impl MeshCommand for Enable {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        session.store().auth_enable(AuthEnableRequest {}).await?;
        output.show(&Switched { enabled: true })
    }
}

impl MeshCommand for Disable {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        session.store().auth_disable(AuthDisableRequest {}).await?;
        output.show(&Switched { enabled: false })
    }
}

impl MeshCommand for Status {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let status = session.store().auth_status(AuthStatusRequest {}).await?;
        output.show(&Standing {
            enabled: status.enabled,
            auth_revision: status.auth_revision,
        })
    }
}

fn word(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}

#[derive(Debug, Serialize)]
struct Switched {
    enabled: bool,
}

impl Report for Switched {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "auth is {}", word(self.enabled))
    }
}

#[derive(Debug, Serialize)]
struct Standing {
    enabled: bool,
    auth_revision: u64,
}

impl Report for Standing {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let (word, revision) = (word(self.enabled), self.auth_revision);
        writeln!(out, "auth is {word}, auth revision {revision}")
    }
}

/// What was done to a user or a role.
#[derive(Debug, Serialize)]
pub(crate) struct Done<'a> {
    /// In one word: "added", "deleted", …
    pub(crate) done: &'static str,
    /// The user it was done to, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<&'a str>,
    /// The role that it was about, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'a str>,
}

impl Report for Done<'_> {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let user = self.user.map(|user| format!("user {user}"));
        let role = self.role.map(|role| format!("role {role}"));
        let both: Vec<String> = user.into_iter().chain(role).collect();
        writeln!(out, "{}: {}", both.join(", "), self.done)
    }
}

/// Names, one a line.
#[derive(Debug, Serialize)]
pub(crate) struct Names {
    /// In order.
    #[serde(skip)]
    pub(crate) names: Vec<String>,
    /// The users, if it is them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) users: Option<Vec<String>>,
    /// The roles, if it is them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) roles: Option<Vec<String>>,
}

impl Names {
    /// A list of users.
    pub(crate) fn users(names: Vec<String>) -> Self {
        Self {
            users: Some(names.clone()),
            roles: None,
            names,
        }
    }

    /// A list of roles.
    pub(crate) fn roles(names: Vec<String>) -> Self {
        Self {
            users: None,
            roles: Some(names.clone()),
            names,
        }
    }
}

impl Report for Names {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        self.names
            .iter()
            .try_for_each(|name| writeln!(out, "{name}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::rendered;

    #[test]
    fn what_was_done_is_told_in_both_forms() {
        let done = Done {
            done: "granted",
            user: Some("ann"),
            role: Some("shop"),
        };
        let (text, value) = rendered(&done);
        assert_eq!(text, "user ann, role shop: granted\n");
        assert_eq!(
            value,
            json!({"done": "granted", "user": "ann", "role": "shop"})
        );
        let (text, value) = rendered(&Names::users(vec!["ann".into(), "bob".into()]));
        assert_eq!(text, "ann\nbob\n");
        assert_eq!(value, json!({"users": ["ann", "bob"]}));
        let standing = Standing {
            enabled: true,
            auth_revision: 7,
        };
        let (text, value) = rendered(&standing);
        assert_eq!(text, "auth is enabled, auth revision 7\n");
        assert_eq!(value, json!({"enabled": true, "auth_revision": 7}));
    }
}
