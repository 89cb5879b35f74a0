//! The client against real servers on loopback: some answer, some refuse, some are not there.

mod failover;
mod fake;
mod watching;
