//! The hub: follows the store's images and hands each change to those who want it.
//!
//! Owns who watches what, and the published revision: every event up to it was handed out. Never
//! waits for a watcher, and keeps no history: what a watcher missed is in the image.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lifecycle::Shutdown;
use store_mvcc::{ChangedRow, Image, RangeEnd};
use store_raft::{RaftStatus, Role};
use tokio::sync::watch;

use crate::require_leader;

use super::batch::{Encoder, Wants};
use super::mailbox::{Mailbox, Posted, Serial};

/// The meeting point of the store's changes and all watchers of this node.
#[derive(Debug)]
pub struct WatchHub {
    images: watch::Receiver<Image>,
    registry: Mutex<Registry>,
    /// Every event up to this revision is in the mailboxes of those who are registered.
    published: watch::Sender<i64>,
    /// How many watchers there ever were.
    serials: AtomicU64,
    /// Every watcher holds a clone.
    living: Arc<()>,
    status: watch::Receiver<RaftStatus>,
    shutdown: Shutdown,
    /// Whether nothing is handed out any more.
    ended: watch::Sender<bool>,
    /// Counts how often all had to begin anew.
    eras: watch::Sender<u64>,
    /// Whether there has been no leader for too long.
    leaderless: watch::Sender<bool>,
    /// Moves with users, roles and whether they count.
    rights: watch::Sender<AuthMark>,
}

/// While it is the same, everybody has the same rights.
pub(crate) type AuthMark = (bool, u64);

fn mark(image: &Image) -> AuthMark {
    (image.auth().is_enabled(), image.auth().revision())
}

/// Watchers by what they want. One key is looked up; ranges are asked one by one.
#[derive(Debug, Default)]
struct Registry {
    by_key: HashMap<Bytes, Vec<Group>>,
    ranges: Vec<Group>,
}

/// Watchers who want the same.
#[derive(Debug)]
struct Group {
    wants: Wants,
    members: HashMap<Serial, Member>,
    /// Changes of the dispatch under way, with their revisions.
    matched: Vec<(i64, ChangedRow)>,
}

/// One watcher, as the hub sees it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) mailbox: Arc<Mailbox>,
    /// The first revision it has not seen.
    pub(crate) next: i64,
}

/// The watcher is behind what the hub has handed out; it must read history first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Behind;

