//! etcd's Maintenance service: what a member's state is, and the chores that Skein does not have.
//!
//! Owns the translation of the status. Never stops the store for a chore.

use crc32fast::Hasher;
use futures_util::stream::BoxStream;
use model::NodeId;
use store_api::errors;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::AlarmType;
use store_api::etcdserverpb::alarm_request::AlarmAction;
use store_api::etcdserverpb::maintenance_server::Maintenance;
use store_mvcc::Image;
use store_raft::{MembershipError, Role, Store};
use tonic::{Request, Response, Status};

use crate::downgrade;
use crate::header::Headers;
use crate::limits::Limits;
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
    headers: Headers,
    limits: Limits,
}

impl MaintenanceService {
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
}

fn not_yet(what: &str) -> Status {
    Status::unimplemented(format!("skein: {what} is not supported yet"))
}

/// A checksum of all rows up to `revision`, equal on members with the same history.
fn hash(image: &Image, revision: i64) -> u32 {
    let mut hasher = Hasher::new();
    for row in image.rows().filter(|row| row.mod_revision <= revision) {
        for number in [
            row.create_revision,
            row.mod_revision,
            row.version,
            row.lease,
        ] {
            hasher.update(&number.to_le_bytes());
        }
        for bytes in [&row.key, &row.value] {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
    }
    hasher.finalize()
}

#[tonic::async_trait]
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
        let quota = self.writes.quota();
        if quota.is_full() {
            // As etcd writes its alarms here.
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

    /// The only alarm is that this member has no space. It ends by itself, so clearing it does
    /// nothing.
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let request = request.into_inner();
        let asked = [AlarmType::None, AlarmType::Nospace].contains(&request.alarm())
            && [0, self.store.id().0].contains(&request.member_id);
        let alarms = match request.action() {
            AlarmAction::Get if asked && self.writes.quota().is_full() => vec![pb::AlarmMember {
                member_id: self.store.id().0,
                alarm: AlarmType::Nospace.into(),
            }],
            AlarmAction::Get | AlarmAction::Deactivate => Vec::new(),
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
        let hash = hash(&image, image.revision());
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
            hash: hash(&image, revision),
            compact_revision: image.compact_revision(),
            hash_revision: revision,
        }))
    }

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(not_yet("a backup over this interface"))
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
        let image = self.reads.linearizable(patience).await?;
        if let Some(command) = downgrade::plan(image.meta(), request.get_ref())? {
            self.writes.submit(command, patience).await?;
        }
        let header = Some(self.headers.at(image.revision()));
        let version = image.cluster_version().to_string();
        Ok(Response::new(pb::DowngradeResponse { header, version }))
    }
}
