//! Messages longer than a datagram: cut into pieces, joined again.
//!
//! Owns the piece header (message number, index, count) and the bounded memory of unfinished
//! messages. Never sees a byte that was not opened: strangers cannot fill the memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::seal::{BootId, DATAGRAM_MAX, OVERHEAD};

/// The longest message; chitchat's own limit for one is 65,507 bytes and a few.
pub(crate) const MESSAGE_MAX: usize = 64 * 1024;

/// What stands before a piece's bytes.
pub(crate) const PIECE_HEADER: usize = 6;

/// The bytes in each piece but the last.
const PIECE_BYTES: usize = DATAGRAM_MAX - OVERHEAD - PIECE_HEADER;

/// The most pieces of a message; must fit the bits of `Partial::missing`.
const PIECES_MAX: usize = MESSAGE_MAX.div_ceil(PIECE_BYTES);
const _: () = assert!(PIECES_MAX < 64);

/// Unfinished messages at one time, so at most 4 MiB. At the limit the oldest is given up.
const PARTIALS_MAX: usize = 64;

/// A message whose pieces do not all arrive in this time is given up; gossip will say it again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Cuts `message`, which has the sender's number `number` and at most [`MESSAGE_MAX`] bytes.
pub(crate) fn cut(
    number: u32,
    message: &[u8],
) -> impl ExactSizeIterator<Item = ([u8; PIECE_HEADER], &[u8])> {
    debug_assert!(
        message.len() <= MESSAGE_MAX,
        "the caller refuses longer ones"
    );
    let count = message.len().div_ceil(PIECE_BYTES);
    message
        .chunks(PIECE_BYTES)
        .enumerate()
        .map(move |(index, bytes)| {
            let [a, b, c, d] = number.to_be_bytes();
            ([a, b, c, d, index as u8, count as u8], bytes)
        })
}

/// What a piece leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined<'a> {
    /// The message is whole.
    Whole(Cow<'a, [u8]>),
    /// Others are missing yet.
    Waiting,
    /// It does not fit its message: nobody of ours sent it.
    Misfit,
}

/// Unfinished messages.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    partials: HashMap<(BootId, u32), Partial>,
}

#[derive(Debug)]
struct Partial {
    bytes: Vec<u8>,
    count: usize,
    /// A bit for each piece that has not arrived.
    missing: u64,
    since: Instant,
}

