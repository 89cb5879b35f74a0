//! What the tests of the whole product share: nodes as processes, upstreams, requests, waiting.
//!
//! Every test claims loopback addresses of its own, so that all run at one time on the documented
//! ports. Everything that a test starts ends with it.

mod certificates;
mod http;
mod lines;
mod mesh;
pub(crate) mod skein;
mod subnet;
mod traffic;
mod upstream;
mod writers;

pub(crate) use certificates::{Authority, Pair};
pub(crate) use http::{Answer, Connection, get, request, send_raw};
pub(crate) use lines::Lines;
pub(crate) use mesh::{Mesh, Node};
pub(crate) use skein::{Ran, skein, skein_with_input};
pub(crate) use subnet::Subnet;
pub(crate) use traffic::Traffic;
pub(crate) use upstream::Upstream;
pub(crate) use writers::Writers;

use std::time::{Duration, Instant};

/// How long anything may take before it counts as never: a busy machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// The pause between two looks grows so long. Most of them start a process or more, and those of all
/// tests together could keep the machine from what they wait for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits until `condition` gives a value.
pub(crate) fn until_some<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(10);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "not so after {PATIENCE:?}: {what}"
        );
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(LOOK_EVERY);
    }
}

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_some(what, || condition().then_some(()));
}
