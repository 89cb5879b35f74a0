//! etcd's Election service.
//!
//! Owns what a leader says and who hears it; who leads is decided in `turns`.

use futures_util::stream::{self, BoxStream, StreamExt};
use store_api::v3electionpb as pb;
use store_api::v3electionpb::election_server::Election;
use store_mvcc::{Caller, KeyRange, Op, PutOp, Row};
use store_raft::convert;
use tonic::{Request, Response, Status};

use crate::access::caller_of;
use crate::answer::auth_error;
use crate::patience::Patience;
use crate::turns::{Asked, Place, Turns, first, line};
use crate::watch::Wants;

#[derive(Clone)]
pub(crate) struct ElectionService {
    turns: Turns,
}

impl ElectionService {
    pub(crate) fn new(turns: Turns) -> Self {
        Self { turns }
    }

    /// The leader says something else.
    async fn say(
        &self,
        caller: &Caller,
        leader: &pb::LeaderKey,
        value: bytes::Bytes,
        patience: Patience,
    ) -> Result<store_api::etcdserverpb::ResponseHeader, Status> {
        let put = PutOp {
            lease: leader.lease,
            ..PutOp::new(leader.key.clone(), value)
        };
        let said = self.turns.change(
            caller,
            &leader.key,
            Some(leader.rev),
            Op::Put(put),
            patience,
        );
        match said.await? {
            (true, header) => Ok(header),
            (false, _) => Err(Status::unknown("election: not leader")),
        }
    }
}

fn named(leader: Option<pb::LeaderKey>) -> Result<pb::LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

impl Election for ElectionService {
    type ObserveStream = BoxStream<'static, Result<pb::LeaderResponse, Status>>;

    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let patience = self.turns.patience(&request);
        let caller = caller_of(&request);
        let pb::CampaignRequest { name, lease, value } = request.into_inner();
        let asked = Asked {
            name: name.clone(),
            lease,
            value: value.clone(),
        };
        let turn = self.turns.take_turn(&caller, asked, patience);
        let (place, mut header) = turn.await?;
        let Place {
            key,
            created,
            lease,
            said,
        } = place;
        let leader = pb::LeaderKey {
            name,
            key,
            rev: created,
            lease,
        };
        // The lease stood for election before, with other words.
        if said.is_some_and(|said| said != value) {
            header = self
                .say(&caller, &leader, value, Patience::own(&self.turns.limits))
                .await?;
        }
        Ok(Response::new(pb::CampaignResponse {
            header: Some(header),
            leader: Some(leader),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let patience = self.turns.patience(&request);
        let caller = caller_of(&request);
        let pb::ProclaimRequest { leader, value } = request.into_inner();
        let leader = named(leader)?;
        let header = self.say(&caller, &leader, value, patience).await?;
        Ok(Response::new(pb::ProclaimResponse {
            header: Some(header),
        }))
    }

    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let patience = self.turns.patience(&request);
        let image = self.turns.reads.linearizable(patience).await?;
        let caller = caller_of(&request);
        let line = line(&request.into_inner().name);
        let may = image.auth().check_read(&caller, &line);
        may.map_err(auth_error)?;
        let leader = first(&image, &line);
        let leader = leader.ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(Response::new(pb::LeaderResponse {
            header: Some(self.turns.headers.at(image.revision())),
            kv: Some(convert::row_to_pb(leader)),
        }))
    }

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let patience = self.turns.patience(&request);
        let caller = caller_of(&request);
        let line = line(&request.into_inner().name);
        self.turns.check_read(&caller, &line, patience).await?;
        let observer = Observer {
            turns: self.turns.clone(),
            caller,
            line,
            told: None,
        };
        let answers = stream::unfold(Some(observer), async |observer| {
            let mut observer = observer?;
            match observer.next_leader().await {
                Ok(leader) => Some((Ok(leader), Some(observer))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let caller = caller_of(&request);
        let leader = named(request.into_inner().leader)?;
        // One who leads no longer has nothing to give up.
        let created = Some(leader.rev);
        let (_, header) = self.turns.leave(&caller, &leader.key, created).await?;
        Ok(Response::new(pb::ResignResponse {
            header: Some(header),
        }))
    }
}

/// One who wants to know who leads. It sees the newest state whenever it looks, so what a leader
/// said in between may be left out.
struct Observer {
    turns: Turns,
    caller: Caller,
    line: KeyRange,
    /// The leader's row that was told last.
    told: Option<Row>,
}

impl Observer {
    async fn next_leader(&mut self) -> Result<pb::LeaderResponse, Status> {
        let wants = Wants {
            range: self.line.clone(),
            puts: true,
            deletes: true,
            prev_kv: false,
        };
        loop {
            let image = self.turns.hub.image();
            // It may have lost the right meanwhile.
            let may = image.auth().check_read(&self.caller, &self.line);
            may.map_err(auth_error)?;
            let leader = first(&image, &self.line);
            if let Some(leader) = leader
                && self.told.as_ref() != Some(leader)
            {
                self.told = Some(leader.clone());
                return Ok(pb::LeaderResponse {
                    header: Some(self.turns.headers.at(image.revision())),
                    kv: Some(convert::row_to_pb(leader)),
                });
            }
            self.turns.hub.wait_after(&wants, image.revision()).await?;
        }
    }
}
