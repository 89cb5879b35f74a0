//! What a new config means for the sockets of a node.
//!
//! Owns which listeners stay open. Never opens or closes one.

use crate::compiled::{CompiledConfig, Listener, ResourceName};

/// Listeners by what is to be done, each list ordered by name.
///
/// A listener that stays on its address and protocol is kept, and what it serves is swapped: its
/// connections never notice. One that moves is both opened and closed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListenerDiff {
    /// Bound before and after at the same address.
    pub keep: Vec<ResourceName>,
    /// To be bound.
    pub open: Vec<ResourceName>,
    /// To be drained and closed.
    pub close: Vec<ResourceName>,
}

/// What is to be done to get from `old` to `new`.
pub fn diff(old: &CompiledConfig, new: &CompiledConfig) -> ListenerDiff {
    let mut diff = ListenerDiff::default();
    for (name, listener) in &new.listeners {
        match old.listeners.get(name) {
            Some(before) if is_same_socket(before, listener) => diff.keep.push(name.clone()),
            _ => diff.open.push(name.clone()),
        }
    }
    for (name, listener) in &old.listeners {
        if !new
            .listeners
            .get(name)
            .is_some_and(|after| is_same_socket(listener, after))
        {
            diff.close.push(name.clone());
        }
    }
    diff
}

fn is_same_socket(one: &Listener, other: &Listener) -> bool {
    let word = |listener: &Listener| std::mem::discriminant(&listener.protocol);
    word(one) == word(other) && one.bind == other.bind
}
