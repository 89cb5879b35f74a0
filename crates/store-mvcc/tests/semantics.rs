//! What etcd documents and its clients rely on, case by case.

use bytes::Bytes;
use model::ConfigRevision;
use store_mvcc::{
    Command, CommandError, Compacted, Compare, CompareResult, CompareTarget, DeleteOp,
    DeleteResult, Image, KeyRange, Machine, Op, Outcome, Proposal, PutOp, PutResult, RangeOp,
    Response, Row, SortOrder, SortTarget, TxnOp, TxnResult, touches_config,
};

fn apply(machine: &mut Machine, command: Command) -> Outcome {
    machine.apply(&Proposal::new(command))
}

fn put(machine: &mut Machine, key: &'static str, value: &'static str) -> i64 {
    let outcome = apply(machine, Command::Put(PutOp::new(key, value)));
    outcome.result.expect("a plain put is never refused");
    outcome.revision
}

fn delete(machine: &mut Machine, key: &'static str) -> i64 {
    apply(machine, Command::Delete(DeleteOp::new(KeyRange::key(key)))).revision
}

fn compact(machine: &mut Machine, revision: i64) -> Result<Response, CommandError> {
    apply(machine, Command::Compact { revision }).result
}

fn all() -> RangeOp {
    RangeOp::new(KeyRange::all())
}

fn at(revision: i64) -> RangeOp {
    RangeOp { revision, ..all() }
}

fn shown(rows: &[Row]) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    rows.iter()
        .map(|row| format!("{}={}", text(&row.key), text(&row.value)))
        .collect()
}

fn seen(image: &Image, op: &RangeOp) -> Vec<String> {
    shown(&image.range(op).expect("the revision is readable").rows)
}

fn compare(key: &'static str, result: CompareResult, target: CompareTarget) -> Compare {
    Compare {
        range: KeyRange::key(key),
        result,
        target,
    }
}

/// Whether `compare` holds.
fn holds(image: &Image, compare: Compare) -> bool {
    let txn = TxnOp {
        compares: vec![compare],
        ..TxnOp::default()
    };
    image
        .read_txn(&txn)
        .expect("it reads nothing else")
        .succeeded
}

#[test]
fn an_empty_store_is_at_revision_1_and_the_first_write_makes_2() {
    let mut machine = Machine::new();
    assert_eq!(
        (
            machine.image().revision(),
            machine.image().compact_revision()
        ),
        (1, -1)
    );
    assert_eq!(put(&mut machine, "a", "1"), 2);
}

#[test]
fn versions_count_up_and_begin_anew_after_a_delete() {
    let mut machine = Machine::new();
    put(&mut machine, "a", "1");
    put(&mut machine, "a", "2");
    let row = machine.image().get(b"a").cloned().expect("it was put");
    assert_eq!(
        (row.create_revision, row.mod_revision, row.version),
        (2, 3, 2)
    );
    delete(&mut machine, "a");
    assert_eq!(machine.image().get(b"a"), None);
    put(&mut machine, "a", "3");
    let row = machine.image().get(b"a").cloned().expect("it was put");
    assert_eq!(
        (row.create_revision, row.mod_revision, row.version),
        (5, 5, 1)
    );
}

#[test]
fn a_put_tells_what_it_replaced_only_when_asked() {
    let mut machine = Machine::new();
    put(&mut machine, "a", "1");
    let asked = PutOp {
        prev_kv: true,
        ..PutOp::new("a", "2")
    };
    let Ok(Response::Put(PutResult { prev: Some(prev) })) =
        apply(&mut machine, Command::Put(asked.clone())).result
    else {
        panic!("it replaced a row")
    };
    assert_eq!(&prev.value[..], b"1");
    let other = PutOp {
        key: "b".into(),
        ..asked
    };
    let fresh = apply(&mut machine, Command::Put(other)).result;
    assert_eq!(fresh, Ok(Response::Put(PutResult { prev: None })));
    let unasked = apply(&mut machine, Command::Put(PutOp::new("a", "3"))).result;
    assert_eq!(unasked, Ok(Response::Put(PutResult { prev: None })));
}

