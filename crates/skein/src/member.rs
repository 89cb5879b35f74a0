//! `skein member`: changes of who belongs to the store, and of who leads it.
//!
//! Owns the choice of a member by its name or id, and the words for what a change means to the
//! quorum. Never decides whether a change is safe: the leader does, and refuses.

use std::io::{self, Write};
use std::time::Duration;

use model::NodeId;
use serde::Serialize;
use store_api::errors;
use store_api::etcdserverpb::{
    Member, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, MoveLeaderRequest,
};
use store_client::ClientError;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::failure::{Failure, Kind};
use crate::output::{Output, Report};
use crate::session::{MeshCommand, Session};

/// Between two looks at who leads.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The options of `skein member remove`.
#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// Its name, or its id
    member: String,
}

/// The options of `skein member promote`.
#[derive(Debug, clap::Args)]
pub(crate) struct Promote {
    /// Its name, or its id
    member: String,
}

/// The options of `skein member move-leader`.
#[derive(Debug, clap::Args)]
pub(crate) struct MoveLeader {
    /// The name or id of the voter that is to lead
    to: String,
}

impl MeshCommand for Remove {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let member = choose(&list(session).await?, &self.member)?;
        let request = MemberRemoveRequest { id: member.id };
        let answer = session.store().member_remove(request).await;
        let members = answer.map_err(|error| refusal(error, &member))?.members;
        output.show(&ChangeReport::of("removed", &member, &members))
    }
}

impl MeshCommand for Promote {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let member = choose(&list(session).await?, &self.member)?;
        let request = MemberPromoteRequest { id: member.id };
        let answer = session.store().member_promote(request).await;
        let members = answer.map_err(|error| refusal(error, &member))?.members;
        output.show(&ChangeReport::of("promoted", &member, &members))
    }
}

impl MeshCommand for MoveLeader {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let members = list(session).await?;
        let to = choose(&members, &self.to)?;
        let before = session.store().status().await?.leader;
        if before != to.id {
            let leader = members.iter().find(|member| member.id == before);
            let url = leader.and_then(|leader| leader.client_ur_ls.first());
            let url = url.ok_or_else(|| {
                Failure::new(Kind::Unreachable, "no leader is known; see `skein status`")
            })?;
            let request = MoveLeaderRequest { target_id: to.id };
            let moved = session.at(url)?.move_leader(request).await;
            moved.map_err(|error| refusal(error, &to))?;
        }
        let (leader, term) = next_leader(session, before, to.id).await?;
        let name = members.into_iter().find(|member| member.id == leader);
        output.show(&LeaderReport {
            leader: Named {
                name: name.map(|member| member.name).unwrap_or_default(),
                id: NodeId(leader),
            },
            term,
        })
    }
}

/// The members, as the leader knows them: a change must not be decided on old knowledge.
async fn list(session: &Session) -> Result<Vec<Member>, Failure> {
    let request = MemberListRequest { linearizable: true };
    Ok(session.store().member_list(request).await?.members)
}

/// The member of this name or id.
fn choose(members: &[Member], named: &str) -> Result<Member, Failure> {
    let id = (named.len() == 16).then(|| named.parse::<NodeId>().ok());
    let by_id = id
        .flatten()
        .and_then(|id| members.iter().find(|member| member.id == id.0));
    let mut by_name = members.iter().filter(|member| member.name == named);
    match (by_id, by_name.next(), by_name.next()) {
        (Some(member), _, _) | (None, Some(member), None) => Ok(member.clone()),
        (None, Some(_), Some(_)) => Err(Failure::usage(format!(
            "several members are called `{named}`; give the id of one (`skein member list`)"
        ))),
        (None, None, _) => {
            let mut names: Vec<_> = members.iter().map(|member| &*member.name).collect();
            names.sort_unstable();
            Err(Failure::not_found(format!(
                "no member is called `{named}`; there are: {}",
                names.join(", ")
            )))
        }
    }
}

/// What the leader turned down, and what to do about it.
fn refusal(error: ClientError, member: &Member) -> Failure {
    let ClientError::Answered {
        code: Code::FailedPrecondition,
        message,
    } = error
    else {
        return Failure::from(error);
    };
    let name = &member.name;
    let is = |known: fn() -> tonic::Status| known().message() == message;
    let said = if is(errors::member_not_enough_started) {
        format!(
            "{name} stays a member: of the voters that would remain, too few answer to write; start \
             those that are down (`skein status`), or let others join, before {name} is removed"
        )
    } else if is(errors::learner_not_ready) {
        format!(
            "{name} gets no vote yet: it is still catching up, or does not answer; it gets one by \
             itself when it has caught up"
        )
    } else if is(errors::member_not_learner) {
        format!("{name} votes already")
    } else if is(errors::bad_leader_transferee) {
        format!("{name} cannot lead: it has no vote; see `skein member list`")
    } else if is(errors::not_leader) {
        "the leader changed meanwhile; try again".to_owned()
    } else {
        message
    };
    Failure::new(Kind::Refused, said)
}

