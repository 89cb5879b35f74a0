//! Why a TLS connection cannot go on: in few classes for counters, and in words for people.
//!
//! Owns the translation of rustls' faults. Never names a key or what was in a record.

use std::fmt;

use rustls::{CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Why a TLS connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    class: BreachClass,
    text: String,
}

/// What kind of breach it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreachClass {
    /// What arrived is no TLS.
    NotTls,
    /// No version of TLS in common.
    Version,
    /// No cipher suite, key exchange or signature in common.
    Cipher,
    /// No application protocol in common.
    Alpn,
    /// No certificate for the name that was asked for.
    UnknownName,
    /// The other end shows no certificate, but has to.
    NoCertificate,
    /// The other end's certificate is not valid now.
    CertificateExpired,
    /// The other end's certificate is of no CA that is trusted.
    CertificateUntrusted,
    /// The other end's certificate has another name.
    CertificateName,
    /// The other end's certificate has another fault.
    CertificateBad,
    /// The other end gave up, and said why.
    Alert,
    /// The other end does not keep to the protocol.
    Protocol,
}

impl BreachClass {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::NotTls,
        Self::Version,
        Self::Cipher,
        Self::Alpn,
        Self::UnknownName,
        Self::NoCertificate,
        Self::CertificateExpired,
        Self::CertificateUntrusted,
        Self::CertificateName,
        Self::CertificateBad,
        Self::Alert,
        Self::Protocol,
    ];

    /// A word for labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Version => "version",
            Self::Cipher => "cipher",
            Self::Alpn => "alpn",
            Self::UnknownName => "unknown_name",
            Self::NoCertificate => "no_certificate",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateUntrusted => "certificate_untrusted",
            Self::CertificateName => "certificate_name",
            Self::CertificateBad => "certificate_bad",
            Self::Alert => "alert",
            Self::Protocol => "protocol",
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Breach {}

impl Breach {
    /// Its class.
    pub fn class(&self) -> BreachClass {
        self.class
    }

    pub(crate) fn of(fault: &Error) -> Self {
        Self {
            class: class(fault),
            text: fault.to_string(),
        }
    }

    pub(crate) fn other(fault: impl fmt::Display) -> Self {
        Self {
            class: BreachClass::Protocol,
            text: fault.to_string(),
        }
    }
}

fn class(fault: &Error) -> BreachClass {
    use InvalidMessage as Message;
    use PeerIncompatible as Peer;
    match fault {
        Error::InvalidMessage(
            Message::InvalidContentType
            | Message::UnknownProtocolVersion
            | Message::InvalidEmptyPayload
            | Message::MessageTooLarge,
        ) => BreachClass::NotTls,
        Error::PeerIncompatible(
            Peer::ServerDoesNotSupportTls12Or13
            | Peer::ServerTlsVersionIsDisabledByOurConfig
            | Peer::SupportedVersionsExtensionRequired
            | Peer::Tls12NotOffered
            | Peer::Tls12NotOfferedOrEnabled,
        ) => BreachClass::Version,
        Error::PeerIncompatible(_) => BreachClass::Cipher,
        Error::NoApplicationProtocol => BreachClass::Alpn,
        // rustls has no other word for it: the resolver found nothing to show.
        Error::General(text) if text.contains("certificate chain resolved") => {
            BreachClass::UnknownName
        }
        Error::NoCertificatesPresented => BreachClass::NoCertificate,
        Error::InvalidCertificate(why) => of_certificate(why),
        Error::AlertReceived(_) => BreachClass::Alert,
        _ => BreachClass::Protocol,
    }
}

fn of_certificate(why: &CertificateError) -> BreachClass {
    use CertificateError as Why;
    match why {
        Why::Expired
        | Why::ExpiredContext { .. }
        | Why::NotValidYet
        | Why::NotValidYetContext { .. } => BreachClass::CertificateExpired,
        // A CA of the same name, and another key.
        Why::UnknownIssuer | Why::BadSignature => BreachClass::CertificateUntrusted,
        Why::NotValidForName | Why::NotValidForNameContext { .. } => BreachClass::CertificateName,
        _ => BreachClass::CertificateBad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_listed_at_its_number() {
        for (index, class) in BreachClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, index, "{class:?}");
        }
    }
}
