//! A range of keys, as etcd's `key` and `range_end` spell it.
//!
//! Owns the spelling and the geometry (contains, intersects). Never looks at a store.

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;

/// The keys from a start on, up to an end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    start: Bytes,
    end: RangeEnd,
}

/// Where a [`KeyRange`] ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RangeEnd {
    /// It holds its start and nothing else.
    Only,
    /// Before this key. At or below the start, the range is empty.
    Before(Bytes),
    /// Never.
    Unbounded,
}

impl KeyRange {
    /// The range that etcd's pair means: an empty `range_end` is one key, `"\0"` is all keys from
    /// `key` on.
    pub fn from_etcd(key: Bytes, range_end: Bytes) -> Self {
        let end = match &range_end[..] {
            [] => RangeEnd::Only,
            [0] => RangeEnd::Unbounded,
            _ => RangeEnd::Before(range_end),
        };
        Self { start: key, end }
    }

    /// The pair `(key, range_end)` that [`KeyRange::from_etcd`] reads.
    pub fn to_etcd(&self) -> (Bytes, Bytes) {
        let range_end = match &self.end {
            RangeEnd::Only => Bytes::new(),
            RangeEnd::Before(end) => end.clone(),
            RangeEnd::Unbounded => Bytes::from_static(b"\0"),
        };
        (self.start.clone(), range_end)
    }

    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self {
            start: key.into(),
            end: RangeEnd::Only,
        }
    }

    /// All keys that begin with `prefix`; an empty prefix is all keys.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        if prefix.is_empty() {
            return Self::all();
        }
        // The end is the least key above all of the prefix's: its last byte below 0xff plus one.
        let end = match prefix.iter().rposition(|&byte| byte < 0xff) {
            Some(last) => {
                let mut end = prefix[..=last].to_vec();
                end[last] += 1;
                RangeEnd::Before(end.into())
            }
            None => RangeEnd::Unbounded,
        };
        Self { start: prefix, end }
    }

    /// All keys. It starts at `"\0"`, the least key, as an empty start is no key.
    pub fn all() -> Self {
        Self {
            start: Bytes::from_static(b"\0"),
            end: RangeEnd::Unbounded,
        }
    }

    /// The first key that can be in the range.
    pub fn start(&self) -> &Bytes {
        &self.start
    }

    /// Where it ends.
    pub fn end(&self) -> &RangeEnd {
        &self.end
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Only => key == self.start,
            RangeEnd::Before(end) => &self.start[..] <= key && key < &end[..],
            RangeEnd::Unbounded => &self.start[..] <= key,
        }
    }

    /// Whether some key could be in both ranges.
    pub fn intersects(&self, other: &Self) -> bool {
        // Ranges have no gaps, so they meet if and only if the later start is in both.
        let later = (&self.start).max(&other.start);
        self.contains(later) && other.contains(later)
    }

    /// Whether some key that begins with `prefix` could be in the range.
    pub fn intersects_prefix(&self, prefix: &[u8]) -> bool {
        let later = prefix.max(&self.start);
        later.starts_with(prefix) && self.contains(later)
    }

    /// The range as bounds that a tree takes; `None` when it is empty.
    pub(crate) fn bounds(&self) -> Option<impl RangeBounds<[u8]>> {
        let start = &self.start[..];
        match &self.end {
            RangeEnd::Only => Some((Bound::Included(start), Bound::Included(start))),
            RangeEnd::Before(end) if start < &end[..] => {
                Some((Bound::Included(start), Bound::Excluded(&end[..])))
            }
            RangeEnd::Before(_) => None,
            RangeEnd::Unbounded => Some((Bound::Included(start), Bound::Unbounded)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static str, end: &'static str) -> KeyRange {
        KeyRange::from_etcd(
            Bytes::from_static(key.as_bytes()),
            Bytes::from_static(end.as_bytes()),
        )
    }

    #[test]
    fn the_etcd_pair_survives_a_round_trip() {
        for (key, end) in [("a", ""), ("a", "b"), ("a", "\0"), ("\0", "\0"), ("b", "a")] {
            let (key_again, end_again) = range(key, end).to_etcd();
            assert_eq!(
                (&key_again[..], &end_again[..]),
                (key.as_bytes(), end.as_bytes())
            );
        }
    }

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(KeyRange::prefix("a/"), range("a/", "a0"));
        assert_eq!(KeyRange::prefix("").to_etcd(), range("\0", "\0").to_etcd());
        let high = KeyRange::prefix(&b"a\xff\xff"[..]);
        assert!(high.contains(b"a\xff\xff\xff") && !high.contains(b"b"));
        assert_eq!(KeyRange::prefix(&b"\xff"[..]).end(), &RangeEnd::Unbounded);
    }

    #[test]
    fn containment_at_the_edges() {
        assert!(range("a", "").contains(b"a") && !range("a", "").contains(b"a\0"));
        assert!(range("a", "c").contains(b"b\xff") && !range("a", "c").contains(b"c"));
        assert!(range("a", "\0").contains(b"z") && !range("b", "\0").contains(b"a"));
        assert!(
            !range("c", "a").contains(b"b"),
            "an inverted range is empty"
        );
    }

    #[test]
    fn ranges_meet_exactly_when_a_key_is_in_both() {
        let ranges = [
            range("a", ""),
            range("b", ""),
            range("a", "b"),
            range("a", "c"),
            range("b", "\0"),
            range("c", "a"),
            range("b", "b"),
        ];
        let keys: [&[u8]; 6] = [b"a", b"a\0", b"aa", b"b", b"bb", b"c"];
        for left in &ranges {
            for right in &ranges {
                let shared = keys
                    .iter()
                    .any(|key| left.contains(key) && right.contains(key));
                assert_eq!(left.intersects(right), shared, "{left:?} {right:?}");
            }
        }
    }

    #[test]
    fn a_prefix_is_met_from_below_from_within_and_from_above() {
        let prefix = b"/skein/config/";
        for (key, end, meets) in [
            ("/skein/config/a", "", true),
            ("/skein/config/", "", true),
            ("/skein/config", "", false),
            ("/", "\0", true),
            ("/skein/config0", "\0", false),
            ("/skein/", "/skein/config/", false),
            ("/skein/", "/skein/config/a", true),
            ("/skein/config/b", "/skein/config/a", false),
        ] {
            assert_eq!(
                range(key, end).intersects_prefix(prefix),
                meets,
                "{key} {end}"
            );
        }
    }
}
