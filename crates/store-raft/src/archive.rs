//! Archives: the state of a store as one file that leaves its node, and back.
//!
//! Owns what an archive says about itself, and sending one while the store goes on. Never keeps
//! one, and never holds a write up: what is sent is an image.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use model::{MeshId, NodeId, Version};
use prost::Message;
use store_api::skeinpb as pb;
use store_disk::{Archive, ArchiveError, ArchiveWriter, archive_bytes};
use store_mvcc::Image;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{Store, convert, snapshot};

/// Bytes of a piece that is sent.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that wait for the receiver.
const PIECES_AHEAD: usize = 2;

/// What an archive says about itself, and what checking it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveInfo {
    /// The binary that wrote it, as it calls itself.
    pub written_by: String,
    /// When, by that node's clock.
    pub taken: SystemTime,
    /// The mesh that it is of.
    pub mesh_id: Option<MeshId>,
    /// The node that it is from.
    pub node_id: NodeId,
    /// The last log entry that it holds; 0 for none.
    pub index: u64,
    /// The length of the file.
    pub bytes: u64,
    /// The checksum over everything.
    pub sha256: [u8; 32],
}

/// Why a file cannot be read as an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveReadError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] ArchiveError),
    /// Whole, and of a mesh that knew more than this binary.
    #[error("it is of a mesh of version {needs}, and this is version {own}; run version {needs}")]
    Newer {
        /// The mesh's version.
        needs: Version,
        /// This binary's.
        own: Version,
    },
}

/// Reads a whole archive, and checks every byte of it. Blocks.
///
/// # Errors
/// [`ArchiveReadError`] says what is wrong, and where.
pub fn read_archive(path: &Path) -> Result<(ArchiveInfo, Image), ArchiveReadError> {
    let archive = Archive::open(path)?;
    let held = archive.snapshot();
    let damaged = |error: &dyn std::fmt::Display| ArchiveError::Damaged(error.to_string());
    let meta = pb::ArchiveMeta::decode(held.meta().clone()).map_err(|error| damaged(&error))?;
    let own = Version::THIS;
    if let Some(needs) = meta.needs {
        let needs = convert::version_from_pb(needs).map_err(|error| damaged(&error))?;
        if needs > own {
            return Err(ArchiveReadError::Newer { needs, own });
        }
    }
    let image = snapshot::read(held).map_err(|error| damaged(&error))?;
    let info = ArchiveInfo {
        written_by: meta.written_by,
        taken: UNIX_EPOCH + Duration::from_millis(meta.taken_ms),
        mesh_id: (meta.mesh_id != 0).then_some(MeshId(meta.mesh_id)),
        node_id: NodeId(meta.node_id),
        index: held.index(),
        bytes: archive.bytes(),
        sha256: archive.sha256(),
    };
    Ok((info, image))
}

/// An archive that is ready to be sent or written: nothing of it is made before.
#[derive(Debug, Clone)]
pub struct Outgoing {
    image: Image,
    index: u64,
    meta: Bytes,
    bytes: u64,
}

impl Store {
    /// This node's newest state as an archive.
    pub async fn archive(&self) -> Outgoing {
        let state = self.state();
        let (mesh, node) = (self.mesh_id(), self.id());
        let taken = SystemTime::now();
        // Measuring a large store takes a moment.
        let measured = tokio::task::spawn_blocking(move || {
            let index = state.applied_index();
            Outgoing::of(state.image, index, mesh, node, taken)
        });
        match measured.await {
            Ok(outgoing) => outgoing,
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
}

impl Outgoing {
    /// An archive of `image`, the state of `node` at log entry `index`.
    pub fn of(
        image: Image,
        index: u64,
        mesh: Option<MeshId>,
        node: NodeId,
        taken: SystemTime,
    ) -> Self {
        let taken = taken.duration_since(UNIX_EPOCH).unwrap_or_default();
        let agreed = image.meta().version;
        let meta = pb::ArchiveMeta {
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            taken_ms: u64::try_from(taken.as_millis()).unwrap_or(u64::MAX),
            mesh_id: mesh.map_or(0, |id| id.0),
            node_id: node.0,
            needs: agreed.map(|agreed| convert::version_to_pb(agreed.version)),
        };
        let meta = Bytes::from(meta.encode_to_vec());
        let bytes = archive_bytes(index, &meta, snapshot::record_bytes(&image));
        Self {
            image,
            index,
            meta,
            bytes,
        }
    }

    /// The revision that it is of.
    pub fn revision(&self) -> i64 {
        self.image.revision()
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes all of it. Blocks.
    ///
    /// # Errors
    /// What `out` reports.
    pub fn write<W: Write>(&self, out: W) -> io::Result<W> {
        let mut writer = ArchiveWriter::begin(out, self.index, &self.meta)?;
        snapshot::write_records(&self.image, &mut writer)?;
        writer.finish()
    }

    /// Its bytes, made as they are taken. Ends early, which the length shows, when nothing was
    /// taken for as long as `stall`: the state is held in memory until then.
    pub fn pieces(self, stall: Duration) -> BoxStream<'static, Bytes> {
        ReceiverStream::new(self.send(stall)).boxed()
    }

    fn send(self, stall: Duration) -> mpsc::Receiver<Bytes> {
        let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let out = PieceWriter {
                pieces,
                runtime,
                stall,
                piece: Vec::with_capacity(PIECE_BYTES),
            };
            if let Err(error) = self.write(out) {
                tracing::info!(%error, "a snapshot was not taken to its end");
            }
        });
        receiver
    }
}

