//! Snapshots: an image as records, on disk and on the wire.
//!
//! Owns the record format, sending and receiving. Never lets a received snapshot count before Raft
//! accepts it: until then it is an unfinished file that a crash removes.

use std::convert::Infallible;
use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use model::ConfigRevision;
use prost::Message;
use prost::encoding::decode_varint;
use store_api::skeinpb as pb;
use store_disk::{SealedSnapshot, Snapshot, SnapshotBlocks, SnapshotStore, SnapshotWriter};
use store_mvcc::{AgreedVersion, Auth, Image, ImageBuilder, ImageMeta, Lease};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::convert;
use crate::convert::auth::{auth_from_pb, auth_to_pb};
use crate::convert::leases::{PAGE_LEASES, leases_from_pb, leases_to_pb};
use crate::full_disk;
use crate::types::{SnapshotMeta, VoteId};
use crate::wire;

/// Blocks of 256 KiB that wait for the network.
const BLOCKS_AHEAD: usize = 4;

/// How long a sender may take for its next piece.
const PIECE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

/// A snapshot, as openraft passes it on.
pub(crate) enum SnapshotFile {
    /// Durable and verified.
    Whole(Snapshot),
    /// Came in from the leader, complete and with the right checksum; it counts once installed,
    /// which takes no more room.
    Received(SealedSnapshot),
}

// ---- image to records and back

pub(crate) fn image_meta_to_pb(meta: ImageMeta) -> pb::ImageMeta {
    let agreed = meta.version;
    pb::ImageMeta {
        revision: meta.revision,
        compact_revision: meta.compact_revision,
        config_revision: meta.config_revision.0,
        cluster_version: agreed.map(|agreed| convert::version_to_pb(agreed.version)),
        downgrade: agreed.is_some_and(|agreed| agreed.downgrade),
        lease_clock_ms: meta.lease_clock_ms,
    }
}

pub(crate) fn image_meta_from_pb(meta: pb::ImageMeta) -> Result<ImageMeta, convert::Unknown> {
    let version = meta.cluster_version.map(convert::version_from_pb);
    let version = version.transpose()?.map(|version| AgreedVersion {
        version,
        downgrade: meta.downgrade,
    });
    Ok(ImageMeta {
        revision: meta.revision,
        compact_revision: meta.compact_revision,
        config_revision: ConfigRevision(meta.config_revision),
        version,
        lease_clock_ms: meta.lease_clock_ms,
    })
}

/// Writes `image`, the state at `meta`, durably. Blocks.
pub(crate) fn write(
    store: &SnapshotStore,
    meta: &SnapshotMeta,
    image: &Image,
) -> io::Result<Snapshot> {
    let mut writer = begin(store, meta)?;
    write_records(image, &mut writer)?;
    writer.finish()
}

/// Writes all that an image is made of.
pub(crate) fn write_records(image: &Image, out: &mut impl Write) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    each_record(image, |record| {
        buffer.clear();
        record
            .encode_length_delimited(&mut buffer)
            .expect("the buffer grows");
        out.write_all(&buffer)
    })
}

/// How many bytes [`write_records`] writes.
pub(crate) fn record_bytes(image: &Image) -> u64 {
    let mut bytes = 0;
    let counted: Result<(), Infallible> = each_record(image, |record| {
        let length = record.encoded_len();
        bytes += (prost::length_delimiter_len(length) + length) as u64;
        Ok(())
    });
    match counted {
        Ok(()) => bytes,
    }
}

fn each_record<E>(
    image: &Image,
    mut visit: impl FnMut(pb::SnapshotRecord) -> Result<(), E>,
) -> Result<(), E> {
    use pb::snapshot_record::Kind;
    let head = Kind::Image(image_meta_to_pb(image.meta()));
    let rows = image
        .rows()
        .map(|row| Kind::Row(convert::row_with_place_to_pb(row)));
    let leases: Vec<Lease> = image.leases().copied().collect();
    let leases = leases
        .chunks(PAGE_LEASES)
        .map(|some| Kind::Leases(leases_to_pb(some, &[])));
    // Most stores have no users.
    let auth = (*image.auth() != Auth::default()).then(|| Kind::Auth(auth_to_pb(image.auth())));
    let head = std::iter::once(head).chain(auth);
    let mut records = head.chain(leases).chain(rows);
    records.try_for_each(|kind| visit(pb::SnapshotRecord { kind: Some(kind) }))
}

fn begin(store: &SnapshotStore, meta: &SnapshotMeta) -> io::Result<SnapshotWriter> {
    let index = meta.last_log_id.map_or(0, |id| id.index);
    store.begin(index, &wire::meta_to_pb(meta).encode_to_vec())
}

