//! `skein snapshot`: the whole store as one file, and what such a file holds.
//!
//! Owns the commands and their forms. Never knows what is in a file: that is `store-raft`'s.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Subcommand;
use model::{MeshId, NodeId};
use serde::Serialize;
use store_raft::{ArchiveInfo, ArchiveReadError, read_archive};

use crate::age;
use crate::cli::{Remote, local};
use crate::failure::{Failure, Kind};
use crate::output::{Format, Output, Report};

mod restore;
mod save;

/// Every command about snapshots.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Save the whole store as one file, while it goes on
    #[command(after_help = "\
Examples:
  skein snapshot save nightly.skein
  skein snapshot save nightly.skein --force --endpoints 10.0.0.2:2379
  skein snapshot save last.skein --local   # of one node's copy, where there is no quorum

The file holds everything but the members: keep it as safe as the store. It appears under its name only
when it is whole and was checked.")]
    Save(Remote<save::Save>),

    /// Check a file, every byte of it, and show what it holds
    #[command(after_help = "\
Examples:
  skein snapshot status nightly.skein
  skein snapshot status nightly.skein -o json | jq .revision

A file that is damaged, cut off, newer than this binary or something else is refused, exit code 3.")]
    Status(Status),

    /// Make a new mesh from a file: the data directory of its first node
    #[command(after_help = "\
Examples:
  skein snapshot restore nightly.skein --data-dir /var/lib/skein
  skein snapshot restore nightly.skein --data-dir /var/lib/skein --bump-revision 1000000
  skein node --data-dir /var/lib/skein …                        # the mesh is there again, of one node
  skein node --join 10.0.0.1:7946 …                             # on each of the others, with empty disks

Restore on one machine only; the others get everything from it. Revisions, history, leases with the time
they had left and config are kept; the members are not. A file that is not whole is refused, exit code 3,
before the directory is touched; a directory that is not empty stays as it is.")]
    Restore(restore::Restore),
}

impl SnapshotCommand {
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Self::Save(command) => command.run(),
            Self::Status(command) => local(command.output, |output| command.run(output)),
            Self::Restore(command) => local(command.output, |output| command.run(output)),
        }
    }
}

/// The options of `skein snapshot status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// What `skein snapshot save` wrote
    file: PathBuf,
    /// How to write the result and errors
    #[arg(
        short,
        long,
        value_name = "text|json",
        hide_possible_values = true,
        default_value = "text"
    )]
    output: Format,
}

impl Status {
    fn run(&self, output: &mut Output<'_>) -> Result<(), Failure> {
        output.show(&SnapshotReport::of(&self.file, &self.file)?)
    }
}

/// What a snapshot file holds.
#[derive(Debug, Serialize)]
struct SnapshotReport {
    file: String,
    revision: i64,
    compact_revision: i64,
    config_revision: u64,
    keys: usize,
    leases: usize,
    bytes: u64,
    hash: u32,
    sha256: String,
    written_by: String,
    cluster_version: Option<String>,
    taken_unix: u64,
    mesh_id: Option<MeshId>,
    node_id: NodeId,
}

impl SnapshotReport {
    /// Checks the file at `path`, which people call `file`.
    fn of(path: &Path, file: &Path) -> Result<Self, Failure> {
        let read = read_archive(path).map_err(|error| unreadable(file, &error))?;
        let (info, image) = read;
        let ArchiveInfo {
            written_by,
            taken,
            mesh_id,
            node_id,
            index: _,
            bytes,
            sha256,
        } = info;
        let agreed = image.meta().version;
        Ok(Self {
            file: file.display().to_string(),
            revision: image.revision(),
            compact_revision: image.compact_revision(),
            config_revision: image.config_revision().0,
            keys: image.len(),
            leases: image.lease_count(),
            bytes,
            hash: image.hash(image.revision()),
            sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            written_by,
            cluster_version: agreed.map(|agreed| agreed.version.to_string()),
            taken_unix: age::unix_seconds(taken),
            mesh_id,
            node_id,
        })
    }
}

/// What a file that cannot be used means to a caller.
fn unreadable(file: &Path, error: &ArchiveReadError) -> Failure {
    use store_disk::ArchiveError::Io;
    let kind = match error {
        ArchiveReadError::File(Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            Kind::NotFound
        }
        ArchiveReadError::File(Io(_)) => Kind::Failed,
        ArchiveReadError::File(_) | ArchiveReadError::Newer { .. } => Kind::Refused,
    };
    Failure::new(kind, format!("{}: {error}", file.display()))
}

impl Report for SnapshotReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let now = age::unix_seconds(SystemTime::now());
        let mesh = self.mesh_id.map(|id| id.to_string());
        writeln!(out, "{}: whole", self.file)?;
        writeln!(
            out,
            "  revision {}, history from {}, config revision {}",
            self.revision,
            self.compact_revision.max(1),
            self.config_revision
        )?;
        writeln!(out, "  {} keys, {} leases", self.keys, self.leases)?;
        writeln!(out, "  {} bytes, hash {:08x}", self.bytes, self.hash)?;
        writeln!(out, "  sha256 {}", self.sha256)?;
        writeln!(
            out,
            "  taken {} ago by skein {}, node {} of mesh {}",
            age::since(Some(self.taken_unix), now),
            self.written_by,
            self.node_id,
            mesh.as_deref().unwrap_or("-")
        )
    }
}
