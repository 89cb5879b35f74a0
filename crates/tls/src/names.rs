//! The certificates of a listener and the names that they are for.
//!
//! Owns the choice: the exact name, then the wildcard one label up, then the first certificate. Of
//! several for one name (ECDSA and RSA) it takes the first whose signature the client knows. Never
//! asks whether a certificate is still valid: an expired one tells the client more than none.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use webpki::EndEntityCert;

use crate::files::{Fault, Named};
use crate::material::{WANTED, key_of};
use crate::validity::date;

/// A certificate with its key, checked.
pub(crate) struct Pair {
    key: Arc<CertifiedKey>,
    /// DNS names, in lower case; `*.x` as they are written.
    names: Vec<Box<str>>,
    pub(crate) not_after: u64,
}

impl Pair {
    /// Checks what was read from these files.
    pub(crate) fn of(
        files: (&Named, &Named),
        read: (&[u8], &[u8]),
        now: u64,
    ) -> Result<Self, Fault> {
        let (key, validity) = key_of(files, read)?;
        let certificate = files.0;
        if validity.not_after < now {
            let expired = date(validity.not_after);
            tracing::error!(file = %certificate, expired, "a certificate has expired; renew it");
        }
        let own = key.cert.first();
        let own = own.and_then(|own| EndEntityCert::try_from(own).ok());
        let own = own.ok_or_else(|| certificate.fault("the certificate is malformed", WANTED))?;
        let names = own.valid_dns_names();
        let names = names.map(|name| name.to_ascii_lowercase().into());
        Ok(Self {
            names: names.collect(),
            not_after: validity.not_after,
            key: Arc::new(key),
        })
    }

    /// Shows it to whoever asks, for the end that calls.
    pub(crate) fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.key)))
    }
}

/// The certificates of a listener.
pub(crate) struct Presented {
    by_name: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// In the order of the config; the first ones are the default.
    all: Vec<Arc<CertifiedKey>>,
    names_only: bool,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the keys.
        f.debug_list().entries(self.by_name.keys()).finish()
    }
}

impl Presented {
    pub(crate) fn new(pairs: Vec<Pair>, names_only: bool) -> Self {
        let mut by_name: HashMap<Box<str>, Vec<_>> = HashMap::new();
        let mut all = Vec::with_capacity(pairs.len());
        for pair in pairs {
            for name in pair.names {
                by_name.entry(name).or_default().push(Arc::clone(&pair.key));
            }
            all.push(pair.key);
        }
        Self {
            by_name,
            all,
            names_only,
        }
    }

    /// Those for this name (RFC 6125, 6.4.3: a wildcard stands for one label), the exact ones first.
    fn named(&self, name: &str) -> impl Iterator<Item = &Arc<CertifiedKey>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let wildcard = wildcard.and_then(|wildcard| self.by_name.get(&*wildcard));
        let exact = self.by_name.get(&*name);
        exact.into_iter().chain(wildcard).flatten()
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let named = hello.server_name().map(|name| self.named(name));
        let found = named.into_iter().flatten().find(fits);
        let default = self.all.iter().filter(|_| !self.names_only);
        found
            .or_else(|| default.into_iter().find(fits))
            .map(Arc::clone)
    }
}
