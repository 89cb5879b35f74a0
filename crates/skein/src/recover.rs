//! `skein recover`: a new mesh from what one node has left, after the loss of a quorum.
//!
//! Owns the conversation: what is there, what may be lost, who still answers, and the yes. Never
//! goes on while the members that live could be a quorum.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use model::{MeshId, NodeId};
use serde::Serialize;
use store_client::{Client, ClientOptions};
use store_raft::{Left, Member, RecoverError};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::age;
use crate::failure::{Failure, Kind};
use crate::options::duration;
use crate::output::{Format, Output, Report};

/// Entries that are listed one by one.
const LISTED_MAX: usize = 20;

/// The options of `skein recover`.
#[derive(Debug, clap::Args)]
pub(crate) struct Recover {
    /// The stopped node's data directory
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Go on without asking
    #[arg(long)]
    yes: bool,
    /// Client addresses of more members to ask, should they have moved
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    endpoints: Vec<String>,
    /// How long a member may take to answer
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    timeout: Duration,
    /// How to write the result and errors
    #[arg(
        short,
        long,
        value_name = "text|json",
        hide_possible_values = true,
        default_value = "text"
    )]
    pub(crate) output: Format,
}

/// What `recover` answers.
#[derive(Debug, Serialize)]
struct RecoverReport {
    data_dir: String,
    node_id: NodeId,
    mesh_id: MeshId,
    revision: i64,
    config_revision: u64,
    keys: usize,
    leases: usize,
    last_index: u64,
    last_term: u64,
    committed_index: u64,
    uncertain_entries: usize,
    uncertain_writes: usize,
    uncertain: Vec<UncertainLine>,
    voters: Vec<VoterLine>,
    recovered: Option<Recovered>,
}

#[derive(Debug, Serialize)]
struct UncertainLine {
    index: u64,
    term: u64,
    writes: usize,
}

#[derive(Debug, Serialize)]
struct VoterLine {
    name: String,
    id: NodeId,
    client: String,
    answer: Answer,
}

/// How a member's address answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// It is this node, which is stopped.
    This,
    /// As a member of the mesh.
    Member,
    /// Something is there, and nobody knows what.
    Unclear,
    /// Nothing, or a node of another mesh.
    None,
}

#[derive(Debug, Serialize)]
struct Recovered {
    mesh_id: MeshId,
    node_id: NodeId,
    kept: String,
}

impl Recover {
    /// Leads through it.
    pub(crate) fn run(self, output: &mut Output<'_>) -> Result<(), Failure> {
        let left = Left::find(&self.data_dir).map_err(failure)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
        let (voters, leader) = runtime.block_on(self.ask(&left));
        let mut report = self.report(&left, voters);
        check_lost(&report, leader)?;
        if !self.agreed(output, &report)? {
            return Err(Failure::new(
                Kind::Refused,
                "nothing was changed; give --yes to go on",
            ));
        }
        let now = age::unix_seconds(SystemTime::now());
        let keep = format!("before-recovery-{now}");
        let renewed = left.renew(&keep).map_err(failure)?;
        report.recovered = Some(Recovered {
            mesh_id: renewed.mesh_id,
            node_id: renewed.node_id,
            kept: self.data_dir.join(keep).display().to_string(),
        });
        output.show(&report)
    }

    fn report(&self, left: &Left, voters: Vec<VoterLine>) -> RecoverReport {
        let image = left.image();
        let line = |one: &store_raft::Uncertain| UncertainLine {
            index: one.index,
            term: one.term,
            writes: one.writes,
        };
        RecoverReport {
            data_dir: self.data_dir.display().to_string(),
            node_id: left.node_id,
            mesh_id: left.mesh_id,
            revision: image.revision(),
            config_revision: image.config_revision().0,
            keys: image.len(),
            leases: image.lease_count(),
            last_index: left.last.0,
            last_term: left.last.1,
            committed_index: left.committed,
            uncertain_entries: left.uncertain.len(),
            uncertain_writes: left.uncertain.iter().map(|one| one.writes).sum(),
            uncertain: left.uncertain.iter().take(LISTED_MAX).map(line).collect(),
            voters,
            recovered: None,
        }
    }

