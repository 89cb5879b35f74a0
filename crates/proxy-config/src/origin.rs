//! Endpoints that are found while the proxy runs: where they are looked for, and how they join those
//! that are written out.
//!
//! Owns the rule which of two that are the same is used, and how many there may be. Never looks for
//! any: whoever does hands them over.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::compiled::{Cluster, Endpoint, ResourceName};

/// A cluster uses at most so many endpoints; the last ones are left out.
pub const ENDPOINTS_MAX: usize = 10_000;

/// Where endpoints are found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// What registered itself as this service.
    Service(ResourceName),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
        }
    }
}

/// Who told of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Source {
    /// The config.
    #[default]
    Config,
    /// A registration of this id.
    Registered(Arc<str>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config => f.write_str("written"),
            Self::Registered(id) => write!(f, "registered as {id}"),
        }
    }
}

impl Cluster {
    /// This cluster with the endpoints that `found` tells of its origins. One that is written out
    /// stands against a found one with its address, and of two origins the first one's.
    pub fn with_found<'a>(
        self: &Arc<Self>,
        found: impl Fn(&Origin) -> Option<&'a [Endpoint]>,
    ) -> Arc<Self> {
        let all: Vec<&[Endpoint]> = self.origins.iter().filter_map(found).collect();
        if all.iter().all(|endpoints| endpoints.is_empty()) {
            return self.clone();
        }
        let mut seen: HashSet<_> = self.endpoints.iter().map(|one| &one.address).collect();
        let found = all.into_iter().flatten();
        let found = found.filter(|endpoint| seen.insert(&endpoint.address));
        let endpoints = self.endpoints.iter().chain(found).take(ENDPOINTS_MAX);
        Arc::new(Self {
            endpoints: endpoints.cloned().collect(),
            ..Self::clone(self)
        })
    }
}
