//! `skein downgrade`: back to the minor version before, node by node.
//!
//! Owns the commands and their words. Never decides what is possible: the mesh does.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use store_api::errors;
use store_api::etcdserverpb::DowngradeRequest;
use store_api::etcdserverpb::downgrade_request::DowngradeAction;
use store_client::ClientError;
use tonic::{Code, Status};

use crate::cli::Remote;
use crate::failure::{Failure, Kind};
use crate::output::{Output, Report};
use crate::session::{MeshCommand, Session};

/// Every command about going back to an older version. Going forward needs none.
#[derive(Debug, Subcommand)]
pub(crate) enum DowngradeCommand {
    /// Ask whether the mesh could go back to a version, and change nothing
    #[command(after_help = "\
Example:
  skein downgrade validate 0.1")]
    Validate(Remote<Validate>),

    /// Make the mesh ready for nodes of the minor version before
    #[command(after_help = "\
Examples:
  skein downgrade enable 0.1           # then, node by node: stop it, start the older binary
  skein status                         # the version of each node, and of the mesh

From then on what the older version does not know is refused. It ends by itself when every node runs
the older version. Nodes stop (SIGTERM) before their binary changes; one at a time keeps the quorum.")]
    Enable(Remote<Enable>),

    /// Stay at the newer version after all
    #[command(after_help = "\
Example:
  skein downgrade cancel               # nodes that run the older version already go forward again")]
    Cancel(Remote<Cancel>),
}

/// The options of `skein downgrade validate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Validate {
    /// The minor version to go back to, such as 0.1
    version: String,
}

/// The options of `skein downgrade enable`.
#[derive(Debug, clap::Args)]
pub(crate) struct Enable {
    /// The minor version to go back to, such as 0.1
    version: String,
}

/// The options of `skein downgrade cancel`: none.
#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {}

impl DowngradeCommand {
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Self::Validate(command) => command.run(),
            Self::Enable(command) => command.run(),
            Self::Cancel(command) => command.run(),
        }
    }
}

impl MeshCommand for Validate {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let (action, step) = (DowngradeAction::Validate, Step::Possible);
        output.show(&ask(session, action, step, Some(self.version)).await?)
    }
}

impl MeshCommand for Enable {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let (action, step) = (DowngradeAction::Enable, Step::Enabled);
        output.show(&ask(session, action, step, Some(self.version)).await?)
    }
}

impl MeshCommand for Cancel {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let (action, step) = (DowngradeAction::Cancel, Step::Cancelled);
        output.show(&ask(session, action, step, None).await?)
    }
}

async fn ask(
    session: &Session,
    action: DowngradeAction,
    downgrade: Step,
    target: Option<String>,
) -> Result<DowngradeReport, Failure> {
    let request = DowngradeRequest {
        action: action.into(),
        version: target.clone().unwrap_or_default(),
    };
    let answer = session.store().downgrade(request).await;
    Ok(DowngradeReport {
        downgrade,
        from: answer.map_err(refusal)?.version,
        target,
    })
}

/// What the mesh turned down, and what to do about it.
fn refusal(error: ClientError) -> Failure {
    let ClientError::Answered {
        code: code @ (Code::InvalidArgument | Code::FailedPrecondition),
        message,
    } = error
    else {
        return Failure::from(error);
    };
    let is = |known: fn() -> Status| known().message() == message;
    let said = if is(errors::wrong_downgrade_version_format) {
        "that is no version; give it as MAJOR.MINOR, such as 0.1".to_owned()
    } else if is(errors::invalid_downgrade_target_version) {
        "a mesh goes back by one minor version at a time, and not below 0.1; `skein status` shows \
         the version that it is at"
            .to_owned()
    } else if is(errors::downgrade_in_process) {
        "a downgrade is under way already; finish it, or `skein downgrade cancel`".to_owned()
    } else if is(errors::no_inflight_downgrade) {
        "no downgrade is under way".to_owned()
    } else if is(errors::cluster_version_unavailable) {
        "the mesh has not agreed on its version yet; try again in a moment".to_owned()
    } else {
        message
    };
    match code {
        Code::InvalidArgument => Failure::usage(said),
        _ => Failure::new(Kind::Refused, said),
    }
}

/// How far a downgrade is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Possible,
    Enabled,
    Cancelled,
}

/// What all three answer.
#[derive(Debug, Serialize)]
struct DowngradeReport {
    downgrade: Step,
    /// The mesh's version before the command.
    from: String,
    target: Option<String>,
}

impl Report for DowngradeReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let from = &self.from;
        let target = self.target.as_deref().unwrap_or_default();
        match self.downgrade {
            Step::Possible => writeln!(
                out,
                "the mesh can go back from {from} to {target}; nothing was changed"
            ),
            Step::Enabled => writeln!(
                out,
                "the mesh went back from {from} to {target}; now stop each node and start it with a \
                 binary of {target}, one after the other"
            ),
            Step::Cancelled => writeln!(
                out,
                "the downgrade to {from} is cancelled; the version rises again when all nodes are newer"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::rendered;

    #[test]
    fn people_see_what_comes_next_and_programs_which_step_it_was() {
        for (downgrade, target, said, name) in [
            (
                Step::Possible,
                Some("0.1"),
                "nothing was changed",
                "possible",
            ),
            (
                Step::Enabled,
                Some("0.1"),
                "from 0.2 to 0.1; now stop",
                "enabled",
            ),
            (Step::Cancelled, None, "rises again", "cancelled"),
        ] {
            let report = DowngradeReport {
                downgrade,
                from: "0.2".to_owned(),
                target: target.map(str::to_owned),
            };
            let (text, json) = rendered(&report);
            assert!(text.contains(said), "{text}");
            let fields = json!({ "downgrade": name, "from": "0.2", "target": target });
            assert_eq!(json, fields);
        }
    }

    #[test]
    fn what_is_turned_down_comes_with_a_remedy() {
        let refused = |status: Status| {
            refusal(ClientError::Answered {
                code: status.code(),
                message: status.message().to_owned(),
            })
        };
        for (status, kind, remedy) in [
            (
                errors::wrong_downgrade_version_format(),
                Kind::Usage,
                "MAJOR.MINOR",
            ),
            (
                errors::invalid_downgrade_target_version(),
                Kind::Usage,
                "one minor version",
            ),
            (
                errors::downgrade_in_process(),
                Kind::Refused,
                "downgrade cancel",
            ),
            (errors::no_inflight_downgrade(), Kind::Refused, "under way"),
            (
                errors::cluster_version_unavailable(),
                Kind::Refused,
                "try again",
            ),
            // What the mesh says itself is said as it is: it names the nodes.
            (
                Status::failed_precondition("skein: take back n3"),
                Kind::Refused,
                "n3",
            ),
            (errors::request_too_large(), Kind::Usage, "too large"),
        ] {
            let failure = refused(status);
            assert_eq!(failure.kind, kind, "{}", failure.message);
            assert!(failure.message.contains(remedy), "{}", failure.message);
        }
    }
}
