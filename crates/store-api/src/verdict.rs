//! What an error says about the write that met it: Skein's words beside etcd's.
//!
//! Owns the metadata `skein-proposed`, the text that opens a refusal, and the reading of transport
//! errors. Never decides what a caller does with the answer.

use std::error::Error;

use tonic::metadata::MetadataValue;
use tonic::{ConnectError, Status};

/// How the text of every refusal by admission begins; its gRPC code is `InvalidArgument`.
pub const CONFIG_REFUSED: &str = "skein: config refused";

/// The gRPC metadata of an error that tells whether the write was proposed.
pub const PROPOSED_KEY: &str = "skein-proposed";

/// Whether the write behind an error was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proposed {
    /// Surely not, now or ever: it may be tried elsewhere.
    No,
    /// Perhaps: it may be committed, now or later.
    Unknown,
}

impl Proposed {
    /// Says so in the status.
    #[must_use]
    pub fn mark(self, mut status: Status) -> Status {
        let word = match self {
            Self::No => "no",
            Self::Unknown => "unknown",
        };
        status
            .metadata_mut()
            .insert(PROPOSED_KEY, MetadataValue::from_static(word));
        status
    }

    /// What the status says, if it says anything.
    pub fn of(status: &Status) -> Option<Self> {
        match status.metadata().get(PROPOSED_KEY)?.to_str() {
            Ok("no") => Some(Self::No),
            Ok("unknown") => Some(Self::Unknown),
            _ => None,
        }
    }
}

/// True if the status was made on this side because the request never left: there was no
/// connection, or it closed while the request still waited for its turn. False means "perhaps".
pub fn never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        // hyper's word for a request that it gives back unsent.
        if error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_survives_the_wire_and_silence_stays_silence() {
        for word in [Proposed::No, Proposed::Unknown] {
            let status = word.mark(crate::errors::no_leader());
            let (parts, ()) = status.into_http::<()>().into_parts();
            let read = Status::from_header_map(&parts.headers).expect("a status");
            assert_eq!(Proposed::of(&read), Some(word));
        }
        assert_eq!(Proposed::of(&crate::errors::no_leader()), None);
    }

    #[test]
    fn an_answer_was_sent_for() {
        assert!(!never_sent(&Status::unavailable("connection refused")));
    }
}
