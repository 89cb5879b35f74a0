//! What the rows keep, and how damage to them shows.
