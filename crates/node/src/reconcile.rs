//! From the newest image to the running proxy: compiles what changed, swaps it in, remembers it.
//!
//! Owns the config in force on this node. Never refuses as a whole: a resource that fails keeps its
//! previous version, the rest applies. Never goes back behind its last-known-good: an older image of
//! the same mesh (a log that is still being replayed) is waited out, and so is the past of a mesh by
//! a node that has just joined it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::{ConfigRevision, MeshId};
use proxy_config::{Compiled, ConfigSet, Fault, compile};
use proxy_server::ListenerOutcome;
use store_mvcc::Image;
use store_raft::Store;
use tokio::sync::watch;

use crate::last_known_good::{LastKnownGood, LoadError};
use crate::options::NodeOptions;
use crate::parts::{Parts, target};

/// How often a listener that could not be opened is tried again: its port may be free by then.
const RETRY_LISTENERS: Duration = Duration::from_secs(2);

/// How long a node that joins waits for the newest config before an older one has to do.
const CATCH_UP: Duration = Duration::from_secs(10);

/// The config that the proxy of this node runs.
pub(crate) struct InForce {
    /// Compiled, with what it could not bring into force.
    pub(crate) compiled: Compiled,
    /// What became of each listener.
    pub(crate) listeners: Vec<ListenerOutcome>,
    /// The mesh whose config it is.
    pub(crate) mesh_id: Option<MeshId>,
    /// It is the last-known-good, not yet compared with the store: what was refused is not known.
    from_disk: bool,
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
        from_disk: true,
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
        from_disk: true,
    }
}

/// Follows the store's images for as long as this node runs.
pub(crate) async fn follow(parts: Arc<Parts>) {
    let store = opened(&parts).await;
    let serves = parts.has_config() || store.image().config_revision().0 > 0;
    if !serves {
        skip_history(store.images(), store.caught_up(), CATCH_UP).await;
    }
    let mut images = store.images();
    let mut soundness = store.soundness();
    let mut heals = soundness.borrow().heals;
    loop {
        let image = images.borrow_and_update().clone();
        if parts.stopping.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        // The config in force stands, as without a store.
        if soundness.borrow().damage.is_some() {
            let healed = soundness.wait_for(|known| known.damage.is_none());
            if healed.await.is_err() {
                return std::future::pending().await;
            }
            continue;
        }
        // What came from the damaged state is looked at again, whatever its revision.
        let healed = std::mem::replace(&mut heals, soundness.borrow().heals) != heals;
        if healed {
            parts.committed.distrust();
        }
        if is_news(&parts, &image) || (healed && image.config_revision().0 > 0) {
            bring_into_force(&parts, image).await;
        }
        tokio::select! {
            _ = soundness.changed() => {}
            changed = images.changed() => if changed.is_err() { return std::future::pending().await },
            () = tokio::time::sleep(RETRY_LISTENERS), if some_failed(&parts) => retry_listeners(&parts).await,
        }
    }
}

/// A node that serves nothing yet gets all configs of the past, one after the other, before it gets
/// the one that counts: it waits until it has `caught_up`, for at most `limit` from the first one on.
async fn skip_history(
    mut images: watch::Receiver<Image>,
    caught_up: impl Future<Output = ()>,
    limit: Duration,
) {
    let first = images.wait_for(|image| image.config_revision().0 > 0);
    let begun = first.await.is_ok();
    if begun && tokio::time::timeout(limit, caught_up).await.is_err() {
        tracing::warn!("this node is far behind; it serves the config that it has so far");
    }
}

/// Waits for the store, however long it takes to open. Listeners do not wait for it.
async fn opened(parts: &Arc<Parts>) -> Store {
    loop {
        tokio::select! {
            store = parts.opened() => return store,
            () = tokio::time::sleep(RETRY_LISTENERS), if some_failed(parts) => retry_listeners(parts).await,
        }
    }
}

fn some_failed(parts: &Parts) -> bool {
    let in_force = parts.in_force.borrow();
    in_force.listeners.iter().any(|one| one.result.is_err())
}

fn is_news(parts: &Parts, image: &Image) -> bool {
    let in_force = parts.in_force.borrow();
    let running = in_force.compiled.config.config_revision;
    let newest = image.config_revision();
    if in_force.mesh_id != parts.data.mesh() {
        return newest.0 > 0;
    }
    newest > running || (in_force.from_disk && newest == running && newest.0 > 0)
}

/// Compiles `image`, or a newer one, for this node and swaps it in.
async fn bring_into_force(parts: &Arc<Parts>, image: Image) {
    let previous = parts.in_force.borrow().clone();
    if previous.mesh_id != parts.data.mesh() {
        parts.committed.distrust();
    }
    let (target, revision) = (target(&parts.options), image.config_revision());
    // A large config takes a while: not on a thread that others wait for.
    let (before, committed) = (previous.compiled.clone(), parts.committed.clone());
    let compiling = tokio::task::spawn_blocking(move || {
        let newest = committed.at_least(&image).clone();
        let (before, revision) = (Some(&before), newest.config_revision);
        if newest.checked.is(&newest.set) {
            newest.checked.compile(&target, before, revision)
        } else {
            compile(&newest.set, &target, before, revision)
        }
    });
    let Ok(compiled) = compiling.await else {
        parts.committed.distrust();
        return keep_previous(parts, &previous, revision);
    };
    let revision = compiled.config.config_revision;
    for fault in &compiled.refused {
        tracing::error!(%revision, %fault, "a resource keeps its previous version");
    }
    let listeners = parts.proxy.apply(Arc::clone(&compiled.config)).await;
    tell_failed(&listeners);
    tracing::info!(%revision, listeners = listeners.len(), "config in force");
    let mesh_id = parts.data.mesh();
    let in_force = InForce {
        compiled,
        listeners,
        mesh_id,
        from_disk: false,
    };
    parts.in_force.send_replace(Arc::new(in_force));
    parts.publish();
}

