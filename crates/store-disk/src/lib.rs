//! What one node keeps on its disk: identity, write-ahead log, snapshot files, applied rows.
//!
//! Owns the data directory, every byte in it and the promise that what is reported as durable
//! survives a crash. Payloads are opaque: this crate never knows Raft's types, protobuf or MVCC.
//!
//! ```text
//! <data-dir>/LOCK            one process at a time
//! <data-dir>/UNFINISHED      it is being made from a snapshot, or never was finished
//! <data-dir>/REPLACING       its content is being exchanged, or never was to the end
//! <data-dir>/recovered/      the content that is to come
//! <data-dir>/identity        the node id, minted with the directory
//! <data-dir>/mesh            the mesh this node belongs to
//! <data-dir>/promise         the one set of founding members this node promised itself to
//! <data-dir>/log-begun       there has been a log: an absent one is a loss, not a beginning
//! <data-dir>/wal/            the log: segments, written only by its writer thread
//! <data-dir>/snapshots/      the newest two snapshots
//! <data-dir>/rows/           the applied rows in sled, for quick restarts; never the only copy
//! <data-dir>/doubt           the applied state was found to be wrong
//! <data-dir>/rows.opening    an opening of the rows is under way, or never finished
//! ```

mod codec;
mod data_dir;
mod doubt;
mod durable;
mod panics;
mod rows;
mod snapshot;
mod unfinished;
mod wal;

pub use data_dir::{DataDir, FreshDataDir, FreshError, Identity, OpenError, Promise, SaveError};
pub use doubt::Doubt;
pub use durable::replace_file;
pub use rows::{Loaded, ROWS_PENDING_BYTES_MAX, Rows, RowsBatch, RowsError};
pub use snapshot::{
    Archive, ArchiveError, ArchiveWriter, DamagedSnapshot, SealedSnapshot, Snapshot,
    SnapshotBlocks, SnapshotStore, SnapshotWriter, archive_bytes,
};
pub use unfinished::UnfinishedFile;
pub use wal::{
    Disk, Done, ENTRY_BYTES_MAX, Purged, QUEUE_BYTES_MAX, QUEUE_JOBS_MAX, RealDisk, Recovered,
    SYNC_TIMES, TornTail, Wal, WalCounters, WalError, WalOptions, WalState,
};