impl Assembly {
    /// Adds a piece from `boot`.
    pub(crate) fn add<'a>(&mut self, boot: BootId, piece: &'a [u8], now: Instant) -> Joined<'a> {
        let Some((&[a, b, c, d, index, count], bytes)) = piece.split_first_chunk() else {
            return Joined::Misfit;
        };
        let (index, count) = (usize::from(index), usize::from(count));
        let last = index + 1 == count;
        let fits = if last {
            (1..=PIECE_BYTES).contains(&bytes.len())
        } else {
            bytes.len() == PIECE_BYTES
        };
        if index >= count || count > PIECES_MAX || !fits {
            return Joined::Misfit;
        }
        if count == 1 {
            return Joined::Whole(Cow::Borrowed(bytes));
        }
        let key = (boot, u32::from_be_bytes([a, b, c, d]));
        if !self.partials.contains_key(&key) {
            self.make_room();
        }
        let partial = self.partials.entry(key).or_insert_with(|| Partial {
            bytes: vec![0; count * PIECE_BYTES],
            count,
            missing: (1 << count) - 1,
            since: now,
        });
        if partial.count != count || partial.missing & (1 << index) == 0 {
            return Joined::Misfit;
        }
        let at = index * PIECE_BYTES;
        partial.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        partial.missing &= !(1 << index);
        if last {
            partial.bytes.truncate(at + bytes.len());
        }
        if partial.missing != 0 {
            return Joined::Waiting;
        }
        match self.partials.remove(&key) {
            Some(whole) => Joined::Whole(Cow::Owned(whole.bytes)),
            None => Joined::Waiting,
        }
    }

    /// Gives up what has waited too long; says how many messages that were.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        let before = self.partials.len();
        self.partials
            .retain(|_, partial| now.duration_since(partial.since) <= PATIENCE);
        before - self.partials.len()
    }

    fn make_room(&mut self) {
        if self.partials.len() < PARTIALS_MAX {
            return;
        }
        let oldest = self
            .partials
            .iter()
            .min_by_key(|(_, partial)| partial.since);
        if let Some(key) = oldest.map(|(key, _)| *key) {
            self.partials.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOOT: BootId = BootId([1; 16]);

    fn pieces(number: u32, message: &[u8]) -> Vec<Vec<u8>> {
        cut(number, message)
            .map(|(header, bytes)| [&header[..], bytes].concat())
            .collect()
    }

    fn message(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn the_longest_message_fits() {
        let long = message(MESSAGE_MAX);
        let pieces = pieces(1, &long);
        assert_eq!(pieces.len(), PIECES_MAX);
        assert!(
            pieces
                .iter()
                .all(|piece| piece.len() + OVERHEAD <= DATAGRAM_MAX)
        );
    }

    #[test]
    fn misfits_are_refused() {
        let mut assembly = Assembly::default();
        let now = Instant::now();
        let full = vec![0; PIECE_BYTES];
        let piece =
            |index: u8, count: u8, bytes: &[u8]| [&[0, 0, 0, 9, index, count], bytes].concat();
        for bad in [
            vec![],
            vec![0; PIECE_HEADER - 1],
            piece(0, 0, b"x"),
            piece(0, 1, b""),
            piece(1, 1, b"x"),
            piece(0, 2, b"short"),
            piece(0, 255, &full),
            piece(0, 1, &vec![0; PIECE_BYTES + 1]),
        ] {
            assert_eq!(
                assembly.add(BOOT, &bad, now),
                Joined::Misfit,
                "{:?}",
                &bad[..bad.len().min(9)]
            );
        }
        assert_eq!(
            assembly.add(BOOT, &piece(0, 3, &full), now),
            Joined::Waiting
        );
        assert_eq!(
            assembly.add(BOOT, &piece(1, 2, b"x"), now),
            Joined::Misfit,
            "another count"
        );
        assert_eq!(assembly.add(BOOT, &piece(2, 3, b"x"), now), Joined::Waiting);
        assert_eq!(
            assembly.add(BOOT, &piece(2, 3, b"xy"), now),
            Joined::Misfit,
            "twice"
        );
    }

    #[test]
    fn unfinished_messages_are_bounded_in_number_and_time() {
        let mut assembly = Assembly::default();
        let start = Instant::now();
        let long = message(PIECE_BYTES * 2);
        for number in 0..=PARTIALS_MAX as u32 {
            let now = start + Duration::from_millis(number.into());
            assert_eq!(
                assembly.add(BOOT, &pieces(number, &long)[0], now),
                Joined::Waiting
            );
        }
        assert_eq!(assembly.partials.len(), PARTIALS_MAX);
        let second = &pieces(0, &long)[1];
        assert_eq!(
            assembly.add(BOOT, second, start),
            Joined::Waiting,
            "the oldest was given up"
        );
        assert_eq!(assembly.expire(start + PATIENCE), 0);
        assert_eq!(
            assembly.expire(start + PATIENCE + Duration::from_secs(1)),
            PARTIALS_MAX
        );
    }

    proptest! {
        #[test]
        fn pieces_in_any_order_give_the_message(
            (length, order) in (1usize..=MESSAGE_MAX).prop_flat_map(|length| {
                let order: Vec<usize> = (0..length.div_ceil(PIECE_BYTES)).collect();
                (Just(length), Just(order).prop_shuffle())
            }),
        ) {
            let long = message(length);
            let pieces = pieces(7, &long);
            let mut assembly = Assembly::default();
            let (last, first) = order.split_last().unwrap();
            for index in first {
                let joined = assembly.add(BOOT, &pieces[*index], Instant::now());
                prop_assert_eq!(joined, Joined::Waiting);
            }
            let joined = assembly.add(BOOT, &pieces[*last], Instant::now());
            prop_assert_eq!(joined, Joined::Whole(long.into()));
            prop_assert!(assembly.partials.is_empty());
        }
    }
}
