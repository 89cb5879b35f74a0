//! How long a client that went over to another protocol may stay, as the config changes.
//!
//! Owns what ends it: its listener's drain, or a config in which a request like its first would not
//! lead there any more. Whatever else changes leaves it alone, an endpoint that left its cluster
//! too: who stops that one ends what it carries.

use std::cell::Cell;
use std::ptr;

use proxy_config::compiled::{Protocol, Route};
use tokio::time::Instant;

use super::Switch;
use crate::http::attempt::Job;
use crate::http::routed::route;

/// A stay in a cluster.
#[derive(Debug)]
pub(super) struct Stay<'a> {
    job: &'a Job<'a>,
    /// The cluster's key.
    cluster: &'a str,
    to: Switch<'a>,
    /// When it is over, while nothing leads there any more.
    ends: Cell<Option<Instant>>,
}

impl<'a> Stay<'a> {
    pub(super) fn new(job: &'a Job<'a>, cluster: &'a str, to: Switch<'a>) -> Self {
        Self {
            job,
            cluster,
            to,
            ends: Cell::new(None),
        }
    }

    /// When it is over, as far as that is known.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.ends.get()
    }

    /// Returns when the listener has drained for long enough, and sees to the end meanwhile.
    pub(super) async fn over(&self) {
        let worker = self.job.worker;
        let slot = self.job.slot;
        loop {
            if slot.is_cut() {
                return;
            }
            self.look();
            tokio::select! {
                () = worker.changed.notified() => {}
                () = slot.drain.notified() => {}
            }
        }
    }

    /// Looks at the newest config.
    fn look(&self) {
        let ends = if self.is_wanted() {
            None
        } else {
            let drain = self.job.worker.routing().config.defaults.drain_timeout;
            self.ends
                .get()
                .or_else(|| Instant::now().checked_add(drain))
        };
        self.ends.set(ends);
    }

    /// Whether a request like the first one would lead there still.
    fn is_wanted(&self) -> bool {
        let serving = self.job.slot.serving();
        let Protocol::Http(http) = &serving.listener.protocol else {
            return false;
        };
        let edits = &self.job.edits;
        let Some(route) = route(http, edits.head, edits.target) else {
            return false;
        };
        ptr::eq(&**route, edits.route) || self.leads_there(route)
    }

    fn leads_there(&self, route: &Route) -> bool {
        let is_taken = match self.to {
            Switch::Protocol(name) => route.upgrades.protocol(name).is_some(),
            Switch::Connect => route.upgrades.connect(),
        };
        let Some(to) = route.action.to().filter(|_| is_taken) else {
            return false;
        };
        to.targets
            .iter()
            .any(|target| *target.cluster.key == *self.cluster)
    }
}
