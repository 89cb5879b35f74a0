//! Leases among the applied rows on disk.
//!
//! Owns the pages. Thousands of keep-alives a second must not be thousands of rows, so what changed
//! between two writes is one page, and later pages override earlier ones. When all pages together
//! have grown to several times what they tell, everything is told anew and they are dropped. Pages
//! go out in the same batch as the rows and the position, so they always hold the leases of that
//! very position.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use store_api::skeinpb as pb;
use store_mvcc::{Image, Lease};

use crate::convert::leases::{PAGE_LEASES, leases_from_pb, leases_to_pb};

/// The first byte of a page's key. Rows are keyed by revisions, which are positive, so that theirs
/// is below 0x80.
const PAGE_PREFIX: u8 = 0xff;

/// Pages are told anew once they hold so many times the leases that there are, and some more.
const GROWTH: usize = 3;
const GROWTH_FREE: usize = PAGE_LEASES;

/// The pages that are in the rows, once what is queued is written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct LeasePages {
    first: u64,
    /// One after the last.
    next: u64,
    /// How many leases they tell of, the same ones several times.
    entries: usize,
}

/// What of the leases has to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PageChanges {
    pub(crate) puts: Vec<(Bytes, Bytes)>,
    pub(crate) deletes: Vec<Bytes>,
}

impl LeasePages {
    /// Whether a row with this key is a page.
    pub(crate) fn is_page(key: &[u8]) -> bool {
        key.first() == Some(&PAGE_PREFIX)
    }

    /// The way from one image's leases to a later one's.
    pub(crate) fn follow(&mut self, from: &Image, to: &Image) -> PageChanges {
        let delta = to.leases_since(from);
        let entries = delta.renewed.len() + delta.ended.len();
        if entries == 0 {
            return PageChanges::default();
        }
        if self.entries + entries > GROWTH * to.lease_count() + GROWTH_FREE {
            return self.tell_anew(to);
        }
        PageChanges {
            puts: vec![self.page(&delta.renewed, &delta.ended)],
            deletes: Vec::new(),
        }
    }

    /// All of an image's leases, in place of all pages there are.
    pub(crate) fn tell_anew(&mut self, image: &Image) -> PageChanges {
        let deletes = (self.first..self.next).map(key).collect();
        (self.first, self.entries) = (self.next, 0);
        let leases: Vec<Lease> = image.leases().copied().collect();
        let pages = leases.chunks(PAGE_LEASES);
        PageChanges {
            puts: pages.map(|some| self.page(some, &[])).collect(),
            deletes,
        }
    }

    fn page(&mut self, leases: &[Lease], ended: &[i64]) -> (Bytes, Bytes) {
        let key = key(self.next);
        self.next += 1;
        self.entries += leases.len() + ended.len();
        (key, leases_to_pb(leases, ended).encode_to_vec().into())
    }
}

fn key(number: u64) -> Bytes {
    [&[PAGE_PREFIX][..], &number.to_be_bytes()].concat().into()
}

/// Pages as they are read back, in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct PageReader {
    pages: LeasePages,
    leases: BTreeMap<i64, Lease>,
}

impl PageReader {
    /// Takes the next page. The error says what is wrong with it.
    pub(crate) fn push(&mut self, key: &[u8], value: Bytes) -> Result<(), String> {
        let number = key.get(1..).and_then(|number| number.try_into().ok());
        let number = number.map(u64::from_be_bytes);
        let is_first = self.pages == LeasePages::default();
        let number = number.filter(|number| is_first || *number == self.pages.next);
        let number = number.ok_or("a page of leases is missing")?;
        let page = pb::LeasePage::decode(value).map_err(|error| error.to_string())?;
        let leases = leases_from_pb(&page).map_err(|error| error.to_string())?;
        if is_first {
            self.pages.first = number;
        }
        self.pages.next = number + 1;
        self.pages.entries += leases.len() + page.ended.len();
        for id in &page.ended {
            self.leases.remove(id);
        }
        let leases = leases.into_iter().map(|lease| (lease.id, lease));
        self.leases.extend(leases);
        Ok(())
    }

