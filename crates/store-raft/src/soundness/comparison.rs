//! The comparison of the members' states, by whoever leads.
//!
//! Owns the rounds: a checkpoint goes through the log, every member makes its digest at that very
//! entry, however far behind it is, and the leader asks all of them. Who differs from a majority of
//! the voters is told so, the leader itself among them. Without a majority nobody is judged. A member
//! that does not answer in time is only slow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::NodeId;
use prost::Message;
use store_api::skeinpb as pb;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Keeper;
use super::digest::Digest;
use crate::Raft;
use crate::network::Calls;
use crate::status::{Member, RaftStatus, Role};
use crate::types::{EncodedBatch, Reply};
use crate::wire;

/// How long a round waits for digests. A large state takes its time, and so does one who lags.
const ROUND: Duration = Duration::from_secs(60);
/// How long a member may take to hear what came out.
const TELLING: Duration = Duration::from_secs(5);
/// After a round that found something the next one follows so soon: to see that all is well again.
/// It takes twice as long each time, up to the usual time.
const AGAIN: Duration = Duration::from_secs(5);

/// Longer than any process runs.
const NEVER: Duration = Duration::from_secs(1 << 32);

/// What digests amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing contradicts, and too few have answered to say more.
    Open,
    /// A majority of the voters has this one.
    Agreed(Digest),
    /// Members differ, and no majority agrees.
    Undecided,
}

fn judge(voters: &BTreeSet<NodeId>, answers: &BTreeMap<NodeId, Digest>) -> Verdict {
    let mut votes: BTreeMap<Digest, usize> = BTreeMap::new();
    for (id, digest) in answers {
        *votes.entry(*digest).or_default() += usize::from(voters.contains(id));
    }
    let most = votes.iter().max_by_key(|(_, count)| **count);
    match most {
        Some((digest, count)) if count * 2 > voters.len() => Verdict::Agreed(*digest),
        _ if votes.len() > 1 => Verdict::Undecided,
        _ => Verdict::Open,
    }
}

/// The rounds.
pub(crate) struct Rounds {
    pub(crate) raft: Raft,
    pub(crate) calls: Calls,
    pub(crate) status: watch::Receiver<RaftStatus>,
    pub(crate) keeper: Arc<Keeper>,
    /// `None`: only when asked.
    pub(crate) every: Option<Duration>,
    pub(crate) asked: Arc<Notify>,
}

impl Rounds {
    /// Runs until its task is aborted; acts only while this node leads.
    pub(crate) async fn run(self) {
        let every = self.every.unwrap_or(NEVER);
        let again = AGAIN.min(every);
        let mut soon = again;
        let mut wait = every;
        loop {
            tokio::select! {
                () = sleep(wait) => {}
                () = self.asked.notified() => {}
            }
            let found = match self.members() {
                Some(members) => self.round(&members).await,
                None => Ok(false),
            };
            let found = found.unwrap_or_else(|reason| {
                tracing::debug!(reason, "the members' states were not compared");
                false
            });
            wait = if found { soon } else { every };
            soon = if found { (soon * 2).min(every) } else { again };
        }
    }

    /// Whom to compare, if it is for this node to do.
    fn members(&self) -> Option<RaftStatus> {
        let status = self.status.borrow().clone();
        let leads = status.role == Role::Leader && status.quorum;
        let compares = leads && !status.joint && status.members().count() > 1;
        (compares && !self.keeper.is_damaged()).then_some(status)
    }

    /// One comparison. Says whether any two members differed.
    async fn round(&self, status: &RaftStatus) -> Result<bool, String> {
        let index = self.checkpoint().await?;
        let until = Instant::now() + ROUND;
        let voters: BTreeSet<NodeId> = status.voters.iter().map(|voter| voter.id).collect();
        let mut asked: FuturesUnordered<_> = status
            .members()
            .map(|member| async move { (member, self.digest_of(member, index).await) })
            .collect();
        let mut answers = BTreeMap::new();
        let mut told = BTreeSet::new();
        let mut verdict = Verdict::Open;
        while let Ok(Some((member, answer))) = timeout_at(until, asked.next()).await {
            match answer {
                Ok(digest) => answers.insert(member.id, digest),
                Err(reason) => {
                    tracing::debug!(member = member.name, reason, "a member told no digest");
                    continue;
                }
            };
            verdict = judge(&voters, &answers);
            if let Verdict::Agreed(digest) = verdict {
                let due = |it: &&Member| answers.contains_key(&it.id) && told.insert(it.id);
                let due: Vec<&Member> = status.members().filter(due).collect();
                for member in due {
                    if answers[&member.id] != digest {
                        let name = &member.name;
                        tracing::error!(name, index, "a member's state is damaged: it is told so");
                    }
                    self.tell_agreed(member, digest).await;
                }
            }
        }
        if verdict == Verdict::Undecided {
            let text = undecided(status, &answers, index);
            for member in status.members().filter(|it| answers.contains_key(&it.id)) {
                self.tell_undecided(member, text.clone()).await;
            }
        }
        let different: BTreeSet<&Digest> = answers.values().collect();
        tracing::debug!(
            index,
            members = answers.len(),
            ?verdict,
            "compared the states"
        );
        Ok(different.len() > 1)
    }