#[test]
fn ignore_value_keeps_the_value_and_needs_the_key() {
    let mut machine = Machine::new();
    let keep = PutOp {
        ignore_value: true,
        ..PutOp::new("a", "")
    };
    let refused = apply(&mut machine, Command::Put(keep.clone()));
    assert_eq!(
        (refused.revision, refused.result),
        (1, Err(CommandError::KeyMissing))
    );
    put(&mut machine, "a", "1");
    assert_eq!(apply(&mut machine, Command::Put(keep)).revision, 3);
    let row = machine.image().get(b"a").cloned().expect("it was put");
    assert_eq!((&row.value[..], row.version), (&b"1"[..], 2));
}

#[test]
fn a_put_with_a_lease_that_does_not_exist_is_refused() {
    let mut machine = Machine::new();
    let leased = PutOp {
        lease: 7,
        ..PutOp::new("a", "1")
    };
    let outcome = apply(&mut machine, Command::Put(leased.clone()));
    assert_eq!(
        (outcome.revision, outcome.result),
        (1, Err(CommandError::LeaseNotFound))
    );
    let txn = TxnOp {
        success: vec![Op::Put(PutOp::new("b", "1")), Op::Put(leased)],
        ..TxnOp::default()
    };
    let outcome = apply(&mut machine, Command::Txn(txn));
    assert_eq!(
        (outcome.revision, outcome.result),
        (1, Err(CommandError::LeaseNotFound))
    );
    assert!(
        machine.image().is_empty(),
        "a refused transaction changes nothing"
    );
}

#[test]
fn deleting_nothing_makes_no_revision() {
    let mut machine = Machine::new();
    put(&mut machine, "a", "1");
    put(&mut machine, "b", "2");
    let outcome = apply(
        &mut machine,
        Command::Delete(DeleteOp::new(KeyRange::prefix("x"))),
    );
    assert_eq!(outcome.revision, 3);
    assert_eq!(
        outcome.result,
        Ok(Response::Delete(DeleteResult::default()))
    );
    let op = DeleteOp {
        range: KeyRange::from_etcd("a".into(), "c".into()),
        prev_kv: true,
    };
    let outcome = apply(&mut machine, Command::Delete(op));
    assert_eq!(outcome.revision, 4, "two keys, one revision");
    let Ok(Response::Delete(DeleteResult { deleted: 2, prev })) = outcome.result else {
        panic!("two were deleted")
    };
    assert_eq!(shown(&prev), ["a=1", "b=2"]);
}

/// A store of four keys, and a range of it as text: its rows, whether there are more, the count.
fn four_keys() -> impl Fn(RangeOp) -> (String, bool, usize) {
    let mut machine = Machine::new();
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("d", "0"), ("a", "9")] {
        put(&mut machine, key, value);
    }
    let image = machine.image();
    move |op| {
        let result = image.range(&op).expect("now is readable");
        (shown(&result.rows).join(" "), result.more, result.count)
    }
}

#[test]
fn a_limit_cuts_rows_but_not_the_count() {
    let run = four_keys();
    let limit = |limit| RangeOp { limit, ..all() };
    assert_eq!(run(limit(2)), ("a=9 b=1".into(), true, 4));
    assert_eq!(run(limit(4)), ("a=9 b=1 c=2 d=0".into(), false, 4));
    assert_eq!(
        run(RangeOp {
            count_only: true,
            ..limit(1)
        }),
        (String::new(), false, 4)
    );
    assert_eq!(
        run(RangeOp {
            keys_only: true,
            ..limit(1)
        }),
        ("a=".into(), true, 4)
    );
}

#[test]
fn a_limit_cuts_after_sorting() {
    let run = four_keys();
    let two = |target, order| {
        run(RangeOp {
            order: Some((target, order)),
            limit: 2,
            ..all()
        })
        .0
    };
    assert_eq!(two(SortTarget::Value, SortOrder::Ascend), "d=0 b=1");
    assert_eq!(
        two(SortTarget::Value, SortOrder::None),
        "b=1 c=2",
        "of the first three by key"
    );
    assert_eq!(two(SortTarget::Key, SortOrder::Descend), "d=0 c=2");
    assert_eq!(two(SortTarget::Mod, SortOrder::Descend), "a=9 d=0");
    assert_eq!(two(SortTarget::Version, SortOrder::Descend), "a=9 b=1");
    assert_eq!(two(SortTarget::Create, SortOrder::Ascend), "a=9 b=1");
}

