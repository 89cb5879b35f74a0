//! Which mesh this node belongs to, and the check that every call between nodes carries.
//!
//! Owns the mesh id once it is known, and the two metadata keys. Never lets a node of another mesh,
//! or a call meant for another node, reach Raft.

use std::sync::OnceLock;

use model::{MeshId, NodeId};
use store_disk::{DataDir, SaveError};
use tonic::Status;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// The caller's mesh, 16 hex digits.
const MESH_KEY: &str = "skein-mesh-id";
/// The node that the caller means, 16 hex digits.
const TARGET_KEY: &str = "skein-target-node-id";

/// This node's place: its own id, and its mesh's once it has one.
pub(crate) struct MeshSeat {
    node: NodeId,
    data: DataDir,
    /// What `data` holds, without its lock.
    mesh: OnceLock<MeshId>,
}

impl MeshSeat {
    pub(crate) fn new(data: DataDir) -> Self {
        let mesh = data.mesh().map_or_else(OnceLock::new, OnceLock::from);
        Self {
            node: data.identity().node_id,
            data,
            mesh,
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn mesh(&self) -> Option<MeshId> {
        self.mesh.get().copied()
    }

    /// Becomes a node of `mesh`, durably; a node never changes its mesh. Blocks once in a life.
    pub(crate) fn adopt(&self, mesh: MeshId) -> Result<(), SaveError> {
        if self.mesh.get() == Some(&mesh) {
            return Ok(());
        }
        self.data.save_mesh(mesh)?;
        self.mesh.get_or_init(|| mesh);
        Ok(())
    }

    /// Checks a call's metadata. A node without a mesh takes the mesh of the first call that names
    /// its id: only a mesh that was asked to admit it can know that id, as it was minted at random.
    pub(crate) fn check(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let target: NodeId = parse(metadata, TARGET_KEY)?;
        if target != self.node {
            return Err(Status::failed_precondition(format!(
                "skein: this is node {}, not {target}: the member's address is out of date",
                self.node
            )));
        }
        let mesh: MeshId = parse(metadata, MESH_KEY)?;
        self.adopt(mesh)
            .map_err(|error| Status::failed_precondition(format!("skein: {error}")))
    }
}

fn parse<T: std::str::FromStr>(metadata: &MetadataMap, key: &'static str) -> Result<T, Status> {
    let text = metadata.get(key).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| Status::invalid_argument(format!("skein: metadata `{key}` is missing")))
}

/// The metadata of calls to one node.
#[derive(Clone)]
pub(crate) struct Address {
    mesh: MetadataValue<Ascii>,
    target: MetadataValue<Ascii>,
}

impl Address {
    pub(crate) fn new(mesh: MeshId, target: NodeId) -> Self {
        let ascii = |text: String| text.parse().expect("hex digits are ASCII");
        Self {
            mesh: ascii(mesh.to_string()),
            target: ascii(target.to_string()),
        }
    }

    /// Wraps `message` for the node.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert(MESH_KEY, self.mesh.clone());
        request
            .metadata_mut()
            .insert(TARGET_KEY, self.target.clone());
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(mesh: u64, target: NodeId) -> MetadataMap {
        Address::new(MeshId(mesh), target)
            .request(())
            .metadata()
            .clone()
    }

    #[test]
    fn a_node_takes_the_first_mesh_that_names_it_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let me = data.identity().node_id;
        let other = NodeId(me.0 ^ 1);
        let seat = MeshSeat::new(data.clone());
        assert!(seat.check(&MetadataMap::new()).is_err());
        assert!(seat.check(&call(8, other)).is_err());
        assert_eq!(seat.mesh(), None);

        assert!(seat.check(&call(7, me)).is_ok());
        assert!(seat.check(&call(7, me)).is_ok());
        assert!(seat.check(&call(8, me)).is_err());
        assert!(seat.check(&call(7, other)).is_err());
        assert_eq!(seat.mesh(), Some(MeshId(7)));
        assert_eq!(data.mesh(), Some(MeshId(7)));
        assert_eq!(MeshSeat::new(data).mesh(), Some(MeshId(7)));
    }
}
