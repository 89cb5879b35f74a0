//! Real nodes in one process, each on a runtime of its own: killing one drops all that it had.

#[cfg(test)]
mod damage;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod formation;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod interrupted;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod renewal;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod takeover;
