//! Certificates that are made when a test runs, so that none of them is ever checked in and ends.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// A CA with its certificate in a file.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub(crate) pem: PathBuf,
}

/// A certificate and its key, in files.
#[derive(Clone)]
pub(crate) struct Pair {
    /// The certificate.
    pub(crate) cert: String,
    /// Its private key.
    pub(crate) key: String,
}

impl Authority {
    /// A new CA; `name` is that of its file, too.
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let pem = dir.join(format!("{name}.pem"));
        std::fs::write(&pem, certificate.pem()).expect("written");
        Self {
            issuer: Issuer::new(parameters, key),
            pem,
        }
    }

    /// The path of its certificate.
    pub(crate) fn ca(&self) -> &str {
        self.pem.to_str().expect("UTF-8")
    }

    /// A certificate for these addresses, to serve and to call.
    pub(crate) fn issue(&self, name: &str, ips: &[IpAddr]) -> Pair {
        self.issue_with(name, ips, |_| {})
    }

    /// A certificate that ended long ago.
    pub(crate) fn issue_expired(&self, name: &str, ips: &[IpAddr]) -> Pair {
        self.issue_with(name, ips, |parameters| {
            parameters.not_before = date_time_ymd(2020, 1, 1);
            parameters.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    /// A certificate, changed before it is signed.
    pub(crate) fn issue_with(
        &self,
        name: &str,
        ips: &[IpAddr],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.subject_alt_names = ips.iter().map(|ip| SanType::IpAddress(*ip)).collect();
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut parameters);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .expect("a certificate");
        let folder = self.pem.parent().expect("a folder");
        let write = |ending: &str, text: String| {
            let path = folder.join(format!("{name}.{ending}"));
            std::fs::write(&path, text).expect("written");
            path.to_str().expect("UTF-8").to_owned()
        };
        Pair {
            cert: write("crt", certificate.pem()),
            key: write("key", key.serialize_pem()),
        }
    }
}

impl Pair {
    /// The arguments of a `skein` command that shows this certificate.
    pub(crate) fn arguments(&self, authority: &Authority) -> Vec<String> {
        let flags = [
            ("--cacert", authority.ca()),
            ("--cert", &self.cert),
            ("--key", &self.key),
        ];
        flags
            .iter()
            .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()])
            .collect()
    }

    /// Takes the place of another pair, key first: in between, the two do not match.
    pub(crate) fn replace(&self, other: &Self) {
        let put = |from: &str, to: &str| {
            let text = std::fs::read(from).expect("read");
            let new = format!("{to}.new");
            std::fs::write(&new, text).expect("written");
            std::fs::rename(new, to).expect("renamed");
        };
        put(&self.key, &other.key);
        put(&self.cert, &other.cert);
    }
}
