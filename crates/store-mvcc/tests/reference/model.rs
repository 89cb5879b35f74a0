//! The reference: a list of all states and of all changes, and the rules written down plainly.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use model::{CONFIG_PREFIX, ConfigRevision, Version};
use store_mvcc::{
    ChangedRow, Changes, Command, CommandError, Compacted, Compare, CompareResult, CompareTarget,
    DeleteResult, GrantResult, KeepAliveResult, KeyRange, KeyValue, Lease, Op, Outcome, Proposal,
    PutOp, PutResult, RangeOp, RangeResult, Response, Row, SetVersionOp, SortOrder, SortTarget,
    TickResult, TxnOp, TxnResult,
};

type State = BTreeMap<Bytes, Row>;

/// Every state that ever was. Index = revision; 0 and 1 are empty.
pub(crate) struct Model {
    states: Vec<State>,
    changes: Vec<Vec<Row>>,
    compact_revision: i64,
    config_revision: u64,
    /// The minor version, and whether it is held.
    version: (u16, bool),
    /// Time to live and end of each lease.
    leases: BTreeMap<i64, (i64, u64)>,
    clock_ms: u64,
}

/// A revision in the making.
struct Draft<'a> {
    model: &'a Model,
    state: State,
    changed: Vec<Row>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            states: vec![State::new(); 2],
            changes: vec![Vec::new(); 2],
            compact_revision: -1,
            config_revision: 0,
            version: (1, false),
            leases: BTreeMap::new(),
            clock_ms: 0,
        }
    }

    pub(crate) fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    pub(crate) fn version(&self) -> u16 {
        self.version.0
    }

    pub(crate) fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// The leases, the next to end first, and the keys of each.
    pub(crate) fn leases(&self) -> Vec<(Lease, Vec<Bytes>)> {
        let lease = |(&id, &(ttl, expires_at_ms)): (&i64, &(i64, u64))| {
            let lease = Lease {
                expires_at_ms,
                id,
                ttl,
            };
            (lease, self.keys_of(id))
        };
        let mut leases: Vec<_> = self.leases.iter().map(lease).collect();
        leases.sort_by_key(|(lease, _)| (lease.expires_at_ms, lease.id));
        leases
    }

    fn keys_of(&self, lease: i64) -> Vec<Bytes> {
        let rows = self.now().values().filter(|row| row.lease == lease);
        rows.map(|row| row.key.clone()).collect()
    }

    pub(crate) fn apply(&mut self, proposal: &Proposal) -> Outcome {
        let result = self.judge(proposal);
        Outcome {
            revision: self.revision(),
            config_revision: ConfigRevision(self.config_revision),
            result,
        }
    }

    pub(crate) fn range(&self, op: &RangeOp) -> Result<RangeResult, CommandError> {
        check_key(&op.range)?;
        if op.revision > 0 {
            self.check_revision(op.revision)?;
        }
        let at = if op.revision > 0 {
            op.revision
        } else {
            self.revision()
        };
        Ok(select(&self.states[at as usize], op))
    }

    pub(crate) fn changes_since(&self, from: i64) -> Vec<Changes> {
        let kept = from.max(2)..=self.revision();
        let before = |revision: i64, key: &Bytes| {
            let readable = revision > self.compact_revision;
            self.states[revision as usize - 1]
                .get(key)
                .filter(|_| readable)
                .cloned()
        };
        kept.map(|revision| Changes {
            revision,
            rows: self.changes[revision as usize]
                .iter()
                .map(|row| ChangedRow {
                    row: row.clone(),
                    prev: before(revision, &row.key),
                })
                .collect(),
        })
        .collect()
    }

    fn revision(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    fn now(&self) -> &State {
        self.states.last().expect("there is an empty one at least")
    }

    fn check_revision(&self, revision: i64) -> Result<(), CommandError> {
        if revision > self.revision() {
            return Err(CommandError::FutureRevision {
                revision: self.revision(),
            });
        }
        if revision < self.compact_revision {
            return Err(Compacted {
                compact_revision: self.compact_revision,
            }
            .into());
        }
        Ok(())
    }

    fn judge(&mut self, proposal: &Proposal) -> Result<Response, CommandError> {
        let now = ConfigRevision(self.config_revision);
        let wrong = proposal.config_guard.is_some_and(|guard| guard != now);
        if wrong || (proposal.config_guard.is_none() && touches(&proposal.command)) {
            return Err(CommandError::ConfigGuardMismatch { now });
        }
        if let Command::Compact { revision } = proposal.command {
            if revision <= self.compact_revision {
                return Err(Compacted {
                    compact_revision: self.compact_revision,
                }
                .into());
            }
            self.check_revision(revision)?;
            self.compact_revision = revision;
            return Ok(Response::Compact);
        }
        if let Command::SetClusterVersion(op) = proposal.command {
            return self.set_version(op);
        }
        if let Some(answer) = self.judge_lease(&proposal.command) {
            return answer;
        }
        let op = match &proposal.command {
            Command::Put(put) => Op::Put(put.clone()),
            Command::Delete(delete) => Op::Delete(delete.clone()),
            Command::Txn(txn) => Op::Txn(Box::new(txn.clone())),
            _ => unreachable!("it was answered above"),
        };
        check_form(&op)?;
        if let Op::Txn(txn) = &op {
            for branch in [&txn.success, &txn.failure] {
                if histories(branch).iter().any(|writes| writes_twice(writes)) {
                    return Err(CommandError::DuplicateKey);
                }
            }
        }
        let in_txn = matches!(op, Op::Txn(_));
        self.check_state(&op, in_txn)?;
        let mut draft = Draft {
            model: self,
            state: self.now().clone(),
            changed: Vec::new(),
        };
        let response = draft.run(&op);
        let Draft { state, changed, .. } = draft;
        self.keep(state, changed);
        Ok(response)
    }

    /// Makes the changes a revision, if there are any.
    fn keep(&mut self, state: State, changed: Vec<Row>) {
        if !changed.is_empty() {
            let config = |row: &Row| row.key.starts_with(CONFIG_PREFIX.as_bytes());
            self.config_revision += u64::from(changed.iter().any(config));
            self.states.push(state);
            self.changes.push(changed);
        }
    }

    fn judge_lease(&mut self, command: &Command) -> Option<Result<Response, CommandError>> {
        let end = |clock_ms: u64, age_ms: u64, ttl: i64| {
            clock_ms + age_ms.min(1_000) + 1_000 * ttl.max(1) as u64
        };
        Some(match command {
            Command::Grant(op) if op.ttl > 9_000_000_000 => Err(CommandError::LeaseTtlTooLarge),
            Command::Grant(op) if op.id == 0 => Err(CommandError::LeaseNotFound),
            Command::Grant(op) if self.leases.contains_key(&op.id) => {
                Err(CommandError::LeaseExists)
            }
            Command::Grant(op) => {
                let lease = (op.ttl, end(self.clock_ms, op.age_ms, op.ttl));
                self.leases.insert(op.id, lease);
                let (id, ttl) = (op.id, op.ttl);
                Ok(Response::Grant(GrantResult { id, ttl }))
            }
            Command::Revoke { lease } if !self.leases.contains_key(lease) => {
                Err(CommandError::LeaseNotFound)
            }
            Command::Revoke { lease } => {
                self.end_lease(*lease);
                Ok(Response::Revoke)
            }
            Command::KeepAlive(op) => {
                let mut ttls = Vec::new();
                for id in &op.ids {
                    let Some((ttl, ends)) = self.leases.get_mut(id) else {
                        ttls.push(0);
                        continue;
                    };
                    *ends = end(self.clock_ms, op.age_ms, *ttl).max(*ends);
                    ttls.push(*ttl);
                }
                Ok(Response::KeepAlive(KeepAliveResult { ttls }))
            }
            Command::Tick(op) => {
                let moved = op.from_ms == self.clock_ms;
                if moved {
                    self.clock_ms += op.advance_ms.min(1_000);
                }
                let over = self.leases();
                let over = over.iter().map(|(lease, _)| lease);
                let over = over.take_while(|lease| lease.expires_at_ms <= self.clock_ms);
                let over: Vec<i64> = over.map(|lease| lease.id).collect();
                over.iter().for_each(|id| self.end_lease(*id));
                Ok(Response::Tick(TickResult {
                    moved,
                    clock_ms: self.clock_ms,
                    ended: over.len(),
                    more: false,
                }))
            }
            _ => return None,
        })
    }

    fn end_lease(&mut self, id: i64) {
        let mut draft = Draft {
            model: self,
            state: self.now().clone(),
            changed: Vec::new(),
        };
        for key in self.keys_of(id) {
            draft.bury(key);
        }
        let Draft { state, changed, .. } = draft;
        self.keep(state, changed);
        self.leases.remove(&id);
    }

    fn set_version(&mut self, op: SetVersionOp) -> Result<Response, CommandError> {
        let SetVersionOp { version, downgrade } = op;
        let (now, held) = self.version;
        let same = version.minor == now;
        let one_down = downgrade && version.minor + 1 == now;
        let up = !downgrade && version.minor > now;
        let repeated = same && (held || !downgrade);
        if !(repeated || !held && (one_down || up)) {
            let now = Version {
                major: 0,
                minor: now,
            };
            return Err(CommandError::VersionMoved { now });
        }
        self.version = (version.minor, downgrade);
        Ok(Response::SetClusterVersion)
    }

    fn check_state(&self, op: &Op, in_txn: bool) -> Result<(), CommandError> {
        match op {
            Op::Range(range) if range.revision != 0 => self.check_revision(range.revision),
            Op::Range(_) | Op::Delete(_) => Ok(()),
            Op::Put(put) => {
                let keeps = put.ignore_value || put.ignore_lease;
                let missing = keeps && !self.now().contains_key(&put.key);
                let in_config = put.key.starts_with(CONFIG_PREFIX.as_bytes());
                let wrong_lease = match put.lease {
                    0 => None,
                    _ if in_config => Some(CommandError::ConfigLease),
                    lease if self.leases.contains_key(&lease) => None,
                    _ => Some(CommandError::LeaseNotFound),
                };
                match (missing, wrong_lease) {
                    (true, Some(_)) if in_txn => Err(CommandError::KeyMissing),
                    (_, Some(wrong)) => Err(wrong),
                    (true, None) => Err(CommandError::KeyMissing),
                    (false, None) => Ok(()),
                }
            }
            Op::Txn(txn) => self
                .taken(txn)
                .iter()
                .try_for_each(|inner| self.check_state(inner, true)),
        }
    }

    fn succeeds(&self, txn: &TxnOp) -> bool {
        txn.compares.iter().all(|compare| {
            let mut rows: Vec<Row> = within(self.now(), &compare.range).cloned().collect();
            if rows.is_empty() {
                if matches!(compare.target, CompareTarget::Value(_)) {
                    return false;
                }
                rows.push(Row::default());
            }
            rows.iter().all(|row| relates(compare, row))
        })
    }

    fn taken<'a>(&self, txn: &'a TxnOp) -> &'a [Op] {
        if self.succeeds(txn) {
            &txn.success
        } else {
            &txn.failure
        }
    }
}

