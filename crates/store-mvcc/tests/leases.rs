//! Leases, case by case: what ends when, what goes with it, what moves.

use std::time::Duration;

use bytes::Bytes;
use store_mvcc::{
    Command, CommandError, DeleteOp, GrantOp, GrantResult, Image, KeepAliveOp, KeepAliveResult,
    KeyRange, LEASE_STEP_MAX_MS, LEASE_TTL_MAX, Machine, Op, Outcome, Proposal, PutOp, Response,
    TICK_LEASES_MAX, TickOp, TickResult, TxnOp,
};

fn apply(machine: &mut Machine, command: Command) -> Outcome {
    machine.apply(&Proposal::new(command))
}

fn grant(machine: &mut Machine, id: i64, ttl: i64) {
    let op = GrantOp { id, ttl, age_ms: 0 };
    let granted = apply(machine, Command::Grant(op)).result;
    assert_eq!(granted, Ok(Response::Grant(GrantResult { id, ttl })));
}

fn leased(key: &'static str, lease: i64) -> PutOp {
    PutOp {
        lease,
        ..PutOp::new(key, "v")
    }
}

fn put(machine: &mut Machine, op: PutOp) {
    apply(machine, Command::Put(op)).result.expect("a good put");
}

fn keep_alive(machine: &mut Machine, ids: &[i64]) -> Vec<i64> {
    let (ids, age_ms) = (ids.to_vec(), 0);
    match apply(machine, Command::KeepAlive(KeepAliveOp { ids, age_ms })).result {
        Ok(Response::KeepAlive(KeepAliveResult { ttls })) => ttls,
        other => panic!("{other:?}"),
    }
}

fn tick(machine: &mut Machine, advance_ms: u64) -> TickResult {
    let from_ms = machine.image().meta().lease_clock_ms;
    tick_from(machine, from_ms, advance_ms)
}

fn tick_from(machine: &mut Machine, from_ms: u64, advance_ms: u64) -> TickResult {
    let op = TickOp {
        from_ms,
        advance_ms,
        term: 1,
    };
    match apply(machine, Command::Tick(op)).result {
        Ok(Response::Tick(result)) => result,
        other => panic!("{other:?}"),
    }
}

/// Lets so much time go by, in steps that count in full; how many leases ended.
fn pass(machine: &mut Machine, time: Duration) -> usize {
    let millis = u64::try_from(time.as_millis()).expect("tests are short");
    let steps = millis.div_ceil(LEASE_STEP_MAX_MS);
    let step = |n: u64| (millis - n * LEASE_STEP_MAX_MS).min(LEASE_STEP_MAX_MS);
    (0..steps).map(|n| tick(machine, step(n)).ended).sum()
}

fn keys(image: &Image, lease: i64) -> Vec<&Bytes> {
    image.lease_keys(lease).collect()
}

#[test]
fn a_lease_ends_on_time_and_takes_its_keys_in_one_revision() {
    let mut machine = Machine::new();
    grant(&mut machine, 1, 10);
    put(&mut machine, PutOp::new("b", "stays"));
    for key in ["c", "a", "d"] {
        put(&mut machine, leased(key, 1));
    }
    assert_eq!(pass(&mut machine, Duration::from_millis(9_999)), 0);
    assert_eq!(machine.image().revision(), 5);
    assert_eq!(pass(&mut machine, Duration::from_millis(1)), 1);
    let image = machine.image();
    assert_eq!(
        (image.revision(), image.len(), image.lease_count()),
        (6, 1, 0)
    );
    let changes = image.changes(6).expect("it is the newest");
    let gone: Vec<_> = changes
        .rows
        .iter()
        .map(|change| &change.row.key[..])
        .collect();
    assert_eq!(gone, [b"a", b"c", b"d"], "in the order of the keys");
    for change in &changes.rows {
        assert!(change.row.is_tombstone());
        assert_eq!(change.prev.as_ref().map(|prev| prev.lease), Some(1));
    }
    assert_eq!(keep_alive(&mut machine, &[1]), [0]);
}

#[test]
fn a_lease_without_keys_ends_without_a_revision() {
    let mut machine = Machine::new();
    grant(&mut machine, 1, 1);
    grant(&mut machine, 2, 1);
    assert_eq!(pass(&mut machine, Duration::from_secs(1)), 2);
    let outcome = apply(&mut machine, Command::Revoke { lease: 1 });
    assert_eq!(outcome.result, Err(CommandError::LeaseNotFound));
    assert_eq!(outcome.revision, 1);
}

