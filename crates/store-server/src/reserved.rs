//! Who may write where below `/skein/`.
//!
//! Owns the rules by prefix, for puts, deletes and every branch of a transaction. Never looks into
//! a value: that is admission.

use model::{CONFIG_PREFIX, ENDPOINT_PREFIX, RESERVED_PREFIX};
use store_mvcc::{Command, DeleteOp, Op, PutOp, TxnOp};

use crate::refusal::Refusal;

/// How a command gets to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// At once, beside others.
    Direct,
    /// Admitted, one after the other.
    Lane,
}

/// Sorts a command by the keys that it could write.
pub(crate) fn route(command: &Command) -> Result<Route, Refusal> {
    // A downgrade is held against the config, and no change of it may come in between.
    if matches!(command, Command::SetClusterVersion(op) if op.downgrade) {
        return Ok(Route::Lane);
    }
    if !command.writes_below(RESERVED_PREFIX.as_bytes()) {
        return Ok(Route::Direct);
    }
    match command {
        Command::Put(put) => check_put(put)?,
        Command::Delete(delete) => check_delete(delete)?,
        Command::Txn(txn) => check_txn(txn)?,
        // These name no key.
        _ => {}
    }
    Ok(Route::Lane)
}

fn check_txn(txn: &TxnOp) -> Result<(), Refusal> {
    txn.success
        .iter()
        .chain(&txn.failure)
        .try_for_each(|op| match op {
            Op::Range(_) => Ok(()),
            Op::Put(put) => check_put(put),
            Op::Delete(delete) => check_delete(delete),
            Op::Txn(txn) => check_txn(txn),
        })
}

fn check_put(put: &PutOp) -> Result<(), Refusal> {
    let below = |prefix: &str| put.key.starts_with(prefix.as_bytes());
    if below(CONFIG_PREFIX) && put.lease != 0 {
        return Err(refuse(
            &put.key,
            "a config key cannot have a lease; put it without one",
        ));
    }
    if below(RESERVED_PREFIX) && !below(CONFIG_PREFIX) && !below(ENDPOINT_PREFIX) {
        return Err(refuse(
            &put.key,
            "keys below /skein/ belong to Skein; use another prefix",
        ));
    }
    Ok(())
}

/// A delete that reaches config or endpoints, from however far, is for admission to judge.
fn check_delete(delete: &DeleteOp) -> Result<(), Refusal> {
    let meets = |prefix: &str| delete.range.intersects_prefix(prefix.as_bytes());
    if meets(RESERVED_PREFIX) && !meets(CONFIG_PREFIX) && !meets(ENDPOINT_PREFIX) {
        let remedy = "keys below /skein/ belong to Skein; leave them out of the range";
        return Err(refuse(delete.range.start(), remedy));
    }
    Ok(())
}

fn refuse(key: &[u8], why: &str) -> Refusal {
    Refusal {
        message: format!("{}: key: {why}", String::from_utf8_lossy(key)),
    }
}

#[cfg(test)]
mod tests {
    use store_mvcc::KeyRange;

    use super::*;

    fn put(key: &'static str) -> PutOp {
        PutOp::new(key, "v")
    }

    fn delete(key: &'static str, end: &'static str) -> DeleteOp {
        DeleteOp::new(KeyRange::from_etcd(key.into(), end.into()))
    }

    fn route_put(op: PutOp) -> Result<Route, Refusal> {
        route(&Command::Put(op))
    }

    #[test]
    fn puts_go_by_their_prefix() {
        assert_eq!(route_put(put("a")), Ok(Route::Direct));
        assert_eq!(route_put(put("/skein")), Ok(Route::Direct));
        assert_eq!(
            route_put(put("/skein/config/default/Cluster/web")),
            Ok(Route::Lane)
        );
        assert_eq!(
            route_put(put("/skein/endpoints/default/web/1")),
            Ok(Route::Lane)
        );
        for key in [
            "/skein/",
            "/skein/secret",
            "/skein/config",
            "/skein/configs/x",
        ] {
            let refusal = route_put(put(key)).unwrap_err().message;
            assert!(
                refusal.contains(key) && refusal.contains("another prefix"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn a_config_key_has_no_lease() {
        let leased = PutOp {
            lease: 7,
            ..put("/skein/config/default/Cluster/web")
        };
        assert!(route_put(leased).unwrap_err().message.contains("lease"));
        assert_eq!(
            route_put(PutOp {
                lease: 7,
                ..put("/skein/endpoints/a")
            }),
            Ok(Route::Lane)
        );
    }

    #[test]
    fn deletes_go_by_what_they_reach() {
        let route_delete = |key, end| route(&Command::Delete(delete(key, end)));
        assert_eq!(route_delete("a", "b"), Ok(Route::Direct));
        assert_eq!(route_delete("a", "\0"), Ok(Route::Direct));
        assert_eq!(route_delete("\0", "\0"), Ok(Route::Lane));
        assert_eq!(route_delete("/skein/", "/skein0"), Ok(Route::Lane));
        assert_eq!(route_delete("/skein/config/x", ""), Ok(Route::Lane));
        assert!(route_delete("/skein/secret", "").is_err());
        assert!(route_delete("/skein/f", "/skein/g").is_err());
    }

    #[test]
    fn every_branch_counts_however_deep() {
        let hidden = TxnOp {
            failure: vec![Op::Put(put("/skein/secret"))],
            ..TxnOp::default()
        };
        let nested = TxnOp {
            success: vec![Op::Txn(Box::new(hidden))],
            ..TxnOp::default()
        };
        assert!(route(&Command::Txn(nested)).is_err());

        let config = Op::Delete(delete("/skein/config/a", ""));
        let branch = TxnOp {
            failure: vec![config],
            ..TxnOp::default()
        };
        assert_eq!(route(&Command::Txn(branch)), Ok(Route::Lane));
        let free = TxnOp {
            success: vec![Op::Put(put("a"))],
            ..TxnOp::default()
        };
        assert_eq!(route(&Command::Txn(free)), Ok(Route::Direct));
    }
}
