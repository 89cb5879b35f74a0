//! Taking turns: what locks and elections have in common.
//!
//! Owns etcd's algorithm, so that its clients' own locks and these ones exclude each other: each
//! who waits has a key `NAME/LEASE-IN-HEX` on its lease, and the one whose key was created first
//! has the turn. Everybody waits for its predecessor only, so one end wakes one waiter.

use std::sync::Arc;

use bytes::Bytes;
use store_api::etcdserverpb as pb;
use store_mvcc::{
    Caller, Command, Compare, CompareResult, CompareTarget, DeleteOp, GrantOp, Image, KeyRange, Op,
    PutOp, RangeOp, Row, TxnOp,
};
use tonic::{Request, Status};

use crate::answer::{Answer, auth_error, misfit};
use crate::header::Headers;
use crate::limits::Limits;
use crate::patience::Patience;
use crate::reads::Reads;
use crate::watch::{Wants, WatchHub};
use crate::writes::Writes;

/// The time to live, in seconds, of the lease of a caller who named none; as in etcd.
const OWN_LEASE_TTL: i64 = 60;

/// The lines of this mesh. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Turns {
    pub(crate) writes: Writes,
    pub(crate) reads: Reads,
    pub(crate) hub: Arc<WatchHub>,
    pub(crate) headers: Headers,
    pub(crate) limits: Limits,
}

/// What a caller asks for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Of the line.
    pub(crate) name: Bytes,
    /// What the place hangs on; 0: one that is made for it.
    pub(crate) lease: i64,
    /// What the key of the place says.
    pub(crate) value: Bytes,
}

/// A place in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) key: Bytes,
    /// The revision that created the key: who comes first has the least.
    pub(crate) created: i64,
    pub(crate) lease: i64,
    /// What the key said already, if the lease had a place in this line before.
    pub(crate) said: Option<Bytes>,
}

/// Gives a place up if its owner stops to wait for its turn.
struct GiveUp {
    turns: Turns,
    caller: Caller,
    place: Option<Place>,
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let (turns, caller) = (self.turns.clone(), self.caller.clone());
            // Should it fail, the end of the lease frees the place.
            tokio::spawn(
                async move { turns.leave(&caller, &place.key, Some(place.created)).await },
            );
        }
    }
}

/// All keys of the line `name`.
pub(crate) fn line(name: &Bytes) -> KeyRange {
    KeyRange::prefix([&name[..], b"/"].concat())
}

/// The row whose key was created first: its owner has the turn.
pub(crate) fn first<'a>(image: &'a Image, line: &KeyRange) -> Option<&'a Row> {
    image.live(line).min_by_key(|row| row.create_revision)
}

impl Turns {
    pub(crate) fn patience<T>(&self, request: &Request<T>) -> Patience {
        Patience::of(request.metadata(), &self.limits)
    }

    /// Waits in line until it is the caller's turn; tells its place and the header of the answer.
    pub(crate) async fn take_turn(
        &self,
        caller: &Caller,
        asked: Asked,
        patience: Patience,
    ) -> Result<(Place, pb::ResponseHeader), Status> {
        // To wait for others is to know of them.
        let line = line(&asked.name);
        self.check_read(caller, &line, patience).await?;
        let lease = match asked.lease {
            0 => self.own_lease(caller, patience).await?,
            lease => lease,
        };
        let asked = Asked { lease, ..asked };
        let mut held = self.hold(caller.clone(), asked, patience).await?;
        let place = held.place.clone().ok_or_else(misfit)?;
        // From here on this node's images have the place.
        self.reads.linearizable(patience).await?;
        loop {
            let image = self.hub.image();
            let earlier = image
                .live(&line)
                .filter(|row| row.create_revision < place.created);
            let Some(predecessor) = earlier.max_by_key(|row| row.create_revision) else {
                break;
            };
            let wants = deletes(KeyRange::key(predecessor.key.clone()));
            self.hub.wait_after(&wants, image.revision()).await?;
        }
        // The lease may have ended meanwhile, and the place with it.
        let image = self.reads.linearizable(Patience::own(&self.limits)).await?;
        held.place = None;
        let holds = |row: &Row| row.create_revision == place.created;
        if !image.get(&place.key).is_some_and(holds) {
            return Err(Status::unknown("mutex: session is expired"));
        }
        Ok((place, self.headers.at(image.revision())))
    }