impl WatchHub {
    /// A hub for the images of one store. Nothing is handed out until [`WatchHub::follow`] runs.
    pub fn new(
        images: watch::Receiver<Image>,
        status: watch::Receiver<RaftStatus>,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let published = watch::Sender::new(images.borrow().revision());
        let rights = watch::Sender::new(mark(&images.borrow()));
        let (registry, serials) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Self {
            images,
            registry,
            published,
            serials,
            living: Arc::default(),
            status,
            shutdown,
            ended: watch::Sender::new(false),
            eras: watch::Sender::new(0),
            leaderless: watch::Sender::new(false),
            rights,
        })
    }

    /// Hands out changes until the store or this node stops, and then has all streams end: their
    /// clients find what is to come at other nodes. Run it as a task of its own.
    pub async fn follow(self: Arc<Self>) {
        let _end = EndStreams(&self.ended);
        tokio::select! {
            () = self.follow_images() => {}
            () = require_leader::follow(
                self.status.clone(),
                require_leader::patience(),
                &self.leaderless,
            ) => {}
        }
    }

    async fn follow_images(&self) {
        let mut images = self.images.clone();
        let mut status = self.status.clone();
        let mut shutdown = self.shutdown.clone();
        loop {
            let image = images.borrow_and_update().clone();
            self.dispatch(&image);
            self.tell_rights(mark(&image));
            tokio::select! {
                changed = images.changed() => if changed.is_err() { return },
                _ = status.wait_for(|status| status.role == Role::Stopped) => return,
                () = shutdown.requested() => return,
            }
        }
    }

    fn tell_rights(&self, mark: AuthMark) {
        self.rights.send_if_modified(|told| {
            let news = *told != mark;
            *told = mark;
            news
        });
    }

    /// Tells when rights may have changed.
    pub(crate) fn rights(&self) -> watch::Receiver<AuthMark> {
        self.rights.subscribe()
    }

    /// The mark of the newest image.
    pub(crate) fn auth_mark(&self) -> AuthMark {
        mark(&self.images.borrow())
    }

    /// The newest image.
    pub(crate) fn image(&self) -> Image {
        self.images.borrow().clone()
    }

    /// Follows the published revision.
    pub(crate) fn published(&self) -> watch::Receiver<i64> {
        self.published.subscribe()
    }

    /// Turns true when there is nothing to wait for any more.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// Moves when the streams of before have to end, though others may begin.
    pub(crate) fn eras(&self) -> watch::Receiver<u64> {
        self.eras.subscribe()
    }

    /// Has all streams end, and hands out what comes after the newest image to those that begin from
    /// now on: the images do not go on from those of before.
    pub(crate) fn begin_anew(&self) {
        let mut registry = self.lock();
        *registry = Registry::default();
        self.published.send_replace(self.images.borrow().revision());
        self.eras.send_modify(|era| *era += 1);
    }

    /// How many watchers there are, whether they are registered or still catch up.
    pub(crate) fn open_watchers(&self) -> usize {
        Arc::strong_count(&self.living) - 1
    }

    /// What a watcher holds while it is one.
    pub(crate) fn place(&self) -> Arc<()> {
        Arc::clone(&self.living)
    }

    /// Turns true when streams that want a leader have to end.
    pub(crate) fn leaderless(&self) -> watch::Receiver<bool> {
        self.leaderless.subscribe()
    }

    /// A name for a new watcher, used once.
    pub(crate) fn next_serial(&self) -> Serial {
        Serial(self.serials.fetch_add(1, Ordering::Relaxed))
    }

    /// Registers a watcher that has seen everything before `member.next`; from then on it finds
    /// every later event in its mailbox.
    pub(crate) fn join(&self, wants: &Wants, serial: Serial, member: Member) -> Result<(), Behind> {
        let mut registry = self.lock();
        // Under the lock, so that no dispatch comes between this question and the registration.
        if member.next <= *self.published.borrow() {
            return Err(Behind);
        }
        let groups = registry.groups_mut(wants);
        match groups.iter_mut().find(|group| group.wants == *wants) {
            Some(group) => {
                group.members.insert(serial, member);
            }
            None => groups.push(Group {
                wants: wants.clone(),
                members: HashMap::from([(serial, member)]),
                matched: Vec::new(),
            }),
        }
        Ok(())
    }

    /// Lets go of a watcher, if it is registered.
    pub(crate) fn leave(&self, wants: &Wants, serial: Serial) {
        let mut registry = self.lock();
        // A key that nobody is registered for must not take up room now.
        let groups = match single_key(wants) {
            Some(key) => registry.by_key.get_mut(key),
            None => Some(&mut registry.ranges),
        };
        let mut groups = groups.into_iter().flatten();
        let Some(group) = groups.find(|group| group.wants == *wants) else {
            return;
        };
        group.members.remove(&serial);
        if group.members.is_empty() {
            registry.forget_empty(single_key(wants));
        }
    }

    /// Hands out everything after the published revision, up to the image's.
    fn dispatch(&self, image: &Image) {
        let mut registry = self.lock();
        let first = *self.published.borrow() + 1;
        let last = image.revision();
        if last < first {
            return;
        }
        match image.changes_since(first) {
            Ok(changes) => {
                let mut touched = Vec::new();
                for change in changes {
                    for changed in &change.rows {
                        registry.collect(change.revision, changed, &mut touched);
                    }
                }
                registry.hand_out(first, last, &touched);
            }
            // The history between is gone: whoever watches finds that out by itself.
            Err(_compacted) => registry.send_all_behind(first),
        }
        self.published.send_replace(last);
    }

    /// How many watchers are registered.
    #[cfg(test)]
    pub(crate) fn watchers(&self) -> usize {
        let registry = self.lock();
        let groups = registry.by_key.values().flatten().chain(&registry.ranges);
        groups.map(|group| group.members.len()).sum()
    }

    /// How many keys take up room.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> usize {
        self.lock().by_key.len()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the streams end when it is dropped: also by a panic, or with its task.