#[test]
fn a_limit_cuts_after_the_revision_filters_but_the_count_ignores_them() {
    let run = four_keys();
    let recent = RangeOp {
        min_mod_revision: 4,
        max_mod_revision: 5,
        ..all()
    };
    assert_eq!(run(recent.clone()), ("c=2 d=0".into(), false, 4));
    assert_eq!(run(RangeOp { limit: 1, ..recent }), ("c=2".into(), true, 4));
    assert_eq!(
        run(RangeOp {
            max_create_revision: 2,
            ..all()
        })
        .0,
        "a=9"
    );
    assert_eq!(
        run(RangeOp {
            min_create_revision: 5,
            ..all()
        })
        .0,
        "d=0"
    );
}

#[test]
fn every_revision_stays_readable_until_compaction() {
    let mut machine = Machine::new();
    put(&mut machine, "a", "1"); // 2
    put(&mut machine, "b", "1"); // 3
    put(&mut machine, "a", "2"); // 4
    delete(&mut machine, "a"); // 5
    put(&mut machine, "a", "3"); // 6
    delete(&mut machine, "b"); // 7
    let image = machine.image();
    let states = [
        (2, "a=1"),
        (3, "a=1 b=1"),
        (4, "a=2 b=1"),
        (5, "b=1"),
        (6, "a=3 b=1"),
    ];
    for (revision, expected) in states {
        assert_eq!(
            seen(&image, &at(revision)).join(" "),
            expected,
            "revision {revision}"
        );
    }
    assert_eq!(seen(&image, &at(1)), Vec::<String>::new());
    assert_eq!(
        image.range(&at(8)),
        Err(CommandError::FutureRevision { revision: 7 })
    );

    assert_eq!(compact(&mut machine, 4), Ok(Response::Compact));
    let compacted = machine.image();
    let refused = Compacted {
        compact_revision: 4,
    };
    assert_eq!(compacted.range(&at(3)), Err(refused.into()));
    for (revision, expected) in &states[2..] {
        assert_eq!(
            seen(&compacted, &at(*revision)).join(" "),
            *expected,
            "revision {revision}"
        );
    }
    assert_eq!(
        seen(&image, &at(2)),
        ["a=1"],
        "an older image is not disturbed"
    );
    assert_eq!(compact(&mut machine, 4), Err(refused.into()));
    assert_eq!(
        compact(&mut machine, 8),
        Err(CommandError::FutureRevision { revision: 7 })
    );
    assert_eq!(
        compact(&mut machine, 7),
        Ok(Response::Compact),
        "up to now is allowed"
    );
    assert_eq!(
        machine.image().revision(),
        7,
        "compaction makes no revision"
    );
}

#[test]
fn a_watch_from_the_past_sees_each_revision_once_and_in_order() {
    let mut machine = Machine::new();
    put(&mut machine, "a", "1");
    let txn = TxnOp {
        success: vec![
            Op::Put(PutOp::new("b", "2")),
            Op::Delete(DeleteOp::new(KeyRange::key("a"))),
            Op::Put(PutOp::new("c", "3")),
        ],
        ..TxnOp::default()
    };
    apply(&mut machine, Command::Txn(txn))
        .result
        .expect("it writes each key once");
    let image = machine.image();
    let revisions = |image: &Image, from| {
        image
            .changes_since(from)
            .map(|all| all.map(|one| one.revision).collect::<Vec<_>>())
    };
    assert_eq!(revisions(&image, 0), Ok(vec![2, 3]));
    assert_eq!(revisions(&image, 3), Ok(vec![3]));
    assert_eq!(revisions(&image, 4), Ok(vec![]), "it has not happened yet");
    let changes = image.changes(3).expect("it is kept");
    let keys: Vec<_> = changes
        .rows
        .iter()
        .map(|change| &change.row.key[..])
        .collect();
    assert_eq!(keys, [b"b", b"a", b"c"], "in the order of the operations");
    assert_eq!(
        changes.rows[1].prev.as_ref().map(|row| &row.value[..]),
        Some(&b"1"[..])
    );
    assert!(changes.rows[1].row.is_tombstone());

    compact(&mut machine, 3).expect("3 is not compacted yet");
    let image = machine.image();
    assert_eq!(
        revisions(&image, 2),
        Err(Compacted {
            compact_revision: 3
        })
    );
    assert_eq!(
        revisions(&image, 3),
        Ok(vec![3]),
        "the tombstone is still told"
    );
    let first = &image.changes(3).expect("it is kept").rows[1];
    assert!(
        first.row.is_tombstone() && first.prev.is_none(),
        "what it deleted is gone"
    );
}

