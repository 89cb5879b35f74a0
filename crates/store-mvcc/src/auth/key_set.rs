//! A set of keys, as ranges that do not touch.
//!
//! Owns the merging: however permissions overlap, a set is the least number of spans, so that a
//! question costs one look-up. Never knows whose they are.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::{KeyRange, RangeEnd};

/// Where a span ends; those that never do are the last in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Before(Bytes),
    Never,
}

/// Spans by their first key; between two of them is a key that is in neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeySet {
    spans: BTreeMap<Bytes, End>,
}

/// The keys of `range` from a first one on; `None` when there are none.
fn span(range: &KeyRange) -> Option<(Bytes, End)> {
    let start = range.start().clone();
    match range.end() {
        // The least key above it.
        RangeEnd::Only => {
            let end = [&start[..], &[0]].concat().into();
            Some((start, End::Before(end)))
        }
        RangeEnd::Before(end) if *end > start => Some((start, End::Before(end.clone()))),
        RangeEnd::Before(_) => None,
        RangeEnd::Unbounded => Some((start, End::Never)),
    }
}

impl KeySet {
    /// Adds all keys of `range`.
    pub(super) fn add(&mut self, range: &KeyRange) {
        let Some((mut start, mut end)) = span(range) else {
            return;
        };
        let upto = match &end {
            End::Before(key) => Bound::Included(key.clone()),
            End::Never => Bound::Unbounded,
        };
        let from = End::Before(start.clone());
        let touching: Vec<Bytes> = self
            .spans
            .range((Bound::Unbounded, upto))
            .rev()
            .take_while(|(_, end)| **end >= from)
            .map(|(start, _)| start.clone())
            .collect();
        for other in touching {
            let Some(other_end) = self.spans.remove(&other) else {
                continue;
            };
            start = start.min(other);
            end = end.max(other_end);
        }
        self.spans.insert(start, end);
    }

    /// Where the span ends that `key` is in.
    fn end_of(&self, key: &[u8]) -> Option<&End> {
        let below = (Bound::Unbounded, Bound::Included(key));
        let (_, end) = self.spans.range::<[u8], _>(below).next_back()?;
        let within = match end {
            End::Before(end) => key < &end[..],
            End::Never => true,
        };
        within.then_some(end)
    }
}

/// Whether every key of `range` is in some of the sets. An empty range is asked about as if it were
/// its first key.
pub(super) fn cover<'a>(sets: impl Iterator<Item = &'a KeySet> + Clone, range: &KeyRange) -> bool {
    let only_start = || span(&KeyRange::key(range.start().clone()));
    let Some((mut at, end)) = span(range).or_else(only_start) else {
        return false;
    };
    loop {
        let reached = sets.clone().filter_map(|set| set.end_of(&at)).max();
        match reached {
            None => return false,
            Some(reached) if *reached >= end => return true,
            // Further than before, so this ends.
            Some(End::Before(next)) => at = next.clone(),
            Some(End::Never) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(prop::sample::select(vec![0_u8, b'a', b'b', 0xff]), 1..4)
            .prop_map(Bytes::from)
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        let end = prop_oneof![
            Just(Bytes::new()),
            Just(Bytes::from_static(b"\0")),
            key(),
            key()
        ];
        (key(), end).prop_map(|(key, end)| KeyRange::from_etcd(key, end))
    }

    /// All keys that anything above can tell apart, and more.
    fn keys() -> Vec<Vec<u8>> {
        let letters = [0, b'a', b'b', 0xff];
        let mut keys = vec![Vec::new()];
        let mut begin = 0;
        for _ in 0..4 {
            let end = keys.len();
            for shorter in begin..end {
                for letter in letters {
                    keys.push([&keys[shorter][..], &[letter]].concat());
                }
            }
            begin = end;
        }
        keys
    }

    proptest! {
        #[test]
        fn a_set_holds_what_some_range_holds(ranges in prop::collection::vec(range(), 0..8)) {
            let mut set = KeySet::default();
            ranges.iter().for_each(|range| set.add(range));
            for key in keys() {
                let naive = ranges.iter().any(|range| range.contains(&key));
                prop_assert_eq!(set.end_of(&key).is_some(), naive, "{:?}", key);
            }
            let spans: Vec<_> = set.spans.iter().collect();
            for pair in spans.windows(2) {
                prop_assert!(*pair[0].1 < End::Before(pair[1].0.clone()), "{:?}", spans);
            }
        }

        #[test]
        fn a_range_is_covered_if_every_key_in_it_is(
            first in prop::collection::vec(range(), 0..6),
            second in prop::collection::vec(range(), 0..6),
            asked in range(),
        ) {
            let sets = [&first, &second].map(|ranges| {
                let mut set = KeySet::default();
                ranges.iter().for_each(|range| set.add(range));
                set
            });
            // The least key that is missing, if one is, is the first that is asked for, or the end
            // of some range.
            let ends = first.iter().chain(&second).filter_map(span);
            let ends = ends.filter_map(|(_, end)| match end {
                End::Before(key) => Some(key),
                End::Never => None,
            });
            let mut suspects: Vec<Bytes> = ends.filter(|key| asked.contains(key)).collect();
            suspects.push(asked.start().clone());
            suspects.extend(keys().into_iter().filter(|key| asked.contains(key)).map(Bytes::from));
            let naive = suspects.iter().all(|key| {
                first.iter().chain(&second).any(|range| range.contains(key))
            });
            prop_assert_eq!(cover(sets.iter(), &asked), naive);
        }
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let range = |key: &'static str, end: &'static str| {
            KeyRange::from_etcd(key.as_bytes().into(), end.as_bytes().into())
        };
        let mut set = KeySet::default();
        for (key, end) in [("a", "c"), ("e", "g"), ("c", "e"), ("g", ""), ("g\0", "h")] {
            set.add(&range(key, end));
        }
        assert_eq!(set.spans.len(), 1, "{set:?}");
        assert!(cover([&set].into_iter(), &range("a", "h")));
        assert!(!cover([&set].into_iter(), &range("a", "h\0")));
        assert!(!cover([&set].into_iter(), &range("a", "\0")));
        set.add(&range("b", "\0"));
        assert!(cover([&set].into_iter(), &range("a", "\0")));
        assert!(!cover([&set].into_iter(), &range("\0", "\0")));
    }
}
