//! From the newest image to the running proxy: compiles what changed, swaps it in, remembers it.
//!
//! Owns the config in force on this node. Never refuses as a whole: a resource that fails keeps its
//! previous version, the rest applies. Never goes back: an image that is older than what is in force
//! (a log that is still being replayed) is waited out.

use std::sync::Arc;
use std::time::Duration;

use model::{ConfigRevision, MeshId};
use proxy_config::{Compiled, ConfigSet, compile};
use proxy_server::ListenerOutcome;
use store_mvcc::Image;

use crate::admission::Tracked;
use crate::last_known_good::{LastKnownGood, LoadError};
use crate::options::NodeOptions;
use crate::parts::{Parts, target};

/// How often a listener that could not be opened is tried again: its port may be free by then.
const RETRY_LISTENERS: Duration = Duration::from_secs(2);

/// The config that the proxy of this node runs.
pub(crate) struct InForce {
    /// Compiled, with what it could not bring into force.
    pub(crate) compiled: Compiled,
    /// What became of each listener.
    pub(crate) listeners: Vec<ListenerOutcome>,
    /// The mesh whose config it is.
    pub(crate) mesh_id: Option<MeshId>,
}

/// What the disk holds from the last run, compiled; an empty config on a new node.
pub(crate) fn from_disk(options: &NodeOptions) -> Result<InForce, LoadError> {
    let kept = LastKnownGood::load(&options.data_dir)?.unwrap_or_default();
    let pairs = kept
        .resources
        .iter()
        .map(|(key, value)| (key.as_bytes(), value.as_bytes(), 0));
    let set = ConfigSet::from_pairs(pairs);
    let compiled = compile(&set, &target(options), None, kept.config_revision);
    Ok(InForce {
        compiled,
        listeners: Vec::new(),
        mesh_id: kept.mesh_id,
    })
}

/// An empty config, for a node whose disk holds none that can be used.
pub(crate) fn nothing(options: &NodeOptions) -> InForce {
    let compiled = compile(
        &ConfigSet::default(),
        &target(options),
        None,
        ConfigRevision::default(),
    );
    InForce {
        compiled,
        listeners: Vec::new(),
        mesh_id: None,
    }
}

/// Follows the store's images for as long as this node runs.
pub(crate) async fn follow(parts: Arc<Parts>) {
    let mut images = parts.store.images();
    let mut tracked = Tracked::default();
    loop {
        let image = images.borrow_and_update().clone();
        if is_news(&parts, &image) {
            tracked.follow(&image);
            bring_into_force(&parts, tracked.set.clone(), &image).await;
        }
        let failed = parts
            .in_force
            .borrow()
            .listeners
            .iter()
            .any(|one| one.result.is_err());
        tokio::select! {
            changed = images.changed() => if changed.is_err() { return std::future::pending().await },
            () = tokio::time::sleep(RETRY_LISTENERS), if failed => retry_listeners(&parts).await,
        }
    }
}

fn is_news(parts: &Parts, image: &Image) -> bool {
    let in_force = parts.in_force.borrow();
    let running = in_force.compiled.config.config_revision;
    let same_mesh = in_force.mesh_id == parts.store.mesh_id();
    if same_mesh {
        image.config_revision() > running
    } else {
        image.config_revision().0 > 0
    }
}

async fn bring_into_force(parts: &Arc<Parts>, set: ConfigSet, image: &Image) {
    let previous = parts.in_force.borrow().compiled.clone();
    let (target, revision) = (target(&parts.options), image.config_revision());
    // A large config takes a while: not on a thread that others wait for.
    let compiling =
        tokio::task::spawn_blocking(move || compile(&set, &target, Some(&previous), revision));
    let compiled = match compiling.await {
        Ok(compiled) => compiled,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    };
    for fault in &compiled.refused {
        tracing::error!(%revision, %fault, "a resource keeps its previous version");
    }
    let listeners = parts.proxy.apply(Arc::clone(&compiled.config)).await;
    tell_failed(&listeners);
    tracing::info!(%revision, listeners = listeners.len(), "config in force");
    let mesh_id = parts.store.mesh_id();
    let kept = last_known_good(&compiled, mesh_id);
    parts.in_force.send_replace(Arc::new(InForce {
        compiled,
        listeners,
        mesh_id,
    }));
    parts.publish();
    let folder = parts.options.data_dir.clone();
    let saved = tokio::task::spawn_blocking(move || kept.save(&folder)).await;
    if let Ok(Err(fault)) = saved {
        tracing::error!(%fault, "cannot save the last-known-good config; a restart would serve an older one");
    }
}

fn last_known_good(compiled: &Compiled, mesh_id: Option<MeshId>) -> LastKnownGood {
    let text = |json: Vec<u8>| String::from_utf8_lossy(&json).into_owned();
    let resources = compiled.in_force().resources();
    LastKnownGood {
        mesh_id,
        config_revision: compiled.config.config_revision,
        resources: resources
            .map(|one| (one.key(), text(one.canonical_json())))
            .collect(),
    }
}

async fn retry_listeners(parts: &Arc<Parts>) {
    let in_force = parts.in_force.borrow().clone();
    let listeners = parts
        .proxy
        .apply(Arc::clone(&in_force.compiled.config))
        .await;
    if listeners.iter().all(|outcome| outcome.result.is_ok()) {
        tracing::info!("every listener is open now");
    }
    let (compiled, mesh_id) = (in_force.compiled.clone(), in_force.mesh_id);
    parts.in_force.send_replace(Arc::new(InForce {
        compiled,
        listeners,
        mesh_id,
    }));
    parts.publish();
}

pub(crate) fn tell_failed(listeners: &[ListenerOutcome]) {
    for outcome in listeners {
        if let Err(fault) = &outcome.result {
            tracing::error!(listener = %outcome.name, %fault, "a listener is not open");
        }
    }
}