#[test]
fn a_transaction_is_one_revision_and_sees_its_own_writes() {
    let mut machine = Machine::new();
    put(&mut machine, "a", "1");
    let past = RangeOp {
        revision: 2,
        ..all()
    };
    let txn = TxnOp {
        compares: vec![compare(
            "a",
            CompareResult::Equal,
            CompareTarget::Value("1".into()),
        )],
        success: vec![
            Op::Put(PutOp::new("a", "2")),
            Op::Range(all()),
            Op::Range(past),
            Op::Txn(Box::new(TxnOp {
                // Compares see the state before the whole transaction.
                compares: vec![compare(
                    "a",
                    CompareResult::Equal,
                    CompareTarget::Version(1),
                )],
                success: vec![Op::Put(PutOp::new("b", "3"))],
                failure: vec![],
            })),
            Op::Range(all()),
        ],
        failure: vec![],
    };
    let outcome = apply(&mut machine, Command::Txn(txn));
    assert_eq!(outcome.revision, 3);
    let Ok(Response::Txn(TxnResult {
        succeeded: true,
        responses,
    })) = outcome.result
    else {
        panic!("the compare holds")
    };
    let found: Vec<String> = responses
        .iter()
        .filter_map(|response| match response {
            Response::Range(range) => Some(shown(&range.rows).join(" ")),
            _ => None,
        })
        .collect();
    assert_eq!(found, ["a=2", "a=1", "a=2 b=3"]);
    assert!(matches!(
        &responses[3],
        Response::Txn(TxnResult {
            succeeded: true,
            ..
        })
    ));
}

#[test]
fn a_transaction_that_reads_a_revision_it_cannot_is_refused_whole() {
    let mut machine = Machine::new();
    put(&mut machine, "a", "1");
    let ahead = TxnOp {
        success: vec![Op::Put(PutOp::new("a", "2")), Op::Range(at(3))],
        ..TxnOp::default()
    };
    let outcome = apply(&mut machine, Command::Txn(ahead.clone()));
    assert_eq!(
        outcome.result,
        Err(CommandError::FutureRevision { revision: 2 })
    );
    assert_eq!(seen(&machine.image(), &all()), ["a=1"]);
    let untaken = TxnOp {
        failure: ahead.success,
        success: vec![],
        compares: vec![],
    };
    assert!(
        apply(&mut machine, Command::Txn(untaken)).result.is_ok(),
        "it is not done"
    );
    let twice = TxnOp {
        success: vec![Op::Put(PutOp::new("b", "1")), Op::Put(PutOp::new("b", "2"))],
        ..TxnOp::default()
    };
    let outcome = apply(&mut machine, Command::Txn(twice));
    assert_eq!(
        (outcome.revision, outcome.result),
        (2, Err(CommandError::DuplicateKey))
    );
}

#[test]
fn compares_ask_every_key_and_an_absent_one_is_all_zeros() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    let mut machine = Machine::new();
    put(&mut machine, "a1", "x");
    put(&mut machine, "a2", "y");
    put(&mut machine, "a2", "y");
    let image = machine.image();
    assert!(holds(
        &image,
        compare("none", Equal, CompareTarget::Create(0))
    ));
    assert!(holds(&image, compare("none", Less, CompareTarget::Mod(1))));
    assert!(holds(
        &image,
        compare("none", Equal, CompareTarget::Lease(0))
    ));
    assert!(!holds(
        &image,
        compare("none", Equal, CompareTarget::Value(Bytes::new()))
    ));
    assert!(!holds(
        &image,
        compare("none", NotEqual, CompareTarget::Value("x".into()))
    ));
    let range = |result, target| Compare {
        range: KeyRange::prefix("a"),
        result,
        target,
    };
    assert!(holds(&image, range(Greater, CompareTarget::Version(0))));
    assert!(!holds(&image, range(Equal, CompareTarget::Version(1))));
    assert!(holds(&image, range(Less, CompareTarget::Value("z".into()))));
    assert!(!holds(
        &image,
        range(NotEqual, CompareTarget::Value("y".into()))
    ));
    assert!(holds(&image, compare("a2", Greater, CompareTarget::Mod(3))));
    let missing = Compare {
        range: KeyRange::prefix("z"),
        ..range(Equal, CompareTarget::Create(0))
    };
    assert!(holds(&image, missing));
}

