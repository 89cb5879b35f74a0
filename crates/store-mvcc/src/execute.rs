//! Commands become revisions.
//!
//! Owns the order of judgement (rights, guard, form, state) and the promise that a refused command changes
//! nothing. Never waits, never fails half-way.

use model::CONFIG_PREFIX;

use crate::edit::Edit;
use crate::{
    Command, CommandError, Compare, CompareResult, CompareTarget, Image, KeyValue, Op, Outcome,
    Proposal, PutOp, Response, TxnOp, TxnResult, touches_config,
};

/// The state machine: applies the log's proposals, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    image: Image,
}

impl Machine {
    /// A machine with an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A machine that goes on from `image`.
    pub fn from_image(image: Image) -> Self {
        Self { image }
    }

    /// The state now, in constant time.
    pub fn image(&self) -> Image {
        self.image.clone()
    }

    /// Applies one proposal. Deterministic: the same proposals in the same order give the same
    /// outcomes and equal images.
    pub fn apply(&mut self, proposal: &Proposal) -> Outcome {
        let guarded = self.check_caller(proposal);
        let guarded = guarded.and_then(|()| self.check_guard(proposal));
        let result = guarded.and_then(|()| self.image.execute(&proposal.command));
        Outcome {
            revision: self.image.revision(),
            config_revision: self.image.config_revision(),
            result,
        }
    }

    /// Whoever asks was judged when it asked; what it may do may have changed since.
    fn check_caller(&self, proposal: &Proposal) -> Result<(), CommandError> {
        let Proposal {
            command, caller, ..
        } = proposal;
        Ok(self.image.check_command(caller, command)?)
    }

    fn check_guard(&self, proposal: &Proposal) -> Result<(), CommandError> {
        let now = self.image.config_revision();
        let holds = match proposal.config_guard {
            Some(guard) => guard == now,
            None => !touches_config(&proposal.command),
        };
        if holds {
            Ok(())
        } else {
            Err(CommandError::ConfigGuardMismatch { now })
        }
    }
}

impl Image {
    /// Answers a transaction as if it were applied now, and keeps nothing of what it writes: meant
    /// for transactions that only read ([`TxnOp::is_read_only`]).
    ///
    /// # Errors
    /// Whatever apply would refuse it for, guards aside.
    pub fn read_txn(&self, txn: &TxnOp) -> Result<TxnResult, CommandError> {
        self.clone().execute_txn(txn)
    }

    fn execute(&mut self, command: &Command) -> Result<Response, CommandError> {
        match command {
            Command::Put(op) => {
                op.check()?;
                self.check_lease(op)?;
                self.check_exists(op)?;
                let mut edit = Edit::begin(self);
                let result = edit.put(op);
                edit.commit();
                Ok(Response::Put(result))
            }
            Command::Delete(op) => {
                op.check()?;
                let mut edit = Edit::begin(self);
                let result = edit.delete(op);
                edit.commit();
                Ok(Response::Delete(result))
            }
            Command::Txn(op) => self.execute_txn(op).map(Response::Txn),
            Command::Compact { revision } => {
                self.compact(*revision)?;
                Ok(Response::Compact)
            }
            Command::SetClusterVersion(op) => {
                self.set_version(*op)?;
                Ok(Response::SetClusterVersion)
            }
            Command::Grant(op) => self.grant(op).map(Response::Grant),
            Command::Revoke { lease } => self.revoke(*lease).map(|()| Response::Revoke),
            Command::KeepAlive(op) => Ok(Response::KeepAlive(self.keep_alive(op))),
            Command::Tick(op) => Ok(Response::Tick(self.tick(*op))),
            Command::Auth(op) => {
                self.auth.change(op)?;
                Ok(Response::Auth)
            }
        }
    }

    fn execute_txn(&mut self, txn: &TxnOp) -> Result<TxnResult, CommandError> {
        // How many operations a transaction may have is a setting of each node, so it must not
        // decide here, where all nodes have to agree.
        txn.check(usize::MAX)?;
        let mut path = Vec::new();
        self.plan(txn, &mut path)?;
        let mut edit = Edit::begin(self);
        let result = edit.txn(txn, &mut path.iter());
        edit.commit();
        Ok(result)
    }

    /// Chooses the branches of `txn` and of those within it, and checks the chosen operations, all
    /// against the state before the first of them. `path` gets one entry for each transaction on
    /// the way, in the order in which they are done.
    fn plan(&self, txn: &TxnOp, path: &mut Vec<bool>) -> Result<(), CommandError> {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        path.push(succeeded);
        for op in if succeeded {
            &txn.success
        } else {
            &txn.failure
        } {
            match op {
                Op::Range(range) if range.revision != 0 => self.check_revision(range.revision)?,
                Op::Range(_) | Op::Delete(_) => {}
                Op::Put(put) => {
                    self.check_exists(put)?;
                    self.check_lease(put)?;
                }
                Op::Txn(inner) => self.plan(inner, path)?,
            }
        }
        Ok(())
    }

    fn check_exists(&self, op: &PutOp) -> Result<(), CommandError> {
        if (op.ignore_value || op.ignore_lease) && self.get(&op.key).is_none() {
            return Err(CommandError::KeyMissing);
        }
        Ok(())
    }

    fn check_lease(&self, op: &PutOp) -> Result<(), CommandError> {
        if op.lease == 0 {
            return Ok(());
        }
        // A lease ends without a guard of the config, so none may reach it.
        if op.key.starts_with(CONFIG_PREFIX.as_bytes()) {
            return Err(CommandError::ConfigLease);
        }
        if self.lease(op.lease).is_none() {
            return Err(CommandError::LeaseNotFound);
        }
        Ok(())
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut rows = self.live(&compare.range).peekable();
        if rows.peek().is_none() {
            // An absent value is not an empty one, so nothing can be said about it.
            let value = matches!(compare.target, CompareTarget::Value(_));
            return !value && compare.holds_for(&KeyValue::default());
        }
        rows.all(|row| compare.holds_for(row))
    }
}

impl Compare {
    fn holds_for(&self, row: &KeyValue) -> bool {
        let order = match &self.target {
            CompareTarget::Version(version) => row.version.cmp(version),
            CompareTarget::Create(revision) => row.create_revision.cmp(revision),
            CompareTarget::Mod(revision) => row.mod_revision.cmp(revision),
            CompareTarget::Value(value) => row.value.cmp(value),
            CompareTarget::Lease(lease) => row.lease.cmp(lease),
        };
        match self.result {
            CompareResult::Equal => order.is_eq(),
            CompareResult::NotEqual => order.is_ne(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
        }
    }
}
