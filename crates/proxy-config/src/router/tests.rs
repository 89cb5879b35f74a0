//! The index against a linear scan.
