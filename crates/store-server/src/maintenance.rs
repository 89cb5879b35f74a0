//! etcd's Maintenance service: what a member's state is, and the chores that Skein does not have.
//!
//! Owns the translation of the status. Never stops the store for a chore.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use lifecycle::Shutdown;
use model::NodeId;
use store_api::errors;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::AlarmType;
use store_api::etcdserverpb::alarm_request::AlarmAction;
use store_api::etcdserverpb::maintenance_server::Maintenance;
use store_raft::{MembershipError, Role, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use crate::access::{Access, caller_of};
use crate::damaged;
use crate::downgrade;
use crate::header::Headers;
use crate::limits::{Limits, SNAPSHOT_STALL, SNAPSHOTS_MAX};
use crate::long;
use crate::patience::Patience;
use crate::reads::Reads;
use crate::writes::Writes;

/// The version of etcd's interface that is spoken here: clients choose features by it.
pub(crate) const API_VERSION: &str = "3.7.0";

#[derive(Clone)]
pub(crate) struct MaintenanceService {
    store: Store,
    writes: Writes,
    reads: Reads,
    access: Access,
    headers: Headers,
    limits: Limits,
    /// Turns at taking a snapshot away.
    snapshots: Arc<Semaphore>,
    shutdown: Shutdown,
}

impl MaintenanceService {
    /// On `shutdown` snapshots under way end with an error.
    pub(crate) fn new(
        writes: Writes,
        reads: Reads,
        access: Access,
        headers: Headers,
        limits: Limits,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            store: access.store().clone(),
            writes,
            reads,
            access,
            headers,
            limits,
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
            shutdown,
        }
    }
}

impl MaintenanceService {
    fn alarms(&self) -> impl Iterator<Item = pb::AlarmMember> {
        let full = self.writes.quota().is_full().then(|| pb::AlarmMember {
            member_id: self.store.id().0,
            alarm: AlarmType::Nospace.into(),
        });
        full.into_iter().chain(damaged::alarm(&self.store))
    }
}

/// A snapshot on its way to one client.
struct Pieces {
    header: pb::ResponseHeader,
    /// Bytes that are still to come.
    left: u64,
    pieces: BoxStream<'static, Bytes>,
    store: Store,
    shutdown: Shutdown,
    _turn: OwnedSemaphorePermit,
}

impl Pieces {
    /// The next answer. The end comes without an error only after the last byte: whoever saves a
    /// snapshot takes a quiet end for a whole one.
    async fn next(&mut self) -> Result<Option<pb::SnapshotResponse>, Status> {
        let piece = tokio::select! {
            biased;
            () = self.shutdown.requested() => return Err(errors::stopped()),
            piece = self.pieces.next() => piece,
        };
        // What comes from a damaged state must not become anybody's backup.
        damaged::check(&self.store)?;
        let blob = match piece {
            Some(blob) => blob,
            None if self.left == 0 => return Ok(None),
            None => {
                let stall = SNAPSHOT_STALL.as_secs();
                return Err(Status::aborted(format!(
                    "skein: nothing of the snapshot was taken for {stall} s; save it anew"
                )));
            }
        };
        self.left = self.left.saturating_sub(blob.len() as u64);
        Ok(Some(pb::SnapshotResponse {
            header: Some(self.header),
            remaining_bytes: self.left,
            blob,
            version: API_VERSION.to_owned(),
        }))
    }
}