/// Who leads once it is no longer `before`, or already is `to`; and in which term.
async fn next_leader(session: &Session, before: u64, to: u64) -> Result<(u64, u64), Failure> {
    let deadline = Instant::now() + session.timeout();
    loop {
        let status = session.store().status().await?;
        if status.leader != 0 && (status.leader != before || before == to) {
            return Ok((status.leader, status.raft_term));
        }
        if Instant::now() >= deadline {
            let text = "leadership was handed over, but nobody is known to lead yet; see \
                        `skein status`";
            return Err(Failure::failed(text));
        }
        sleep(LOOK_EVERY).await;
    }
}

#[derive(Debug, Serialize)]
struct Named {
    name: String,
    id: NodeId,
}

/// What `remove` and `promote` answer.
#[derive(Debug, Serialize)]
struct ChangeReport {
    change: &'static str,
    member: Named,
    voters: usize,
    quorum: usize,
    may_fail: usize,
}

impl ChangeReport {
    fn of(change: &'static str, member: &Member, members: &[Member]) -> Self {
        let voters = members.iter().filter(|member| !member.is_learner).count();
        let quorum = voters / 2 + 1;
        Self {
            change,
            member: Named {
                name: member.name.clone(),
                id: NodeId(member.id),
            },
            voters,
            quorum,
            may_fail: voters.saturating_sub(quorum),
        }
    }
}

impl Report for ChangeReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Named { name, id } = &self.member;
        match self.change {
            "removed" => writeln!(
                out,
                "{name} ({id}) is no longer a member; it serves the config that it has until it is \
                 stopped, and joins anew only with an empty data directory"
            )?,
            _ => writeln!(out, "{name} ({id}) votes now")?,
        }
        let Self {
            voters,
            quorum,
            may_fail,
            ..
        } = self;
        match may_fail {
            0 => writeln!(
                out,
                "voters: {voters}; a write needs {quorum}: none of them may fail"
            ),
            _ => writeln!(
                out,
                "voters: {voters}; a write needs {quorum}: {may_fail} of them may fail"
            ),
        }
    }
}

/// What `move-leader` answers.
#[derive(Debug, Serialize)]
struct LeaderReport {
    leader: Named,
    term: u64,
}

impl Report for LeaderReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Named { name, id } = &self.leader;
        writeln!(out, "{name} ({id}) leads, in term {}", self.term)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::rendered;

    fn member(id: u64, name: &str, is_learner: bool) -> Member {
        Member {
            id,
            name: name.to_owned(),
            is_learner,
            ..Member::default()
        }
    }

    #[test]
    fn a_member_is_named_by_its_name_or_its_id() {
        let hex = "00000000000000ff";
        let members = [
            member(1, "n1", false),
            member(2, "twin", false),
            member(3, "twin", true),
            member(255, "n4", false),
        ];
        assert_eq!(choose(&members, "n1").unwrap().id, 1);
        assert_eq!(choose(&members, hex).unwrap().id, 255);
        assert_eq!(choose(&members, "0000000000000003").unwrap().id, 3);
        assert_eq!(choose(&members, "twin").unwrap_err().kind, Kind::Usage);
        let missing = choose(&members, "n9").unwrap_err();
        assert_eq!(missing.kind, Kind::NotFound);
        assert!(
            missing.message.contains("n1, n4, twin"),
            "{}",
            missing.message
        );
        // No id is meant by fewer digits: a name may look like some.
        assert_eq!(choose(&members, "ff").unwrap_err().kind, Kind::NotFound);
    }

    #[test]
    fn people_see_what_a_change_means_to_the_quorum() {
        let left = [member(1, "n1", false), member(2, "n2", false)];
        let report = ChangeReport::of("removed", &member(3, "n3", false), &left);
        let (text, json) = rendered(&report);
        assert!(text.contains("n3 (0000000000000003) is no longer a member"));
        assert!(text.contains("voters: 2; a write needs 2: none of them may fail"));
        assert_eq!(
            json,
            json!({
                "change": "removed", "member": {"name": "n3", "id": "0000000000000003"},
                "voters": 2, "quorum": 2, "may_fail": 0,
            })
        );
        let all = [&left[..], &[member(3, "n3", false), member(4, "n4", true)]].concat();
        let report = ChangeReport::of("promoted", &all[2], &all);
        let (text, _) = rendered(&report);
        assert!(
            text.contains("votes now") && text.contains("1 of them may fail"),
            "{text}"
        );
    }

    #[test]
    fn what_would_cost_the_quorum_is_refused_with_a_remedy() {
        let refused = |status: tonic::Status| {
            let error = ClientError::Answered {
                code: status.code(),
                message: status.message().to_owned(),
            };
            refusal(error, &member(3, "n3", false))
        };
        let failure = refused(errors::member_not_enough_started());
        assert_eq!(failure.kind, Kind::Refused);
        assert!(failure.message.contains("n3 stays a member"));
        assert_eq!(refused(errors::learner_not_ready()).kind, Kind::Refused);
        assert_eq!(refused(errors::request_too_large()).kind, Kind::Failed);
    }
}
