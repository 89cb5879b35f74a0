//! `skein role`: what the users who have a role may do with which keys.
//!
//! Owns how a range of keys is named on the command line. Never judges who may what.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;

use bytes::Bytes;
use serde::Serialize;
use store_api::authpb::Permission;
use store_api::authpb::permission::Type;
use store_api::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGrantPermissionRequest,
    AuthRoleListRequest, AuthRoleRevokePermissionRequest,
};
use store_client::prefix_end;

use crate::auth::{Done, Names};
use crate::escape;
use crate::failure::Failure;
use crate::output::{Output, Report};
use crate::session::{MeshCommand, Session};
use crate::table::Table;

/// The options of `skein role add`.
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// The name of the role
    name: String,
}

/// The options of `skein role list`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {}

/// The options of `skein role get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The name of the role
    name: String,
}

/// The options of `skein role delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// The name of the role
    name: String,
}

/// The options of `skein role grant-permission`.
#[derive(Debug, clap::Args)]
pub(crate) struct GrantPermission {
    /// The name of the role
    name: String,
    /// What is allowed
    #[arg(value_enum)]
    access: Access,
    #[command(flatten)]
    keys: Keys,
}

/// The options of `skein role revoke-permission`.
#[derive(Debug, clap::Args)]
pub(crate) struct RevokePermission {
    /// The name of the role
    name: String,
    #[command(flatten)]
    keys: Keys,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Access {
    Read,
    Write,
    Readwrite,
}

/// A range of keys.
#[derive(Debug, clap::Args)]
struct Keys {
    /// The key, or with --prefix how the keys begin (`''`: every key)
    key: OsString,
    /// All keys that begin with KEY
    #[arg(long)]
    prefix: bool,
    /// All keys from KEY on
    #[arg(long, conflicts_with = "prefix")]
    from_key: bool,
    /// All keys from KEY on, up to this one, which is not among them
    #[arg(long, value_name = "KEY", conflicts_with_all = ["prefix", "from_key"])]
    range_end: Option<OsString>,
}

impl Keys {
    /// Key and end as etcd spells them.
    fn to_etcd(&self) -> (Bytes, Bytes) {
        let least = Bytes::from_static(b"\0");
        let key = Bytes::from(self.key.clone().into_vec());
        match &self.range_end {
            _ if self.prefix && key.is_empty() => (least.clone(), least),
            _ if self.prefix => (key.clone(), prefix_end(&key)),
            _ if self.from_key && key.is_empty() => (least.clone(), least),
            _ if self.from_key => (key, least),
            Some(end) => (key, Bytes::from(end.clone().into_vec())),
            None => (key, Bytes::new()),
        }
    }
}

impl MeshCommand for Add {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let name = self.name.clone();
        session
            .store()
            .role_add(AuthRoleAddRequest { name })
            .await?;
        output.show(&done("added", &self.name))
    }
}

impl MeshCommand for List {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let roles = session.store().role_list(AuthRoleListRequest {}).await?;
        output.show(&Names::roles(roles.roles))
    }
}

impl MeshCommand for Get {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let role = self.name.clone();
        let found = session
            .store()
            .role_get(AuthRoleGetRequest { role })
            .await?;
        output.show(&RoleReport {
            role: self.name,
            permissions: found.perm.iter().map(PermissionLine::of).collect(),
        })
    }
}

impl MeshCommand for Delete {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let role = self.name.clone();
        let request = AuthRoleDeleteRequest { role };
        session.store().role_delete(request).await?;
        output.show(&done("deleted", &self.name))
    }
}

impl MeshCommand for GrantPermission {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let (key, range_end) = self.keys.to_etcd();
        let kind = match self.access {
            Access::Read => Type::Read,
            Access::Write => Type::Write,
            Access::Readwrite => Type::Readwrite,
        };
        let request = AuthRoleGrantPermissionRequest {
            name: self.name.clone(),
            perm: Some(Permission {
                perm_type: kind.into(),
                key,
                range_end,
            }),
        };
        session.store().role_grant_permission(request).await?;
        output.show(&done("permission granted", &self.name))
    }
}

