//! What is due, over a simulated life of a store.

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

/// A store whose revisions have one size; history is what lies between the two revisions.
#[derive(Debug, Clone, Copy)]
struct Sim {
    revision: i64,
    compact_revision: i64,
    bytes_each: u64,
    live_bytes: u64,
}

impl Sim {
    fn view(&self) -> View {
        let start = self.compact_revision.max(1);
        View {
            revision: self.revision,
            compact_revision: self.compact_revision,
            history_bytes: (self.revision - start) as u64 * self.bytes_each,
            live_bytes: self.live_bytes,
        }
    }

    /// Does all that is due; every step is small and goes forward.
    fn settle(&mut self, clock: &HistoryClock, now: Duration) {
        while let Some(to) = clock.due(now, self.view()) {
            let start = self.compact_revision.max(1);
            assert!(start < to && to <= self.revision && to - start <= STEP);
            self.compact_revision = to;
        }
    }
}

fn limits(keep: u64, min_revisions: u64, max_bytes: u64) -> HistoryLimits {
    HistoryLimits {
        keep: Duration::from_secs(keep),
        min_revisions,
        max_bytes,
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn an_hour_is_kept_and_what_is_older_goes() {
    let mut clock = HistoryClock::new(limits(3_600, 10, u64::MAX), u64::MAX);
    let mut sim = Sim {
        revision: 1,
        compact_revision: -1,
        bytes_each: 100,
        live_bytes: 0,
    };
    // A revision each second.
    for now in 0..10_000 {
        sim.revision += 1;
        clock.note(seconds(now), sim.revision);
        sim.settle(&clock, seconds(now));
        assert!(sim.revision - sim.compact_revision.max(1) >= 3_600.min(sim.revision - 1));
    }
    let kept = sim.revision - sim.compact_revision;
    assert!(kept <= 3_600 + 2 * 3_600 / i64::from(SAMPLES), "{kept}");
}

#[test]
fn the_least_number_is_kept_however_old() {
    let mut clock = HistoryClock::new(limits(1, 50, u64::MAX), u64::MAX);
    let mut sim = Sim {
        revision: 200,
        compact_revision: -1,
        bytes_each: 100,
        live_bytes: 0,
    };
    clock.note(seconds(0), sim.revision);
    sim.settle(&clock, seconds(0));
    assert_eq!(sim.compact_revision, -1, "it is not old yet");
    clock.note(seconds(1_000), sim.revision);
    sim.settle(&clock, seconds(1_000));
    assert_eq!(sim.compact_revision, 150);
}

#[test]
fn bytes_win_over_age_and_number_and_take_no_more_than_needed() {
    let clock = HistoryClock::new(limits(3_600, 10_000, 256 * MIB), u64::MAX);
    let mut sim = Sim {
        revision: 300,
        compact_revision: -1,
        bytes_each: MIB,
        live_bytes: 0,
    };
    sim.settle(&clock, seconds(0));
    let kept = sim.revision - sim.compact_revision;
    assert!((238..=241).contains(&kept), "{kept}");
}

#[test]
fn history_makes_way_for_current_rows() {
    let quota = 160 * MIB;
    let clock = HistoryClock::new(limits(3_600, 10_000, 256 * MIB), quota);
    let mut sim = Sim {
        revision: 101,
        compact_revision: -1,
        bytes_each: MIB,
        live_bytes: 40 * MIB,
    };
    sim.settle(&clock, seconds(0));
    assert_eq!(sim.compact_revision, -1, "there is room for both");
    sim.live_bytes = 100 * MIB;
    sim.settle(&clock, seconds(0));
    let history = sim.view().history_bytes;
    assert!((40 * MIB..=50 * MIB).contains(&history), "{history}");
    sim.live_bytes = 2 * quota;
    sim.settle(&clock, seconds(0));
    assert_eq!(
        sim.compact_revision, sim.revision,
        "the newest stays readable"
    );
}

proptest! {
    /// Whatever happens when: what is younger than the time to keep stays, unless bytes forbid it;
    /// the bounds of bytes hold; the clock remembers little.
    #[test]
    fn the_bounds_hold(
        keep in 0_u64..5_000,
        min_revisions in 0_u64..500,
        max_bytes in 0_u64..2_000_000,
        bytes_each in 1_u64..5_000,
        steps in prop::collection::vec((0_u64..400, 0_i64..300), 1..200),
    ) {
        let mut clock = HistoryClock::new(limits(keep, min_revisions, max_bytes), u64::MAX);
        let mut sim = Sim { revision: 1, compact_revision: -1, bytes_each, live_bytes: 0 };
        let mut now = 0;
        // When each revision was the newest for the last time.
        let mut newest_at: Vec<(u64, i64)> = Vec::new();
        for (pause, writes) in steps {
            now += pause;
            sim.revision += writes;
            newest_at.push((now, sim.revision));
            clock.note(seconds(now), sim.revision);
            let over = sim.view().history_bytes > max_bytes;
            let before = sim.compact_revision;
            sim.settle(&clock, seconds(now));
            prop_assert!(clock.samples.len() <= SAMPLES as usize + 2);
            prop_assert!(sim.view().history_bytes <= max_bytes.max(bytes_each));
            if !over && sim.compact_revision > before {
                // What could be read then can be read still.
                let old_enough = newest_at
                    .iter()
                    .any(|(at, revision)| now - at >= keep && *revision >= sim.compact_revision);
                prop_assert!(old_enough, "{} went too early", sim.compact_revision);
                let left = u64::try_from(sim.revision - sim.compact_revision).unwrap();
                prop_assert!(left >= min_revisions);
            }
        }
    }
}
