//! One of the two stores: how a sequence is played on it, and what its answers are reduced to.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::lease_client::LeaseClient;
use store_api::etcdserverpb::watch_client::WatchClient;
use store_api::etcdserverpb::{compare, request_op, response_op, watch_request};
use store_api::mvccpb;
use tokio::time::timeout_at;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};

use super::operations::{
    Against, Compare, Delete, Keys, Operation, Put, Range, Revision, Txn, TxnOperation, Watch,
};
use crate::harness::{PATIENCE, Subnet};

/// Where answers put the revision that a sequence begins at, so that 0 still means "not set".
const ZERO: i64 = 1_000_000;

const ALL_KEYS: [&str; 6] = ["a", "aa", "b", "c", "ca", "d"];

/// Whether there is no etcd to compare with. With `CI=true` that is a failure.
pub(super) fn is_missing() -> bool {
    let found = Command::new("etcd").arg("--version").output();
    if found.is_ok_and(|output| output.status.success()) {
        return false;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "there is no etcd in PATH; install it (Debian: etcd-server)"
    );
    println!("skipped: there is no etcd in PATH");
    true
}

/// A real etcd of one member, which ends with this.
pub(super) struct Etcd {
    pub(super) client: String,
    child: Child,
}

impl Etcd {
    pub(super) fn start(subnet: &Subnet, dir: &Path) -> Self {
        let ip: Ipv4Addr = subnet.ip(100);
        let (client, peer) = (format!("{ip}:2379"), format!("http://{ip}:2380"));
        let url = format!("http://{client}");
        let log = std::fs::File::create(dir.join("etcd.log")).unwrap();
        let child = Command::new("etcd")
            .args(["--name", "e", "--data-dir"])
            .arg(dir.join("etcd"))
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
            ])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("e={peer}")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { client, child }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A store, and where in it the sequence began.
pub(super) struct Peer {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    watch: WatchClient<Channel>,
    base: i64,
    newest: i64,
    first_lease: i64,
}

/// A watch that was asked for.
enum Watching {
    Open {
        from: i64,
        watch: Watch,
        responses: Box<Streaming<pb::WatchResponse>>,
        _requests: tokio::sync::mpsc::Sender<pb::WatchRequest>,
    },
    Refused(String),
}

