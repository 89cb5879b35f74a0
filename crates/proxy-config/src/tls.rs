//! TLS as listeners and clusters want it.
//!
//! Owns the settings. Reads no file: what is in one is known to the node that has it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// Whether those are served too that do not begin with TLS.
    pub is_optional: bool,
    /// At least one; the first one is shown to whoever asks for a name that none has.
    pub certificates: Box<[CertificateSource]>,
    /// Whether such a client is turned away instead.
    pub strict_sni: bool,
    /// What clients have to show, if anything.
    pub client: Option<ClientCertificate>,
    /// The oldest version that is spoken.
    pub minimum_version: TlsVersion,
    /// What is spoken above TLS, the best first; empty: nobody says.
    pub alpn: Box<[Box<str>]>,
    /// The time for a handshake.
    pub handshake_timeout: Duration,
}

/// How the endpoints of a cluster are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterTls {
    /// The file with the CAs that are trusted; none: those of the system.
    pub trusted_ca: Option<Box<str>>,
    /// The name to call them by; none: their addresses.
    pub sni: Option<Box<str>>,
    /// One of these must be in their certificates; empty: the name that they are called by.
    pub subject_alt_names: Box<[Box<str>]>,
    /// What this end shows, if anything.
    pub certificate: Option<CertificateSource>,
    /// The oldest version that is spoken.
    pub minimum_version: TlsVersion,
    /// What is spoken above TLS, the best first; empty: nobody says.
    pub alpn: Box<[Box<str>]>,
}

/// Where a certificate and its key come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// Two files of the node, in PEM.
    Files {
        /// The certificate, with those between it and its CA.
        certificate_chain: Box<str>,
        /// Its key.
        private_key: Box<str>,
    },
}

/// What clients have to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The file with the CAs of their certificates.
    pub trusted_ca: Box<str>,
    /// Whether those may come too that show none.
    pub is_optional: bool,
    /// One of these must be in the certificate; empty: any.
    pub subject_alt_names: Box<[Box<str>]>,
}

/// A version of TLS.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "TLSv1_2")]
    V12,
    /// TLS 1.3.
    #[serde(rename = "TLSv1_3")]
    V13,
}
