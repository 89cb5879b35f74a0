//! Which clusters have to be looked at next.
//!
//! Owns the order: what is quickly done comes first, then what a new config waits for, then tables
//! for a change of health. A cluster is on it once, however much happens meanwhile, so that it never
//! grows beyond the number of clusters.

use std::collections::BTreeMap;
use std::sync::Arc;

/// How much waits for it; the first of them comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// It takes next to no time.
    Quick,
    /// A config cannot come into force before.
    Awaited,
    /// There is a table that does meanwhile.
    Table,
}

/// The clusters to look at, by their keys.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// Those that came first, first.
    due: BTreeMap<(Urgency, u64), Arc<str>>,
    places: BTreeMap<Arc<str>, (Urgency, u64)>,
    added: u64,
}

impl Agenda {
    /// Puts a cluster on it. One that is there keeps its place, or moves to a better one.
    pub(super) fn add(&mut self, key: Arc<str>, urgency: Urgency) {
        if let Some(place) = self.places.get(&key) {
            if place.0 <= urgency {
                return;
            }
            self.due.remove(place);
        }
        self.added += 1;
        let place = (urgency, self.added);
        self.due.insert(place, key.clone());
        self.places.insert(key, place);
    }

    /// Takes the next one off.
    pub(super) fn next(&mut self) -> Option<Arc<str>> {
        let (_, key) = self.due.pop_first()?;
        self.places.remove(&key);
        Some(key)
    }

    /// Whether there is more that is quickly done.
    pub(super) fn has_quick(&self) -> bool {
        self.first() == Some(Urgency::Quick)
    }

    /// Whether a config waits for something on it.
    pub(super) fn is_awaited(&self) -> bool {
        self.first().is_some_and(|first| first <= Urgency::Awaited)
    }

    fn first(&self) -> Option<Urgency> {
        self.due.first_key_value().map(|((first, _), _)| *first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(agenda: &mut Agenda) -> Vec<String> {
        let mut order = Vec::new();
        while let Some(key) = agenda.next() {
            order.push(key.to_string());
        }
        order
    }

    #[test]
    fn what_is_quick_comes_before_what_is_awaited_before_tables() {
        let mut agenda = Agenda::default();
        for (key, urgency) in [
            ("ring-b", Urgency::Table),
            ("ring-a", Urgency::Table),
            ("new", Urgency::Awaited),
            ("plain", Urgency::Quick),
        ] {
            agenda.add(key.into(), urgency);
        }
        assert!(agenda.has_quick() && agenda.is_awaited());
        assert_eq!(drained(&mut agenda), ["plain", "new", "ring-b", "ring-a"]);
        assert!(!agenda.has_quick() && !agenda.is_awaited());
    }

    #[test]
    fn a_cluster_is_on_it_once_at_the_best_of_its_places() {
        let mut agenda = Agenda::default();
        for urgency in [Urgency::Table, Urgency::Awaited, Urgency::Table] {
            agenda.add("a".into(), urgency);
            agenda.add("b".into(), Urgency::Table);
        }
        assert!(agenda.is_awaited());
        assert_eq!(drained(&mut agenda), ["a", "b"]);
    }
}