impl Draft<'_> {
    fn run(&mut self, op: &Op) -> Response {
        match op {
            Op::Range(range) => {
                let past = usize::try_from(range.revision).ok().filter(|&at| at > 0);
                let state = past.map_or(&self.state, |at| &self.model.states[at]);
                Response::Range(select(state, range))
            }
            Op::Put(put) => Response::Put(self.put(put)),
            Op::Delete(delete) => {
                let prev: Vec<Row> = within(&self.state, &delete.range).cloned().collect();
                prev.iter().for_each(|row| self.bury(row.key.clone()));
                let deleted = prev.len();
                Response::Delete(DeleteResult {
                    deleted,
                    prev: if delete.prev_kv { prev } else { Vec::new() },
                })
            }
            Op::Txn(txn) => Response::Txn(TxnResult {
                succeeded: self.model.succeeds(txn),
                responses: self
                    .model
                    .taken(txn)
                    .iter()
                    .map(|op| self.run(op))
                    .collect(),
            }),
        }
    }

    fn put(&mut self, put: &PutOp) -> PutResult {
        let prev = self.state.get(&put.key).cloned();
        let old = prev.clone().unwrap_or_default();
        let next = self.model.revision() + 1;
        let row = self.change(KeyValue {
            key: put.key.clone(),
            value: if put.ignore_value {
                old.value.clone()
            } else {
                put.value.clone()
            },
            create_revision: if old.version == 0 {
                next
            } else {
                old.create_revision
            },
            version: old.version + 1,
            lease: if put.ignore_lease {
                old.lease
            } else {
                put.lease
            },
            ..KeyValue::default()
        });
        self.state.insert(put.key.clone(), row);
        PutResult {
            prev: prev.filter(|_| put.prev_kv),
        }
    }

    fn bury(&mut self, key: Bytes) {
        self.state.remove(&key);
        self.change(KeyValue {
            key,
            ..KeyValue::default()
        });
    }

    fn change(&mut self, row: KeyValue) -> Row {
        let mod_revision = self.model.revision() + 1;
        let row = Arc::new(KeyValue {
            mod_revision,
            sub: self.changed.len() as u32,
            ..row
        });
        self.changed.push(row.clone());
        row
    }
}