impl Maintenance for MaintenanceService {
    type SnapshotStream = BoxStream<'static, Result<pb::SnapshotResponse, Status>>;

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let (image, status) = (self.store.image(), self.store.status());
        let bytes = i64::try_from(image.resident_bytes()).unwrap_or(i64::MAX);
        let in_use = i64::try_from(image.live_bytes()).unwrap_or(i64::MAX);
        let mut faults: Vec<String> = status.fatal.iter().cloned().collect();
        if status.leader.is_none() {
            faults.push(errors::no_leader().message().to_owned());
        }
        faults.extend(damaged::fault(&self.store).map(|fault| format!("skein: {fault}")));
        let quota = self.writes.quota();
        // As etcd writes its alarms here.
        if let Some(alarm) = damaged::alarm(&self.store) {
            faults.push(format!("memberID:{} alarm:CORRUPT ", alarm.member_id));
        }
        if quota.is_full() {
            faults.push(format!("memberID:{} alarm:NOSPACE ", self.store.id().0));
        }
        Ok(Response::new(pb::StatusResponse {
            header: Some(self.headers.at(image.revision())),
            version: API_VERSION.to_owned(),
            db_size: bytes,
            leader: status.leader.as_ref().map_or(0, |leader| leader.id.0),
            raft_index: status.committed,
            raft_term: status.term,
            raft_applied_index: status.applied,
            errors: faults,
            db_size_in_use: in_use,
            is_learner: status.role == Role::Learner,
            storage_version: API_VERSION.to_owned(),
            db_size_quota: i64::try_from(quota.bytes()).unwrap_or(i64::MAX),
            downgrade_info: Some(downgrade::info(image.meta())),
        }))
    }

    /// Alarms are that this member has no space, and that its state, or somebody's, is damaged. They
    /// end by themselves, so clearing them does nothing.
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let caller = caller_of(&request);
        let patience = Patience::of(request.metadata(), &self.limits);
        let request = request.into_inner();
        // To look is for every user.
        if request.action() != AlarmAction::Get && self.store.image().auth().is_enabled() {
            self.access.check_root(&caller, patience).await?;
        }
        let asked = |alarm: &pb::AlarmMember| {
            [AlarmType::None, alarm.alarm()].contains(&request.alarm())
                && [0, alarm.member_id].contains(&request.member_id)
        };
        let alarms = match request.action() {
            AlarmAction::Get => self.alarms().filter(asked).collect(),
            AlarmAction::Deactivate => Vec::new(),
            AlarmAction::Activate => {
                return Err(Status::unimplemented(
                    "skein: alarms come and go by themselves; none can be raised",
                ));
            }
        };
        let header = Some(self.headers.at(self.store.image().revision()));
        Ok(Response::new(pb::AlarmResponse { header, alarms }))
    }

    /// Nothing fragments that a stop could mend: done at once.
    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let header = Some(self.headers.at(self.store.image().revision()));
        Ok(Response::new(pb::DefragmentResponse { header }))
    }

    async fn hash(
        &self,
        _: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let image = self.store.image();
        let header = Some(self.headers.at(image.revision()));
        let hash = long::hash(&image, image.revision());
        Ok(Response::new(pb::HashResponse { header, hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let image = self.store.image();
        let revision = match request.into_inner().revision {
            0 => image.revision(),
            asked if asked > image.revision() => return Err(errors::future_revision()),
            asked if asked < image.compact_revision() => return Err(errors::compacted()),
            asked => asked,
        };
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.headers.at(image.revision())),
            hash: long::hash(&image, revision),
            compact_revision: image.compact_revision(),
            hash_revision: revision,
        }))
    }

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let turn = self.snapshots.clone().try_acquire_owned();
        let turn = turn.map_err(|_| errors::too_many_requests())?;
        let archive = self.store.archive().await;
        let answers = Pieces {
            header: self.headers.at(archive.revision()),
            left: archive.bytes(),
            pieces: archive.pieces(SNAPSHOT_STALL),
            store: self.store.clone(),
            shutdown: self.shutdown.clone(),
            _turn: turn,
        };
        let answers = stream::unfold(Some(answers), async |answers| {
            let mut answers = answers?;
            match answers.next().await.transpose()? {
                Ok(answer) => Some((Ok(answer), Some(answers))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let target = NodeId(request.into_inner().target_id);
        self.store
            .transfer_leadership(Some(target))
            .await
            .map_err(|error| match error {
                MembershipError::NotLeader { .. } => errors::not_leader(),
                MembershipError::Refused(_) | MembershipError::AlreadyFormed(_) => {
                    errors::bad_leader_transferee()
                }
                MembershipError::TimedOut(_) => errors::timeout(),
                MembershipError::Stopped => errors::stopped(),
            })?;
        let header = Some(self.headers.at(self.store.image().revision()));
        Ok(Response::new(pb::MoveLeaderResponse { header }))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let patience = Patience::of(request.metadata(), &self.limits);
        let caller = caller_of(&request);
        let image = self.reads.linearizable(patience).await?;
        if let Some(command) = downgrade::plan(image.meta(), request.get_ref())? {
            self.writes.submit(&caller, command, patience).await?;
        }
        let header = Some(self.headers.at(image.revision()));
        let version = image.cluster_version().to_string();
        Ok(Response::new(pb::DowngradeResponse { header, version }))
    }
}
