//! Real servers of real stores on loopback, each node on a runtime of its own.

#[cfg(test)]
mod auth;
#[cfg(test)]
mod bounds;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod forwarding;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod interface;
#[cfg(test)]
mod joining;
#[cfg(test)]
mod json;
#[cfg(test)]
mod lane;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod members;
#[cfg(test)]
mod queues;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod versions;
#[cfg(test)]
mod watching;
