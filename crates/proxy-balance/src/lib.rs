//! proxy-balance