#[test]
fn leases_end_in_the_order_of_their_ends_then_of_their_ids() {
    let mut machine = Machine::new();
    for (id, ttl, key) in [(9, 2, "nine"), (-5, 1, "minus"), (3, 1, "three")] {
        grant(&mut machine, id, ttl);
        put(&mut machine, leased(key, id));
    }
    tick(&mut machine, 1_000);
    assert_eq!(tick(&mut machine, 1_000).ended, 1);
    let image = machine.image();
    let gone = (5..=7).map(|at| &image.changes(at).expect("three ended").rows[0].row.key);
    assert!(gone.eq(["minus", "three", "nine"]));
}

#[test]
fn a_keep_alive_gives_the_whole_time_again_and_never_less() {
    let mut machine = Machine::new();
    grant(&mut machine, 1, 5);
    grant(&mut machine, 2, 5);
    pass(&mut machine, Duration::from_secs(4));
    assert_eq!(keep_alive(&mut machine, &[1, 7, 1]), [5, 0, 5]);
    assert_eq!(
        pass(&mut machine, Duration::from_secs(4)),
        1,
        "the other one"
    );
    let ids = vec![1];
    let aged = KeepAliveOp {
        ids: ids.clone(),
        age_ms: 800,
    };
    apply(&mut machine, Command::KeepAlive(aged))
        .result
        .expect("it lives");
    let ends = machine.image().lease(1).expect("it lives").expires_at_ms;
    assert_eq!(ends, 8_000 + 800 + 5_000);
    keep_alive(&mut machine, &ids);
    let image = machine.image();
    assert_eq!(image.lease(1).expect("it lives").expires_at_ms, ends);
    assert_eq!(image.lease(1).expect("it lives").remaining_ms(8_000), 5_800);
}

#[test]
fn no_step_is_longer_than_the_longest() {
    let mut machine = Machine::new();
    grant(&mut machine, 1, 2);
    assert_eq!(tick(&mut machine, 3_600_000).ended, 0, "a paused leader");
    assert_eq!(machine.image().meta().lease_clock_ms, LEASE_STEP_MAX_MS);
    let op = GrantOp {
        id: 2,
        ttl: 1,
        age_ms: u64::MAX,
    };
    apply(&mut machine, Command::Grant(op))
        .result
        .expect("a good grant");
    let ends = machine.image().lease(2).expect("it was made").expires_at_ms;
    assert_eq!(ends, 2 * LEASE_STEP_MAX_MS + 1_000);
}

#[test]
fn one_tick_ends_so_many_and_leaves_the_rest() {
    let mut machine = Machine::new();
    let count = i64::try_from(TICK_LEASES_MAX).expect("small") + 1;
    for id in 1..=count {
        grant(&mut machine, id, 1);
    }
    let result = tick(&mut machine, 1_000);
    assert_eq!((result.ended, result.more), (TICK_LEASES_MAX, true));
    let result = tick(&mut machine, 0);
    assert_eq!((result.ended, result.more), (1, false));
}

#[test]
fn leases_of_many_keys_do_not_end_all_at_once() {
    let mut machine = Machine::new();
    for id in 1..=3 {
        grant(&mut machine, id, 1);
        for n in 0..6_000 {
            let op = PutOp {
                lease: id,
                ..PutOp::new(format!("{id}/{n}"), "v")
            };
            put(&mut machine, op);
        }
    }
    let result = tick(&mut machine, 1_000);
    assert_eq!((result.ended, result.more), (2, true));
    assert_eq!(tick(&mut machine, 0).ended, 1);
    assert!(machine.image().is_empty());
}

#[test]
fn a_key_hangs_on_the_lease_it_was_last_put_with() {
    let mut machine = Machine::new();
    grant(&mut machine, 1, 5);
    grant(&mut machine, 2, 5);
    put(&mut machine, leased("moves", 1));
    put(&mut machine, leased("moves", 2));
    put(&mut machine, leased("freed", 1));
    put(&mut machine, PutOp::new("freed", "v"));
    put(&mut machine, leased("kept", 1));
    let kept = PutOp {
        ignore_lease: true,
        ..PutOp::new("kept", "new")
    };
    put(&mut machine, kept);
    put(&mut machine, leased("deleted", 1));
    let delete = DeleteOp::new(KeyRange::key("deleted"));
    apply(&mut machine, Command::Delete(delete))
        .result
        .expect("a good delete");
    put(&mut machine, PutOp::new("deleted", "again"));
    let image = machine.image();
    assert_eq!(keys(&image, 1), ["kept"]);
    assert_eq!(keys(&image, 2), ["moves"]);
    let revoked = apply(&mut machine, Command::Revoke { lease: 1 });
    assert_eq!(revoked.result, Ok(Response::Revoke));
    assert_eq!(revoked.revision, image.revision() + 1);
    let left: Vec<_> = machine
        .image()
        .live(&KeyRange::all())
        .map(|row| row.key.clone())
        .collect();
    assert_eq!(left, ["deleted", "freed", "moves"]);
    assert!(image.get(b"kept").is_some(), "a reader's image changed");
}