    /// Puts a checkpoint into the log; its entry is applied here when this returns.
    async fn checkpoint(&self) -> Result<u64, String> {
        let batch = pb::Batch {
            checkpoint: true,
            ..pb::Batch::default()
        };
        let batch = EncodedBatch(Bytes::from(batch.encode_to_vec()));
        let (sender, answer) = oneshot::channel();
        let reply = Reply::new(move |result| drop(sender.send(result)));
        let proposed = self.raft.client_write_ff(batch, Some(reply)).await;
        proposed.map_err(|fatal| fatal.to_string())?;
        let late = |_| "no quorum answered".to_owned();
        let answer = timeout(ROUND, answer).await.map_err(late)?;
        let written = answer.map_err(|_| "raft stopped".to_owned())?;
        Ok(written.map_err(|error| error.to_string())?.log_id.index)
    }

    async fn digest_of(&self, member: &Member, index: u64) -> Result<Digest, String> {
        if member.id == self.raft_id() {
            return Ok(self.keeper.digests().wait_for(index).await);
        }
        let (mut client, address) = self.calls.to(member)?;
        let request = address.request(pb::DigestStateRequest { index });
        let reply = client.digest_state(request).await;
        let reply = reply.map_err(|status| status.message().to_owned())?;
        let digest = wire::digest_from_pb(reply.into_inner().digest);
        let usable = digest.filter(|digest| digest.index == index && digest.is_known());
        usable.ok_or_else(|| "its digest is of another form".to_owned())
    }

    fn raft_id(&self) -> NodeId {
        self.status.borrow().id
    }

    async fn tell_agreed(&self, member: &Member, digest: Digest) {
        if member.id == self.raft_id() {
            return self.keeper.hear_agreed(digest).await;
        }
        let verdict = pb::judge_state_request::Verdict::Agreed(wire::digest_to_pb(&digest));
        self.tell(member, verdict).await;
    }

    async fn tell_undecided(&self, member: &Member, text: String) {
        if member.id == self.raft_id() {
            return self.keeper.hear_undecided(text);
        }
        let verdict = pb::judge_state_request::Verdict::Undecided(text);
        self.tell(member, verdict).await;
    }

    async fn tell(&self, member: &Member, verdict: pb::judge_state_request::Verdict) {
        let told = async {
            let (mut client, address) = self.calls.to(member)?;
            let verdict = Some(verdict);
            let request = address.request(pb::JudgeStateRequest { verdict });
            let told = timeout(TELLING, client.judge_state(request)).await;
            let told = told.map_err(|_| "no answer".to_owned())?;
            told.map_err(|status| status.message().to_owned())
        };
        if let Err(reason) = told.await {
            tracing::warn!(
                member = member.name,
                reason,
                "not told how the states compare"
            );
        }
    }
}

/// What differs, in words.
fn undecided(status: &RaftStatus, answers: &BTreeMap<NodeId, Digest>, index: u64) -> String {
    let named = status.members().filter_map(|member| {
        let digest = answers.get(&member.id)?;
        Some(format!("{}: {digest}", member.name))
    });
    let named: Vec<String> = named.collect();
    format!(
        "the members' applied states differ as of log entry {index} ({}) and no majority of the \
         voters agrees, so none is healed: bring back members that are down, or find out which one \
         is right (operations.md, \"Members whose states differ\")",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(voters: u64, answers: &[(u64, u32)]) -> Option<Result<u32, ()>> {
        let voters = (1..=voters).map(NodeId).collect();
        let digest = |crc32| Digest {
            index: 9,
            form: 1,
            crc32,
            length: 1,
        };
        let answers = answers.iter().map(|(id, crc)| (NodeId(*id), digest(*crc)));
        match judge(&voters, &answers.collect()) {
            Verdict::Open => None,
            Verdict::Agreed(digest) => Some(Ok(digest.crc32)),
            Verdict::Undecided => Some(Err(())),
        }
    }

    #[test]
    fn a_majority_of_the_voters_is_right() {
        assert_eq!(verdict(3, &[(1, 5), (2, 5), (3, 5)]), Some(Ok(5)));
        assert_eq!(verdict(3, &[(1, 5), (2, 6), (3, 6)]), Some(Ok(6)));
        assert_eq!(verdict(3, &[(2, 6), (3, 6)]), Some(Ok(6)), "one is down");
        assert_eq!(verdict(2, &[(1, 5), (2, 5)]), Some(Ok(5)));
    }

    #[test]
    fn without_one_nobody_is() {
        assert_eq!(verdict(3, &[(1, 5), (2, 6)]), Some(Err(())));
        assert_eq!(verdict(3, &[(1, 5), (2, 6), (3, 7)]), Some(Err(())));
        assert_eq!(verdict(2, &[(1, 5), (2, 6)]), Some(Err(())));
        assert_eq!(verdict(4, &[(1, 5), (2, 5), (3, 6), (4, 6)]), Some(Err(())));
    }

    #[test]
    fn too_few_answers_say_nothing() {
        assert_eq!(verdict(3, &[]), None);
        assert_eq!(verdict(3, &[(1, 5)]), None);
        assert_eq!(verdict(5, &[(1, 5), (2, 5)]), None);
    }

    #[test]
    fn learners_are_judged_and_judge_nobody() {
        assert_eq!(verdict(1, &[(1, 5), (8, 6), (9, 6)]), Some(Ok(5)));
        assert_eq!(verdict(3, &[(1, 5), (8, 5), (9, 5)]), None);
        assert_eq!(verdict(3, &[(1, 5), (8, 6)]), Some(Err(())));
    }
}