struct EndStreams<'a>(&'a watch::Sender<bool>);

impl Drop for EndStreams<'_> {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// The key, if the watcher wants one key only.
fn single_key(wants: &Wants) -> Option<&Bytes> {
    matches!(wants.range.end(), RangeEnd::Only).then(|| wants.range.start())
}

impl Registry {
    fn groups_mut(&mut self, wants: &Wants) -> &mut Vec<Group> {
        match single_key(wants) {
            Some(key) => self.by_key.entry(key.clone()).or_default(),
            None => &mut self.ranges,
        }
    }

    /// Notes a change for every group that wants it; `touched` gets the keys whose own groups do.
    fn collect(&mut self, revision: i64, changed: &ChangedRow, touched: &mut Vec<Bytes>) {
        for group in &mut self.ranges {
            group.collect(revision, changed);
        }
        if let Some(groups) = self.by_key.get_mut(&changed.row.key) {
            touched.push(changed.row.key.clone());
            for group in groups {
                group.collect(revision, changed);
            }
        }
    }

    fn hand_out(&mut self, first: i64, last: i64, touched: &[Bytes]) {
        for group in &mut self.ranges {
            group.hand_out(first, last);
        }
        self.forget_empty(None);
        for key in touched {
            for group in self.by_key.get_mut(key).into_iter().flatten() {
                group.hand_out(first, last);
            }
            self.forget_empty(Some(key));
        }
    }

    fn send_all_behind(&mut self, first: i64) {
        let groups = self.by_key.drain().flat_map(|(_, groups)| groups);
        let members = groups
            .chain(self.ranges.drain(..))
            .flat_map(|group| group.members);
        for (serial, member) in members {
            member.mailbox.post_behind(serial, member.next.max(first));
        }
    }

    /// Drops the groups without members: those of one key, or those of ranges.
    fn forget_empty(&mut self, key: Option<&Bytes>) {
        let has_members = |group: &Group| !group.members.is_empty();
        let Some(key) = key else {
            self.ranges.retain(has_members);
            return;
        };
        if let Entry::Occupied(mut groups) = self.by_key.entry(key.clone()) {
            groups.get_mut().retain(has_members);
            if groups.get().is_empty() {
                groups.remove();
            }
        }
    }
}

impl Group {
    fn collect(&mut self, revision: i64, changed: &ChangedRow) {
        if self.wants.matches(changed) {
            self.matched.push((revision, changed.clone()));
        }
    }

    /// Encodes what was collected, once, and posts it to every member.
    fn hand_out(&mut self, first: i64, last: i64) {
        if self.matched.is_empty() {
            return;
        }
        let mut encoder = Encoder::from(first);
        let mut batches = Vec::new();
        for (revision, changed) in self.matched.drain(..) {
            batches.extend(encoder.close_full(revision));
            encoder.add(&self.wants, revision, &changed);
        }
        batches.extend(encoder.close(last));
        for batch in batches.into_iter().map(Arc::new) {
            self.members.retain(|serial, member| {
                if member.next > batch.last {
                    // It has seen this, or waits for a revision to come.
                    return true;
                }
                if member.next > batch.first {
                    // It has seen a part: history gives it exactly the rest.
                    member.mailbox.post_behind(*serial, member.next);
                    return false;
                }
                member.mailbox.post(*serial, &batch) == Posted::Kept
            });
        }
    }
}
