//! The fields `tls` of listeners and clusters to their compiled shapes.

use std::time::Duration;

use super::time;
use crate::resource::{
    CertificateSpec, ClientCertificateMode, ClientCertificateSpec, ClusterTlsSpec,
    ListenerProtocol, ListenerTlsSpec, TlsMode,
};
use crate::tls::{CertificateSource, ClientCertificate, ClusterTls, ListenerTls};
use crate::upstream_http::UpstreamHttp;
use crate::words::{AlpnName, SubjectName};

/// Longer than any client on a slow line needs, and shorter than an attacker would like.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What an http listener speaks, the best first.
const HTTP_ALPN: &[&str] = &["h2", "http/1.1"];

pub(crate) fn listener(spec: &ListenerTlsSpec, protocol: ListenerProtocol) -> ListenerTls {
    let spoken = match protocol {
        ListenerProtocol::Http => HTTP_ALPN,
        ListenerProtocol::Tcp | ListenerProtocol::Udp | ListenerProtocol::TlsPassthrough => &[],
    };
    let spoken = spoken.iter().map(|name| Box::from(*name)).collect();
    ListenerTls {
        is_optional: spec.mode == TlsMode::Optional,
        certificates: spec.certificates.iter().map(certificate).collect(),
        strict_sni: spec.strict_sni,
        client: spec.client_certificate.as_ref().map(client),
        minimum_version: spec.minimum_version.unwrap_or_default(),
        alpn: spec.alpn.as_deref().map_or(spoken, alpn),
        handshake_timeout: time(spec.handshake_timeout, HANDSHAKE_TIMEOUT),
    }
}

pub(super) fn cluster(spec: &ClusterTlsSpec, http: UpstreamHttp) -> ClusterTls {
    let spoken: &[&str] = match http {
        UpstreamHttp::H1 => &[],
        UpstreamHttp::H2 => &["h2"],
        UpstreamHttp::Auto => HTTP_ALPN,
    };
    let spoken = spoken.iter().map(|name| Box::from(*name)).collect();
    ClusterTls {
        trusted_ca: spec.trusted_ca.as_ref().map(|file| file.as_str().into()),
        sni: spec
            .sni
            .as_ref()
            .map(|name| name.to_ascii_lowercase().into()),
        subject_alt_names: names(&spec.subject_alt_names),
        certificate: spec.certificate.as_ref().map(certificate),
        minimum_version: spec.minimum_version.unwrap_or_default(),
        alpn: spec.alpn.as_deref().map_or(spoken, alpn),
    }
}

fn certificate(spec: &CertificateSpec) -> CertificateSource {
    CertificateSource::Files {
        certificate_chain: spec.certificate_chain.as_str().into(),
        private_key: spec.private_key.as_str().into(),
    }
}

fn client(spec: &ClientCertificateSpec) -> ClientCertificate {
    ClientCertificate {
        trusted_ca: spec.trusted_ca.as_str().into(),
        is_optional: spec.mode == ClientCertificateMode::Optional,
        subject_alt_names: names(&spec.subject_alt_names),
    }
}

fn names(spec: &[SubjectName]) -> Box<[Box<str>]> {
    spec.iter().map(|name| name.as_str().into()).collect()
}

fn alpn(spec: &[AlpnName]) -> Box<[Box<str>]> {
    spec.iter().map(|name| name.as_str().into()).collect()
}
