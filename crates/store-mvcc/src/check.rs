//! What is wrong with a request on its own, whatever the store holds.
//!
//! Owns etcd's checks of a request's form: keys, contradicting options, the number of operations,
//! keys written twice. A server runs them before it proposes, with its limit; apply runs them
//! again without one, so that no log entry can make a state that these rules exclude.

use crate::written::Written;
use crate::{Command, CommandError, DeleteOp, KeyRange, Op, PutOp, RangeOp, TxnOp};

/// The usual limit of operations in one list of a transaction (etcd's default).
pub const TXN_OPS_MAX: usize = 128;

impl Command {
    /// Checks the command's form; `ops_max` is the limit for transactions, as in [`TxnOp::check`].
    pub fn check(&self, ops_max: usize) -> Result<(), CommandError> {
        match self {
            Self::Put(put) => put.check(),
            Self::Delete(delete) => delete.check(),
            Self::Txn(txn) => txn.check(ops_max),
            Self::Grant(grant) => grant.check(),
            Self::Compact { .. }
            | Self::SetClusterVersion(_)
            | Self::Revoke { .. }
            | Self::KeepAlive(_)
            | Self::Tick(_)
            | Self::Auth(_) => Ok(()),
        }
    }
}

impl RangeOp {
    /// Checks the request's form.
    pub fn check(&self) -> Result<(), CommandError> {
        check_key(&self.range)
    }
}

impl DeleteOp {
    /// Checks the request's form.
    pub fn check(&self) -> Result<(), CommandError> {
        check_key(&self.range)
    }
}

impl PutOp {
    /// Checks the request's form.
    pub fn check(&self) -> Result<(), CommandError> {
        if self.key.is_empty() {
            return Err(CommandError::EmptyKey);
        }
        if self.ignore_value && !self.value.is_empty() {
            return Err(CommandError::ValueProvided);
        }
        if self.ignore_lease && self.lease != 0 {
            return Err(CommandError::LeaseProvided);
        }
        Ok(())
    }
}

impl TxnOp {
    /// Checks the request's form. `ops_max` limits the compares and each branch; a transaction
    /// within it has what its parent's longest list left over, which limits the depth as well.
    pub fn check(&self, ops_max: usize) -> Result<(), CommandError> {
        self.check_ops(ops_max, ops_max)?;
        for branch in [&self.success, &self.failure] {
            Written::by(branch).map_err(|_| CommandError::DuplicateKey)?;
        }
        Ok(())
    }

    fn check_ops(&self, left: usize, limit: usize) -> Result<(), CommandError> {
        let longest = self
            .compares
            .len()
            .max(self.success.len())
            .max(self.failure.len());
        let Some(left) = left.checked_sub(longest) else {
            return Err(CommandError::TooManyOps { limit });
        };
        for compare in &self.compares {
            check_key(&compare.range)?;
        }
        for op in self.success.iter().chain(&self.failure) {
            match op {
                Op::Range(range) => range.check()?,
                Op::Put(put) => put.check()?,
                Op::Delete(delete) => delete.check()?,
                Op::Txn(txn) => txn.check_ops(left, limit)?,
            }
        }
        Ok(())
    }
}

fn check_key(range: &KeyRange) -> Result<(), CommandError> {
    if range.start().is_empty() {
        Err(CommandError::EmptyKey)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
