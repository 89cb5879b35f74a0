//! The endpoints of a cluster in groups: all of them, and each subset by label.
//!
//! Owns which endpoints are in which group, and which group a request gets. Never chooses among the
//! endpoints of a group: each is an [`Eligible`] of its own.

use std::collections::HashMap;
use std::sync::Arc;

use proxy_config::compiled::{Cluster, Labels, SubsetFallback};

use crate::{Eligible, Fitness};

/// A cluster has at most so many subsets, and so many if each has a table of its own; of further ones
/// that endpoints register with, requests fall back.
const SUBSETS_MAX: usize = 1024;
const TABLES_MAX: usize = 64;

/// The groups of one cluster, as of one config and one health view. Cheap to clone. The numbers of
/// groups follow from the cluster alone, so they stay while health changes.
#[derive(Debug, Clone)]
pub struct Groups {
    list: Arc<[Eligible]>,
    /// The numbers of the subsets.
    subsets: Arc<HashMap<Labels, usize>>,
    fallback: Option<usize>,
    fitness: Fitness,
}

impl Groups {
    /// The number of the group of all endpoints.
    pub const WHOLE: usize = 0;

    /// The groups of `cluster` on a node of this zone. Panic is each group's own: a subset that is
    /// nearly all unhealthy uses all of its endpoints, never those of another.
    pub fn new(cluster: &Cluster, fitness: &Fitness, zone: Option<&str>) -> Self {
        let mut members: Vec<Vec<usize>> = vec![(0..cluster.endpoints.len()).collect()];
        let mut subsets: HashMap<Labels, usize> = HashMap::new();
        let mut fallback = None;
        let most = if cluster.balance.is_hashing() {
            TABLES_MAX
        } else {
            SUBSETS_MAX
        };
        if let Some(divided) = &cluster.subsets {
            for names in &divided.keys {
                for (place, endpoint) in cluster.endpoints.iter().enumerate() {
                    let Some(labels) = endpoint.labels.only(names) else {
                        continue;
                    };
                    match subsets.get(&labels) {
                        Some(group) => members[*group].push(place),
                        None if subsets.len() < most => {
                            subsets.insert(labels, members.len());
                            members.push(vec![place]);
                        }
                        None => {}
                    }
                }
            }
            fallback = match &divided.fallback {
                SubsetFallback::None => None,
                SubsetFallback::Any => Some(Self::WHOLE),
                SubsetFallback::Default(labels) => {
                    let all = cluster.endpoints.iter().enumerate();
                    let chosen = all.filter(|(_, endpoint)| labels.are_in(&endpoint.labels));
                    members.push(chosen.map(|(place, _)| place).collect());
                    Some(members.len() - 1)
                }
            };
        }
        let group = |members: &Vec<usize>| Eligible::among(cluster, members, fitness, zone);
        Self {
            list: members.iter().map(group).collect(),
            subsets: Arc::new(subsets),
            fallback,
            fitness: fitness.clone(),
        }
    }

    /// The number of the group for requests that want this subset, if any; `None`: there is no
    /// endpoint for them.
    pub fn number(&self, subset: Option<&Labels>) -> Option<usize> {
        match subset {
            None => Some(Self::WHOLE),
            Some(labels) => self.subsets.get(labels).copied().or(self.fallback),
        }
    }

    /// The group of this number.
    pub fn group(&self, number: usize) -> Option<&Eligible> {
        self.list.get(number)
    }

    /// All of them, ascending by number.
    pub fn iter(&self) -> impl Iterator<Item = &Eligible> {
        self.list.iter()
    }

    /// Whether this is still true of the same cluster when its endpoints are as fit as this: then
    /// nothing need be made anew.
    pub fn hold(&self, fitness: &Fitness) -> bool {
        self.fitness == *fitness
    }
}
