//! The mesh's version: what every member surely understands, and the gate that it is.
//!
//! Owns the leader's decision when the version rises, and the refusal of commands that are newer.
//! Never decides by hope: a member whose version nobody heard of holds the mesh back, and one that
//! is down holds it at what it ran last.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::Shutdown;
use model::Version;
use store_api::verdict::Proposed;
use store_mvcc::{AgreedVersion, Command, Proposal, SetVersionOp};
use store_raft::{Member, RaftStatus, Role, Store};
use tokio::time::{MissedTickBehavior, interval};
use tonic::Status;

use crate::autopilot::Liveness;

/// How often the leader looks at the members' versions.
const EVERY: Duration = Duration::from_millis(500);

/// What the members of a store run.
#[derive(Clone)]
pub(crate) struct Versions {
    store: Store,
    liveness: Arc<dyn Liveness>,
}

impl Versions {
    pub(crate) fn new(store: Store, liveness: Arc<dyn Liveness>) -> Self {
        Self { store, liveness }
    }

    /// Raises the mesh's version while this node leads; runs until it stops.
    pub(crate) async fn run(self, mut shutdown: Shutdown) {
        let mut clock = interval(EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = clock.tick() => {}
                () = shutdown.requested() => return,
            }
            let status = self.store.status();
            if status.role != Role::Leader || !status.quorum {
                continue;
            }
            let agreed = self.store.image().meta().version;
            let Some(op) = next(agreed, members(&status).map(|member| self.of(member))) else {
                continue;
            };
            let proposal = Proposal::own(Command::SetClusterVersion(op));
            match self.store.propose(&proposal).await.map(|it| it.result) {
                Ok(Ok(_)) => tracing::info!(version = %op.version, "agreed on the mesh's version"),
                // The next round begins from what is then the case.
                Ok(Err(error)) => tracing::warn!(%error, "the mesh's version did not move yet"),
                Err(error) => tracing::warn!(%error, "the mesh's version did not move yet"),
            }
        }
    }

    /// Whether the mesh is ready for `command`.
    ///
    /// # Errors
    /// `FailedPrecondition` names the nodes to upgrade, or those that a downgrade would strand.
    pub(crate) fn admit(&self, command: &Command) -> Result<(), Status> {
        if let Command::SetClusterVersion(op) = command
            && op.downgrade
        {
            return self.admit_downgrade(op.version);
        }
        let since = command.since();
        if since <= Version::FIRST {
            return Ok(());
        }
        let mesh = self.store.image().cluster_version();
        if since <= mesh {
            return Ok(());
        }
        let status = self.store.status();
        let older = members(&status)
            .filter(|member| self.of(member).is_none_or(|version| version < since))
            .map(|member| member.name.as_str());
        Err(too_new(command.name(), since, mesh, older))
    }

    fn admit_downgrade(&self, target: Version) -> Result<(), Status> {
        let status = self.store.status();
        let strands = |member: &&Member| self.of(member).is_some_and(|it| !it.fits(target));
        let newer: Vec<&str> = members(&status)
            .filter(strands)
            .map(|member| member.name.as_str())
            .collect();
        if newer.is_empty() {
            return Ok(());
        }
        Err(Proposed::No.mark(Status::failed_precondition(format!(
            "skein: a downgrade to version {target} needs every node within one minor version of \
             it: first finish the upgrade, or take back {}",
            newer.join(", ")
        ))))
    }

    /// Whether a node of `version` can become a member.
    ///
    /// # Errors
    /// The reason, with the remedy.
    pub(crate) fn admit_node(&self, version: Version) -> Result<(), String> {
        let (mesh, fits) = match self.store.image().meta().version {
            // The log that it would be sent has what the older version does not know.
            Some(agreed) if agreed.downgrade && version.before() != Some(agreed.version) => {
                return Err(format!(
                    "a downgrade to version {} is under way: start the new node with the version \
                     after it, and downgrade it like the others",
                    agreed.version
                ));
            }
            Some(agreed) => (agreed.version, version.fits(agreed.version)),
            None => {
                let own = self.store.version();
                (own, version.fits(own) || own.fits(version))
            }
        };
        if fits {
            return Ok(());
        }
        let remedy = if version < mesh {
            format!("run version {mesh} or the one after it on the new node")
        } else {
            "upgrade the members by one minor version at a time first".to_owned()
        };
        Err(format!(
            "the node that asks runs version {version}, and the mesh is at version {mesh}: {remedy}"
        ))
    }

    fn of(&self, member: &Member) -> Option<Version> {
        if member.id == self.store.id() {
            Some(self.store.version())
        } else {
            self.liveness.version(member.id)
        }
    }
}

