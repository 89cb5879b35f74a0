//! Who of a cluster is ejected, for metrics and explanations.
//!
//! Owns what is told. Never decides, and is never read for a request.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use proxy_balance::{Ejection, OutlierKind};

/// What outlier detection did so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ejections {
    /// The ejections under way.
    pub(crate) active: Vec<(SocketAddr, Ejection)>,
    /// All ejections, by [`OutlierKind::index`].
    pub(crate) enforced: [u64; OutlierKind::ALL.len()],
    /// Those that did not happen, because as many were ejected as may be.
    pub(crate) overflows: u64,
}

/// The newest of these.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<Ejections>);

impl Told {
    /// Tells something else; what was told before.
    pub(crate) fn replace(&self, ejections: Ejections) -> Ejections {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut told, ejections)
    }

    pub(crate) fn read(&self) -> Ejections {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
