//! `skein demo`: a whole mesh on this machine, to watch and to break.
//!
//! Owns the run from the folder to the last process. Leaves nothing behind unless `--dir` asks for
//! it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use tempfile::TempDir;

use crate::failure::Failure;
use crate::output::Output;
use layout::{Layout, Ports};
use stage::Stage;

pub(crate) mod children;
mod layout;
mod screen;
mod stage;
mod story;
mod traffic;
pub(crate) mod upstream;
mod writes;

/// How long the mesh may take to form and to apply its first config.
const START_MAX: Duration = Duration::from_secs(60);

/// The flags of `skein demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Keep data, logs and files here; by default a temporary folder that is removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Play the whole story unattended and check it; exit 0 only if nothing went wrong
    #[arg(long)]
    smoke: bool,
}

impl Demo {
    /// Runs the demo to its end.
    pub(crate) fn run(self, output: &mut Output<'_>) -> Result<(), Failure> {
        // The children are bound to the life of the thread that starts them: this one.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (folder, _removed_at_the_end) = self.folder()?;
        let ports = if self.smoke {
            Ports::Any
        } else {
            Ports::Documented
        };
        let layout = Layout::in_folder(&folder, ports)?;
        runtime.block_on(async {
            let mut stage = Stage::set(layout)?;
            let ended = tokio::select! {
                ended = act(self.smoke, &mut stage, output) => ended,
                signal = lifecycle::terminate_signal() => interrupted(self.smoke, signal?),
            };
            let fallen = stage.fallen();
            output.note("ending the nodes and upstreams");
            stage.stop().await?;
            match (ended, fallen) {
                (Err(_), Some(fallen)) => Err(fallen),
                (ended, _) => ended,
            }
        })
    }

    /// The folder of the run, and what removes a temporary one with all it holds when dropped.
    fn folder(&self) -> Result<(PathBuf, Option<TempDir>), Failure> {
        let Some(dir) = &self.dir else {
            // It holds a gossip key and a store: nobody else's business.
            let made = tempfile::Builder::new()
                .prefix("skein-demo-")
                .permissions(Permissions::from_mode(0o700))
                .tempdir();
            let temporary = made.map_err(|fault| {
                Failure::failed(format!("no temporary folder: {fault}; give a --dir"))
            })?;
            return Ok((temporary.path().to_owned(), Some(temporary)));
        };
        // The children start elsewhere or later: they need the whole path.
        let made = std::fs::create_dir_all(dir).and_then(|()| dir.canonicalize());
        let dir = made.map_err(|fault| {
            Failure::failed(format!("--dir {}: {fault}; give another", dir.display()))
        })?;
        Ok((dir, None))
    }
}

async fn act(smoke: bool, stage: &mut Stage, output: &mut Output<'_>) -> Result<(), Failure> {
    if smoke {
        story::play(stage, output).await?;
        output.note("the story went as it should");
        return Ok(());
    }
    let begun = Instant::now();
    output.note("starting two upstreams and three nodes");
    stage.start_all()?;
    ready(stage, begun, async |stage| stage.formed().await).await?;
    stage.apply_quickstart().await?;
    ready(stage, begun, async |stage| stage.synced(3).await).await?;
    output.raw(screen::welcome(stage.layout(), &stage.pids(), begun.elapsed()).as_bytes())?;
    // From here on people play; nodes that they kill are theirs to start again.
    std::future::pending().await
}

async fn ready(
    stage: &mut Stage,
    begun: Instant,
    condition: impl AsyncFn(&Stage) -> bool,
) -> Result<(), Failure> {
    while !condition(stage).await {
        if let Some(fallen) = stage.fallen() {
            return Err(fallen);
        }
        if begun.elapsed() > START_MAX {
            return Err(Failure::failed(format!(
                "the mesh is not ready after {} s; the nodes' logs are in {}",
                START_MAX.as_secs(),
                stage.layout().dir.display()
            )));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn interrupted(smoke: bool, signal: &str) -> Result<(), Failure> {
    // For people, Ctrl-C is how the demo ends; a check that was cut short has shown nothing.
    if smoke {
        Err(Failure::failed(format!(
            "ended by {signal} before the story did"
        )))
    } else {
        Ok(())
    }
}