impl Peer {
    /// Waits until the store takes writes.
    pub(super) async fn connect(address: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect_lazy();
        let mut peer = Self {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            watch: WatchClient::new(channel),
            base: 0,
            newest: 0,
            first_lease: 0,
        };
        let deadline = Instant::now() + PATIENCE;
        while let Err(fault) = peer.kv.put(put_of("a", "first")).await {
            assert!(Instant::now() < deadline, "{address}: {fault}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        peer
    }

    /// Plays a sequence on what is otherwise empty: an answer per operation, then one per watch.
    pub(super) async fn play(&mut self, sequence: &[Operation], number: i64) -> Vec<String> {
        self.clear().await;
        self.first_lease = number * 10;
        let mut answers = Vec::new();
        let mut watches = Vec::new();
        for operation in sequence {
            let answer = match operation {
                Operation::Watch(watch) => {
                    watches.push(self.open(watch).await);
                    "watch".to_owned()
                }
                operation => match self.answer(operation).await {
                    Ok(answer) => answer,
                    Err(status) => format!("{:?}: {}", status.code(), status.message()),
                },
            };
            answers.push(answer);
        }
        for watching in watches {
            let events = self.events(watching).await;
            answers.push(events);
        }
        for id in 0..10 {
            let id = self.first_lease + id;
            let _ = self.lease.lease_revoke(pb::LeaseRevokeRequest { id }).await;
        }
        answers
    }

    async fn clear(&mut self) {
        let everything = pb::DeleteRangeRequest {
            key: "a".into(),
            range_end: "e".into(),
            ..Default::default()
        };
        let answer = self.kv.delete_range(everything).await.unwrap().into_inner();
        self.base = answer.header.unwrap().revision;
        self.newest = self.base;
    }

    async fn answer(&mut self, operation: &Operation) -> Result<String, Status> {
        Ok(match operation {
            Operation::Range(range) => {
                let request = self.range(range);
                let answer = body(self.kv.range(request).await?);
                format!("{:?}", self.of_range(answer))
            }
            Operation::Put(put) => {
                let request = self.put(put);
                let answer = body(self.kv.put(request).await?);
                format!("{:?}", self.of_put(answer))
            }
            Operation::Delete(delete) => {
                let answer = body(self.kv.delete_range(delete_of(delete)).await?);
                format!("{:?}", self.of_delete(answer))
            }
            Operation::Txn(txn) => {
                let request = self.txn(txn);
                let answer = body(self.kv.txn(request).await?);
                format!("{:?}", self.of_txn(answer))
            }
            Operation::Compact { revision } => {
                let request = pb::CompactionRequest {
                    revision: self.revision(*revision),
                    physical: true,
                };
                let answer = body(self.kv.compact(request).await?);
                format!("{:?}", self.of_header(answer.header))
            }
            Operation::Watch(_) => unreachable!("watches are opened"),
            lease => return self.lease_answer(lease).await,
        })
    }

    async fn lease_answer(&mut self, operation: &Operation) -> Result<String, Status> {
        Ok(match operation {
            Operation::Grant { id, ttl } => {
                let request = pb::LeaseGrantRequest {
                    id: self.lease_id(*id),
                    ttl: *ttl,
                };
                let answer = body(self.lease.lease_grant(request).await?);
                format!(
                    "{} {} {}",
                    answer.id - self.first_lease,
                    answer.ttl,
                    answer.error
                )
            }
            Operation::Revoke { id } => {
                let request = pb::LeaseRevokeRequest {
                    id: self.lease_id(*id),
                };
                let answer = body(self.lease.lease_revoke(request).await?);
                format!("{:?}", self.of_header(answer.header))
            }
            Operation::KeepAlive { id } => {
                let request = pb::LeaseKeepAliveRequest {
                    id: self.lease_id(*id),
                };
                let once = tokio_stream::iter([request]);
                let mut answers = body(self.lease.lease_keep_alive(once).await?);
                let answer = answers.message().await?;
                match answer {
                    Some(answer) => format!("{} {}", answer.id - self.first_lease, answer.ttl),
                    None => "ended".to_owned(),
                }
            }
            Operation::TimeToLive { id, keys } => {
                let request = pb::LeaseTimeToLiveRequest {
                    id: self.lease_id(*id),
                    keys: *keys,
                };
                let mut answer = body(self.lease.lease_time_to_live(request).await?);
                answer.keys.sort();
                let pb::LeaseTimeToLiveResponse {
                    granted_ttl, keys, ..
                } = &answer;
                format!("{} {granted_ttl} {keys:?}", answer.ttl.signum())
            }
            Operation::Leases => {
                let answer = self.lease.lease_leases(pb::LeaseLeasesRequest {}).await?;
                let leases = body(answer).leases.into_iter();
                let mut ids: Vec<i64> = leases.map(|one| one.id - self.first_lease).collect();
                ids.sort_unstable();
                format!("{ids:?}")
            }
            other => unreachable!("{other:?} is not about leases"),
        })
    }

    async fn open(&mut self, watch: &Watch) -> Watching {
        // What emptied the store is not part of the sequence.
        let from = match self.revision(watch.from) {
            ..=0 => 0,
            from => from.max(self.base + 1),
        };
        let create = pb::WatchCreateRequest {
            key: watch.keys.key.into(),
            range_end: watch.keys.end.into(),
            start_revision: from,
            filters: watch.filters.clone(),
            prev_kv: watch.prev_kv,
            ..Default::default()
        };
        let (requests, outgoing) = tokio::sync::mpsc::channel(1);
        let request = pb::WatchRequest {
            request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
        };
        requests.send(request).await.expect("it has room");
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let mut responses = match self.watch.watch(outgoing).await {
            Ok(responses) => responses.into_inner(),
            Err(status) => return Watching::Refused(status.to_string()),
        };
        match responses.message().await {
            Ok(Some(created)) if created.created && !created.canceled => Watching::Open {
                from,
                watch: watch.clone(),
                responses: Box::new(responses),
                _requests: requests,
            },
            other => Watching::Refused(format!(
                "{:?}",
                other.map(|it| it.map(|it| self.of_watch(it)))
            )),
        }
    }

    /// All events of a watch up to a change that is made now, so that its end is known.
    async fn events(&mut self, watching: Watching) -> String {
        let (from, watch, mut responses, _requests) = match watching {
            Watching::Refused(answer) => return answer,
            Watching::Open {
                from,
                watch,
                responses,
                _requests,
            } => (from, watch, responses, _requests),
        };
        let Some(key) = ALL_KEYS.iter().find(|key| contains(&watch.keys, key)) else {
            return "nothing to see".to_owned();
        };
        let mut last = [0, 0];
        while last[0] <= from {
            let put = body(self.kv.put(put_of(key, "last")).await.unwrap());
            let delete = pb::DeleteRangeRequest {
                key: (*key).into(),
                ..Default::default()
            };
            let delete = body(self.kv.delete_range(delete).await.unwrap());
            last = [put.header, delete.header].map(|header| header.unwrap().revision);
        }
        self.newest = last[1];
        let last = if watch.filters == [0] {
            last[1]
        } else {
            last[0]
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut seen = String::new();
        loop {
            let Ok(response) = timeout_at(deadline, responses.message()).await else {
                return format!("{seen} and then nothing");
            };
            let response = match response {
                Ok(Some(response)) => response,
                end => return format!("{seen} and then {end:?}"),
            };
            if response.canceled {
                return format!("{seen} and then {:?}", self.of_watch(response));
            }
            for event in response.events {
                let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
                let (kind, kv, prev) = (event.r#type, event.kv, event.prev_kv);
                let kv = kv.map(|kv| self.of_kv(kv));
                let prev = prev.map(|kv| self.of_kv(kv));
                seen += &format!("{kind} {kv:?} {prev:?}\n");
                if revision >= last {
                    return seen;
                }
            }
        }
    }

    fn lease_id(&self, id: u8) -> i64 {
        match id {
            0 => 0,
            id => self.first_lease + i64::from(id),
        }
    }

    fn revision(&self, revision: Revision) -> i64 {
        match revision {
            Revision::Unset => 0,
            // Never before the sequence, where the two have different pasts.
            Revision::Back(by) => (self.newest - by).max(self.base),
            Revision::Ahead(by) => self.newest + by,
            Revision::Negative => -1,
        }
    }

    fn range(&self, range: &Range) -> pb::RangeRequest {
        let [min_mod, max_mod, min_create, max_create] =
            range.bounds.map(|bound| self.revision(bound));
        pb::RangeRequest {
            key: range.keys.key.into(),
            range_end: range.keys.end.into(),
            limit: range.limit,
            revision: self.revision(range.revision),
            sort_order: range.order,
            sort_target: range.target,
            serializable: range.serializable,
            keys_only: range.keys_only,
            count_only: range.count_only,
            min_mod_revision: min_mod,
            max_mod_revision: max_mod,
            min_create_revision: min_create,
            max_create_revision: max_create,
        }
    }

    fn put(&self, put: &Put) -> pb::PutRequest {
        pb::PutRequest {
            lease: self.lease_id(put.lease),
            prev_kv: put.prev_kv,
            ignore_value: put.ignore_value,
            ignore_lease: put.ignore_lease,
            ..put_of(put.key, put.value)
        }
    }

    fn compare(&self, compare: &Compare) -> pb::Compare {
        use compare::{CompareTarget as Target, TargetUnion as Union};
        let (target, union) = match compare.against {
            Against::Version(version) => (Target::Version, Union::Version(version)),
            Against::Create(at) => (Target::Create, Union::CreateRevision(self.revision(at))),
            Against::Mod(at) => (Target::Mod, Union::ModRevision(self.revision(at))),
            Against::Value(value) => (Target::Value, Union::Value(value.into())),
            Against::Lease(id) => (Target::Lease, Union::Lease(self.lease_id(id))),
        };
        pb::Compare {
            result: compare.result,
            target: target.into(),
            key: compare.keys.key.into(),
            target_union: Some(union),
            range_end: compare.keys.end.into(),
        }
    }

    fn txn(&self, txn: &Txn) -> pb::TxnRequest {
        let operations = |all: &[TxnOperation]| {
            let all = all.iter().map(|one| pb::RequestOp {
                request: Some(match one {
                    TxnOperation::Range(it) => request_op::Request::RequestRange(self.range(it)),
                    TxnOperation::Put(it) => request_op::Request::RequestPut(self.put(it)),
                    TxnOperation::Delete(it) => {
                        request_op::Request::RequestDeleteRange(delete_of(it))
                    }
                    TxnOperation::Txn(it) => request_op::Request::RequestTxn(self.txn(it)),
                }),
            });
            all.collect()
        };
        pb::TxnRequest {
            compare: txn.compares.iter().map(|it| self.compare(it)).collect(),
            success: operations(&txn.success),
            failure: operations(&txn.failure),
        }
    }

    /// A revision, counted from where the sequence began.
    fn relative(&self, revision: i64) -> i64 {
        match revision {
            0 => 0,
            revision => revision - self.base + ZERO,
        }
    }

    /// The revision of a header is all that the two have in common.
    fn of_header(&mut self, header: Option<pb::ResponseHeader>) -> Option<pb::ResponseHeader> {
        let header = header?;
        self.newest = self.newest.max(header.revision);
        Some(pb::ResponseHeader {
            revision: self.relative(header.revision),
            ..Default::default()
        })
    }

    fn of_kv(&self, kv: mvccpb::KeyValue) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            create_revision: self.relative(kv.create_revision),
            mod_revision: self.relative(kv.mod_revision),
            lease: match kv.lease {
                0 => 0,
                lease => lease - self.first_lease,
            },
            ..kv
        }
    }

    fn of_range(&mut self, answer: pb::RangeResponse) -> pb::RangeResponse {
        let kvs = answer.kvs.into_iter().map(|kv| self.of_kv(kv)).collect();
        pb::RangeResponse {
            header: self.of_header(answer.header),
            kvs,
            ..answer
        }
    }

    fn of_put(&mut self, answer: pb::PutResponse) -> pb::PutResponse {
        pb::PutResponse {
            header: self.of_header(answer.header),
            prev_kv: answer.prev_kv.map(|kv| self.of_kv(kv)),
        }
    }

    fn of_delete(&mut self, answer: pb::DeleteRangeResponse) -> pb::DeleteRangeResponse {
        let prev_kvs = answer.prev_kvs.into_iter();
        let prev_kvs = prev_kvs.map(|kv| self.of_kv(kv)).collect();
        pb::DeleteRangeResponse {
            header: self.of_header(answer.header),
            prev_kvs,
            ..answer
        }
    }

    fn of_txn(&mut self, answer: pb::TxnResponse) -> pb::TxnResponse {
        use response_op::Response as Op;
        let responses = answer.responses.into_iter().map(|one| pb::ResponseOp {
            response: one.response.map(|one| match one {
                Op::ResponseRange(it) => Op::ResponseRange(self.of_range(it)),
                Op::ResponsePut(it) => Op::ResponsePut(self.of_put(it)),
                Op::ResponseDeleteRange(it) => Op::ResponseDeleteRange(self.of_delete(it)),
                Op::ResponseTxn(it) => Op::ResponseTxn(self.of_txn(it)),
            }),
        });
        let responses = responses.collect();
        pb::TxnResponse {
            header: self.of_header(answer.header),
            responses,
            ..answer
        }
    }

    /// What a watcher hears of its end.
    fn of_watch(&self, answer: pb::WatchResponse) -> pb::WatchResponse {
        pb::WatchResponse {
            header: None,
            compact_revision: self.relative(answer.compact_revision),
            ..answer
        }
    }
}

fn body<T>(response: Response<T>) -> T {
    response.into_inner()
}

fn put_of(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    }
}

fn delete_of(delete: &Delete) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: delete.keys.key.into(),
        range_end: delete.keys.end.into(),
        prev_kv: delete.prev_kv,
    }
}

fn contains(keys: &Keys, key: &str) -> bool {
    match keys.end {
        "" => key == keys.key,
        "\0" => key >= keys.key,
        end => key >= keys.key && key < end,
    }
}
