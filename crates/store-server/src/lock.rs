//! etcd's Lock service.
//!
//! Owns the shell; who has the turn is decided in `turns`.

use bytes::Bytes;
use store_api::v3lockpb as pb;
use store_api::v3lockpb::lock_server::Lock;
use tonic::{Request, Response, Status};

use crate::access::caller_of;
use crate::turns::{Asked, Turns};

#[derive(Clone)]
pub(crate) struct LockService {
    turns: Turns,
}

impl LockService {
    pub(crate) fn new(turns: Turns) -> Self {
        Self { turns }
    }
}

impl Lock for LockService {
    async fn lock(
        &self,
        request: Request<pb::LockRequest>,
    ) -> Result<Response<pb::LockResponse>, Status> {
        let patience = self.turns.patience(&request);
        let caller = caller_of(&request);
        let pb::LockRequest { name, lease } = request.into_inner();
        let value = Bytes::new();
        let asked = Asked { name, lease, value };
        let turn = self.turns.take_turn(&caller, asked, patience);
        let (place, header) = turn.await?;
        Ok(Response::new(pb::LockResponse {
            header: Some(header),
            key: place.key,
        }))
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let caller = caller_of(&request);
        let key = request.into_inner().key;
        let (_, header) = self.turns.leave(&caller, &key, None).await?;
        Ok(Response::new(pb::UnlockResponse {
            header: Some(header),
        }))
    }
}