    /// The leases, and the pages that they were told in.
    pub(crate) fn finish(self) -> (impl Iterator<Item = Lease>, LeasePages) {
        (self.leases.into_values(), self.pages)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use store_mvcc::{Command, GrantOp, KeepAliveOp, Machine, Proposal, TickOp};

    use super::*;

    /// What is on the disk.
    type Disk = BTreeMap<Bytes, Bytes>;

    fn write(disk: &mut Disk, changes: PageChanges) {
        for key in changes.deletes {
            disk.remove(&key).expect("it deletes what is there");
        }
        for (key, value) in changes.puts {
            assert!(
                disk.insert(key, value).is_none(),
                "no page is written twice"
            );
        }
    }

    fn read(disk: &Disk) -> Result<(Vec<Lease>, LeasePages), String> {
        let mut reader = PageReader::default();
        for (key, value) in disk {
            assert!(LeasePages::is_page(key));
            reader.push(key, value.clone())?;
        }
        let (leases, pages) = reader.finish();
        let mut leases: Vec<Lease> = leases.collect();
        leases.sort();
        Ok((leases, pages))
    }

    fn apply(machine: &mut Machine, command: Command) {
        machine.apply(&Proposal::new(command)).result.unwrap();
    }

    fn grant(machine: &mut Machine, id: i64) {
        let (ttl, age_ms) = (3_600, 0);
        apply(machine, Command::Grant(GrantOp { id, ttl, age_ms }));
    }

    fn tick(machine: &mut Machine) {
        let from_ms = machine.image().meta().lease_clock_ms;
        let (advance_ms, term) = (1_000, 1);
        let op = TickOp {
            from_ms,
            advance_ms,
            term,
        };
        apply(machine, Command::Tick(op));
    }

    #[test]
    fn pages_hold_the_leases_of_every_step_and_stay_few() {
        let mut machine = Machine::new();
        for id in 1..=1_000 {
            grant(&mut machine, id);
        }
        let (mut disk, mut pages) = (Disk::new(), LeasePages::default());
        let mut written = machine.image();
        write(&mut disk, pages.tell_anew(&written));
        for step in 0..200_i64 {
            tick(&mut machine);
            let ids = (0..100).map(|n| (step * 37 + n * 7) % 1_000 + 1).collect();
            apply(
                &mut machine,
                Command::KeepAlive(KeepAliveOp { ids, age_ms: 0 }),
            );
            if let Some(lease) = machine.image().leases().nth(5).map(|lease| lease.id) {
                apply(&mut machine, Command::Revoke { lease });
                if step % 3 == 0 {
                    grant(&mut machine, lease);
                }
            }
            let image = machine.image();
            write(&mut disk, pages.follow(&written, &image));
            let (leases, found) = read(&disk).unwrap();
            assert!(leases.iter().eq(image.leases()), "step {step}");
            assert_eq!(found, pages, "a restart goes on with the same pages");
            let told: usize = disk.values().map(Bytes::len).sum();
            assert!(told < 40 * (3 * 1_000 + 4_096), "{told} bytes");
            written = image;
        }
        assert!(pages.first > 0, "they were told anew");
    }

    #[test]
    fn nothing_is_written_when_no_lease_changed() {
        let mut machine = Machine::new();
        grant(&mut machine, 1);
        let before = machine.image();
        tick(&mut machine);
        let mut pages = LeasePages::default();
        let changes = pages.follow(&before, &machine.image());
        assert_eq!(changes, PageChanges::default());
    }

    #[test]
    fn a_page_that_is_lost_or_damaged_shows() {
        let mut machine = Machine::new();
        let (mut disk, mut pages) = (Disk::new(), LeasePages::default());
        for id in 1..=3 {
            let before = machine.image();
            grant(&mut machine, id);
            write(&mut disk, pages.follow(&before, &machine.image()));
        }
        assert_eq!(disk.len(), 3);
        let mut holed = disk.clone();
        holed.remove(&key(1));
        assert!(read(&holed).is_err());
        let mut damaged = disk.clone();
        damaged.insert(key(2), Bytes::from_static(&[9, 1]));
        assert!(read(&damaged).is_err());
        disk.insert(Bytes::from_static(&[PAGE_PREFIX, 1]), Bytes::new());
        assert!(read(&disk).is_err());
    }
}