/// Hands what is written to a receiver, piece by piece.
struct PieceWriter {
    pieces: mpsc::Sender<Bytes>,
    runtime: Handle,
    stall: Duration,
    piece: Vec<u8>,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let next = Vec::with_capacity(PIECE_BYTES);
        let piece = Bytes::from(std::mem::replace(&mut self.piece, next));
        let sent = self.pieces.send_timeout(piece, self.stall);
        self.runtime.block_on(sent).map_err(|fault| match fault {
            mpsc::error::SendTimeoutError::Timeout(_) => io::ErrorKind::TimedOut.into(),
            mpsc::error::SendTimeoutError::Closed(_) => io::ErrorKind::BrokenPipe.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use store_mvcc::{Command, Machine, Proposal, PutOp};

    use super::*;

    fn image(values: usize) -> Image {
        let mut machine = Machine::new();
        for at in 0..values {
            let put = PutOp {
                key: format!("key {at}").into(),
                value: vec![b'x'; 1 << 20].into(),
                ..PutOp::default()
            };
            let applied = machine.apply(&Proposal::new(Command::Put(put)));
            applied.result.unwrap();
        }
        machine.image()
    }

    fn outgoing(values: usize) -> Outgoing {
        let taken = UNIX_EPOCH + Duration::from_millis(1_234_567);
        Outgoing::of(image(values), 3, Some(MeshId(7)), NodeId(9), taken)
    }

    #[tokio::test]
    async fn what_is_sent_is_what_is_written_and_is_read_back() {
        let outgoing = outgoing(3);
        let written = outgoing.write(Vec::new()).unwrap();
        assert_eq!(written.len() as u64, outgoing.bytes());
        let pieces = outgoing.clone().pieces(Duration::from_secs(60));
        let sent: Vec<Bytes> = pieces.collect().await;
        assert!(sent.iter().all(|piece| piece.len() <= PIECE_BYTES));
        assert_eq!(sent.concat(), written);

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, &written).unwrap();
        let (info, image) = read_archive(&path).unwrap();
        assert!(image == outgoing.image);
        assert_eq!(info.taken, UNIX_EPOCH + Duration::from_millis(1_234_567));
        assert_eq!((info.mesh_id, info.node_id), (Some(MeshId(7)), NodeId(9)));
        assert_eq!(info.bytes, outgoing.bytes());
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_gets_less_than_was_told() {
        let outgoing = outgoing(4);
        let bytes = outgoing.bytes();
        let mut pieces = outgoing.send(Duration::from_millis(5));
        let first = pieces.recv().await.unwrap();
        // The writer gives up by itself; then there is only what was on its way.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !pieces.is_closed() {
            assert!(std::time::Instant::now() < deadline, "it never gives up");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let rest: Vec<Bytes> = ReceiverStream::new(pieces).collect().await;
        let got = first.len() + rest.iter().map(Bytes::len).sum::<usize>();
        assert!((got as u64) < bytes, "{got} of {bytes}");
    }

    #[test]
    fn records_of_a_newer_mesh_are_not_guessed_at() {
        let own = Version::THIS;
        let newer = Version {
            minor: own.minor + 1,
            ..own
        };
        let mut outgoing = outgoing(0);
        let meta = pb::ArchiveMeta {
            needs: Some(convert::version_to_pb(newer)),
            ..pb::ArchiveMeta::default()
        };
        outgoing.meta = meta.encode_to_vec().into();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, outgoing.write(Vec::new()).unwrap()).unwrap();
        let error = read_archive(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("run version {newer}")), "{error}");
    }
}
