//! The TLS of one listener: certificates by name, who may come in, what is spoken.
//!
//! Owns what is in force: new handshakes take it, connections that stand keep what they began with.
//! Knows no socket; who accepts has [`Session`]s made.

use std::fmt;
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{RootCertStore, ServerConfig};

use crate::breach::Breach;
use crate::credentials::now;
use crate::files::{Fault, Named, read};
use crate::material::{provider, roots};
use crate::names::{Pair, Presented};
use crate::reload::{Reloaded, Source};
use crate::session::Session;
use crate::trust::{Expected, Trust};
use crate::version::{Version, versions};

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTerms {
    /// Each a certificate, with those between it and its CA, and its private key. The first one is
    /// shown to whoever asks for a name that none has.
    pub certificates: Vec<(Named, Named)>,
    /// Whether whoever asks for no name, or for one that no certificate has, is turned away.
    pub names_only: bool,
    /// What clients have to show, if anything.
    pub clients: Option<ClientTerms>,
    /// The oldest version that is spoken.
    pub minimum: Version,
    /// What is spoken above TLS, the best first; empty: nobody says.
    pub alpn: Vec<Box<str>>,
}

/// What clients have to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTerms {
    /// The CAs of their certificates.
    pub ca: Named,
    /// Whether those may come too that show none.
    pub optional: bool,
    /// One of these names must be in the certificate; empty: any.
    pub names: Vec<Box<str>>,
}

/// The TLS of one listener.
pub struct Listening(Reloaded<ListenerTerms>);

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what is in force: it has the private keys.
        write!(f, "Listening({:?})", self.0.source)
    }
}

/// What the files hold.
#[derive(PartialEq)]
pub(crate) struct Contents {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    client_ca: Option<Vec<u8>>,
}

/// What comes into force.
pub(crate) struct Made {
    config: Arc<ServerConfig>,
    expiries: Vec<Expiry>,
}

/// When a certificate ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The file that it is in.
    pub file: String,
    /// Its last second, since the Unix epoch.
    pub not_after: u64,
}

impl Listening {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`Fault`] names the file, what is wrong with it, and what helps.
    pub fn load(terms: ListenerTerms) -> Result<Self, Fault> {
        Reloaded::load(terms).map(Self)
    }

    /// What it was loaded with.
    pub fn terms(&self) -> &ListenerTerms {
        &self.0.source
    }

    /// The end of a connection that somebody opened.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn session(&self) -> Result<Session, Breach> {
        Session::server(Arc::clone(&self.0.made().config))
    }

    /// Looks at the files once; new ones come into force if they can be used.
    pub fn look(&self) {
        self.0.look();
    }

    /// When the certificates in force end.
    pub fn expiries(&self) -> Vec<Expiry> {
        self.0.made().expiries.clone()
    }

    /// How often new files came into force, and why those on disk are not, if so.
    pub fn history(&self) -> (u64, Option<Fault>) {
        self.0.history()
    }
}

impl Source for ListenerTerms {
    type Contents = Contents;
    type Made = Made;

    fn read(&self) -> Result<Contents, Fault> {
        let pairs = self.certificates.iter();
        let pairs = pairs.map(|(certificate, key)| Ok((read(certificate)?, read(key)?)));
        let client_ca = self.clients.as_ref().map(|clients| read(&clients.ca));
        Ok(Contents {
            pairs: pairs.collect::<Result<_, Fault>>()?,
            client_ca: client_ca.transpose()?,
        })
    }

    fn make(&self, contents: &Contents, before: Option<(&Contents, &Made)>) -> Result<Made, Fault> {
        let pairs = self.certificates.iter().zip(&contents.pairs);
        let pairs = pairs.map(|((certificate, key), read)| {
            Pair::of((certificate, key), (&read.0, &read.1), now())
        });
        let pairs = pairs.collect::<Result<Vec<_>, Fault>>()?;
        let expiries = self.certificates.iter().zip(&pairs);
        let expiries = expiries.map(|((certificate, _), pair)| Expiry {
            file: certificate.path.display().to_string(),
            not_after: pair.not_after,
        });
        let expiries = expiries.collect();
        // A ticket stands for a check that was made: one of another CA's time must not count.
        let kept = before.filter(|(known, _)| known.client_ca == contents.client_ca);
        let kept = kept.map(|(_, made)| Arc::clone(&made.config.ticketer));
        let config = self.config(pairs, contents.client_ca.as_deref(), kept)?;
        Ok(Made {
            config: Arc::new(config),
            expiries,
        })
    }

    fn shown(&self) -> String {
        let pairs = self.certificates.iter();
        let mut shown: Vec<_> = pairs
            .map(|(certificate, _)| certificate.to_string())
            .collect();
        shown.extend(self.clients.iter().map(|clients| clients.ca.to_string()));
        shown.join(", ")
    }
}

impl ListenerTerms {
    fn config(
        &self,
        pairs: Vec<Pair>,
        client_ca: Option<&[u8]>,
        ticketer: Option<Arc<dyn ProducesTickets>>,
    ) -> Result<ServerConfig, Fault> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(self.minimum))
            .expect("the provider has suites of these versions");
        let builder = match (&self.clients, client_ca) {
            (Some(terms), Some(read)) => {
                builder.with_client_cert_verifier(Arc::new(terms.trust(read)?))
            }
            _ => builder.with_no_client_auth(),
        };
        let presented = Presented::new(pairs, self.names_only);
        let mut config = builder.with_cert_resolver(Arc::new(presented));
        config.alpn_protocols = self
            .alpn
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        // All that is needed to resume is in the ticket, which any worker can open.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match ticketer.map_or_else(new_ticketer, Ok) {
            Ok(ticketer) => config.ticketer = ticketer,
            // Without randomness nothing can be resumed, nor begun.
            Err(_) => config.send_tls13_tickets = 0,
        }
        Ok(config)
    }
}

/// Seals tickets under keys that last six hours, and opens those of the keys before.
fn new_ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    rustls::crypto::ring::Ticketer::new()
}

impl ClientTerms {
    fn trust(&self, read: &[u8]) -> Result<Trust, Fault> {
        let roots: Arc<RootCertStore> = roots(&self.ca, read)?;
        let expected = Expected::new(&self.names);
        Trust::of_clients(&self.ca, roots, expected, self.optional)
    }
}
