//! The checks of a request's form.