#[test]
fn config_changes_only_under_the_guard_and_counts_only_real_changes() {
    let mut machine = Machine::new();
    let key = "/skein/config/default/cluster/web";
    let write = Command::Put(PutOp::new(key, "{}"));
    let mut guarded = |command: &Command, guard: Option<u64>| {
        let config_guard = guard.map(ConfigRevision);
        machine.apply(&Proposal {
            config_guard,
            ..Proposal::new(command.clone())
        })
    };
    let refused = |now| {
        Err(CommandError::ConfigGuardMismatch {
            now: ConfigRevision(now),
        })
    };
    assert_eq!(guarded(&write, None).result, refused(0));
    assert_eq!(guarded(&write, Some(1)).result, refused(0));
    assert_eq!(guarded(&write, Some(0)).config_revision, ConfigRevision(1));
    assert_eq!(guarded(&write, Some(0)).result, refused(1));

    let nothing = Command::Delete(DeleteOp::new(KeyRange::prefix("/skein/config/other/")));
    assert!(touches_config(&nothing));
    assert_eq!(
        guarded(&nothing, Some(1)).config_revision,
        ConfigRevision(1)
    );
    let everything = Command::Delete(DeleteOp::new(KeyRange::all()));
    assert_eq!(guarded(&everything, None).result, refused(1));

    let plain = Command::Put(PutOp::new("a", "1"));
    assert_eq!(guarded(&plain, None).config_revision, ConfigRevision(1));
    assert_eq!(
        guarded(&plain, Some(0)).result,
        refused(1),
        "a guard that is given must hold"
    );

    let hidden = Command::Txn(TxnOp {
        failure: vec![Op::Txn(Box::new(TxnOp {
            success: vec![Op::Put(PutOp::new(key, "{}"))],
            ..TxnOp::default()
        }))],
        ..TxnOp::default()
    });
    assert!(
        touches_config(&hidden),
        "also in a branch that is not taken"
    );
    assert_eq!(guarded(&hidden, Some(1)).config_revision, ConfigRevision(1));
    assert_eq!(
        guarded(&everything, Some(1)).config_revision,
        ConfigRevision(2)
    );
}

#[test]
fn rows_do_not_pin_the_buffer_that_a_request_came_in() {
    let frame = Bytes::from(vec![b'x'; 1 << 20]);
    let mut machine = Machine::new();
    let op = PutOp::new(frame.slice(..3), frame.slice(3..6));
    apply(&mut machine, Command::Put(op))
        .result
        .expect("a plain put");
    assert!(
        frame.is_unique(),
        "somebody still holds a slice of the request"
    );
}

#[test]
fn a_long_history_of_one_key_is_read_compacted_and_dropped_on_a_small_stack() {
    let work = || {
        let mut machine = Machine::new();
        let last = (0..30_000).map(|_| put(&mut machine, "hot", "v")).last();
        let last = last.expect("some were put");
        let image = machine.image();
        let long_ago = image.range(&at(3)).expect("nothing is compacted").rows;
        assert_eq!(long_ago[0].version, 2);
        let full = image.resident_bytes();
        compact(&mut machine, last - 1).expect("it is below the newest");
        assert!(
            machine.image().resident_bytes() * 1000 < full,
            "compaction frees"
        );
        drop(image);
    };
    let small = std::thread::Builder::new()
        .stack_size(128 * 1024)
        .spawn(work);
    small
        .expect("a thread can be started")
        .join()
        .expect("the stack sufficed");
}
