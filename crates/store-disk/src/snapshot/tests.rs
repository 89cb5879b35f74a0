//! What snapshot files keep, and how damage to them shows.