fn within<'a>(state: &'a State, range: &'a KeyRange) -> impl Iterator<Item = &'a Row> {
    let (start, end) = range.to_etcd();
    state.values().filter(move |row| match &end[..] {
        b"" => row.key == start,
        b"\0" => row.key >= start,
        _ => row.key >= start && row.key < end,
    })
}

fn relates(compare: &Compare, row: &KeyValue) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match &compare.target {
        CompareTarget::Version(it) => row.version.cmp(it),
        CompareTarget::Create(it) => row.create_revision.cmp(it),
        CompareTarget::Mod(it) => row.mod_revision.cmp(it),
        CompareTarget::Value(it) => row.value.cmp(it),
        CompareTarget::Lease(it) => row.lease.cmp(it),
    };
    match compare.result {
        CompareResult::Equal => order == Equal,
        CompareResult::NotEqual => order != Equal,
        CompareResult::Greater => order == Greater,
        CompareResult::Less => order == Less,
    }
}

fn select(state: &State, op: &RangeOp) -> RangeResult {
    let all: Vec<Row> = within(state, &op.range).cloned().collect();
    let count = all.len();
    let filters = [
        op.min_mod_revision,
        op.max_mod_revision,
        op.min_create_revision,
        op.max_create_revision,
    ];
    let unsorted = op.order.is_none_or(|(_, order)| order == SortOrder::None);
    let mut rows = if op.count_only { Vec::new() } else { all };
    if op.limit > 0 && unsorted && filters == [0; 4] {
        rows.truncate(op.limit.saturating_add(1));
    }
    rows.retain(|row| filters[0] == 0 || row.mod_revision >= filters[0]);
    rows.retain(|row| filters[1] == 0 || row.mod_revision <= filters[1]);
    rows.retain(|row| filters[2] == 0 || row.create_revision >= filters[2]);
    rows.retain(|row| filters[3] == 0 || row.create_revision <= filters[3]);
    if let Some((target, order)) = op.order {
        rows.sort_by(|left, right| {
            let ascending = match target {
                SortTarget::Key => left.key.cmp(&right.key),
                SortTarget::Version => left.version.cmp(&right.version),
                SortTarget::Create => left.create_revision.cmp(&right.create_revision),
                SortTarget::Mod => left.mod_revision.cmp(&right.mod_revision),
                SortTarget::Value => left.value.cmp(&right.value),
            };
            if order == SortOrder::Descend {
                ascending.reverse()
            } else {
                ascending
            }
        });
    }
    let more = op.limit > 0 && rows.len() > op.limit;
    if more {
        rows.truncate(op.limit);
    }
    if op.keys_only {
        let strip = |row: &Row| {
            Arc::new(KeyValue {
                value: Bytes::new(),
                ..(**row).clone()
            })
        };
        rows = rows.iter().map(strip).collect();
    }
    RangeResult { rows, more, count }
}

