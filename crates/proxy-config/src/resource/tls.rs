//! The fields `tls` of listeners and clusters as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_default;
use crate::tls::TlsVersion;
use crate::units::Time;
use crate::words::{AlpnName, FilePath, SubjectName};

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTlsSpec {
    /// Which one a client is shown follows from the names in them: the one with the exact name that
    /// it asks for, then one with a wildcard for it, then the first of this list. Files that change
    /// are taken over while the node runs.
    pub certificates: Vec<CertificateSpec>,
    /// `optional`: who does not begin with TLS is served without it, on the same port; only for
    /// protocols in which the client speaks first. Left out: required.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: TlsMode,
    /// `true`: who asks for no name, or for one that no certificate has, is turned away.
    #[serde(default, skip_serializing_if = "is_default")]
    pub strict_sni: bool,
    /// What clients have to show; left out: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificateSpec>,
    /// The oldest version that is spoken; left out: TLSv1_2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_version: Option<TlsVersion>,
    /// What is spoken above TLS, the best first. Left out: what an http listener speaks, and
    /// nothing for tcp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<Vec<AlpnName>>,
    /// The time for a handshake, and for the first byte where TLS is `optional`; left out: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_timeout: Option<Time>,
}

/// Whether clients have to speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// They have to.
    #[default]
    Required,
    /// They may: the first byte of a connection tells.
    Optional,
}

/// How the endpoints of a cluster are called. Their certificates are always checked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterTlsSpec {
    /// A file with the CAs that are trusted, in PEM; left out: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_ca: Option<FilePath>,
    /// The host name to call them by, and that their certificates must have; left out: the
    /// endpoint's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// One of these must be in their certificates; left out: the name that they are called by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<SubjectName>,
    /// What they are shown; left out: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateSpec>,
    /// The oldest version that is spoken; left out: TLSv1_2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_version: Option<TlsVersion>,
    /// What is spoken above TLS, the best first; left out: h2 if that is the cluster's `http`, else
    /// nothing is said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<Vec<AlpnName>>,
}

/// A certificate and its key: files of the node, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateSpec {
    /// The certificate first, then those between it and its CA.
    pub certificate_chain: FilePath,
    /// The key, not encrypted.
    pub private_key: FilePath,
}

/// What clients have to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificateSpec {
    /// A file with the CAs of their certificates, in PEM.
    pub trusted_ca: FilePath,
    /// `optional`: who shows none may come too, but a bad one is refused. Left out: required.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: ClientCertificateMode,
    /// One of these must be in the certificate; left out: any will do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<SubjectName>,
}

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificateMode {
    /// They have to.
    #[default]
    Required,
    /// They may.
    Optional,
}