    /// How each voter answers, and whether somebody knows a leader.
    async fn ask(&self, left: &Left) -> (Vec<VoterLine>, bool) {
        let addresses: BTreeSet<&String> = left
            .voters
            .iter()
            .chain(left.learners.iter())
            .filter(|member| member.id != left.node_id)
            .map(|member| &member.client_addr)
            .chain(&self.endpoints)
            .filter(|address| !address.is_empty())
            .collect();
        let asked = addresses.into_iter().map(async |address| {
            let told = ask(address, self.timeout).await;
            (address.as_str(), told)
        });
        let told = join_all(asked).await;
        let of_mesh = |told: &Told| told.mesh == left.mesh_id.0;
        let known = told.iter().filter_map(|(_, told)| told.as_ref().ok());
        let leader = known.clone().any(|told| of_mesh(told) && told.leader);
        let line = |voter: &Member| {
            let lives = known
                .clone()
                .any(|told| of_mesh(told) && told.member == voter.id.0);
            let unclear = told
                .iter()
                .any(|(address, told)| *address == voter.client_addr && *told == Err(true));
            let answer = match (voter.id == left.node_id, lives, unclear) {
                (true, _, _) => Answer::This,
                (_, true, _) => Answer::Member,
                (_, _, true) => Answer::Unclear,
                _ => Answer::None,
            };
            VoterLine {
                name: voter.name.clone(),
                id: voter.id,
                client: voter.client_addr.clone(),
                answer,
            }
        };
        (left.voters.iter().map(line).collect(), leader)
    }

    /// Shows what is at stake, and asks.
    fn agreed(&self, output: &mut Output<'_>, report: &RecoverReport) -> Result<bool, Failure> {
        if self.yes {
            return Ok(true);
        }
        output.show(report)?;
        if output.format() == Format::Json || !io::stdin().is_terminal() {
            return Ok(false);
        }
        output.note("Make this a new mesh, for good? Type yes:");
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line);
        read.map_err(|error| Failure::failed(format!("cannot read the answer: {error}")))?;
        Ok(line.trim() == "yes")
    }
}

/// What a node says of itself.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    mesh: u64,
    member: u64,
    leader: bool,
}

/// Asks the node at `address`. `Err(true)`: something is there that does not say what it is.
async fn ask(address: &str, patience: Duration) -> Result<Told, bool> {
    let options = ClientOptions {
        deadline: patience,
        connect_timeout: patience,
        // What speaks TLS or asks for a user is there, and that is enough to know.
        tls: None,
        credentials: None,
    };
    let client = Client::new([address], options).map_err(|_| false)?;
    if let Ok(status) = client.status().await {
        let header = status.header.unwrap_or_default();
        return Ok(Told {
            mesh: header.cluster_id,
            member: header.member_id,
            leader: status.leader != 0,
        });
    }
    let there = timeout(patience, TcpStream::connect(address)).await;
    Err(matches!(there, Ok(Ok(_))))
}

/// Refuses while the members that live could be a quorum, with this one or without it.
fn check_lost(report: &RecoverReport, leader: bool) -> Result<(), Failure> {
    let living: Vec<&str> = report
        .voters
        .iter()
        .filter(|voter| voter.answer != Answer::None)
        .map(|voter| match voter.answer {
            Answer::This => "this one",
            _ => voter.name.as_str(),
        })
        .collect();
    let quorum = report.voters.len() / 2 + 1;
    let why = if leader {
        "a member answers that knows a leader".to_owned()
    } else if living.len() >= quorum {
        format!(
            "{} of {} voters are there ({}), and {quorum} are enough",
            living.len(),
            report.voters.len(),
            living.join(", ")
        )
    } else {
        return Ok(());
    };
    Err(Failure::new(
        Kind::Refused,
        format!(
            "the quorum is not lost: {why}; start this node instead, and let dead ones come back with \
             empty data directories. Nothing was changed"
        ),
    ))
}

fn failure(error: RecoverError) -> Failure {
    let kind = match error {
        RecoverError::NoMember(_) => Kind::NotFound,
        _ => Kind::Failed,
    };
    Failure::new(kind, error.to_string())
}

