//! The TLS of connections to one cluster: whom this end believes, what it shows, what it speaks.
//!
//! Owns what is in force, and what is kept to resume sessions; new files begin with none of it.
//! Knows no socket; who connects has [`Session`]s made.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::breach::Breach;
use crate::credentials::now;
use crate::files::{Fault, Named, read, system_cas};
use crate::listening::Expiry;
use crate::material::{provider, roots, system_roots};
use crate::names::Pair;
use crate::reload::{Reloaded, Source};
use crate::session::Session;
use crate::trust::{Expected, Servers};
use crate::version::{Version, versions};

/// How a cluster's endpoints are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallingTerms {
    /// The CAs of the endpoints; none: those that this system trusts.
    pub ca: Option<Named>,
    /// One of these names must be in an endpoint's certificate; empty: the one it is called by.
    pub names: Vec<Box<str>>,
    /// What this end shows, if anything: a certificate and its key.
    pub own: Option<(Named, Named)>,
    /// The oldest version that is spoken.
    pub minimum: Version,
    /// What is spoken above TLS, the best first; empty: nobody says.
    pub alpn: Vec<Box<str>>,
}

/// The TLS of connections to one cluster.
pub struct Calling(Reloaded<CallingTerms>);

impl fmt::Debug for Calling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what is in force: it has the private key.
        write!(f, "Calling({:?})", self.0.source)
    }
}

/// What the files hold.
#[derive(PartialEq)]
pub(crate) struct Contents {
    ca: Vec<u8>,
    own: Option<(Vec<u8>, Vec<u8>)>,
}

/// What comes into force.
pub(crate) struct Made {
    config: Arc<ClientConfig>,
    expiry: Option<Expiry>,
}

impl Calling {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`Fault`] names the file, what is wrong with it, and what helps.
    pub fn load(terms: CallingTerms) -> Result<Self, Fault> {
        Reloaded::load(terms).map(Self)
    }

    /// What it was loaded with.
    pub fn terms(&self) -> &CallingTerms {
        &self.0.source
    }

    /// The end of a connection that is opened to this host, or to this address where nobody says a
    /// name.
    ///
    /// # Errors
    /// The name is none, or the system has no randomness.
    pub fn session(&self, host: Option<&str>, address: IpAddr) -> Result<Session, Breach> {
        let name = match host {
            Some(host) => ServerName::try_from(host.to_owned()).map_err(Breach::other)?,
            None => ServerName::IpAddress(address.into()),
        };
        Session::client(Arc::clone(&self.0.made().config), name)
    }

    /// Looks at the files once; new ones come into force if they can be used.
    pub fn look(&self) {
        self.0.look();
    }

    /// When the certificate that this end shows ends, if it shows one.
    pub fn expiry(&self) -> Option<Expiry> {
        self.0.made().expiry.clone()
    }

    /// How often new files came into force, and why those on disk are not, if so.
    pub fn history(&self) -> (u64, Option<Fault>) {
        self.0.history()
    }
}

impl Source for CallingTerms {
    type Contents = Contents;
    type Made = Made;

    fn read(&self) -> Result<Contents, Fault> {
        let own = self.own.as_ref();
        let own = own.map(|(certificate, key)| Ok((read(certificate)?, read(key)?)));
        let ca = match &self.ca {
            Some(file) => read(file)?,
            None => read(&system_cas("ca"))?,
        };
        Ok(Contents {
            ca,
            own: own.transpose()?,
        })
    }

    fn make(&self, contents: &Contents, _: Option<(&Contents, &Made)>) -> Result<Made, Fault> {
        let roots = match &self.ca {
            Some(file) => roots(file, &contents.ca)?,
            None => system_roots(&system_cas("ca"), &contents.ca),
        };
        let servers = Servers::new(roots, Expected::new(&self.names));
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(self.minimum))
            .expect("the provider has suites of these versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(servers));
        let (mut config, expiry) = match (&self.own, &contents.own) {
            (Some((certificate, key)), Some(read)) => {
                let pair = Pair::of((certificate, key), (&read.0, &read.1), now())?;
                let expiry = Expiry {
                    file: certificate.path.display().to_string(),
                    not_after: pair.not_after,
                };
                let config = builder.with_client_cert_resolver(pair.resolver());
                (config, Some(expiry))
            }
            _ => (builder.with_no_client_auth(), None),
        };
        config.alpn_protocols = self
            .alpn
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Ok(Made {
            config: Arc::new(config),
            expiry,
        })
    }

    fn shown(&self) -> String {
        let own = self.own.iter().map(|(certificate, _)| certificate);
        let shown: Vec<_> = own.chain(&self.ca).map(ToString::to_string).collect();
        shown.join(", ")
    }
}