fn touches(command: &Command) -> bool {
    fn op_touches(op: &Op) -> bool {
        match op {
            Op::Range(_) => false,
            Op::Put(put) => put.key.starts_with(CONFIG_PREFIX.as_bytes()),
            Op::Delete(delete) => delete.range.intersects(&KeyRange::prefix(CONFIG_PREFIX)),
            Op::Txn(txn) => txn.success.iter().chain(&txn.failure).any(op_touches),
        }
    }
    match command {
        Command::Put(put) => op_touches(&Op::Put(put.clone())),
        Command::Delete(delete) => op_touches(&Op::Delete(delete.clone())),
        Command::Txn(txn) => op_touches(&Op::Txn(Box::new(txn.clone()))),
        _ => false,
    }
}

fn check_key(range: &KeyRange) -> Result<(), CommandError> {
    if range.to_etcd().0.is_empty() {
        Err(CommandError::EmptyKey)
    } else {
        Ok(())
    }
}

fn check_form(op: &Op) -> Result<(), CommandError> {
    match op {
        Op::Range(range) => check_key(&range.range),
        Op::Delete(delete) => check_key(&delete.range),
        Op::Put(put) if put.key.is_empty() => Err(CommandError::EmptyKey),
        Op::Put(put) if put.ignore_value && !put.value.is_empty() => {
            Err(CommandError::ValueProvided)
        }
        Op::Put(put) if put.ignore_lease && put.lease != 0 => Err(CommandError::LeaseProvided),
        Op::Put(_) => Ok(()),
        Op::Txn(txn) => {
            txn.compares
                .iter()
                .try_for_each(|compare| check_key(&compare.range))?;
            txn.success
                .iter()
                .chain(&txn.failure)
                .try_for_each(check_form)
        }
    }
}

/// The writes of `ops` for every way in which nested transactions could branch.
fn histories(ops: &[Op]) -> Vec<Vec<&Op>> {
    let mut all = vec![Vec::new()];
    for op in ops {
        let continuations = match op {
            Op::Range(_) => continue,
            Op::Put(_) | Op::Delete(_) => vec![vec![op]],
            Op::Txn(txn) => [histories(&txn.success), histories(&txn.failure)].concat(),
        };
        all = all
            .iter()
            .flat_map(|so_far| {
                continuations
                    .iter()
                    .map(|more| [&so_far[..], more].concat())
            })
            .collect();
    }
    all
}

fn writes_twice(writes: &[&Op]) -> bool {
    let meet = |left: &Op, right: &Op| match (left, right) {
        (Op::Put(one), Op::Put(other)) => one.key == other.key,
        (Op::Put(put), Op::Delete(delete)) | (Op::Delete(delete), Op::Put(put)) => {
            delete.range.contains(&put.key)
        }
        _ => false,
    };
    writes
        .iter()
        .enumerate()
        .any(|(n, one)| writes[..n].iter().any(|other| meet(one, other)))
}
