//! When each config revision was first known here: by it, a node that lacks one is STALE or not.
//!
//! Owns the verdict in time. Pure: times are arguments.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use model::ConfigRevision;

/// A node may lack a revision for so long before it is STALE: a change needs a moment to travel.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(2);
/// So many revisions are remembered with their own times; older ones count as long known.
const REVISIONS_MAX: usize = 1024;

/// The newest revision that anybody is known to run, and since when each was known.
#[derive(Debug, Default)]
pub(crate) struct RevisionClock {
    /// Ascending in both; the last one is the newest.
    known: VecDeque<(ConfigRevision, Instant)>,
    /// Up to here all revisions are long known.
    forgotten: ConfigRevision,
}

impl RevisionClock {
    /// Takes note that `revision` is accepted. Older ones than the newest change nothing.
    pub(crate) fn note(&mut self, revision: ConfigRevision, now: Instant) {
        if revision <= self.newest() {
            return;
        }
        self.known.push_back((revision, now));
        if self.known.len() > REVISIONS_MAX
            && let Some((oldest, _)) = self.known.pop_front()
        {
            self.forgotten = oldest;
        }
    }

    /// The newest revision noted.
    pub(crate) fn newest(&self) -> ConfigRevision {
        self.known
            .back()
            .map_or(self.forgotten, |(revision, _)| *revision)
    }

    /// Whether a node that runs `revision` has lacked a newer one for longer than [`STALE_AFTER`].
    pub(crate) fn is_stale(&self, revision: ConfigRevision, now: Instant) -> bool {
        if revision < self.forgotten {
            return true;
        }
        let at = self.known.partition_point(|(known, _)| *known <= revision);
        let lacked = self.known.get(at);
        lacked.is_some_and(|(_, since)| now.saturating_duration_since(*since) > STALE_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(begun: Instant, ms: u64) -> Instant {
        begun + Duration::from_millis(ms)
    }

    #[test]
    fn a_node_is_stale_by_the_oldest_revision_that_it_lacks() {
        let (begun, mut clock) = (Instant::now(), RevisionClock::default());
        for n in 1..=10u64 {
            clock.note(ConfigRevision(n), after(begun, n * 1000));
        }
        assert_eq!(clock.newest(), ConfigRevision(10));
        // Revision 8 is known for 2.5 s, revision 9 for 1.5 s.
        let now = after(begun, 10_500);
        assert!(clock.is_stale(ConfigRevision(7), now));
        assert!(!clock.is_stale(ConfigRevision(8), now));
        assert!(!clock.is_stale(ConfigRevision(10), after(begun, 60_000)));
    }

    #[test]
    fn under_steady_change_a_node_that_keeps_up_is_never_stale() {
        let (begun, mut clock) = (Instant::now(), RevisionClock::default());
        for n in 1..=5000u64 {
            let now = after(begun, n * 10);
            clock.note(ConfigRevision(n), now);
            // It is always a hundred revisions, one second, behind.
            assert!(
                !clock.is_stale(ConfigRevision(n.saturating_sub(100)), now),
                "{n}"
            );
        }
        assert!(
            clock.is_stale(ConfigRevision(3), after(begun, 50_000)),
            "long forgotten"
        );
    }
}
