//! What a command would do to the room that the current rows take.
//!
//! Owns the estimate, from above: whichever branch a transaction takes, it takes no more. Never
//! refuses: what the room is, is a setting of each node.

use crate::{Command, Image, KeyValue, Op, PutOp, TxnOp};

impl Image {
    /// Whether `command` could make the rows that exist take more memory than now. History is not
    /// counted: compaction takes it. Within a transaction a delete does not make up for a put.
    pub fn could_grow(&self, command: &Command) -> bool {
        match command {
            Command::Put(put) => self.put_growth(put) > 0,
            Command::Txn(txn) => self.txn_growth(txn) > 0,
            Command::Grant(_) => true,
            Command::Auth(op) => op.could_grow(),
            Command::Delete(_)
            | Command::Compact { .. }
            | Command::SetClusterVersion(_)
            | Command::Revoke { .. }
            | Command::KeepAlive(_)
            | Command::Tick(_) => false,
        }
    }

    fn txn_growth(&self, txn: &TxnOp) -> i64 {
        let branch = |ops: &[Op]| {
            let growths = ops.iter().map(|op| match op {
                Op::Put(put) => self.put_growth(put),
                Op::Txn(inner) => self.txn_growth(inner),
                Op::Range(_) | Op::Delete(_) => 0,
            });
            growths.fold(0, i64::saturating_add)
        };
        branch(&txn.success).max(branch(&txn.failure))
    }

    fn put_growth(&self, put: &PutOp) -> i64 {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        match self.get(&put.key) {
            Some(_) if put.ignore_value => 0,
            Some(row) => bytes(put.value.len() as u64) - bytes(row.value.len() as u64),
            None => bytes(KeyValue::bytes_of(&put.key, &put.value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeleteOp, KeyRange, Machine, Proposal};

    fn put(key: &'static str, value: &'static str) -> PutOp {
        PutOp::new(key, value)
    }

    fn txn(success: Vec<Op>, failure: Vec<Op>) -> Command {
        Command::Txn(TxnOp {
            compares: Vec::new(),
            success,
            failure,
        })
    }

    #[test]
    fn only_what_could_take_more_room_grows() {
        let mut machine = Machine::new();
        machine.apply(&Proposal::new(Command::Put(put("a", "four"))));
        let image = machine.image();
        let grows = |command: Command| image.could_grow(&command);
        assert!(grows(Command::Put(put("b", ""))));
        assert!(grows(Command::Put(put("a", "fives"))));
        assert!(!grows(Command::Put(put("a", "same"))));
        assert!(!grows(Command::Put(put("a", ""))));
        let lease_only = PutOp {
            ignore_value: true,
            ..put("a", "")
        };
        assert!(!grows(Command::Put(lease_only)));
        assert!(!grows(Command::Delete(DeleteOp::new(KeyRange::all()))));
        assert!(!grows(Command::Compact { revision: 2 }));

        let (shrink, grow) = (Op::Put(put("a", "")), Op::Put(put("b", "")));
        assert!(!grows(txn(vec![shrink.clone()], Vec::new())));
        assert!(grows(txn(vec![shrink.clone()], vec![grow.clone()])));
        assert!(grows(txn(vec![shrink.clone(), grow.clone()], Vec::new())));
        let delete = Op::Delete(DeleteOp::new(KeyRange::all()));
        assert!(grows(txn(vec![delete.clone(), grow.clone()], Vec::new())));
        assert!(!grows(txn(vec![delete], Vec::new())));
        let nested = TxnOp {
            failure: vec![grow],
            ..TxnOp::default()
        };
        assert!(grows(txn(
            vec![Op::Txn(Box::new(nested)), shrink],
            Vec::new()
        )));
    }
}
