//! The versions of TLS.
//!
//! Owns which there are. Nothing older than 1.2 is spoken, whoever asks.

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Version {
    /// RFC 5246, with forward secrecy and authenticated encryption only.
    #[default]
    V12,
    /// RFC 8446.
    V13,
}

static SINCE_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static SINCE_13: [&SupportedProtocolVersion; 1] = [&TLS13];

/// This one and those after it.
pub(crate) fn versions(minimum: Version) -> &'static [&'static SupportedProtocolVersion] {
    match minimum {
        Version::V12 => &SINCE_12,
        Version::V13 => &SINCE_13,
    }
}
