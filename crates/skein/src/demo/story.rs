//! `skein demo --smoke`: the story of the product, played and checked.
//!
//! Owns the steps and what each must show. Never passes a step because it took long enough: each
//! waits for what it checks, with a deadline.

use std::time::{Duration, Instant};

use super::stage::Stage;
use super::traffic::Traffic;
use super::writes::Writes;
use crate::failure::Failure;
use crate::output::Output;

/// How long any one step may take. A loaded machine is slow, a broken mesh never gets there.
const STEP_MAX: Duration = Duration::from_secs(60);
/// Requests that must agree before a split counts as being in force.
const AGREEING_ANSWERS: u64 = 40;

/// Plays the story on a stage where nothing runs yet.
pub(crate) async fn play(stage: &mut Stage, output: &mut Output<'_>) -> Result<(), Failure> {
    let mut story = Story {
        begun: Instant::now(),
        step: Instant::now(),
        output,
    };
    stage.start_all()?;
    story
        .until("three nodes form one mesh", async || stage.formed().await)
        .await?;
    stage.apply_quickstart().await?;
    story
        .until(
            "the quickstart config is in force on all three",
            async || stage.synced(3).await,
        )
        .await?;

    let traffic = Traffic::start(&stage.web_addresses());
    stage.forget_writes().await?;
    let writes = Writes::start(stage.client()?);
    story
        .until("traffic flows through all three nodes", async || {
            (0..3).all(|node| traffic.tally(node).answered >= AGREEING_ANSWERS)
        })
        .await?;

    change_split(stage, &traffic, &mut story).await?;
    lose_upstream(stage, &traffic, &mut story).await?;
    lose_leader(stage, &traffic, &writes, &mut story).await?;
    settle(stage, &traffic, writes, &mut story).await
}

/// A live change of the split reaches all three nodes.
async fn change_split(
    stage: &Stage,
    traffic: &Traffic,
    story: &mut Story<'_, '_>,
) -> Result<(), Failure> {
    stage.apply_split(0, 100).await?;
    story
        .until("a live split change is in force on all three", async || {
            stage.synced(3).await
        })
        .await?;
    answered_only_by(
        "green",
        stage,
        traffic,
        story,
        "all three send everything to green",
    )
    .await?;
    stage.apply_split(50, 50).await?;
    story
        .until("the split is half and half again", async || {
            stage.synced(3).await
        })
        .await?;
    traffic.forget_upstreams();
    story
        .until("both upstreams answer through all three", async || {
            (0..3).all(|node| traffic.tally(node).by_upstream.len() == 2)
        })
        .await
}

/// An upstream dies, leaves rotation on all three nodes, and returns.
async fn lose_upstream(
    stage: &mut Stage,
    traffic: &Traffic,
    story: &mut Story<'_, '_>,
) -> Result<(), Failure> {
    stage.apply_one_cluster().await?;
    story
        .until(
            "one cluster of both upstreams serves everything",
            async || stage.synced(3).await,
        )
        .await?;
    stage.kill_upstream(0).await?;
    story
        .until(
            "a killed upstream leaves rotation on all three",
            async || stage.unhealthy_everywhere(0).await,
        )
        .await?;
    answered_only_by(
        "green",
        stage,
        traffic,
        story,
        "only the living upstream answers",
    )
    .await?;
    stage.start_upstream(0)?;
    traffic.forget_upstreams();
    story
        .until("it comes back and answers through all three", async || {
            (0..3).all(|node| traffic.tally(node).by_upstream.contains_key("blue"))
        })
        .await
}

