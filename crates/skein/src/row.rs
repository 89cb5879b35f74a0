//! A key with its value, as reports show it.
//!
//! Owns the JSON fields of a row (docs/cli.md). Never asks for one.

use serde::Serialize;
use store_api::mvccpb::KeyValue;

use crate::escape;

/// A key with its value and its revisions.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    key: Option<String>,
    key_base64: String,
    #[serde(flatten)]
    value: Option<Value>,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    lease: Option<String>,
    #[serde(skip)]
    bytes: KeyValue,
}

#[derive(Debug, Serialize)]
struct Value {
    value: Option<String>,
    value_base64: String,
}

impl Row {
    /// A row with its value.
    pub(crate) fn of(kv: &KeyValue) -> Self {
        let value = Value {
            value: escape::text(&kv.value),
            value_base64: escape::base64(&kv.value),
        };
        Self {
            value: Some(value),
            ..Self::without_value(kv)
        }
    }

    /// A row whose value was not asked for, or is gone.
    pub(crate) fn without_value(kv: &KeyValue) -> Self {
        Self {
            key: escape::text(&kv.key),
            key_base64: escape::base64(&kv.key),
            value: None,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            // As text: JSON numbers lose the low bits of an i64 in most readers.
            lease: (kv.lease != 0).then(|| format!("{:016x}", kv.lease)),
            bytes: kv.clone(),
        }
    }

    /// The key in one line.
    pub(crate) fn key_line(&self) -> String {
        escape::line(&self.bytes.key)
    }

    /// The value in one line.
    pub(crate) fn value_line(&self) -> String {
        escape::line(&self.bytes.value)
    }

    /// The value in its own lines, if it is text.
    pub(crate) fn value_block(&self) -> String {
        escape::block(&self.bytes.value)
    }
}