/// Which state a snapshot is of.
pub(crate) fn meta(snapshot: &Snapshot) -> io::Result<SnapshotMeta> {
    let meta = pb::SnapshotMeta::decode(snapshot.meta().clone()).map_err(damaged)?;
    Ok(wire::meta_from_pb(meta)?)
}

/// Reads the image. Blocks.
pub(crate) fn read(snapshot: &Snapshot) -> io::Result<Image> {
    use pb::snapshot_record::Kind;
    let mut records = Records {
        blocks: snapshot.blocks(),
        buffer: BytesMut::new(),
    };
    let Some(Kind::Image(meta)) = records.next()? else {
        return Err(damaged("the first record is not the image's"));
    };
    let mut builder = ImageBuilder::new(image_meta_from_pb(meta).map_err(damaged)?);
    while let Some(kind) = records.next()? {
        match kind {
            Kind::Row(row) => builder
                .push(convert::row_from_pb(row).map_err(damaged)?)
                .map_err(damaged)?,
            Kind::Leases(page) => {
                for lease in leases_from_pb(&page).map_err(damaged)? {
                    builder.push_lease(lease).map_err(damaged)?;
                }
            }
            Kind::Auth(auth) => builder.set_auth(auth_from_pb(auth).map_err(damaged)?),
            Kind::Image(_) => return Err(damaged("a second head")),
        }
    }
    builder.finish().map_err(damaged)
}

fn damaged(reason: impl ToString) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("damaged snapshot: {}", reason.to_string()),
    )
}

/// The records in a snapshot's blocks; a record may span blocks.
struct Records {
    blocks: SnapshotBlocks,
    buffer: BytesMut,
}

impl Records {
    fn next(&mut self) -> io::Result<Option<pb::snapshot_record::Kind>> {
        let length = loop {
            if let Some(length) = self.take_length()? {
                break length;
            }
            if !self.fill()? {
                let rest = self.buffer.is_empty();
                return if rest {
                    Ok(None)
                } else {
                    Err(damaged("cut off in a record's length"))
                };
            }
        };
        while self.buffer.len() < length {
            if !self.fill()? {
                return Err(damaged("cut off in a record"));
            }
        }
        let record = pb::SnapshotRecord::decode(self.buffer.split_to(length)).map_err(damaged)?;
        let unknown =
            || damaged("a record of an unknown kind; run at least the version that wrote it");
        record.kind.ok_or_else(unknown).map(Some)
    }

    /// The next record's length, once its bytes are here.
    fn take_length(&mut self) -> io::Result<Option<usize>> {
        let complete = self.buffer.iter().take(10).any(|byte| byte & 0x80 == 0);
        if !complete {
            return if self.buffer.len() < 10 {
                Ok(None)
            } else {
                Err(damaged("no length"))
            };
        }
        let length = decode_varint(&mut self.buffer).map_err(damaged)?;
        usize::try_from(length).map(Some).map_err(damaged)
    }

    fn fill(&mut self) -> io::Result<bool> {
        match self.blocks.next().transpose()? {
            Some(block) => self.buffer.extend_from_slice(&block),
            None => return Ok(false),
        }
        Ok(true)
    }
}

/// Makes a snapshot one of `store`'s, durably, if it is not yet. Blocks.
pub(crate) fn keep(store: &SnapshotStore, file: SnapshotFile) -> io::Result<Snapshot> {
    let snapshot = match file {
        SnapshotFile::Received(sealed) => return sealed.publish(),
        SnapshotFile::Whole(snapshot) => snapshot,
    };
    let ours = store
        .newest()
        .is_some_and(|newest| newest.path() == snapshot.path());
    if ours {
        return Ok(snapshot);
    }
    let mut writer = store.begin(snapshot.index(), snapshot.meta())?;
    for block in snapshot.blocks() {
        writer.write_all(&block?)?;
    }
    writer.finish()
}

// ---- sending

/// The messages that carry a snapshot: its head, its blocks, and an end with their checksum. If
/// the file cannot be read, the end is missing and the receiver refuses what it got.
pub(crate) fn chunks(
    vote: VoteId,
    meta: &SnapshotMeta,
    file: SnapshotFile,
) -> impl Stream<Item = pb::SnapshotChunk> + Send + 'static {
    let head = pb::SnapshotHead {
        vote: Some(wire::vote_to_pb(&vote)),
        meta: Some(wire::meta_to_pb(meta)),
    };
    let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = send(head, &file, &sender) {
            tracing::error!(%error, "cannot read the snapshot that another member needs");
        }
    });
    ReceiverStream::new(receiver)
}

