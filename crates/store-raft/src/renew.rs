//! A new mesh of one node, made from a state: from an archive, or from what a node has left.
//!
//! Owns what such a mesh begins with. Never keeps a member, a vote or a node id of the old mesh, so
//! that nothing of the two can ever be taken for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroU32;
use std::path::Path;

use model::{MeshId, NodeId, Version};
use openraft::LogId as RaftLogId;
use store_disk::{DataDir, FreshError, SnapshotStore};
use store_mvcc::{Image, ImageMeta, KeyRange, KeyValue, Row};

use crate::archive::{ArchiveInfo, ArchiveReadError, read_archive};
use crate::machine::check_version;
use crate::snapshot;
use crate::types::{LeaderId, MemberInfo, Membership, SnapshotMeta, StoredMembership};

/// Tells of a restoring to a later revision, and is what that revision wrote.
const RESTORED_KEY: &str = "/skein/restored";

/// Why there is no new mesh.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The archive cannot be used. Nothing was changed.
    #[error(transparent)]
    Archive(#[from] ArchiveReadError),
    /// Another version of the binary is needed. Nothing was changed.
    #[error("{0}")]
    Version(String),
    /// The directory cannot be made.
    #[error(transparent)]
    Directory(#[from] FreshError),
    /// The disk refused in between.
    #[error("cannot write the state: {0}; see to the disk, and do it again")]
    Io(#[from] io::Error),
    /// The new directory refused what it was given.
    #[error(transparent)]
    Save(#[from] store_disk::SaveError),
}

/// A mesh that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// The new mesh.
    pub mesh_id: MeshId,
    /// Its only node.
    pub node_id: NodeId,
}

/// Makes `data_dir`, which is absent or empty, the data directory of the only node of a new mesh,
/// with the state in an archive. Blocks.
///
/// With `bump`, the mesh begins so many revisions after the archive's, without its history: who
/// saw what was written after the archive then never meets a revision that he knows with another
/// content, and who watches from before is told that history is compacted.
///
/// # Errors
/// [`RenewError`].
pub fn restore(
    archive: &Path,
    data_dir: &Path,
    bump: Option<NonZeroU32>,
) -> Result<(Renewed, ArchiveInfo, Image), RenewError> {
    let (info, image) = read_archive(archive)?;
    let image = match bump {
        Some(bump) => bumped(&image, bump)?,
        None => image,
    };
    check_version(Version::THIS, &image)
        .map_err(|misfit| RenewError::Version(misfit.to_string()))?;
    let renewed = found_from(&image, info.index, data_dir)?;
    Ok((renewed, info, image))
}

/// The current rows alone, at a later revision. That one must have written something: it is the key
/// that tells of the restoring.
fn bumped(image: &Image, bump: NonZeroU32) -> Result<Image, RenewError> {
    let before = image.meta();
    let revision = before.revision.saturating_add(i64::from(bump.get()));
    let meta = ImageMeta {
        revision,
        compact_revision: revision,
        ..before
    };
    let told = format!("{{\"from_revision\":{}}}", before.revision);
    let marker = KeyValue {
        key: RESTORED_KEY.into(),
        value: told.into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        ..KeyValue::default()
    };
    let everything = KeyRange::all();
    let current = image
        .live(&everything)
        .filter(|row| row.key != RESTORED_KEY);
    let rows = current.cloned().chain([Row::from(marker)]);
    let leases = image.leases().copied();
    let bumped = Image::from_rows(meta, rows, leases);
    let bumped = bumped.map_err(|error| RenewError::from(io::Error::other(error)))?;
    // Who was asked before is asked in the new mesh, too.
    Ok(bumped.with_auth(image.auth().clone()))
}

/// Makes `data_dir` that of the only node of a new mesh, whose state is `image`, of log entry
/// `index`. Blocks.
pub(crate) fn found_from(
    image: &Image,
    index: u64,
    data_dir: &Path,
) -> Result<Renewed, RenewError> {
    let fresh = DataDir::begin(data_dir)?;
    let data = fresh.data();
    let node_id = data.identity().node_id;
    let mesh_id = MeshId(rand::random_range(1..=u64::MAX));
    data.save_mesh(mesh_id)?;
    let snapshots = SnapshotStore::open(data)?;
    snapshot::write(&snapshots, &first_meta(node_id, mesh_id, index), image)?;
    drop(snapshots);
    fresh.finish()?;
    Ok(Renewed { mesh_id, node_id })
}

/// Where the log of the new mesh begins: after an entry that nobody led, as the first entry of
/// every mesh, and that made the node its only voter. Its name and addresses are recorded when it
/// starts, as those of a node that moved.
fn first_meta(node: NodeId, mesh_id: MeshId, index: u64) -> SnapshotMeta {
    let leader = LeaderId {
        term: 0,
        node_id: NodeId(0),
    };
    let at = RaftLogId::new(leader, index.max(1));
    let info = MemberInfo {
        mesh_id,
        ..MemberInfo::default()
    };
    let voters = vec![BTreeSet::from([node])];
    let membership = Membership::new(voters, BTreeMap::from([(node, info)]))
        .expect("the only voter is a member");
    SnapshotMeta {
        last_log_id: Some(at),
        last_membership: StoredMembership::new(Some(at), membership),
    }
}
