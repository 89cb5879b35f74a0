//! The TLS of this node's listeners and clusters: loaded when config comes into force, and again
//! when files change.
//!
//! Owns one thread that looks at the files; it is no worker, so a file system that hangs holds
//! nobody up. What cannot be loaded leaves what was in force before.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use proxy_config::compiled::{
    CertificateSource, ClusterTls, CompiledConfig, ListenerTls, ResourceName, TlsVersion,
};
use tls::{Calling, CallingTerms, ClientTerms, Fault, ListenerTerms, Listening, Named, Version};

use crate::upstream::ClusterShared;

/// The TLS of listeners, by name: loaded, or why not.
pub(crate) type ListenersTls = BTreeMap<ResourceName, Result<Arc<Listening>, Fault>>;

/// All of them.
#[derive(Debug)]
pub(crate) struct Certificates(Arc<Mutex<Loaded>>);

/// What is in force, and what should be.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    listeners: BTreeMap<ResourceName, Arc<Listening>>,
    /// By the clusters' keys.
    clusters: BTreeMap<Arc<str>, Caller>,
}

#[derive(Debug)]
struct Caller {
    wanted: Arc<ClusterTls>,
    shared: Arc<ClusterShared>,
    /// Why what is wanted is not in force, if so.
    fault: Option<Fault>,
}

impl Certificates {
    /// Starts the thread, which looks so often and ends when this is dropped.
    pub(crate) fn start(look_every: Duration) -> io::Result<Self> {
        let loaded = Arc::<Mutex<Loaded>>::default();
        let watched = Arc::downgrade(&loaded);
        thread::Builder::new()
            .name("certificates".into())
            .spawn(move || follow(&watched, look_every))?;
        Ok(Self(loaded))
    }

    /// The TLS of a config's listeners. What stays as it is, is not loaded again.
    pub(crate) fn listeners(&self, config: &CompiledConfig) -> ListenersTls {
        let wanted = config.listeners.values();
        let wanted = wanted.filter_map(|listener| Some((&listener.name, listener.tls.as_ref()?)));
        let mut made = BTreeMap::new();
        for (name, tls) in wanted {
            let terms = listener_terms(tls);
            let known = lock(&self.0).listeners.get(name).cloned();
            let kept = known.filter(|known| *known.terms() == terms);
            let listening = match kept {
                Some(kept) => Ok(kept),
                None => Listening::load(terms).map(Arc::new),
            };
            made.insert(name.clone(), listening);
        }
        made
    }

    /// These listeners are served with TLS from now on.
    pub(crate) fn serve(&self, listeners: BTreeMap<ResourceName, Arc<Listening>>) {
        lock(&self.0).listeners = listeners;
    }

    /// Puts the TLS of a config's clusters in force.
    pub(crate) fn call(
        &self,
        config: &CompiledConfig,
        clusters: &BTreeMap<Arc<str>, Arc<ClusterShared>>,
    ) {
        let mut callers = BTreeMap::new();
        for cluster in config.clusters.values() {
            let (Some(wanted), Some(shared)) = (&cluster.tls, clusters.get(&cluster.key)) else {
                continue;
            };
            let mut caller = Caller {
                wanted: wanted.clone(),
                shared: shared.clone(),
                fault: None,
            };
            if let Some(fault) = caller.load() {
                tracing::error!(cluster = %cluster.name, %fault, "the TLS of a cluster cannot be used");
                caller.fault = Some(fault);
            }
            callers.insert(cluster.key.clone(), caller);
        }
        lock(&self.0).clusters = callers;
    }

    /// Calls `tell` with the names of listeners and their certificates.
    pub(crate) fn each_listener(&self, mut tell: impl FnMut(&ResourceName, &Listening)) {
        for (name, listening) in &lock(&self.0).listeners {
            tell(name, listening);
        }
    }
}

impl Caller {
    /// Loads what is wanted, unless that is in force.
    fn load(&self) -> Option<Fault> {
        let terms = calling_terms(&self.wanted);
        let known = self.shared.calling();
        if known.is_some_and(|known| *known.terms() == terms) {
            return None;
        }
        match Calling::load(terms) {
            Ok(calling) => {
                self.shared.set_calling(Arc::new(calling));
                None
            }
            Err(fault) => Some(fault),
        }
    }
}

fn lock(loaded: &Mutex<Loaded>) -> MutexGuard<'_, Loaded> {
    loaded.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at all files again and again, for as long as somebody holds what is loaded.
fn follow(watched: &Weak<Mutex<Loaded>>, look_every: Duration) {
    loop {
        thread::sleep(look_every);
        let Some(loaded) = watched.upgrade() else {
            return;
        };
        // Files are read while nothing is locked.
        let listeners: Vec<_> = lock(&loaded).listeners.values().cloned().collect();
        for listening in listeners {
            listening.look();
        }
        let clusters: Vec<_> = lock(&loaded)
            .clusters
            .iter()
            .map(|(key, caller)| (key.clone(), caller.shared.clone(), caller.fault.is_some()))
            .collect();
        for (key, shared, is_faulty) in clusters {
            if let Some(calling) = shared.calling() {
                calling.look();
            }
            if is_faulty && let Some(caller) = lock(&loaded).clusters.get_mut(&key) {
                caller.fault = caller.load();
            }
        }
    }
}

fn listener_terms(tls: &ListenerTls) -> ListenerTerms {
    ListenerTerms {
        certificates: tls.certificates.iter().map(pair).collect(),
        names_only: tls.strict_sni,
        clients: tls.client.as_ref().map(|client| ClientTerms {
            ca: Named::new("trusted_ca", &*client.trusted_ca),
            optional: client.is_optional,
            names: client.subject_alt_names.to_vec(),
        }),
        minimum: version(tls.minimum_version),
        alpn: tls.alpn.to_vec(),
    }
}

/// How the endpoints of a cluster are called.
pub(crate) fn calling_terms(tls: &ClusterTls) -> CallingTerms {
    CallingTerms {
        ca: tls
            .trusted_ca
            .as_deref()
            .map(|file| Named::new("trusted_ca", file)),
        names: tls.subject_alt_names.to_vec(),
        own: tls.certificate.as_ref().map(pair),
        minimum: version(tls.minimum_version),
        alpn: tls.alpn.to_vec(),
    }
}

fn pair(source: &CertificateSource) -> (Named, Named) {
    let CertificateSource::Files {
        certificate_chain,
        private_key,
    } = source;
    (
        Named::new("certificate_chain", &**certificate_chain),
        Named::new("private_key", &**private_key),
    )
}

fn version(minimum: TlsVersion) -> Version {
    match minimum {
        TlsVersion::V12 => Version::V12,
        TlsVersion::V13 => Version::V13,
    }
}
