//! The demo's child processes: nodes and upstreams.
//!
//! Owns them: whatever way the demo ends, they end too. Never ends a process that it did not start.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};

use super::layout::{NodeLayout, UpstreamLayout};

/// Tells a child which process it must not outlive.
const PARENT_VARIABLE: &str = "SKEIN_PARENT_PID";
/// How long a child may take to end before it is killed. A node's own limits, of handing over (1 s),
/// draining (8 s) and closing what is left, add up to less.
const STOP_MAX: Duration = Duration::from_secs(20);

/// One running child.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: u32,
}

/// Makes this process end when the demo that started it ends, even by `kill -9`. Without a demo
/// above it, nothing changes.
pub(crate) fn end_with_parent() {
    let Some(parent) = std::env::var(PARENT_VARIABLE)
        .ok()
        .and_then(|pid| pid.parse().ok())
    else {
        return;
    };
    // Where the system cannot promise it, Ctrl-C in the demo still ends the children.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    let orphaned = getppid().map(Pid::as_raw_pid) != Some(parent);
    if orphaned {
        std::process::exit(1);
    }
}

/// Starts a node from its bootstrap file; its log is appended to.
pub(crate) fn start_node(exe: &Path, node: &NodeLayout) -> std::io::Result<Process> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&node.log)?;
    let mut command = Command::new(exe);
    command.args(["node", "--config"]).arg(&node.bootstrap);
    Process::start(command, log)
}

/// Starts an upstream.
pub(crate) fn start_upstream(exe: &Path, upstream: &UpstreamLayout) -> std::io::Result<Process> {
    let mut command = Command::new(exe);
    command.args(["upstream", "--name", &upstream.name, "--listen"]);
    command.arg(upstream.address.to_string());
    Process::start(command, Stdio::null())
}

impl Process {
    fn start(mut command: Command, log: impl Into<Stdio>) -> std::io::Result<Self> {
        let child = command
            .env(PARENT_VARIABLE, std::process::id().to_string())
            // A Ctrl-C in the terminal is the demo's to handle: it ends its children in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child
            .id()
            .ok_or_else(|| std::io::Error::other("the process ended at once"))?;
        Ok(Self { child, pid })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it at once, as a power cut would, and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    /// Asks it to end, and kills it if it does not within [`STOP_MAX`].
    pub(crate) async fn stop(mut self) -> std::io::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.ended().is_none()) {
            kill_process(pid, Signal::TERM)?;
        }
        match tokio::time::timeout(STOP_MAX, self.child.wait()).await {
            Ok(ended) => ended.map(|_| ()),
            Err(_) => self.kill().await,
        }
    }
}

/// This very program, for starting children.
pub(crate) fn own_program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}
