//! What the files mean: a certificate with its key, and roots of trust, checked.
//!
//! Owns every check that can be made before anybody connects. Reads no file and no clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, RootCertStore};

use crate::files::{Contents, Fault, Files, Named};
use crate::validity::{Validity, date};

pub(crate) const WANTED: &str = "give a certificate in PEM (-----BEGIN CERTIFICATE-----), first the own one, \
                      then those between it and its CA";
const WANTED_KEY: &str = "give the private key in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted";
pub(crate) const WANTED_CA: &str =
    "give the certificates of the CAs in PEM (-----BEGIN CERTIFICATE-----)";

/// What one end of TLS works with.
pub(crate) struct Material {
    pub(crate) own: Option<Own>,
    pub(crate) roots: Option<Arc<RootCertStore>>,
}

/// What one end shows of itself.
pub(crate) struct Own {
    pub(crate) key: Arc<CertifiedKey>,
    /// The last second of its certificate.
    pub(crate) not_after: u64,
}

impl Own {
    pub(crate) fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.key)))
    }
}

/// The cryptography: ring, which builds in seconds and without cmake.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Material {
    /// Checks what was read from `files`, as of `now`, in seconds since the Unix epoch.
    pub(crate) fn of(files: &Files, contents: &Contents, now: u64) -> Result<Self, Fault> {
        let own = match (&files.own, &contents.own) {
            (Some((certificate, key)), Some(read)) => {
                Some(own((certificate, key), (&read.0, &read.1), now)?)
            }
            _ => None,
        };
        let roots = match (&files.trusted_ca, &contents.trusted_ca) {
            (Some(file), Some(read)) => Some(roots(file, read)?),
            _ => None,
        };
        Ok(Self { own, roots })
    }
}

fn own(files: (&Named, &Named), read: (&[u8], &[u8]), now: u64) -> Result<Own, Fault> {
    let file = files.0;
    let (key, validity) = key_of(files, read)?;
    let Validity {
        not_before,
        not_after,
    } = validity;
    if not_after < now {
        let what = format!("the certificate expired on {}", date(not_after));
        return Err(file.fault(what, "renew it, or correct this machine's clock"));
    }
    if now < not_before {
        let what = format!("the certificate is not valid before {}", date(not_before));
        return Err(file.fault(what, "wait, or correct this machine's clock"));
    }
    Ok(Own {
        key: Arc::new(key),
        not_after,
    })
}

/// A certificate with its key, whenever it is valid.
pub(crate) fn key_of(
    files: (&Named, &Named),
    read: (&[u8], &[u8]),
) -> Result<(CertifiedKey, Validity), Fault> {
    let (file, key_file) = files;
    let chain = certificates(file, read.0, WANTED)?;
    let validity = chain.first().and_then(|first| Validity::of(first));
    let validity = validity.ok_or_else(|| file.fault("the certificate is malformed", WANTED))?;
    let key = PrivateKeyDer::from_pem_slice(read.1)
        .map_err(|fault| key_file.fault(pem_fault(&fault, "private key"), WANTED_KEY))?;
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|fault| match fault {
        rustls::Error::InconsistentKeys(_) => key_file.fault(
            format!(
                "it is not the key of the certificate in {}",
                file.path.display()
            ),
            "give the key that the certificate was made for",
        ),
        fault => key_file.fault(fault, WANTED_KEY),
    })?;
    Ok((key, validity))
}

pub(crate) fn roots(file: &Named, read: &[u8]) -> Result<Arc<RootCertStore>, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, read, WANTED_CA)? {
        let added = roots.add(certificate);
        added.map_err(|fault| file.fault(fault, WANTED_CA))?;
    }
    Ok(Arc::new(roots))
}

/// The CAs that this system trusts: of hundreds some may be beyond us, and are left out.
pub(crate) fn system_roots(file: &Named, read: &[u8]) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = certificates(file, read, WANTED_CA).unwrap_or_default();
    roots.add_parsable_certificates(found);
    Arc::new(roots)
}

fn certificates(
    file: &Named,
    read: &[u8],
    wanted: &'static str,
) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(read).collect();
    let found = found.map_err(|fault| file.fault(pem_fault(&fault, "certificate"), wanted))?;
    if found.is_empty() {
        return Err(file.fault("there is no PEM certificate in it", wanted));
    }
    Ok(found)
}

fn pem_fault(fault: &rustls::pki_types::pem::Error, what: &str) -> String {
    match fault {
        rustls::pki_types::pem::Error::NoItemsFound => format!("there is no PEM {what} in it"),
        fault => format!("it is no PEM ({fault})"),
    }
}

/// Checks that the certificate serves both ends of a connection between nodes, as the others will:
/// of the trusted CA, for `address`, to serve and to call.
pub(crate) fn check_peer(
    files: &Files,
    own: &Own,
    roots: &Arc<RootCertStore>,
    address: IpAddr,
    now: u64,
) -> Result<(), Fault> {
    let (Some((file, _)), Some(ca_file)) = (&files.own, &files.trusted_ca) else {
        return Ok(());
    };
    let Some((certificate, between)) = own.key.cert.split_first() else {
        return Ok(());
    };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let name = ServerName::IpAddress(address.into());
    let server = server_verifier(ca_file, roots)?;
    let serves = server.verify_server_cert(certificate, between, &name, &[], now);
    serves.map_err(|fault| peer_fault(file, ca_file, &fault, Some(address)))?;
    let client = client_verifier(ca_file, roots)?;
    let calls = client.verify_client_cert(certificate, between, now);
    calls.map_err(|fault| peer_fault(file, ca_file, &fault, None))?;
    Ok(())
}

fn peer_fault(
    file: &Named,
    ca_file: &Named,
    fault: &rustls::Error,
    address: Option<IpAddr>,
) -> Fault {
    use CertificateError as Why;
    let rustls::Error::InvalidCertificate(why) = fault else {
        return file.fault(fault, WANTED);
    };
    match (why, address) {
        (Why::UnknownIssuer, _) => {
            let ca = ca_file.path.display();
            let what = format!("the certificate is not signed by a CA in {ca}");
            file.fault(what, "give one of that CA, or the CA that signed it")
        }
        (Why::NotValidForName | Why::NotValidForNameContext { .. }, Some(address)) => file.fault(
            format!(
                "the certificate is not valid for {address}, where the other nodes call this one"
            ),
            "make one with the IP of --peer-addr among its subject alternative names",
        ),
        (Why::InvalidPurpose | Why::InvalidPurposeContext { .. }, Some(_)) => file.fault(
            "the certificate may not serve",
            "make one whose extended key usage has serverAuth and clientAuth",
        ),
        (Why::InvalidPurpose | Why::InvalidPurposeContext { .. }, None) => file.fault(
            "the certificate may not call others",
            "make one whose extended key usage has serverAuth and clientAuth",
        ),
        (why, _) => file.fault(why, WANTED),
    }
}

fn server_verifier(
    file: &Named,
    roots: &Arc<RootCertStore>,
) -> Result<Arc<WebPkiServerVerifier>, Fault> {
    WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider())
        .build()
        .map_err(|fault| file.fault(fault, WANTED_CA))
}

/// Who may connect: whoever has a certificate of these CAs.
pub(crate) fn client_verifier(
    file: &Named,
    roots: &Arc<RootCertStore>,
) -> Result<Arc<dyn ClientCertVerifier>, Fault> {
    WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider())
        .build()
        .map_err(|fault| file.fault(fault, WANTED_CA))
}
