//! Waiting until an accepted config is in force.
//!
//! Owns the verdict over the nodes' states. Never changes anything: a config that is not in force
//! in time stays accepted.

use std::time::{Duration, Instant};

use control_api::v1;
use serde::Serialize;

use crate::failure::{Failure, FaultLine, Kind};
use crate::output::Output;
use crate::session::Session;
use crate::status::state_word;

/// How often the mesh is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A config that every live node runs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct InForce {
    /// The live nodes.
    pub(crate) nodes: Vec<String>,
    /// How long it took since the answer to the change.
    pub(crate) waited_ms: u64,
}

/// What the nodes' states say about a config revision.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// All live nodes run it.
    InForce(Vec<String>),
    /// Some do not yet: each with its state.
    Waiting { behind: Vec<String>, live: usize },
    /// Some kept a previous version of something: each fault.
    Kept(Vec<FaultLine>),
}

/// Waits until all live nodes are SYNCED at `config_revision` or later.
pub(crate) async fn wait(
    session: &Session,
    config_revision: u64,
    patience: Duration,
    output: &mut Output<'_>,
) -> Result<InForce, Failure> {
    let began = Instant::now();
    let mut last_note = String::new();
    loop {
        let missing = match session
            .status()
            .await
            .map(|status| judge(&status, config_revision))
        {
            Ok(Verdict::InForce(nodes)) => {
                let waited_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                return Ok(InForce { nodes, waited_ms });
            }
            Ok(Verdict::Kept(faults)) => {
                let message = format!(
                    "config revision {config_revision} was accepted, but not every \
                     node could bring it into force"
                );
                return Err(Failure {
                    kind: Kind::NotInForce,
                    message,
                    faults,
                });
            }
            Ok(Verdict::Waiting { behind, live }) => {
                let note = format!("in force on {} of {live} nodes", live - behind.len());
                if note != last_note {
                    output.note(&note);
                    last_note = note;
                }
                behind.join(", ")
            }
            Err(failure) => failure.message,
        };
        if began.elapsed() + ASK_EVERY > patience {
            let seconds = patience.as_secs_f32();
            return Err(Failure::new(
                Kind::NotInForce,
                format!(
                    "config revision {config_revision} was accepted, but after {seconds} s \
                     it is not in force everywhere ({missing}); \
                     `skein status` shows when it is"
                ),
            ));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn judge(status: &v1::StatusResponse, config_revision: u64) -> Verdict {
    let live = || {
        status
            .nodes
            .iter()
            .filter(|node| node.state() != v1::ConfigState::Down)
    };
    // A node that is still at an older revision may say REFUSED for what this change mends.
    let arrived = |node: &&v1::NodeStatus| node.config_revision >= config_revision;
    let kept: Vec<_> = live()
        .filter(arrived)
        .filter(|node| node.state() == v1::ConfigState::Refused)
        .flat_map(refusals)
        .collect();
    if !kept.is_empty() {
        return Verdict::Kept(kept);
    }
    let synced = |node: &&v1::NodeStatus| arrived(node) && node.state() == v1::ConfigState::Synced;
    let behind: Vec<_> = live()
        .filter(|node| !synced(node))
        .map(|node| {
            format!(
                "{} is {} at {}",
                node.name,
                state_word(node.state()),
                node.config_revision
            )
        })
        .collect();
    match live().count() {
        0 => Verdict::Waiting {
            behind: vec!["no node is known to be live".to_owned()],
            live: 1,
        },
        _ if behind.is_empty() => Verdict::InForce(live().map(|node| node.name.clone()).collect()),
        live => Verdict::Waiting { behind, live },
    }
}

fn refusals(node: &v1::NodeStatus) -> Vec<FaultLine> {
    let line = |text: String| FaultLine {
        text: format!("{}: {text}", node.name),
        ..Default::default()
    };
    let refused = node
        .refused
        .iter()
        .map(|refusal| format!("{}: {}", refusal.resource, refusal.fault));
    let listeners = node
        .listeners
        .iter()
        .filter(|listener| !listener.fault.is_empty());
    let listeners =
        listeners.map(|listener| format!("Listener {}: {}", listener.name, listener.fault));
    let faults: Vec<_> = refused.chain(listeners).map(line).collect();
    if faults.is_empty() {
        vec![line("kept the previous version of a resource".to_owned())]
    } else {
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: v1::ConfigState, config_revision: u64) -> v1::NodeStatus {
        v1::NodeStatus {
            name: name.into(),
            state: state.into(),
            config_revision,
            ..Default::default()
        }
    }

    fn judged(nodes: Vec<v1::NodeStatus>) -> Verdict {
        judge(
            &v1::StatusResponse {
                nodes,
                ..Default::default()
            },
            5,
        )
    }

    #[test]
    fn the_dead_are_not_waited_for() {
        let nodes = vec![
            node("a", v1::ConfigState::Synced, 5),
            node("b", v1::ConfigState::Down, 4),
            node("c", v1::ConfigState::Synced, 6),
        ];
        assert_eq!(
            judged(nodes),
            Verdict::InForce(vec!["a".into(), "c".into()])
        );
    }

    #[test]
    fn a_node_that_has_not_heard_of_it_is_behind_whatever_it_says() {
        let nodes = vec![
            node("a", v1::ConfigState::Synced, 4),
            node("b", v1::ConfigState::Refused, 4),
            node("c", v1::ConfigState::Synced, 5),
        ];
        let behind = vec!["a is SYNCED at 4".into(), "b is REFUSED at 4".into()];
        assert_eq!(judged(nodes), Verdict::Waiting { behind, live: 3 });
        assert!(matches!(judged(Vec::new()), Verdict::Waiting { .. }));
    }

    #[test]
    fn a_refusal_of_this_revision_ends_the_waiting_with_its_faults() {
        let refusal = v1::Refusal {
            resource: "Cluster/a".into(),
            fault: "bad; mend it".into(),
        };
        let refusing = v1::NodeStatus {
            refused: vec![refusal],
            ..node("b", v1::ConfigState::Refused, 5)
        };
        let Verdict::Kept(faults) = judged(vec![node("a", v1::ConfigState::Stale, 4), refusing])
        else {
            panic!("not kept")
        };
        assert_eq!(faults[0].text, "b: Cluster/a: bad; mend it");
    }
}
