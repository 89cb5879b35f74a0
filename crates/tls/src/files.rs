//! The files that certificates come from, and what may be wrong with them.
//!
//! Owns the words: every fault names the setting, the file, what is wrong and what helps. Never
//! understands what is in a file.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// The largest file that is read. All the CAs of the public web are a fifth of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where systems keep the CAs of the public web.
const SYSTEM_CAS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The file with the CAs of this system, or the one that `SSL_CERT_FILE` names.
pub(crate) fn system_cas(setting: &'static str) -> Named {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = || {
        let mut usual = SYSTEM_CAS.iter().map(PathBuf::from);
        usual.find(|path| path.exists())
    };
    let path = named.or_else(usual);
    Named::new(setting, path.unwrap_or_else(|| SYSTEM_CAS[0].into()))
}

/// A file, and the setting that names it, as people write it: `--client-cert-file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The setting.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
}

impl Named {
    /// A file that this setting names.
    pub fn new(setting: &'static str, path: impl Into<PathBuf>) -> Self {
        Self {
            setting,
            path: path.into(),
        }
    }

    pub(crate) fn fault(&self, what: impl fmt::Display, remedy: &'static str) -> Fault {
        Fault {
            setting: self.setting,
            path: self.path.clone(),
            what: what.to_string(),
            remedy,
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.setting, self.path.display())
    }
}

/// The files of one end of TLS, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    /// What this end shows: a certificate with those between it and its CA, and its private key.
    pub own: Option<(Named, Named)>,
    /// The CAs of those whom this end believes.
    pub trusted_ca: Option<Named>,
}

/// A file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {}: {what}; {remedy}", path.display())]
pub struct Fault {
    setting: &'static str,
    path: PathBuf,
    what: String,
    remedy: &'static str,
}

/// What the files held when they were read.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) own: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) trusted_ca: Option<Vec<u8>>,
}

impl Contents {
    /// Reads them all.
    pub(crate) fn read(files: &Files) -> Result<Self, Fault> {
        let own = files.own.as_ref();
        let own = own.map(|(certificate, key)| Ok((read(certificate)?, read(key)?)));
        Ok(Self {
            own: own.transpose()?,
            trusted_ca: files.trusted_ca.as_ref().map(read).transpose()?,
        })
    }
}

pub(crate) fn read(file: &Named) -> Result<Vec<u8>, Fault> {
    let unreadable = |fault| {
        file.fault(
            fault,
            "give a PEM file that the user of this process may read",
        )
    };
    let opened = File::open(&file.path).map_err(unreadable)?;
    let mut content = Vec::new();
    let mut limited = opened.take(FILE_BYTES_MAX + 1);
    limited.read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(file.fault("it is larger than 1 MiB", "give a PEM file"));
    }
    Ok(content)
}
