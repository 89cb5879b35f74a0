//! Why a change of config is turned down, and how that is said.
//!
//! Owns the wording around the reason. Never finds the reason: that is the admission's.

use store_api::verdict::{CONFIG_REFUSED, Proposed};
use store_mvcc::{Command, Image};
use tonic::Status;

use crate::limits::REFUSAL_TEXT_MAX;

/// Decides about changes of config before they are proposed. The node implements it with the
/// config compiler.
pub trait Admission: Send + Sync + 'static {
    /// Judges what `image` would be after `command`, whichever branch of a transaction is taken.
    /// Pure, and may take milliseconds: it is called on a thread that may block, one call at a
    /// time.
    ///
    /// # Errors
    /// The reason why the command must not be proposed.
    fn admit(&self, image: &Image, command: &Command) -> Result<(), Refusal>;
}

/// A reason to turn a change down: `<resource>: <path>: <fault>; <remedy>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The reason.
    pub message: String,
}

impl Refusal {
    /// The status that a client gets.
    pub(crate) fn to_status(&self) -> Status {
        let mut text = format!("{CONFIG_REFUSED}: {}", self.message);
        if text.len() > REFUSAL_TEXT_MAX {
            text.truncate(text.floor_char_boundary(REFUSAL_TEXT_MAX));
            text.push_str(" … (more was cut off)");
        }
        Proposed::No.mark(Status::invalid_argument(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_refusal_is_cut_at_a_character() {
        let status = Refusal {
            message: "ä".repeat(10_000),
        }
        .to_status();
        assert!(status.message().len() < REFUSAL_TEXT_MAX + 64);
        assert!(status.message().starts_with("skein: config refused: ä"));
        assert_eq!(Proposed::of(&status), Some(Proposed::No));
    }
}
