//! Harness and integration tests of the whole product.