/// The compiler itself failed: everything stays as it is, and the node says so.
fn keep_previous(parts: &Parts, previous: &InForce, revision: ConfigRevision) {
    let fault = Fault {
        resource: "config".to_owned(),
        path: String::new(),
        message: format!("compiling config revision {revision} ended in a panic"),
        remedy: "report the log line above; this node keeps the config before".to_owned(),
        location: None,
    };
    tracing::error!(%revision, %fault, "the config keeps its previous version");
    let mut compiled = previous.compiled.clone();
    compiled.refused.push(fault);
    let (listeners, mesh_id) = (previous.listeners.clone(), previous.mesh_id);
    let from_disk = previous.from_disk;
    parts.in_force.send_replace(Arc::new(InForce {
        compiled,
        listeners,
        mesh_id,
        from_disk,
    }));
    parts.publish();
}

/// How long until a save that failed is tried again.
const SAVE_RETRY: Duration = Duration::from_secs(5);

/// Keeps the last-known-good on disk up to date, for as long as this node runs. Behind the swap: a
/// slow disk delays no config.
pub(crate) async fn save(parts: Arc<Parts>) {
    let mut in_force = parts.in_force.subscribe();
    let mut saved = None;
    loop {
        let newest = in_force.borrow_and_update().clone();
        let revision = (newest.mesh_id, newest.compiled.config.config_revision);
        let mut failed = false;
        if !newest.from_disk && saved != Some(revision) {
            let folder = parts.options.data_dir.clone();
            let saving = move || last_known_good(&newest).save(&folder);
            match tokio::task::spawn_blocking(saving).await {
                Ok(Ok(())) => saved = Some(revision),
                Ok(Err(fault)) => {
                    tracing::error!(%fault, "cannot save the last-known-good config; a restart would serve an older one");
                    failed = true;
                }
                Err(ended) => std::panic::resume_unwind(ended.into_panic()),
            }
        }
        tokio::select! {
            changed = in_force.changed() => if changed.is_err() { return std::future::pending().await },
            () = tokio::time::sleep(SAVE_RETRY), if failed => {}
        }
    }
}

fn last_known_good(in_force: &InForce) -> LastKnownGood {
    let text = |json: Vec<u8>| String::from_utf8_lossy(&json).into_owned();
    let resources = in_force.compiled.in_force().resources();
    LastKnownGood {
        mesh_id: in_force.mesh_id,
        config_revision: in_force.compiled.config.config_revision,
        resources: resources
            .map(|one| (one.key(), text(one.canonical_json())))
            .collect(),
    }
}

async fn retry_listeners(parts: &Arc<Parts>) {
    if parts.stopping.load(Ordering::Relaxed) {
        return;
    }
    let in_force = parts.in_force.borrow().clone();
    let listeners = parts
        .proxy
        .apply(Arc::clone(&in_force.compiled.config))
        .await;
    if listeners == in_force.listeners {
        return;
    }
    if listeners.iter().all(|outcome| outcome.result.is_ok()) {
        tracing::info!("every listener is open now");
    }
    let (compiled, mesh_id) = (in_force.compiled.clone(), in_force.mesh_id);
    let from_disk = in_force.from_disk;
    parts.in_force.send_replace(Arc::new(InForce {
        compiled,
        listeners,
        mesh_id,
        from_disk,
    }));
    parts.publish();
}

/// Logs what is not open.
pub(crate) fn tell_failed(listeners: &[ListenerOutcome]) {
    for outcome in listeners {
        if let Err(fault) = &outcome.result {
            tracing::error!(listener = %outcome.name, %fault, "a listener is not open");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use store_mvcc::{Command, Machine, Proposal, PutOp};

    use super::*;

    fn image_with_config() -> Image {
        let mut machine = Machine::new();
        let put = PutOp::new("/skein/config/default/Defaults/defaults", "{}");
        let mut proposal = Proposal::new(Command::Put(put));
        proposal.config_guard = Some(machine.image().config_revision());
        machine.apply(&proposal).result.unwrap();
        machine.image()
    }

    #[tokio::test]
    async fn a_config_of_the_past_is_held_until_the_node_has_caught_up() {
        let images = watch::Sender::new(Image::default());
        let (caught_up, told) = tokio::sync::oneshot::channel::<()>();
        let caught = async {
            let _ = told.await;
        };
        let mut held = Box::pin(skip_history(images.subscribe(), caught, Duration::MAX));
        assert!(
            tokio::time::timeout(Duration::ZERO, &mut held)
                .await
                .is_err()
        );
        images.send_replace(image_with_config());
        assert!(
            tokio::time::timeout(Duration::ZERO, &mut held)
                .await
                .is_err()
        );
        caught_up.send(()).unwrap();
        held.await;
    }

    #[tokio::test]
    async fn a_node_that_never_catches_up_serves_what_it_has() {
        let images = watch::Sender::new(image_with_config());
        skip_history(images.subscribe(), pending(), Duration::ZERO).await;
    }
}
