//! What a change of the config does to each resource.
//!
//! Owns the forms of a change: one line, a diff of the YAML, and the JSON fields. Never decides
//! what a change is: the leader does, or `config diff` by comparing.

use std::io::{self, Write};

use control_api::v1;
use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::line_diff::changed_lines;
use crate::manifest;

/// What happens to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// It is new.
    Created,
    /// It is replaced.
    Changed,
    /// It stays as it is.
    Unchanged,
    /// It is gone.
    Deleted,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        }
    }
}

/// One resource's change.
#[derive(Debug, Serialize)]
pub(crate) struct Change {
    kind: String,
    namespace: String,
    name: String,
    action: Action,
    before: Option<Value>,
    after: Option<Value>,
}

/// How many resources had which change.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    created: usize,
    changed: usize,
    unchanged: usize,
    deleted: usize,
}

impl Change {
    /// The change from one canonical JSON to another; `None` where there is none.
    pub(crate) fn between(
        resource: v1::ResourceRef,
        before: Option<&[u8]>,
        after: Option<&[u8]>,
    ) -> Result<Self, Failure> {
        let action = match (before, after) {
            (None, _) => Action::Created,
            (Some(_), None) => Action::Deleted,
            (Some(before), Some(after)) if before == after => Action::Unchanged,
            (Some(_), Some(_)) => Action::Changed,
        };
        Ok(Self {
            before: before.map(manifest::parse).transpose()?,
            after: after.map(manifest::parse).transpose()?,
            kind: resource.kind,
            namespace: resource.namespace,
            name: resource.name,
            action,
        })
    }

    /// The change that the leader tells of.
    pub(crate) fn of(change: v1::Change) -> Result<Self, Failure> {
        let present = |bytes: &bytes::Bytes| {
            (!bytes.is_empty())
                .then(|| manifest::parse(bytes))
                .transpose()
        };
        let action = match change.action() {
            v1::Action::Created => Action::Created,
            v1::Action::Changed => Action::Changed,
            v1::Action::Deleted => Action::Deleted,
            v1::Action::Unchanged | v1::Action::Unspecified => Action::Unchanged,
        };
        let resource = change.resource.unwrap_or_default();
        Ok(Self {
            before: present(&change.before)?,
            after: present(&change.after)?,
            kind: resource.kind,
            namespace: resource.namespace,
            name: resource.name,
            action,
        })
    }

    fn label(&self) -> String {
        manifest::label(&self.kind, &self.namespace, &self.name)
    }

    /// The change in one line.
    pub(crate) fn write_line(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{:9}  {}", self.action.word(), self.label())
    }

    /// The change in one line, and below it the changed lines of the resource's YAML.
    pub(crate) fn write_diff(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_line(out)?;
        let yaml = |value: &Option<Value>| value.as_ref().map(manifest::yaml).unwrap_or_default();
        for line in changed_lines(&yaml(&self.before), &yaml(&self.after)) {
            writeln!(out, "    {line}")?;
        }
        Ok(())
    }
}

impl Summary {
    /// Counts `changes`.
    pub(crate) fn of(changes: &[Change]) -> Self {
        let mut summary = Self::default();
        for change in changes {
            *match change.action {
                Action::Created => &mut summary.created,
                Action::Changed => &mut summary.changed,
                Action::Unchanged => &mut summary.unchanged,
                Action::Deleted => &mut summary.deleted,
            } += 1;
        }
        summary
    }

    /// `1 created, 2 changed`; only what there is.
    pub(crate) fn line(&self) -> String {
        let counts = [
            (self.created, Action::Created),
            (self.changed, Action::Changed),
            (self.unchanged, Action::Unchanged),
            (self.deleted, Action::Deleted),
        ];
        let parts = counts.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<_> = parts
            .map(|(count, action)| format!("{count} {}", action.word()))
            .collect();
        if parts.is_empty() {
            "nothing to change".to_owned()
        } else {
            parts.join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(namespace: &str) -> v1::ResourceRef {
        v1::ResourceRef {
            kind: "Cluster".into(),
            namespace: namespace.into(),
            name: "api".into(),
        }
    }

    const OLD: &[u8] =
        br#"{"schema":1,"kind":"Cluster","namespace":"default","name":"api","balance":"random"}"#;
    const NEW: &[u8] =
        br#"{"schema":1,"kind":"Cluster","namespace":"default","name":"api","balance":"ip_hash"}"#;

    fn shown(change: &Change) -> String {
        let mut out = Vec::new();
        change.write_diff(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_changed_resource_shows_its_changed_lines() {
        let change = Change::between(resource("default"), Some(OLD), Some(NEW)).unwrap();
        let expected = "changed    Cluster/api
      kind: Cluster
      name: api
    - balance: random
    + balance: ip_hash
";
        assert_eq!(shown(&change), expected);
        let fields = serde_json::to_value(&change).unwrap();
        assert_eq!(fields["action"], "changed");
        assert_eq!(
            (&fields["namespace"], &fields["name"]),
            (&json!("default"), &json!("api"))
        );
        assert_eq!(
            (&fields["before"]["balance"], &fields["after"]["balance"]),
            (&json!("random"), &json!("ip_hash"))
        );
    }

    #[test]
    fn the_action_follows_from_what_there_was() {
        let action = |before, after| {
            Change::between(resource("default"), before, after)
                .unwrap()
                .action
        };
        assert_eq!(action(None, Some(NEW)), Action::Created);
        assert_eq!(action(Some(OLD), Some(OLD)), Action::Unchanged);
        assert_eq!(action(Some(OLD), None), Action::Deleted);
    }

    #[test]
    fn what_the_leader_tells_is_shown_the_same() {
        let told = v1::Change {
            resource: Some(resource("team")),
            action: v1::Action::Deleted.into(),
            before: OLD.into(),
            after: bytes::Bytes::new(),
        };
        let change = Change::of(told).unwrap();
        assert!(shown(&change).starts_with("deleted    Cluster/team/api\n    - kind: Cluster\n"));
        assert_eq!(serde_json::to_value(&change).unwrap()["after"], json!(null));
    }

    #[test]
    fn the_summary_counts_only_what_there_is() {
        let change = |before, after| Change::between(resource("default"), before, after).unwrap();
        let changes = [
            change(None, Some(NEW)),
            change(Some(OLD), Some(NEW)),
            change(Some(OLD), Some(NEW)),
        ];
        assert_eq!(Summary::of(&changes).line(), "1 created, 2 changed");
        assert_eq!(Summary::default().line(), "nothing to change");
    }
}
