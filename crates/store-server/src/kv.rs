//! etcd's KV service.
//!
//! Owns the checks of a request's size and the choice of the image that a read sees. Writes go to
//! [`Writes`]; nothing is decided here about who leads.

use futures_util::stream::{self, BoxStream, StreamExt};
use prost::Message;
use store_api::errors;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::kv_server::Kv;
use store_api::etcdserverpb::request_op::Request as Op;
use store_api::verdict::Proposed;
use store_mvcc::{Caller, Command, Image, RangeResult, Row};
use store_raft::{Store, convert};
use tonic::{Request, Response, Status};

use crate::access::caller_of;
use crate::answer::{self, Answer, Written, auth_error, command_error, misfit};
use crate::damaged;
use crate::header::Headers;
use crate::limits::Limits;
use crate::long;
use crate::patience::Patience;
use crate::reads::Reads;
use crate::writes::{TxnSize, Writes};

/// Rows in the first piece of a streamed range: the client sees something soon.
const FIRST_PIECE_ROWS: usize = 10;
/// Later pieces are closed past this size, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Serves ranges and writes on any node.
#[derive(Clone)]
pub(crate) struct KvService {
    store: Store,
    writes: Writes,
    reads: Reads,
    headers: Headers,
    limits: Limits,
}

impl KvService {
    pub(crate) fn new(
        store: Store,
        writes: Writes,
        reads: Reads,
        headers: Headers,
        limits: Limits,
    ) -> Self {
        Self {
            store,
            writes,
            reads,
            headers,
            limits,
        }
    }

    /// A request's message, who asks, and how long it looks for a leader.
    fn open<T>(&self, request: Request<T>) -> (T, Caller, Patience) {
        let patience = Patience::of(request.metadata(), &self.limits);
        let caller = caller_of(&request);
        (request.into_inner(), caller, patience)
    }

    fn check_size(&self, request: &impl Message) -> Result<(), Status> {
        if request.encoded_len() > self.limits.request_bytes {
            return Err(Proposed::No.mark(errors::request_too_large()));
        }
        Ok(())
    }

    /// The image that a read is answered from.
    async fn image(&self, consistency: Consistency, patience: Patience) -> Result<Image, Status> {
        match consistency {
            Consistency::Linearizable => self.reads.linearizable(patience).await,
            Consistency::Serializable => Ok(self.store.image()),
        }
    }

    async fn find(
        &self,
        request: pb::RangeRequest,
        caller: &Caller,
        patience: Patience,
    ) -> Result<(Image, RangeResult), Status> {
        let consistency = Consistency::asked(request.serializable);
        // The only thing in a range that can be of an unknown kind is its order.
        let op = convert::range_from_pb(request).map_err(|_| errors::invalid_sort_option())?;
        op.check().map_err(|error| command_error(&error))?;
        let image = self.image(consistency, patience).await?;
        // On the very state that is read.
        let may = image.auth().check_read(caller, &op.range);
        may.map_err(auth_error)?;
        let result = long::range(&image, &op).map_err(|error| command_error(&error))?;
        Ok((image, result))
    }

    async fn write(
        &self,
        caller: &Caller,
        command: Command,
        patience: Patience,
    ) -> Result<(Answer, pb::ResponseHeader), Status> {
        let written = self
            .writes
            .submit_sized(caller, command, TxnSize::Clients, patience)
            .await?;
        let Written {
            revision, answer, ..
        } = written;
        Ok((answer, self.headers.at(revision)))
    }
}

/// What a read may miss.
#[derive(Debug, Clone, Copy)]
enum Consistency {
    /// Nothing that was acknowledged before it began.
    Linearizable,
    /// What this node has not applied yet.
    Serializable,
}

impl Consistency {
    fn asked(serializable: bool) -> Self {
        if serializable {
            Self::Serializable
        } else {
            Self::Linearizable
        }
    }

    /// A transaction is serializable if each of its operations is a range that says so.
    fn of_txn(request: &pb::TxnRequest) -> Self {
        let mut ops = request.success.iter().chain(&request.failure);
        Self::asked(
            ops.all(
                |op| matches!(&op.request, Some(Op::RequestRange(range)) if range.serializable),
            ),
        )
    }
}

