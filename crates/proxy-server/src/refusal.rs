//! Why a client's request was refused before anybody looked where it goes.
//!
//! Owns the words of the metric. Never decides what is refused.

use crate::http1::HeadFault;

/// What was wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The head is no HTTP/1, or could be understood in two ways.
    MalformedHead,
    /// The body is framed wrongly.
    MalformedBody,
    /// The head has too many bytes or fields.
    HeadTooLarge,
    /// The target is too long.
    TargetTooLong,
    /// Another version than HTTP/1.0 and HTTP/1.1.
    Version,
    /// A transfer coding other than chunked.
    TransferCoding,
    /// CONNECT.
    Connect,
    /// It did not arrive in time.
    Timeout,
}

impl Refusal {
    /// All of them, in the order of [`Refusal::index`].
    pub(crate) const ALL: [Self; 8] = [
        Self::MalformedHead,
        Self::MalformedBody,
        Self::HeadTooLarge,
        Self::TargetTooLong,
        Self::Version,
        Self::TransferCoding,
        Self::Connect,
        Self::Timeout,
    ];

    /// What a refused head is counted as.
    pub(crate) fn of_head(fault: HeadFault) -> Self {
        match fault {
            HeadFault::Malformed(_) => Self::MalformedHead,
            HeadFault::TooLarge => Self::HeadTooLarge,
            HeadFault::TargetTooLong => Self::TargetTooLong,
            HeadFault::Version => Self::Version,
            HeadFault::TransferCoding => Self::TransferCoding,
        }
    }

    /// Its place in [`Refusal::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The value of the metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::MalformedHead => "malformed_head",
            Self::MalformedBody => "malformed_body",
            Self::HeadTooLarge => "head_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::Version => "version",
            Self::TransferCoding => "transfer_coding",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_listed_at_its_index() {
        for (index, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(refusal.index(), index);
        }
    }
}