impl Report for RecoverReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(done) = &self.recovered {
            writeln!(
                out,
                "{} is now node {}, the only member of the new mesh {}, at revision {}",
                self.data_dir, done.node_id, done.mesh_id, self.revision
            )?;
            writeln!(out, "What was there before is in {}", done.kept)?;
            return writeln!(
                out,
                "Next: start it as before. Then start the others on empty data directories, with --join.\n\
                 A node of the old mesh that comes back stays apart: empty its data directory, too."
            );
        }
        writeln!(
            out,
            "{}: node {} of mesh {}",
            self.data_dir, self.node_id, self.mesh_id
        )?;
        writeln!(
            out,
            "  revision {}, config revision {}, {} keys, {} leases",
            self.revision, self.config_revision, self.keys, self.leases
        )?;
        writeln!(
            out,
            "  log to entry {} of term {}; known to be committed to entry {}",
            self.last_index, self.last_term, self.committed_index
        )?;
        for one in &self.uncertain {
            writeln!(
                out,
                "  entry {} of term {}, {} writes: perhaps never committed; it will count",
                one.index, one.term, one.writes
            )?;
        }
        let unlisted = self.uncertain_entries - self.uncertain.len();
        if unlisted > 0 {
            writeln!(out, "  and {unlisted} more such entries")?;
        }
        for voter in &self.voters {
            let answer = match voter.answer {
                Answer::This => "this node",
                Answer::Member => "lives",
                Answer::Unclear => "something answers at its address",
                Answer::None => "does not answer",
            };
            writeln!(out, "  voter {} at {}: {answer}", voter.name, voter.client)?;
        }
        writeln!(
            out,
            "What others acknowledged after entry {} is lost. The members will be dropped, and the mesh \
             gets a new id: no node of the old one can join it with its data.",
            self.last_index
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(answers: &[Answer]) -> RecoverReport {
        let voter = |(at, answer): (usize, &Answer)| VoterLine {
            name: format!("n{at}"),
            id: NodeId(at as u64),
            client: String::new(),
            answer: *answer,
        };
        RecoverReport {
            data_dir: "d".into(),
            node_id: NodeId(0),
            mesh_id: MeshId(1),
            revision: 7,
            config_revision: 0,
            keys: 1,
            leases: 0,
            last_index: 9,
            last_term: 2,
            committed_index: 8,
            uncertain_entries: 1,
            uncertain_writes: 3,
            uncertain: vec![UncertainLine {
                index: 9,
                term: 2,
                writes: 3,
            }],
            voters: answers.iter().enumerate().map(voter).collect(),
            recovered: None,
        }
    }

    #[test]
    fn it_is_refused_while_those_that_live_could_be_a_quorum() {
        use Answer::{Member, None, This, Unclear};
        let refused = |answers: &[Answer], leader| {
            let checked = check_lost(&report(answers), leader);
            checked.err().map(|failure| failure.message)
        };
        assert_eq!(refused(&[This, None, None], false), Option::None);
        assert_eq!(
            refused(&[This, Member, None, None, None], false),
            Option::None
        );
        let two = refused(&[This, Member, None], false).unwrap();
        assert!(two.contains("2 of 3") && two.contains("n1"), "{two}");
        assert!(refused(&[This, Unclear, None], false).is_some());
        assert!(refused(&[None, Member, Member], false).is_some());
        assert!(refused(&[This], false).is_some(), "it needs nobody else");
        let led = refused(&[This, None, None], true).unwrap();
        assert!(led.contains("leader"), "{led}");
    }

    #[test]
    fn the_report_names_what_is_at_stake() {
        let report = report(&[Answer::This, Answer::None, Answer::None]);
        let (text, json) = crate::output::rendered(&report);
        assert!(text.contains("entry 9 of term 2, 3 writes"), "{text}");
        assert!(text.contains("after entry 9 is lost"), "{text}");
        assert_eq!(json["uncertain"][0]["writes"], 3);
        assert_eq!(json["voters"][1]["answer"], "none");
        assert!(json["recovered"].is_null());
    }
}