impl MeshCommand for RevokePermission {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let (key, range_end) = self.keys.to_etcd();
        let request = AuthRoleRevokePermissionRequest {
            role: self.name.clone(),
            key,
            range_end,
        };
        session.store().role_revoke_permission(request).await?;
        output.show(&done("permission revoked", &self.name))
    }
}

fn done<'a>(done: &'static str, role: &'a str) -> Done<'a> {
    Done {
        done,
        user: None,
        role: Some(role),
    }
}

#[derive(Debug, Serialize)]
struct RoleReport {
    role: String,
    permissions: Vec<PermissionLine>,
}

#[derive(Debug, Serialize)]
struct PermissionLine {
    access: Option<Access>,
    key: Option<String>,
    key_base64: String,
    range_end: Option<String>,
    /// `None`: the key alone; empty: without an end.
    range_end_base64: Option<String>,
    #[serde(skip)]
    shown: [String; 2],
}

impl PermissionLine {
    fn of(permission: &Permission) -> Self {
        let (key, end) = (&permission.key, &permission.range_end);
        let (range_end, shown) = match &end[..] {
            [] => (None, "itself".to_owned()),
            [0] => (Some(&[][..]), "the last key".to_owned()),
            end => (Some(end), format!("before {}", escape::line(end))),
        };
        Self {
            access: match Type::try_from(permission.perm_type) {
                Ok(Type::Read) => Some(Access::Read),
                Ok(Type::Write) => Some(Access::Write),
                Ok(Type::Readwrite) => Some(Access::Readwrite),
                Err(_) => None,
            },
            key: escape::text(key),
            key_base64: escape::base64(key),
            range_end: range_end.and_then(escape::text),
            range_end_base64: range_end.map(escape::base64),
            shown: [escape::line(key), shown],
        }
    }
}

impl Report for RoleReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new(&["ACCESS", "FROM", "UP TO"]);
        for line in &self.permissions {
            let access = match line.access {
                Some(Access::Read) => "read",
                Some(Access::Write) => "write",
                Some(Access::Readwrite) => "readwrite",
                None => "?",
            };
            let [key, end] = line.shown.clone();
            table.row([access.to_owned(), key, end]);
        }
        table.write(out)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::rendered;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        keys: Keys,
    }

    fn keys(arguments: &[&str]) -> (Bytes, Bytes) {
        let line = [&["skein"], arguments].concat();
        let line = <Line as clap::Parser>::try_parse_from(line).expect("parses");
        line.keys.to_etcd()
    }

    #[test]
    fn ranges_are_spelled_as_etcd_spells_them() {
        for (arguments, key, end) in [
            (&["a"][..], "a", ""),
            (&["a/", "--prefix"], "a/", "a0"),
            (&["", "--prefix"], "\0", "\0"),
            (&["a", "--from-key"], "a", "\0"),
            (&["a", "--range-end", "c"], "a", "c"),
        ] {
            let (found, found_end) = keys(arguments);
            assert_eq!(
                (&found[..], &found_end[..]),
                (key.as_bytes(), end.as_bytes())
            );
        }
    }

    #[test]
    fn permissions_are_told_in_both_forms() {
        let permission = |kind: Type, key: &'static str, end: &'static str| Permission {
            perm_type: kind.into(),
            key: key.into(),
            range_end: end.into(),
        };
        let lines = [
            permission(Type::Read, "a", ""),
            permission(Type::Readwrite, "b/", "b0"),
            permission(Type::Write, "c", "\0"),
        ];
        let report = RoleReport {
            role: "shop".to_owned(),
            permissions: lines.iter().map(PermissionLine::of).collect(),
        };
        let (text, value) = rendered(&report);
        let expected = "\
ACCESS     FROM  UP TO
read       a     itself
readwrite  b/    before b0
write      c     the last key
";
        assert_eq!(text, expected);
        assert_eq!(
            value["permissions"][1],
            json!({
                "access": "readwrite", "key": "b/", "key_base64": "Yi8=",
                "range_end": "b0", "range_end_base64": "YjA=",
            })
        );
        assert_eq!(value["permissions"][0]["range_end_base64"], json!(null));
        assert_eq!(value["permissions"][2]["range_end_base64"], json!(""));
    }
}
