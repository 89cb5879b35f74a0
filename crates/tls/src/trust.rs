//! Whose certificates are accepted: those of trusted CAs, with one of some names.
//!
//! Owns the check of names beyond what rustls does by itself. Chains, times and signatures are
//! rustls'.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use webpki::EndEntityCert;

use crate::files::{Fault, Named};
use crate::material::{WANTED_CA, provider};

/// The names of which a certificate must have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected(Box<[ExpectedName]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum ExpectedName {
    /// A host or an address; the certificate may have a wildcard that it matches.
    Host(ServerName<'static>),
    Uri(Box<str>),
    /// A URI that begins so.
    UriPrefix(Box<str>),
}

impl Expected {
    /// Hosts, addresses and URIs; a URI may end with `*`. What is none of them matches nothing.
    pub(crate) fn new(names: &[Box<str>]) -> Self {
        let name = |name: &str| match name.strip_suffix('*') {
            Some(prefix) if name.contains("://") => ExpectedName::UriPrefix(prefix.into()),
            _ => match ServerName::try_from(name) {
                Ok(host) if !name.contains("://") => ExpectedName::Host(host.to_owned()),
                _ => ExpectedName::Uri(name.into()),
            },
        };
        Self(names.iter().map(|one| name(one)).collect())
    }

    /// Whether the certificate has one of them.
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
        let parsed = ParsedCertificate::try_from(certificate)?;
        let uris: Vec<_> = EndEntityCert::try_from(certificate)
            .map_err(bad)?
            .valid_uri_names()
            .collect();
        let has = |expected: &ExpectedName| match expected {
            ExpectedName::Host(host) => verify_server_name(&parsed, host).is_ok(),
            ExpectedName::Uri(uri) => uris.contains(&&**uri),
            ExpectedName::UriPrefix(prefix) => uris.iter().any(|uri| uri.starts_with(&**prefix)),
        };
        if self.0.iter().any(has) {
            Ok(())
        } else {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName))
        }
    }
}

/// The half of both kinds of verifiers that is the same: signatures are rustls' business.
macro_rules! signatures_as_usual {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signature, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

/// Whom a listener's clients have to be of.
#[derive(Debug)]
pub(crate) struct Trust {
    chain: Arc<dyn ClientCertVerifier>,
    expected: Expected,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    pub(crate) fn of_clients(
        file: &Named,
        roots: Arc<RootCertStore>,
        expected: Expected,
        optional: bool,
    ) -> Result<Self, Fault> {
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let builder = if optional {
            builder.allow_unauthenticated()
        } else {
            builder
        };
        let chain = builder.build();
        let chain = chain.map_err(|fault| file.fault(fault, WANTED_CA))?;
        Ok(Self {
            chain,
            expected,
            algorithms: provider().signature_verification_algorithms,
        })
    }
}

impl ClientCertVerifier for Trust {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(own, between, now)?;
        self.expected.check(own)?;
        Ok(verified)
    }

    signatures_as_usual!();
}

/// The servers that are believed.
pub(crate) struct Servers {
    roots: Arc<RootCertStore>,
    /// Without any, the name that is called has to be in the certificate.
    expected: Expected,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Servers({:?})", self.expected)
    }
}

impl Servers {
    pub(crate) fn new(roots: Arc<RootCertStore>, expected: Expected) -> Self {
        Self {
            roots,
            expected,
            algorithms: provider().signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(own)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, between, now, algorithms)?;
        if self.expected.0.is_empty() {
            verify_server_name(&parsed, name)?;
        } else {
            self.expected.check(own)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    signatures_as_usual!();
}
