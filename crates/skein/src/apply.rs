//! `skein apply`: documents become the mesh's config, all or none.
//!
//! Owns the request, the report of what changed, and waiting until it is in force. Never admits:
//! the leader does.

use std::io::{self, Write};
use std::time::Duration;

use control_api::v1;
use proxy_config::Resource;
use serde::Serialize;

use crate::changes::{Change, Summary};
use crate::documents::Inputs;
use crate::failure::Failure;
use crate::in_force::{self, InForce};
use crate::options::duration;
use crate::output::{Output, Report};
use crate::session::{MeshCommand, Session};

/// The options of `skein apply`.
#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    inputs: Inputs,
    /// Have it checked by the mesh and show what would change, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait until every live node is SYNCED, at most for DURATION [default: 30s]
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "30s",
        value_parser = duration,
        conflicts_with = "dry_run"
    )]
    wait: Option<Duration>,
}

impl MeshCommand for Apply {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let resources = self.inputs.load(session.namespace())?;
        let document = |resource: &Resource| v1::Document {
            source: resource
                .location
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            json: resource.canonical_json().into(),
        };
        let documents = resources.iter().map(document).collect();
        let request = v1::ApplyRequest {
            documents,
            deletes: Vec::new(),
            dry_run: self.dry_run,
        };
        let mode = if self.dry_run {
            Mode::DryRun
        } else {
            Mode::Applied
        };
        let report = send(session, request, mode).await;
        let mut report = report.map_err(|failure| locate(failure, &resources))?;
        if let Some(patience) = self.wait {
            let revision = report.config_revision;
            report.in_force = Some(in_force::wait(session, revision, patience, output).await?);
        }
        output.show(&report)
    }
}

/// Adds to the faults that the mesh found the places where their resources are written.
fn locate(mut failure: Failure, resources: &[Resource]) -> Failure {
    for fault in &mut failure.faults {
        let about = |resource: &&Resource| {
            let rest = fault.text.strip_prefix(&resource.id().to_string());
            rest.is_some_and(|rest| rest.starts_with(": "))
        };
        let Some(resource) = resources.iter().find(about) else {
            continue;
        };
        fault.resource = Some(resource.id().to_string());
        if let Some(location) = &resource.location {
            fault.text = format!("{} ({location})", fault.text);
            fault.file = Some(location.file.to_string());
            (fault.line, fault.column) = (Some(location.line), Some(location.column));
        }
    }
    failure
}

/// Sends a change and tells what it did.
pub(crate) async fn send(
    session: &Session,
    request: v1::ApplyRequest,
    mode: Mode,
) -> Result<ApplyReport, Failure> {
    ApplyReport::of(session.apply(request).await?, mode)
}

/// Whether a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It was.
    Applied,
    /// It was only checked.
    DryRun,
}

/// What `apply` and `config delete` answer.
#[derive(Debug, Serialize)]
pub(crate) struct ApplyReport {
    dry_run: bool,
    config_revision: u64,
    revision: i64,
    summary: Summary,
    changes: Vec<Change>,
    in_force: Option<InForce>,
}

impl ApplyReport {
    /// Whether there was nothing to tell of: what was to be deleted did not exist.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn of(response: v1::ApplyResponse, mode: Mode) -> Result<Self, Failure> {
        let changes = response
            .changes
            .into_iter()
            .map(Change::of)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            dry_run: mode == Mode::DryRun,
            config_revision: response.config_revision,
            revision: response.revision,
            summary: Summary::of(&changes),
            changes,
            in_force: None,
        })
    }
}

impl Report for ApplyReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.dry_run {
            for change in &self.changes {
                change.write_diff(out)?;
            }
            let revision = self.config_revision;
            return writeln!(
                out,
                "dry run at config revision {revision}: {}",
                self.summary.line()
            );
        }
        for change in &self.changes {
            change.write_line(out)?;
        }
        writeln!(
            out,
            "config revision {}: {}",
            self.config_revision,
            self.summary.line()
        )?;
        if let Some(in_force) = &self.in_force {
            let (nodes, ms) = (in_force.nodes.join(", "), in_force.waited_ms);
            writeln!(out, "in force on {nodes} after {ms} ms")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::failure::FaultLine;
    use crate::output::rendered;

    fn response() -> v1::ApplyResponse {
        let json =
            |balance: &str| format!(r#"{{"kind":"Cluster","name":"a","balance":"{balance}"}}"#);
        let resource = |name: &str| v1::ResourceRef {
            kind: "Cluster".into(),
            namespace: "default".into(),
            name: name.into(),
        };
        let changed = v1::Change {
            resource: Some(resource("a")),
            action: v1::Action::Changed.into(),
            before: json("random").into(),
            after: json("ip_hash").into(),
        };
        let same = v1::Change {
            resource: Some(resource("b")),
            action: v1::Action::Unchanged.into(),
            before: json("random").into(),
            after: json("random").into(),
        };
        v1::ApplyResponse {
            config_revision: 4,
            revision: 90,
            changes: vec![changed, same],
        }
    }

    #[test]
    fn an_applied_change_is_a_line_per_resource_and_a_summary() {
        let mut report = ApplyReport::of(response(), Mode::Applied).unwrap();
        report.in_force = Some(InForce {
            nodes: vec!["n1".into(), "n2".into()],
            waited_ms: 41,
        });
        let (text, json) = rendered(&report);
        let expected = "\
changed    Cluster/a
unchanged  Cluster/b
config revision 4: 1 changed, 1 unchanged
in force on n1, n2 after 41 ms
";
        assert_eq!(text, expected);
        assert_eq!(
            json["summary"],
            json!({"created": 0, "changed": 1, "unchanged": 1, "deleted": 0})
        );
        assert_eq!(
            (&json["config_revision"], &json["revision"]),
            (&json!(4), &json!(90))
        );
        assert_eq!(json["changes"][0]["action"], "changed");
        assert_eq!(json["dry_run"], false);
        assert_eq!(
            json["in_force"],
            json!({"nodes": ["n1", "n2"], "waited_ms": 41})
        );
    }

    #[test]
    fn what_the_mesh_refuses_is_found_in_the_files() {
        let text = "kind: Cluster\nname: a\nendpoints: [\"10.0.0.1:80\"]\n";
        let text = format!("{text}---\n{}", text.replace("name: a", "name: a-b"));
        let resources = proxy_config::parse_documents("x.yaml", &text).unwrap();
        let line = |text: &str| FaultLine {
            text: text.into(),
            ..Default::default()
        };
        let faults = vec![line("Cluster/a-b: x: y; z"), line("Listener/edge: x: y; z")];
        let located = locate(Failure::refused(faults), &resources);
        assert_eq!(located.faults[0].text, "Cluster/a-b: x: y; z (x.yaml:5:1)");
        assert_eq!(
            (located.faults[0].file.as_deref(), located.faults[0].line),
            (Some("x.yaml"), Some(5))
        );
        assert_eq!(located.faults[1], line("Listener/edge: x: y; z"));
    }

    #[test]
    fn a_dry_run_shows_the_lines_that_would_change() {
        let (text, json) = rendered(&ApplyReport::of(response(), Mode::DryRun).unwrap());
        assert!(
            text.contains("    - balance: random\n    + balance: ip_hash\n"),
            "{text}"
        );
        assert!(
            text.ends_with("dry run at config revision 4: 1 changed, 1 unchanged\n"),
            "{text}"
        );
        assert_eq!(
            (&json["dry_run"], &json["in_force"]),
            (&json!(true), &json!(null))
        );
    }
}
