//! The TLS of the probes of this node.
//!
//! Owns what is loaded for the clusters that are probed, and loads it again when files change.
//! Never holds up the runtime: files are read aside.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proxy_config::compiled::ClusterTls;
use tls::{Calling, Fault, LOOK_EVERY};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::certificates::calling_terms;

/// The ways to call the clusters with TLS that are probed.
#[derive(Debug, Default)]
pub(super) struct Callers(Mutex<Vec<Known>>);

#[derive(Debug)]
struct Known {
    tls: Arc<ClusterTls>,
    calling: Arc<Calling>,
    looked: Instant,
}

impl Callers {
    /// How to call a cluster with this TLS.
    pub(super) async fn calling(&self, tls: &Arc<ClusterTls>) -> Result<Arc<Calling>, Fault> {
        let (known, is_due) = self.known(tls);
        if let Some(calling) = &known
            && !is_due
        {
            return Ok(calling.clone());
        }
        let terms = calling_terms(tls);
        let loading = spawn_blocking(move || match known {
            Some(calling) => {
                calling.look();
                Ok(calling)
            }
            None => Calling::load(terms).map(Arc::new),
        });
        let calling = match loading.await {
            Ok(loaded) => loaded?,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and this with it.
                Err(_) => std::future::pending().await,
            },
        };
        let mut all = self.lock();
        // Only what some cluster still has is kept.
        all.retain(|known| Arc::strong_count(&known.tls) > 1 && known.tls != *tls);
        all.push(Known {
            tls: tls.clone(),
            calling: calling.clone(),
            looked: Instant::now(),
        });
        Ok(calling)
    }

    /// What is loaded, and whether it is time to look at the files.
    fn known(&self, tls: &Arc<ClusterTls>) -> (Option<Arc<Calling>>, bool) {
        let mut all = self.lock();
        let Some(known) = all.iter_mut().find(|known| known.tls == *tls) else {
            return (None, true);
        };
        let is_due = known.looked.elapsed() >= LOOK_EVERY;
        if is_due {
            // One probe looks, the others go on.
            known.looked = Instant::now();
        }
        (Some(known.calling.clone()), is_due)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
