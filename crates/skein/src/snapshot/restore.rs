//! `skein snapshot restore`: a file becomes the data directory of a new mesh's first node.
//!
//! Owns the command's form. Never touches a directory that holds something.

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;

use model::{MeshId, NodeId};
use serde::Serialize;
use store_raft::{RenewError, restore};

use super::unreadable;
use crate::failure::{Failure, Kind};
use crate::output::{Format, Output, Report};

/// The options of `skein snapshot restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// What `skein snapshot save` wrote
    file: PathBuf,
    /// The data directory to make: absent or empty
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Begin so many revisions later, without history: nobody who saw what came after the file meets
    /// a revision that he knows
    #[arg(long, value_name = "N")]
    bump_revision: Option<NonZeroU32>,
    /// How to write the result and errors
    #[arg(
        short,
        long,
        value_name = "text|json",
        hide_possible_values = true,
        default_value = "text"
    )]
    pub(super) output: Format,
}

/// What `snapshot restore` answers.
#[derive(Debug, Serialize)]
struct RestoreReport {
    file: String,
    data_dir: String,
    mesh_id: MeshId,
    node_id: NodeId,
    restored_mesh_id: Option<MeshId>,
    revision: i64,
    config_revision: u64,
    keys: usize,
    leases: usize,
}

impl Restore {
    pub(super) fn run(&self, output: &mut Output<'_>) -> Result<(), Failure> {
        let restored = restore(&self.file, &self.data_dir, self.bump_revision);
        let (made, info, image) = restored.map_err(|error| match error {
            RenewError::Archive(error) => unreadable(&self.file, &error),
            RenewError::Version(text) => {
                Failure::new(Kind::Refused, format!("{}: {text}", self.file.display()))
            }
            error => Failure::failed(error.to_string()),
        })?;
        output.show(&RestoreReport {
            file: self.file.display().to_string(),
            data_dir: self.data_dir.display().to_string(),
            mesh_id: made.mesh_id,
            node_id: made.node_id,
            restored_mesh_id: info.mesh_id,
            revision: image.revision(),
            config_revision: image.config_revision().0,
            keys: image.len(),
            leases: image.lease_count(),
        })
    }
}

impl Report for RestoreReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "restored {} keys and {} leases at revision {}, config revision {}",
            self.keys, self.leases, self.revision, self.config_revision
        )?;
        writeln!(
            out,
            "{} is now node {}, the only member of the new mesh {}",
            self.data_dir, self.node_id, self.mesh_id
        )?;
        writeln!(
            out,
            "Next: start it with `skein node --data-dir {} …` and wait until `skein status` knows it.\n\
             Then start the others on empty data directories, with --join: they get all of it from here.\n\
             Restore on this machine only: the same file elsewhere makes another mesh.",
            self.data_dir
        )
    }
}
