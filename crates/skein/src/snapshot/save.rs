//! `skein snapshot save`: from a node into a file.
//!
//! Owns the order: fetch, sync, check, name. Never overwrites unasked, and never puts together the
//! bytes of two nodes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifecycle::terminate_signal;
use store_api::etcdserverpb::RangeRequest;
use store_client::{Client, ClientError, Tried};
use store_disk::UnfinishedFile;

use super::SnapshotReport;
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::session::{MeshCommand, Session};

/// Between two tellings of the progress.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// The options of `skein snapshot save`.
#[derive(Debug, clap::Args)]
pub(crate) struct Save {
    /// The file; it must not be there yet
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// Take the copy of the node that is asked: works without a quorum, may be behind
    #[arg(long)]
    local: bool,
}

/// Why nothing was saved from one endpoint.
enum Fault {
    /// Another one may do better.
    Elsewhere(Vec<Tried>),
    Final(Failure),
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unavailable { tried } => Self::Elsewhere(tried),
            error => Self::Final(error.into()),
        }
    }
}

impl MeshCommand for Save {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        self.check_target()?;
        // Dropping the work removes what it left.
        let result = tokio::select! {
            result = self.save(session, output) => result,
            signal = terminate_signal() => Err(interrupted(signal)),
        };
        output.progress("");
        output.show(&result?)
    }
}

fn interrupted(signal: std::io::Result<&'static str>) -> Failure {
    match signal {
        Ok(signal) => Failure::failed(format!("interrupted by {signal}; nothing was saved")),
        Err(error) => Failure::failed(format!("cannot listen for signals: {error}")),
    }
}

impl Save {
    fn check_target(&self) -> Result<(), Failure> {
        let shown = self.file.display();
        let Ok(found) = std::fs::symlink_metadata(&self.file) else {
            // A folder that is missing shows when the file is made.
            return Ok(());
        };
        if !found.is_file() {
            return Err(Failure::usage(format!(
                "{shown} is there and is no plain file; choose another name"
            )));
        }
        if self.force {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "{shown} is there already; choose another name, or give --force to replace it"
        )))
    }

    async fn save(
        &self,
        session: &Session,
        output: &mut Output<'_>,
    ) -> Result<SnapshotReport, Failure> {
        let mut all = Vec::new();
        for endpoint in session.endpoints() {
            let client = session.at(endpoint)?;
            match self.save_from(&client, endpoint, output).await {
                Ok(report) => return Ok(report),
                // From the start: the bytes of two nodes are not of one piece.
                Err(Fault::Elsewhere(tried)) => all.extend(tried),
                Err(Fault::Final(failure)) => return Err(failure),
            }
        }
        let mut failure = Failure::from(ClientError::Unavailable { tried: all });
        if !self.local && failure.kind == Kind::Unreachable {
            failure.message += "; --local saves what a node has that knows no leader";
        }
        Err(failure)
    }

    async fn save_from(
        &self,
        client: &Client,
        endpoint: &str,
        output: &mut Output<'_>,
    ) -> Result<SnapshotReport, Fault> {
        if !self.local {
            // The node then has everything that was acknowledged before.
            let any = RangeRequest {
                key: vec![0].into(),
                count_only: true,
                ..Default::default()
            };
            client.range(any).await?;
        }
        let cannot = |error: std::io::Error| Fault::Final(cannot_write(&self.file, &error));
        let mut stream = client.snapshot().await?;
        let mut file = UnfinishedFile::begin(&self.file).map_err(cannot)?;
        let (mut written, mut told) = (0_u64, None::<Instant>);
        while let Some(piece) = stream.next().await? {
            file.write_all(&piece.blob).map_err(cannot)?;
            written += piece.blob.len() as u64;
            if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                let all = written + piece.remaining_bytes;
                output.progress(&progress(written, all, endpoint));
                told = Some(Instant::now());
            }
        }
        output.progress("checking it");
        let path = self.file.clone();
        let finished = tokio::task::spawn_blocking(move || {
            file.sync().map_err(|error| cannot_write(&path, &error))?;
            let report = SnapshotReport::of(file.path(), &path)?;
            file.finish(&path)
                .map_err(|error| cannot_write(&path, &error))?;
            Ok(report)
        });
        match finished.await {
            Ok(result) => result.map_err(Fault::Final),
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!(
        "cannot write {}: {error}; make room there, or choose another place",
        path.display()
    ))
}

/// How far it is, in words.
fn progress(written: u64, all: u64, endpoint: &str) -> String {
    let percent = written.saturating_mul(100) / all.max(1);
    format!(
        "{} of {} MiB from {endpoint}, {percent} %",
        written >> 20,
        all.div_ceil(1 << 20)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_is_never_beyond_its_end() {
        assert_eq!(progress(0, 0, "a:1"), "0 of 0 MiB from a:1, 0 %");
        let told = progress(3 << 20, 4 << 20, "a:1");
        assert_eq!(told, "3 of 4 MiB from a:1, 75 %");
    }
}
