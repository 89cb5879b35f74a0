//! etcd's Lease service.
//!
//! Owns the shell: requests to commands, streams of keep-alives in pieces, and the reading of a
//! lease from a linearizable image. Lease time itself is the log's; see `ticking`.

mod renewals;
mod stopwatch;
mod ticking;

use std::collections::VecDeque;

use futures_util::stream::{self, BoxStream, ReadyChunks, StreamExt};
use lifecycle::Shutdown;
use store_api::errors;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::lease_server::Lease;
use store_mvcc::{Caller, Command, GrantOp};
use tonic::{Request, Response, Status, Streaming};

pub(crate) use self::ticking::LeaseTime;

use self::renewals::Renewals;
use crate::access::caller_of;
use crate::answer::{Answer, auth_error, misfit};
use crate::header::Headers;
use crate::limits::Limits;
use crate::patience::Patience;
use crate::reads::Reads;
use crate::writes::Writes;

/// The most keep-alives of one stream that are renewed, and then answered, together.
const PIECE: usize = 4096;

/// What etcd answers as the time to live of a lease that does not exist.
const GONE: i64 = -1;

#[derive(Clone)]
pub(crate) struct LeaseService {
    writes: Writes,
    reads: Reads,
    renewals: Renewals,
    headers: Headers,
    limits: Limits,
    shutdown: Shutdown,
}

impl LeaseService {
    pub(crate) fn new(
        writes: Writes,
        reads: Reads,
        headers: Headers,
        limits: Limits,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            renewals: Renewals::new(writes.clone(), limits.clone()),
            writes,
            reads,
            headers,
            limits,
            shutdown,
        }
    }

    /// A request's message, who asks, and how long it looks for a leader.
    fn open<T>(&self, request: Request<T>) -> (T, Caller, Patience) {
        let patience = Patience::of(request.metadata(), &self.limits);
        let caller = caller_of(&request);
        (request.into_inner(), caller, patience)
    }
}

impl Lease for LeaseService {
    type LeaseKeepAliveStream = BoxStream<'static, Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let (request, caller, patience) = self.open(request);
        let command = Command::Grant(GrantOp {
            id: request.id,
            ttl: request.ttl,
            age_ms: 0,
        });
        let written = self.writes.submit(&caller, command, patience).await?;
        let Answer::Grant(answer) = written.answer else {
            return Err(misfit());
        };
        Ok(Response::new(pb::LeaseGrantResponse {
            header: Some(self.headers.at(written.revision)),
            ..answer
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let (request, caller, patience) = self.open(request);
        let command = Command::Revoke { lease: request.id };
        let written = self.writes.submit(&caller, command, patience).await?;
        let Answer::Revoke(_) = written.answer else {
            return Err(misfit());
        };
        Ok(Response::new(pb::LeaseRevokeResponse {
            header: Some(self.headers.at(written.revision)),
        }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let session = Session {
            caller: caller_of(&request),
            reads: self.reads.clone(),
            requests: request.into_inner().ready_chunks(PIECE),
            renewals: self.renewals.clone(),
            headers: self.headers.clone(),
            shutdown: self.shutdown.clone(),
            ready: VecDeque::new(),
        };
        // The next piece is read when the last one was taken, so a client that does not read
        // stops its own stream and nothing else.
        let answers = stream::unfold(Some(session), async |session| {
            let mut session = session?;
            match session.next_answer().await {
                Ok(Some(answer)) => Some((Ok(answer), Some(session))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let (request, caller, patience) = self.open(request);
        let image = self.reads.linearizable(patience).await?;
        let mut answer = pb::LeaseTimeToLiveResponse {
            header: Some(self.headers.at(image.revision())),
            id: request.id,
            ttl: GONE,
            ..Default::default()
        };
        if let Some(lease) = image.lease(request.id) {
            let left = lease.remaining_ms(image.meta().lease_clock_ms) / 1_000;
            // A lease is granted from its arrival on, which the clock has not reached yet.
            answer.ttl = i64::try_from(left).unwrap_or(i64::MAX).min(lease.ttl);
            answer.granted_ttl = lease.ttl;
            if request.keys {
                let may = image.check_lease_read(&caller, request.id);
                may.map_err(auth_error)?;
                answer.keys = image.lease_keys(request.id).cloned().collect();
            }
        }
        Ok(Response::new(answer))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let (_, _, patience) = self.open(request);
        let image = self.reads.linearizable(patience).await?;
        let leases = image.leases().map(|lease| pb::LeaseStatus { id: lease.id });
        Ok(Response::new(pb::LeaseLeasesResponse {
            header: Some(self.headers.at(image.revision())),
            leases: leases.collect(),
        }))
    }
}

/// One stream of keep-alives.
struct Session {
    caller: Caller,
    reads: Reads,
    requests: ReadyChunks<Streaming<pb::LeaseKeepAliveRequest>>,
    renewals: Renewals,
    headers: Headers,
    shutdown: Shutdown,
    /// Answers of the last piece that were not taken yet.
    ready: VecDeque<pb::LeaseKeepAliveResponse>,
}

impl Session {
    /// The next answer; `None` when the client asks for no more.
    async fn next_answer(&mut self) -> Result<Option<pb::LeaseKeepAliveResponse>, Status> {
        if self.ready.is_empty() {
            let piece = tokio::select! {
                piece = self.requests.next() => piece,
                () = self.shutdown.requested() => return Err(errors::stopped()),
            };
            let Some(piece) = piece else {
                return Ok(None);
            };
            let requests: Vec<_> = piece.into_iter().collect::<Result<_, _>>()?;
            self.renew(requests).await?;
        }
        Ok(self.ready.pop_front())
    }

    async fn renew(&mut self, requests: Vec<pb::LeaseKeepAliveRequest>) -> Result<(), Status> {
        // The stream may outlive its user.
        let may = self.reads.here().auth().check_user(&self.caller);
        may.map_err(auth_error)?;
        let ids: Vec<i64> = requests.into_iter().map(|request| request.id).collect();
        let kept = self.renewals.keep_alive(&ids).await?;
        let header = self.headers.at(kept.revision());
        let answer = |(&id, &ttl)| pb::LeaseKeepAliveResponse {
            header: Some(header),
            id,
            ttl,
        };
        self.ready.extend(ids.iter().zip(kept.ttls()).map(answer));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
