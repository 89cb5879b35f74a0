//! Which datagrams of which sender were seen already.
//!
//! Owns one sliding window per sender's boot. Is asked only about datagrams that were opened, so
//! that strangers cannot fill it. What it cannot know: datagrams that were recorded before this
//! process began, or for another receiver. Whoever replays those cannot change what a node says,
//! which gossip's own versions order, but can make a dead node look alive for as long as they go on.
//!
//! Source: the sliding window of RFC 4303, 3.4.3, as a ring of bits (RFC 6479).

use std::collections::HashMap;
use std::time::Instant;

use crate::seal::{BootId, Nonce};

/// So many datagrams of a sender may overtake each other; older ones count as replayed.
const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// The most boots that are remembered. At the limit the one that is silent the longest is
/// forgotten.
const SENDERS_MAX: usize = 4096;

/// The boots that were heard of.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    windows: HashMap<BootId, (Window, Instant)>,
}

impl Senders {
    /// Whether the datagram with `nonce` is new; if so, it is remembered.
    pub(crate) fn admit(&mut self, nonce: Nonce, now: Instant) -> bool {
        if self.windows.len() >= SENDERS_MAX && !self.windows.contains_key(&nonce.boot) {
            let silent = self.windows.iter().min_by_key(|(_, (_, heard))| *heard);
            if let Some(boot) = silent.map(|(boot, _)| *boot) {
                self.windows.remove(&boot);
            }
        }
        let (window, heard) = self
            .windows
            .entry(nonce.boot)
            .or_insert_with(|| (Window::default(), now));
        *heard = now;
        window.admit(nonce.counter)
    }
}

/// The last [`WINDOW`] counters of one sender.
#[derive(Debug, Default)]
struct Window {
    /// The highest counter seen; 0, which no datagram has, before the first.
    highest: u64,
    /// The bit `counter % WINDOW` says whether that counter was seen.
    seen: [u64; WORDS],
}

impl Window {
    fn admit(&mut self, counter: u64) -> bool {
        if counter == 0 || self.highest.saturating_sub(counter) >= WINDOW {
            return false;
        }
        if counter > self.highest {
            if counter - self.highest >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for skipped in self.highest + 1..=counter {
                    let (word, bit) = place(skipped);
                    self.seen[word] &= !bit;
                }
            }
            self.highest = counter;
        }
        let (word, bit) = place(counter);
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        new
    }
}

fn place(counter: u64) -> (usize, u64) {
    let at = counter % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_counter_is_admitted_once() {
        let mut window = Window::default();
        assert!(window.admit(5));
        assert!(!window.admit(5));
        assert!(window.admit(3), "overtaken, not replayed");
        assert!(!window.admit(3));
        assert!(window.admit(5 + WINDOW));
        assert!(!window.admit(5), "too old to tell");
        assert!(window.admit(6), "the oldest that is remembered");
        assert!(!window.admit(0), "no sender counts from 0");
        assert!(window.admit(u64::MAX));
        assert!(!window.admit(u64::MAX));
    }

    #[test]
    fn senders_are_told_apart_and_bounded() {
        let mut senders = Senders::default();
        let start = Instant::now();
        let nonce = |n: u16| {
            let mut boot = [0; 16];
            boot[..2].copy_from_slice(&n.to_be_bytes());
            Nonce {
                boot: BootId(boot),
                counter: 1,
            }
        };
        for n in 0..=SENDERS_MAX as u16 {
            let now = start + std::time::Duration::from_millis(n.into());
            assert!(senders.admit(nonce(n), now), "{n}");
            assert!(!senders.admit(nonce(n), now), "{n} again");
        }
        assert_eq!(senders.windows.len(), SENDERS_MAX);
        assert!(
            !senders.windows.contains_key(&nonce(0).boot),
            "silent the longest"
        );
    }

    proptest! {
        #[test]
        fn no_counter_is_ever_admitted_twice(
            counters in prop::collection::vec(
                prop_oneof![1u64..50, 1u64..3000, (u64::MAX - 2000)..], 0..300,
            ),
        ) {
            let mut window = Window::default();
            let mut admitted = HashSet::new();
            let mut highest = 0u64;
            for counter in counters {
                if window.admit(counter) {
                    prop_assert!(admitted.insert(counter), "{} twice", counter);
                } else {
                    prop_assert!(
                        admitted.contains(&counter) || highest.saturating_sub(counter) >= WINDOW,
                        "{} refused though new", counter
                    );
                }
                highest = highest.max(counter);
            }
        }
    }
}