    /// Deletes the key of a place, if it was created by `created`, when that is given.
    pub(crate) async fn leave(
        &self,
        caller: &Caller,
        key: &Bytes,
        created: Option<i64>,
    ) -> Result<(bool, pb::ResponseHeader), Status> {
        let delete = Op::Delete(DeleteOp::new(KeyRange::key(key.clone())));
        let patience = Patience::own(&self.limits);
        self.change(caller, key, created, delete, patience).await
    }

    /// Does `op` if `key` was created by `created`, when that is given; tells whether it was.
    pub(crate) async fn change(
        &self,
        caller: &Caller,
        key: &Bytes,
        created: Option<i64>,
        op: Op,
        patience: Patience,
    ) -> Result<(bool, pb::ResponseHeader), Status> {
        let txn = TxnOp {
            compares: created
                .map(|revision| is_created(key, revision))
                .into_iter()
                .collect(),
            success: vec![op],
            failure: Vec::new(),
        };
        let written = self
            .writes
            .submit(caller, Command::Txn(txn), patience)
            .await?;
        let Answer::Txn(answer) = written.answer else {
            return Err(misfit());
        };
        Ok((answer.succeeded, self.headers.at(written.revision)))
    }

    /// Whether the caller may see who is in a line.
    pub(crate) async fn check_read(
        &self,
        caller: &Caller,
        line: &KeyRange,
        patience: Patience,
    ) -> Result<(), Status> {
        let image = self.reads.linearizable(patience).await?;
        image.auth().check_read(caller, line).map_err(auth_error)
    }

    async fn own_lease(&self, caller: &Caller, patience: Patience) -> Result<i64, Status> {
        let grant = GrantOp {
            ttl: OWN_LEASE_TTL,
            ..GrantOp::default()
        };
        match self
            .writes
            .submit(caller, Command::Grant(grant), patience)
            .await?
            .answer
        {
            Answer::Grant(granted) => Ok(granted.id),
            _ => Err(misfit()),
        }
    }

    /// Gets a place that is given up unless its owner waits for the turn. The caller may go away
    /// while the place is on its way, so a task of its own sees to that it comes into hands that
    /// give it up.
    async fn hold(
        &self,
        caller: Caller,
        asked: Asked,
        patience: Patience,
    ) -> Result<GiveUp, Status> {
        let turns = self.clone();
        let joining = tokio::spawn(async move {
            let place = turns.join(&caller, asked, patience).await?;
            Ok(GiveUp {
                turns,
                caller,
                place: Some(place),
            })
        });
        let joined = joining.await;
        joined.map_err(|_| Status::internal("skein: this node failed while it got a place"))?
    }

    /// Gets a place: a new one at the end, or the one that the lease has already.
    async fn join(
        &self,
        caller: &Caller,
        asked: Asked,
        patience: Patience,
    ) -> Result<Place, Status> {
        use pb::response_op::Response as Part;
        let Asked { name, lease, value } = asked;
        let key = Bytes::from([&name[..], b"/", format!("{lease:x}").as_bytes()].concat());
        let put = PutOp {
            lease,
            ..PutOp::new(key.clone(), value)
        };
        let txn = TxnOp {
            compares: vec![is_created(&key, 0)],
            success: vec![Op::Put(put)],
            failure: vec![Op::Range(RangeOp::new(KeyRange::key(key.clone())))],
        };
        let written = self
            .writes
            .submit(caller, Command::Txn(txn), patience)
            .await?;
        let Answer::Txn(answer) = written.answer else {
            return Err(misfit());
        };
        let place = Place {
            key,
            created: written.revision,
            lease,
            said: None,
        };
        if answer.succeeded {
            return Ok(place);
        }
        let part = answer
            .responses
            .into_iter()
            .next()
            .and_then(|part| part.response);
        match part {
            Some(Part::ResponseRange(range)) => {
                let row = range.kvs.into_iter().next().ok_or_else(misfit)?;
                Ok(Place {
                    created: row.create_revision,
                    said: Some(row.value),
                    ..place
                })
            }
            _ => Err(misfit()),
        }
    }
}

fn deletes(range: KeyRange) -> Wants {
    Wants {
        range,
        puts: false,
        deletes: true,
        prev_kv: false,
    }
}

fn is_created(key: &Bytes, revision: i64) -> Compare {
    Compare {
        range: KeyRange::key(key.clone()),
        result: CompareResult::Equal,
        target: CompareTarget::Create(revision),
    }
}
