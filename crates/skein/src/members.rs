//! `skein members`: the store's Raft members.
//!
//! Owns the forms of a member. Never says whether one is alive: that is `skein peers`.

use std::io::{self, Write};

use model::NodeId;
use serde::Serialize;
use store_api::etcdserverpb::{Member, MemberListRequest};

use crate::failure::Failure;
use crate::output::{Output, Report};
use crate::session::{MeshCommand, Session};
use crate::table::Table;

/// The options of `skein members`.
#[derive(Debug, clap::Args)]
pub(crate) struct Members {}

impl MeshCommand for Members {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        // The asked node's own knowledge: members must show when the quorum is gone, too.
        let request = MemberListRequest {
            linearizable: false,
        };
        let members = session.store().member_list(request).await?.members;
        let status = session.store().status().await?;
        output.show(&MembersReport::of(members, status.leader, status.raft_term))
    }
}

/// What `members` answers.
#[derive(Debug, Serialize)]
struct MembersReport {
    term: u64,
    members: Vec<MemberLine>,
}

#[derive(Debug, Serialize)]
struct MemberLine {
    name: String,
    id: NodeId,
    role: &'static str,
    peer_urls: Vec<String>,
    client_urls: Vec<String>,
}

impl MembersReport {
    fn of(members: Vec<Member>, leader: u64, term: u64) -> Self {
        let line = |member: Member| MemberLine {
            name: member.name,
            id: NodeId(member.id),
            role: match (member.id == leader, member.is_learner) {
                (true, _) => "leader",
                (false, true) => "learner",
                (false, false) => "voter",
            },
            peer_urls: member.peer_ur_ls,
            client_urls: member.client_ur_ls,
        };
        Self {
            term,
            members: members.into_iter().map(line).collect(),
        }
    }
}

impl Report for MembersReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new(&["MEMBER", "ID", "ROLE", "PEER", "CLIENT"]);
        for member in &self.members {
            table.row([
                member.name.clone(),
                member.id.to_string(),
                member.role.to_owned(),
                member.peer_urls.join(","),
                member.client_urls.join(","),
            ]);
        }
        table.write(out)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::rendered;

    fn report() -> MembersReport {
        let member = |id, name: &str, is_learner| Member {
            id,
            name: name.into(),
            peer_ur_ls: vec![format!("http://10.0.0.{id}:2380")],
            client_ur_ls: Vec::new(),
            is_learner,
        };
        let members = vec![
            member(1, "n1", false),
            member(2, "n2", false),
            member(3, "n3", true),
        ];
        MembersReport::of(members, 2, 5)
    }

    #[test]
    fn people_see_who_leads() {
        let expected = "\
MEMBER  ID                ROLE     PEER                  CLIENT
n1      0000000000000001  voter    http://10.0.0.1:2380  -
n2      0000000000000002  leader   http://10.0.0.2:2380  -
n3      0000000000000003  learner  http://10.0.0.3:2380  -
";
        assert_eq!(rendered(&report()).0, expected);
    }

    #[test]
    fn programs_see_every_field() {
        let json = rendered(&report()).1;
        assert_eq!(json["term"], 5);
        assert_eq!(
            json["members"][0],
            json!({
                "name": "n1", "id": "0000000000000001", "role": "voter",
                "peer_urls": ["http://10.0.0.1:2380"], "client_urls": [],
            })
        );
    }
}
