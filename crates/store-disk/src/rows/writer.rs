//! The thread that writes the rows.
//!
//! Owns the tree. Never holds up the commit path, and never goes on after a failure.

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;

use super::pending::{Changes, Shared};
use super::tree::{Fault, RowTree};
use crate::data_dir::DataDir;
use crate::durable;
use crate::panics::describe;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) tree: RowTree,
    /// Left behind by a failure, so that the next opening rebuilds the rows.
    pub(super) marker: PathBuf,
    /// Keeps the directory locked until the last write is done.
    pub(super) _data_dir: DataDir,
}

impl Writer {
    /// Writes until the rows are closed or fail.
    pub(super) fn run(mut self) {
        while let Some((changes, queued)) = self.shared.take() {
            let flush = changes.flush;
            // sled answers some damage with a panic.
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| self.write(changes)))
                .unwrap_or_else(|panic| Err(Fault(describe(&*panic))));
            if let Err(fault) = outcome {
                return self.fail(&fault);
            }
            if flush {
                self.shared.note_flushed(queued);
            }
        }
    }

    fn write(&mut self, changes: Changes) -> Result<(), Fault> {
        if let Some((rows, applied)) = changes.rebuild {
            self.tree.rebuild(rows, &applied)?;
        }
        if let Some(applied) = changes.applied {
            self.tree.apply(changes.rows, &applied)?;
        }
        // Otherwise sled writes when it likes: the rows may lag, and the log has the disk.
        if changes.flush {
            self.tree.flush()?;
        }
        // Meanwhile changes gather: the rows lag, and nobody waits for them.
        self.tree.merge(|| self.shared.is_waited_for())
    }

    fn fail(&self, fault: &Fault) {
        let Fault(text) = fault;
        if let Err(error) = durable::replace_file(&self.marker, b"") {
            tracing::error!(path = %self.marker.display(), %error, "cannot mark the rows");
        }
        tracing::error!(
            fault = text,
            "the rows failed; this node works on without them and rebuilds them at its next start"
        );
        self.shared.fail(text.clone());
    }
}