/// The leader dies under traffic; the others go on, take a config write, and take it back.
async fn lose_leader(
    stage: &mut Stage,
    traffic: &Traffic,
    writes: &Writes,
    story: &mut Story<'_, '_>,
) -> Result<(), Failure> {
    let leader = stage.leader().await?;
    let name = stage.layout().nodes[leader].name.clone();
    traffic.expect(leader, false);
    stage.kill_node(leader).await?;
    let acknowledged = writes.acknowledged();
    story.note(&format!("kill -9 of the leader, {name}"));
    story
        .until("the first write after the leader's death", async || {
            // The dead leader may have answered the one that was under way.
            writes.acknowledged() >= acknowledged + 2
        })
        .await?;
    stage.apply_split(50, 50).await?;
    story
        .until(
            "a config write is in force on the two survivors",
            async || stage.synced(2).await,
        )
        .await?;
    story
        .until("the dead node is seen as DOWN", async || {
            stage.down(&name).await
        })
        .await?;
    stage.start_node(leader)?;
    story
        .until("the dead node is back and caught up", async || {
            stage.synced(3).await
        })
        .await?;
    traffic.expect(leader, true);
    let before = traffic.tally(leader).answered;
    story
        .until("it serves again", async || {
            traffic.tally(leader).answered >= before + AGREEING_ANSWERS
        })
        .await
}

/// The balance: no failed request, no lost write, one config revision.
async fn settle(
    stage: &Stage,
    traffic: &Traffic,
    writes: Writes,
    story: &mut Story<'_, '_>,
) -> Result<(), Failure> {
    let failed: Vec<String> = (0..3)
        .map(|node| traffic.tally(node))
        .filter(|tally| tally.failed > 0)
        .map(|tally| {
            format!(
                "{} failed, first: {}",
                tally.failed,
                tally.first_failure.unwrap_or_default()
            )
        })
        .collect();
    if !failed.is_empty() {
        return Err(Failure::failed(format!(
            "requests failed: {}",
            failed.join("; ")
        )));
    }
    story.done(&format!(
        "{} requests answered, none failed",
        traffic.answered()
    ));
    let acknowledged = writes.stop().await;
    let last = acknowledged.len();
    let mut missing = Vec::new();
    story
        .until(
            "every node has every acknowledged write",
            async || match stage.missing_writes(&acknowledged).await {
                Ok(found) => {
                    missing = found;
                    missing.is_empty()
                }
                Err(_) => false,
            },
        )
        .await
        .map_err(|failure| Failure::failed(format!("{failure}; missing: {missing:?}")))?;
    story.done(&format!("{last} acknowledged writes, none missing"));
    story
        .until(
            "all nodes end SYNCED at the same config revision",
            async || stage.synced(3).await,
        )
        .await
}

async fn answered_only_by(
    upstream: &str,
    stage: &Stage,
    traffic: &Traffic,
    story: &mut Story<'_, '_>,
    step: &str,
) -> Result<(), Failure> {
    let nodes = stage.layout().nodes.len();
    traffic.forget_upstreams();
    story
        .until(step, async || {
            let tallies: Vec<_> = (0..nodes).map(|node| traffic.tally(node)).collect();
            if tallies
                .iter()
                .any(|tally| tally.by_upstream.keys().any(|name| name != upstream))
            {
                // A request that was under way when the count began anew: count again.
                traffic.forget_upstreams();
                return false;
            }
            tallies.iter().all(|tally| {
                tally
                    .by_upstream
                    .get(upstream)
                    .is_some_and(|&n| n >= AGREEING_ANSWERS)
            })
        })
        .await
}

struct Story<'a, 'o> {
    begun: Instant,
    step: Instant,
    output: &'a mut Output<'o>,
}

impl Story<'_, '_> {
    /// Waits until `condition` holds, then tells the step with its time.
    async fn until(
        &mut self,
        step: &str,
        mut condition: impl AsyncFnMut() -> bool,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + STEP_MAX;
        while !condition().await {
            if Instant::now() > deadline {
                return Err(Failure::failed(format!(
                    "not so after {} s: {step}",
                    STEP_MAX.as_secs()
                )));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.done(step);
        Ok(())
    }

    fn done(&mut self, step: &str) {
        self.note(&format!(
            "{step}  (+{:.2} s)",
            self.step.elapsed().as_secs_f64()
        ));
        self.step = Instant::now();
    }

    fn note(&mut self, line: &str) {
        self.output.note(&format!(
            "{:7.2} s  {line}",
            self.begun.elapsed().as_secs_f64()
        ));
    }
}