fn members(status: &RaftStatus) -> impl Iterator<Item = &Member> {
    status.voters.iter().chain(status.learners.iter())
}

/// The step that is due, if any: up to the oldest member's version; out of a downgrade when nobody
/// is newer any more.
fn next(
    agreed: Option<AgreedVersion>,
    mut members: impl Iterator<Item = Option<Version>>,
) -> Option<SetVersionOp> {
    let first = members.next()??;
    let (oldest, newest) = members.try_fold((first, first), |(oldest, newest), version| {
        let version = version?;
        Some((oldest.min(version), newest.max(version)))
    })?;
    let due = match agreed {
        None => true,
        Some(agreed) if agreed.downgrade => newest == agreed.version,
        Some(agreed) => oldest > agreed.version,
    };
    due.then_some(SetVersionOp {
        version: oldest,
        downgrade: false,
    })
}

fn too_new<'a>(
    what: &str,
    since: Version,
    mesh: Version,
    older: impl Iterator<Item = &'a str>,
) -> Status {
    let older: Vec<&str> = older.collect();
    let remedy = if older.is_empty() {
        "try again in a moment, or cancel the downgrade".to_owned()
    } else {
        format!("upgrade {}", older.join(", "))
    };
    Proposed::No.mark(Status::failed_precondition(format!(
        "skein: {what} needs every node at version {since} or newer; the mesh is at {mesh}: {remedy}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(minor: u16) -> Version {
        Version { major: 0, minor }
    }

    fn agreed(minor: u16, downgrade: bool) -> Option<AgreedVersion> {
        let version = v(minor);
        Some(AgreedVersion { version, downgrade })
    }

    fn step(now: Option<AgreedVersion>, members: &[u16]) -> Option<Version> {
        // 0 stands for a member of whom nobody heard.
        let members = members.iter().map(|minor| (*minor > 0).then(|| v(*minor)));
        let op = next(now, members)?;
        assert!(!op.downgrade);
        Some(op.version)
    }

    #[test]
    fn the_version_rises_to_the_oldest_members() {
        assert_eq!(step(None, &[1, 1, 1]), Some(v(1)));
        assert_eq!(step(None, &[3, 2, 3]), Some(v(2)));
        assert_eq!(step(agreed(1, false), &[1, 1, 1]), None);
        assert_eq!(step(agreed(1, false), &[2, 1, 2]), None);
        assert_eq!(step(agreed(1, false), &[2, 2, 2]), Some(v(2)));
        assert_eq!(step(agreed(2, false), &[2, 1, 2]), None, "never down");
    }

    #[test]
    fn a_member_that_nobody_heard_of_holds_it_back() {
        assert_eq!(step(None, &[1, 0, 1]), None);
        assert_eq!(step(agreed(1, false), &[2, 2, 0]), None);
        assert_eq!(step(agreed(1, false), &[]), None);
    }

    #[test]
    fn a_downgrade_holds_until_nobody_is_newer() {
        assert_eq!(step(agreed(1, true), &[2, 2, 2]), None);
        assert_eq!(step(agreed(1, true), &[1, 1, 2]), None);
        assert_eq!(step(agreed(1, true), &[1, 0, 1]), None);
        assert_eq!(step(agreed(1, true), &[1, 1, 1]), Some(v(1)));
    }

    #[test]
    fn a_refusal_names_what_when_and_whom() {
        let refused = too_new("a lease", v(3), v(2), ["n1", "n2"].into_iter());
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert_eq!(
            refused.message(),
            "skein: a lease needs every node at version 0.3 or newer; the mesh is at 0.2: upgrade \
             n1, n2"
        );
        assert_eq!(Proposed::of(&refused), Some(Proposed::No));
    }
}
