//! The words of a panic that was caught.
//!
//! Owns nothing but their extraction. Never decides what follows from a panic.

use std::any::Any;

/// What the panic said.
pub(crate) fn describe(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    format!("a panic: {text}")
}