#[test]
fn what_cannot_be_granted_or_used_is_refused_and_changes_nothing() {
    let mut machine = Machine::new();
    let grant_of = |id, ttl| Command::Grant(GrantOp { id, ttl, age_ms: 0 });
    grant(&mut machine, 1, LEASE_TTL_MAX);
    let refused = [
        (grant_of(1, 5), CommandError::LeaseExists),
        (
            grant_of(2, LEASE_TTL_MAX + 1),
            CommandError::LeaseTtlTooLarge,
        ),
        (grant_of(0, 5), CommandError::LeaseNotFound),
        (Command::Revoke { lease: 2 }, CommandError::LeaseNotFound),
        (Command::Put(leased("a", 2)), CommandError::LeaseNotFound),
    ];
    let before = machine.image();
    for (command, error) in refused {
        assert_eq!(apply(&mut machine, command).result, Err(error));
    }
    assert_eq!(machine.image(), before);
    assert_eq!(
        grant_of(2, LEASE_TTL_MAX + 1).check(1),
        Err(CommandError::LeaseTtlTooLarge)
    );
}

#[test]
fn a_config_key_never_gets_a_lease() {
    let mut machine = Machine::new();
    grant(&mut machine, 1, 5);
    let guarded = |command| Proposal {
        config_guard: Some(model::ConfigRevision(0)),
        ..Proposal::new(command)
    };
    let config = leased("/skein/config/default/Cluster/web", 1);
    let txn = TxnOp {
        success: vec![Op::Put(config.clone())],
        ..TxnOp::default()
    };
    for command in [Command::Put(config), Command::Txn(txn)] {
        let refused = machine.apply(&guarded(command)).result;
        assert_eq!(refused, Err(CommandError::ConfigLease));
    }
    put(&mut machine, leased("/skein/endpoints/default/web/1", 1));
    assert_eq!(machine.image().lease_keys(1).count(), 1);
}

#[test]
fn leases_and_their_keys_count_as_memory_while_they_last() {
    let mut machine = Machine::new();
    put(&mut machine, PutOp::new("a", "v"));
    let before = machine.image().resident_bytes();
    grant(&mut machine, 1, 5);
    let with_lease = machine.image().resident_bytes();
    assert!(with_lease > before);
    apply(&mut machine, Command::Revoke { lease: 1 })
        .result
        .expect("it is there");
    assert_eq!(machine.image().resident_bytes(), before);

    grant(&mut machine, 1, 5);
    let (mut free, mut held) = (machine.clone(), machine);
    put(&mut free, PutOp::new("b", "v"));
    put(&mut held, leased("b", 1));
    assert!(held.image().resident_bytes() > free.image().resident_bytes());
}

#[test]
fn time_that_was_counted_counts_no_more_and_that_of_another_term_never() {
    let mut machine = Machine::new();
    grant(&mut machine, 1, 2);
    assert_eq!(tick_from(&mut machine, 0, 700).clock_ms, 700);
    assert_eq!(
        tick_from(&mut machine, 0, 900).clock_ms,
        700,
        "a deposed leader's"
    );
    assert_eq!(tick_from(&mut machine, 700, 900).clock_ms, 1_600);
    assert_eq!(
        tick_from(&mut machine, 700, 900).clock_ms,
        1_600,
        "sent twice"
    );
    let op = TickOp {
        from_ms: 1_600,
        advance_ms: 400,
        term: 7,
    };
    let elsewhere = Command::Tick(op.in_term(8));
    apply(&mut machine, elsewhere)
        .result
        .expect("it is no fault");
    assert_eq!(machine.image().meta().lease_clock_ms, 1_600);
    let here = Command::Tick(op.in_term(7));
    apply(&mut machine, here).result.expect("a good tick");
    assert_eq!(machine.image().lease_count(), 0);
}
