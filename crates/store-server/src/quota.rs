//! The quota: how much the store may hold.
//!
//! Owns the refusal of what would make it grow. Asked on the leader before anything is proposed,
//! for a setting of one node must not decide in apply. What makes room passes always, so the
//! refusal ends as soon as there is some: nobody has to disarm anything. A write that begins below
//! the quota may end above it; those under way together are the most that it can be passed by.

use store_api::errors;
use store_api::verdict::Proposed;
use store_mvcc::{Command, Image};
use tokio::sync::watch;
use tonic::Status;

/// A bound on the bytes of current rows and history together.
#[derive(Debug, Clone)]
pub(crate) struct Quota {
    bytes: u64,
    images: watch::Receiver<Image>,
}

impl Quota {
    pub(crate) fn new(bytes: u64, images: watch::Receiver<Image>) -> Self {
        Self { bytes, images }
    }

    /// The bound.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it is used up: the alarm of etcd's interface.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full_with(&self.images.borrow())
    }

    /// Whether there is room for `command`.
    ///
    /// # Errors
    /// etcd's "database space exceeded".
    pub(crate) fn admit(&self, command: &Command) -> Result<(), Status> {
        let full = {
            let image = self.images.borrow();
            self.is_full_with(&image).then(|| image.clone())
        };
        match full {
            Some(image) if image.could_grow(command) => Err(Proposed::No.mark(errors::no_space())),
            _ => Ok(()),
        }
    }

    fn is_full_with(&self, image: &Image) -> bool {
        image.resident_bytes() >= self.bytes
    }
}

#[cfg(test)]
mod tests {
    use store_mvcc::{DeleteOp, KeyRange, Machine, Proposal, PutOp};

    use super::*;

    #[test]
    fn what_makes_room_passes_and_ends_the_refusal() {
        let mut machine = Machine::new();
        let images = watch::Sender::new(machine.image());
        let quota = Quota::new(10_000, images.subscribe());
        let mut run = |command: &Command| {
            quota.admit(command)?;
            let outcome = machine.apply(&Proposal::new(command.clone()));
            images.send_replace(machine.image());
            assert!(outcome.result.is_ok());
            Ok::<_, Status>(())
        };
        let put = |key: &'static str, bytes| Command::Put(PutOp::new(key, vec![0; bytes]));
        run(&put("a", 8_000)).unwrap();
        run(&put("b", 8_000)).unwrap();
        assert!(quota.is_full());
        let refused = run(&put("c", 1)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert_eq!(
            refused.message(),
            "etcdserver: mvcc: database space exceeded"
        );
        assert_eq!(Proposed::of(&refused), Some(Proposed::No));

        run(&put("a", 7_000)).unwrap();
        run(&Command::Delete(DeleteOp::new(KeyRange::key("b")))).unwrap();
        assert!(quota.is_full(), "history has it still");
        run(&Command::Compact { revision: 5 }).unwrap();
        assert!(!quota.is_full());
        run(&put("c", 1)).unwrap();
    }
}
