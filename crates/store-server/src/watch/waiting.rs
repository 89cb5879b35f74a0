//! Waiting for a change without a stream.
//!
//! Owns the short registration of one who waits. Never says what changed: whoever waits looks at
//! the newest image.

use std::sync::Arc;

use store_api::errors;
use tonic::Status;

use super::batch::Wants;
use super::hub::{Member, WatchHub};
use super::mailbox::{Mailbox, Serial};

/// Takes the registration back when the waiting ends, however it does.
struct Registered<'a> {
    hub: &'a WatchHub,
    wants: &'a Wants,
    serial: Serial,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.hub.leave(self.wants, self.serial);
    }
}

impl WatchHub {
    /// Waits until something that is wanted may have happened after `revision`.
    ///
    /// # Errors
    /// This node or its store stops.
    pub(crate) async fn wait_after(&self, wants: &Wants, revision: i64) -> Result<(), Status> {
        let (mut ended, mut eras) = (self.ended(), self.eras());
        let (mailbox, serial) = (Arc::new(Mailbox::default()), self.next_serial());
        let member = Member {
            mailbox: mailbox.clone(),
            next: revision + 1,
        };
        if self.join(wants, serial, member).is_err() {
            // There is something newer to look at.
            return Ok(());
        }
        let _registered = Registered {
            hub: self,
            wants,
            serial,
        };
        tokio::select! {
            () = mailbox.arrived() => Ok(()),
            _ = ended.wait_for(|ended| *ended) => Err(errors::stopped()),
            _ = eras.changed() => Err(errors::stopped()),
        }
    }
}