fn send(
    head: pb::SnapshotHead,
    file: &SnapshotFile,
    out: &mpsc::Sender<pb::SnapshotChunk>,
) -> io::Result<()> {
    use pb::snapshot_chunk::Part;
    let SnapshotFile::Whole(snapshot) = file else {
        return Err(io::Error::other("only a finished snapshot is sent"));
    };
    // A send fails when the receiver went away: then nothing is left to do.
    let put = |part| {
        out.blocking_send(pb::SnapshotChunk { part: Some(part) })
            .is_ok()
    };
    let mut checksum = Checksum::default();
    let mut goes_on = put(Part::Head(head));
    for block in snapshot.blocks() {
        if !goes_on {
            return Ok(());
        }
        let block = block?;
        checksum.add(&block);
        goes_on = put(Part::Data(block));
    }
    put(Part::End(checksum.end()));
    Ok(())
}

/// CRC-32 and length of all pieces together.
#[derive(Default)]
pub(crate) struct Checksum {
    crc: crc32fast::Hasher,
    length: u64,
}

impl Checksum {
    pub(crate) fn add(&mut self, piece: &Bytes) {
        self.crc.update(piece);
        self.length += piece.len() as u64;
    }

    pub(crate) fn end(self) -> pb::SnapshotEnd {
        pb::SnapshotEnd {
            crc32: self.crc.finalize(),
            length: self.length,
        }
    }
}

// ---- receiving

/// openraft's pair of meta data and file.
pub(crate) type Received = openraft::Snapshot<
    crate::types::LeaderId,
    model::NodeId,
    crate::types::MemberInfo,
    SnapshotFile,
>;

/// Takes in a snapshot, up to its verified end, so that nothing but its name is left to be written
/// when Raft installs it: an error from then on would stop the store. `beat` is called with the
/// sender's vote for each piece: a leader that sends one is alive.
pub(crate) async fn receive(
    mut chunks: impl Stream<Item = Result<pb::SnapshotChunk, Status>> + Unpin,
    store: &SnapshotStore,
    beat: impl Fn(&VoteId),
) -> Result<(VoteId, Received), Status> {
    use pb::snapshot_chunk::Part;
    let Some(Part::Head(head)) = next_part(&mut chunks).await? else {
        return Err(Status::invalid_argument(
            "skein: a snapshot begins with its head",
        ));
    };
    let vote = wire::vote_from_pb(head.vote.as_ref())?;
    beat(&vote);
    let meta = head.meta.ok_or(wire::WireError::Missing("meta"))?;
    let meta = wire::meta_from_pb(meta)?;
    let begun = begin(store, &meta);
    let mut writer = stored(begun).await?;
    let mut checksum = Checksum::default();
    loop {
        match next_part(&mut chunks).await? {
            Some(Part::Data(piece)) => {
                beat(&vote);
                checksum.add(&piece);
                writer = off_runtime(move || {
                    writer.write_all(&piece)?;
                    Ok(writer)
                })
                .await?;
            }
            Some(Part::End(end)) if end == checksum.end() => break,
            Some(Part::End(_)) => {
                return Err(Status::data_loss(
                    "skein: the snapshot's checksum does not match",
                ));
            }
            Some(Part::Head(_)) | None => {
                return Err(Status::data_loss(
                    "skein: the snapshot ended before its end",
                ));
            }
        }
    }
    let sealed = off_runtime(move || writer.seal()).await?;
    let snapshot = SnapshotFile::Received(sealed);
    Ok((vote, Received { meta, snapshot }))
}

async fn next_part(
    chunks: &mut (impl Stream<Item = Result<pb::SnapshotChunk, Status>> + Unpin),
) -> Result<Option<pb::snapshot_chunk::Part>, Status> {
    let next = tokio::time::timeout(PIECE_DEADLINE, chunks.next());
    let late = |_| Status::deadline_exceeded("skein: the snapshot's sender fell silent");
    let chunk = next.await.map_err(late)?.transpose()?;
    Ok(chunk.and_then(|chunk| chunk.part))
}

/// Works off the runtime: now and then a write waits for the disk.
async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    stored(done.unwrap_or_else(|ended| Err(io::Error::other(ended)))).await
}

/// What the disk said, for the sender. It sends again at once when it hears of a fault, so a full
/// disk is answered late: room is made by people.
async fn stored<T>(result: io::Result<T>) -> Result<T, Status> {
    let error = match result {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    if full_disk::is_full(&error) {
        tracing::error!(%error, "no room for the snapshot that the leader sends, and this node stays behind until there is: make room");
        tokio::time::sleep(full_disk::PAUSE).await;
    }
    let text = format!("skein: cannot store the snapshot: {error}");
    Err(Status::unavailable(text))
}

#[cfg(test)]
mod tests;
