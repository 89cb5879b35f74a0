//! Walks lists and maps for serde.
//!
//! Owns what is passed over: nodes that were set aside, and fields that a struct does not have.

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, value::StrDeserializer};

use super::{DecodeError, Decoder, Finding, Step, StepName, unknown_field};
use crate::tree::{Entry, Node};

/// The items of a list.
pub(super) struct Items<'a> {
    pub(super) owner: Decoder<'a>,
    pub(super) items: &'a [Node],
    pub(super) next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        while let Some(node) = self.items.get(self.next) {
            let step = Step {
                parent: self.owner.step,
                name: StepName::Index(self.next),
            };
            self.next += 1;
            if !node.set_aside.get() {
                let item = Decoder {
                    node,
                    step: Some(&step),
                    elsewhere: &[],
                    ..self.owner
                };
                return seed
                    .deserialize(item)
                    .map(Some)
                    .map_err(|error| error.locate(&item));
            }
        }
        Ok(None)
    }
}

/// The fields of a map, or of a struct where `known` says which it has.
pub(super) struct Fields<'a> {
    pub(super) owner: Decoder<'a>,
    pub(super) entries: &'a [Entry],
    pub(super) known: Option<&'static [&'static str]>,
    pub(super) value: Option<&'a Entry>,
}

impl Fields<'_> {
    /// Whether the struct has this field; else it is told.
    fn knows(&self, entry: &Entry) -> bool {
        let Some(known) = self.known else { return true };
        if known.contains(&&*entry.key) {
            return true;
        }
        if !self.owner.elsewhere.contains(&&*entry.key) && !entry.node.set_aside.replace(true) {
            let step = Step {
                parent: self.owner.step,
                name: StepName::Field(&entry.key),
            };
            let all: Vec<_> = known.iter().chain(self.owner.elsewhere).copied().collect();
            self.owner.unknown.borrow_mut().push(Finding {
                path: step.to_string(),
                text: unknown_field(&entry.key, &all),
                place: entry.place,
            });
        }
        false
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        while let Some((entry, rest)) = self.entries.split_first() {
            self.entries = rest;
            if entry.node.set_aside.get() || !self.knows(entry) {
                continue;
            }
            self.value = Some(entry);
            let key = StrDeserializer::<DecodeError>::new(&entry.key);
            return seed.deserialize(key).map(Some).map_err(|error| {
                let step = Step {
                    parent: self.owner.step,
                    name: StepName::Field(&entry.key),
                };
                error.locate(&Decoder {
                    node: &entry.node,
                    step: Some(&step),
                    ..self.owner
                })
            });
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        let entry = self
            .value
            .take()
            .expect("serde asks for a value after its key");
        let step = Step {
            parent: self.owner.step,
            name: StepName::Field(&entry.key),
        };
        let value = Decoder {
            node: &entry.node,
            step: Some(&step),
            elsewhere: &[],
            ..self.owner
        };
        seed.deserialize(value)
            .map_err(|error| error.locate(&value))
    }
}
