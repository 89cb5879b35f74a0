//! What can go wrong for a caller, sorted by what the caller does next.
//!
//! Owns the sorting of gRPC statuses. Never hides which endpoint said what.

use std::fmt;

use store_api::verdict::{self, Proposed};
use tonic::{Code, Status};

/// An endpoint that was tried, and why it did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The endpoint as `HOST:PORT`.
    pub endpoint: String,
    /// Why it gave no answer.
    pub reason: String,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.reason)
    }
}

/// Why a call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The change was looked at and turned down; nothing changed. Correct it and send it again.
    #[error("{message}")]
    Refused {
        /// The store's own words: resource, path, fault and remedy.
        message: String,
    },
    /// What was asked for does not exist.
    #[error("{message}")]
    NotFound {
        /// The store's own words.
        message: String,
    },
    /// The write may or may not have happened. Read before writing it again.
    #[error(
        "the outcome is unknown: {endpoint} may have done it ({reason}); read before trying again"
    )]
    OutcomeUnknown {
        /// The endpoint that took the write.
        endpoint: String,
        /// How the answer got lost.
        reason: String,
    },
    /// No endpoint answered, and surely nothing was changed. Try again, or with other endpoints.
    #[error(
        "no endpoint could do it: {}; check --endpoints, that a node runs there, and with `skein \
         status` that there is a quorum",
        list(.tried)
    )]
    Unavailable {
        /// Every endpoint that was tried, in order.
        tried: Vec<Tried>,
    },
    /// The store answered with an error of another kind: a bad argument, a compacted revision, ….
    #[error("{message}")]
    Answered {
        /// The gRPC code.
        code: Code,
        /// The store's own words.
        message: String,
    },
    /// The address of an endpoint cannot be read.
    #[error("`{endpoint}` is not an endpoint: {reason}")]
    BadEndpoint {
        /// The text as it was given.
        endpoint: String,
        /// What is wrong with it and what to write instead.
        reason: String,
    },
    /// No endpoint was given.
    #[error("no endpoint given; name at least one as HOST:PORT")]
    NoEndpoint,
}

fn list(tried: &[Tried]) -> String {
    tried
        .iter()
        .map(Tried::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

impl ClientError {
    /// The error of an endpoint that did answer.
    pub(crate) fn from_answer(status: &Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            _ if message.starts_with(verdict::CONFIG_REFUSED) => Self::Refused { message },
            Code::NotFound => Self::NotFound { message },
            code => Self::Answered { code, message },
        }
    }
}

/// What a failed attempt at a write means.
pub(crate) enum WriteFailure {
    /// Surely not proposed, and another endpoint may do better.
    Elsewhere,
    /// The store's final word; nothing was changed.
    Final,
    /// Perhaps done.
    Unknown,
}

/// Sorts a failed write. Where nothing is said, only codes that a store gives before it proposes
/// count as final.
pub(crate) fn sort_write(status: &Status) -> WriteFailure {
    // Turned away in the handshake, it was sent and never read.
    if verdict::never_sent(status) || tls::was_refused(&reason(status)) {
        return WriteFailure::Elsewhere;
    }
    match (Proposed::of(status), status.code()) {
        (Some(Proposed::Unknown), _) => WriteFailure::Unknown,
        (Some(Proposed::No), Code::Unavailable) => WriteFailure::Elsewhere,
        (Some(Proposed::No), _) => WriteFailure::Final,
        (None, _) if is_transport_fault(status) => WriteFailure::Unknown,
        (
            None,
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented,
        ) => WriteFailure::Final,
        (None, _) => WriteFailure::Unknown,
    }
}

/// True if another endpoint may answer the same read.
pub(crate) fn read_elsewhere(status: &Status) -> bool {
    status.code() == Code::Unavailable || is_transport_fault(status)
}

/// A status that the transport made here, because no answer came: only those carry a source.
fn is_transport_fault(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// Why an attempt failed, in one line: the innermost cause says most ("connection refused").
pub(crate) fn reason(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let innermost = match cause.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => cause.to_string(),
    };
    if innermost.is_empty() {
        format!("{:?}", status.code())
    } else {
        innermost
    }
}