impl Kv for KvService {
    type RangeStreamStream = BoxStream<'static, Result<pb::RangeStreamResponse, Status>>;

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let (request, caller, patience) = self.open(request);
        let (image, result) = self.find(request, &caller, patience).await?;
        let header = Some(self.headers.at(image.revision()));
        Ok(Response::new(pb::RangeResponse {
            header,
            ..answer::range(result)
        }))
    }

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let (request, caller, patience) = self.open(request);
        if !is_streamable(&request) {
            return Err(Status::unimplemented(
                "etcdserver: a range with a sort order or a revision filter is not streamed; \
                 use Range",
            ));
        }
        let (image, result) = self.find(request, &caller, patience).await?;
        let header = self.headers.at(image.revision());
        let store = self.store.clone();
        let pieces = pieces(result, header);
        let pieces = pieces.map(move |piece| damaged::check(&store).and(piece));
        Ok(Response::new(pieces.boxed()))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let (request, caller, patience) = self.open(request);
        self.check_size(&request)?;
        match self
            .write(
                &caller,
                Command::Put(convert::put_from_pb(request)),
                patience,
            )
            .await?
        {
            (Answer::Put(answer), header) => Ok(Response::new(pb::PutResponse {
                header: Some(header),
                ..answer
            })),
            _ => Err(misfit()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let (request, caller, patience) = self.open(request);
        self.check_size(&request)?;
        match self
            .write(
                &caller,
                Command::Delete(convert::delete_from_pb(request)),
                patience,
            )
            .await?
        {
            (Answer::Delete(answer), header) => Ok(Response::new(pb::DeleteRangeResponse {
                header: Some(header),
                ..answer
            })),
            _ => Err(misfit()),
        }
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let (request, caller, patience) = self.open(request);
        self.check_size(&request)?;
        let consistency = Consistency::of_txn(&request);
        let txn = convert::txn_from_pb(request).map_err(|error| {
            Proposed::No.mark(Status::invalid_argument(format!("etcdserver: {error}")))
        })?;
        if txn.is_read_only() {
            txn.check(self.limits.txn_ops)
                .map_err(|error| command_error(&error))?;
            let image = self.image(consistency, patience).await?;
            let command = Command::Txn(txn);
            let may = image.check_command(&caller, &command);
            may.map_err(auth_error)?;
            let Command::Txn(txn) = command else {
                return Err(misfit());
            };
            let result = long::read_txn(&image, &txn).map_err(|error| command_error(&error))?;
            let header = Some(self.headers.at(image.revision()));
            let answer = answer::txn(result, image.revision());
            return Ok(Response::new(pb::TxnResponse { header, ..answer }));
        }
        match self.write(&caller, Command::Txn(txn), patience).await? {
            (Answer::Txn(answer), header) => Ok(Response::new(pb::TxnResponse {
                header: Some(header),
                ..answer
            })),
            _ => Err(misfit()),
        }
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        // Compaction is physical at once: apply drops the rows.
        let (request, caller, patience) = self.open(request);
        let revision = request.revision;
        let command = Command::Compact { revision };
        match self.write(&caller, command, patience).await? {
            (Answer::Compact(_), header) => Ok(Response::new(pb::CompactionResponse {
                header: Some(header),
            })),
            _ => Err(misfit()),
        }
    }
}

fn is_streamable(request: &pb::RangeRequest) -> bool {
    request.sort_order == 0
        && request.sort_target == 0
        && request.min_mod_revision == 0
        && request.max_mod_revision == 0
        && request.min_create_revision == 0
        && request.max_create_revision == 0
}

/// The answer in pieces, each made when the one before it was taken. The rows are shared with the
/// image, so waiting for a slow client costs little.
fn pieces(
    result: RangeResult,
    header: pb::ResponseHeader,
) -> impl futures_util::Stream<Item = Result<pb::RangeStreamResponse, Status>> {
    let (more, count) = (result.more, i64::try_from(result.count).unwrap_or(i64::MAX));
    let mut rows = result.rows.into_iter();
    let mut first = true;
    let next = move || {
        let rows_max = if std::mem::take(&mut first) {
            FIRST_PIECE_ROWS
        } else {
            usize::MAX
        };
        let kvs = take_piece(&mut rows, rows_max);
        let piece = pb::RangeResponse {
            kvs,
            ..Default::default()
        };
        let last = rows.as_slice().is_empty();
        let piece = if last {
            pb::RangeResponse {
                header: Some(header),
                more,
                count,
                ..piece
            }
        } else {
            piece
        };
        (piece, last)
    };
    stream::unfold(Some(next), async |next| {
        let mut next = next?;
        let (piece, last) = next();
        let piece = pb::RangeStreamResponse {
            range_response: Some(piece),
        };
        Some((Ok(piece), if last { None } else { Some(next) }))
    })
}

fn take_piece(
    rows: &mut std::vec::IntoIter<Row>,
    rows_max: usize,
) -> Vec<store_api::mvccpb::KeyValue> {
    let mut bytes = 0;
    let mut kvs = Vec::new();
    while bytes < PIECE_BYTES && kvs.len() < rows_max {
        let Some(row) = rows.next() else { break };
        bytes += row.key.len() + row.value.len();
        kvs.push(convert::row_to_pb(&row));
    }
    kvs
}
