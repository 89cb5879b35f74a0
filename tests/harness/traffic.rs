//! Steady requests in the background, and what became of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Connection, until};

/// So many requests use one connection; then a new one is made.
const REQUESTS_PER_CONNECTION: usize = 10;
/// The pause between two requests: steady, but the machine is shared.
const PAUSE: Duration = Duration::from_millis(3);
/// So many failures are told one by one.
const FAILURES_TOLD: usize = 20;

/// One sender for each address, until [`Traffic::stop`].
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    senders: Vec<JoinHandle<Tally>>,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answers 200 by who gave them: the first word of the body.
    pub(crate) by: BTreeMap<String, usize>,
    /// How many had any other end.
    pub(crate) failed: usize,
    /// What the first of those were.
    pub(crate) failures: Vec<String>,
}

impl Traffic {
    /// Sends `GET /` for `host` to each of `addresses`, over connections that are kept for a while.
    pub(crate) fn start(addresses: &[SocketAddr], host: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicUsize::new(0));
        let sender = |&address: &SocketAddr| {
            let (stop, answers, host) = (Arc::clone(&stop), Arc::clone(&answers), host.to_owned());
            std::thread::spawn(move || send(address, &host, &stop, &answers))
        };
        let senders = addresses.iter().map(sender).collect();
        Self {
            stop,
            answers,
            senders,
        }
    }

    /// Answers so far, good or bad.
    pub(crate) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered.
    pub(crate) fn wait_for(&self, more: usize) {
        let goal = self.answers() + more;
        until("traffic flows", || self.answers() >= goal);
    }

    /// Ends it.
    pub(crate) fn stop(mut self) -> Tally {
        let mut all = Tally::default();
        for sender in self.end() {
            let tally = sender.join().expect("a sender ends");
            for (name, count) in tally.by {
                *all.by.entry(name).or_default() += count;
            }
            all.failed += tally.failed;
            all.failures.extend(tally.failures);
        }
        all
    }

    /// Ends it, and no request may have failed.
    #[track_caller]
    pub(crate) fn stop_unharmed(self) -> Tally {
        let tally = self.stop();
        assert_eq!(tally.failed, 0, "{tally:?}");
        assert!(!tally.by.is_empty(), "nothing was answered");
        tally
    }

    fn end(&mut self) -> Vec<JoinHandle<Tally>> {
        self.stop.store(true, Ordering::Relaxed);
        std::mem::take(&mut self.senders)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for sender in self.end() {
            let _ = sender.join();
        }
    }
}

fn send(address: SocketAddr, host: &str, stop: &AtomicBool, answers: &AtomicUsize) -> Tally {
    let mut tally = Tally::default();
    let mut kept: Option<(Connection, usize)> = None;
    while !stop.load(Ordering::Relaxed) {
        let (connection, used) = kept.take().unzip();
        let connection = connection.map_or_else(|| Connection::open(address), Ok);
        let result = connection.and_then(|mut connection| {
            let answer = connection.get(host, "/")?;
            Ok((connection, answer))
        });
        match result {
            Ok((connection, answer)) if answer.status == 200 => {
                let name = answer.body.split(' ').next().unwrap_or_default();
                *tally.by.entry(name.to_owned()).or_default() += 1;
                let used = used.unwrap_or(0) + 1;
                if answer.is_kept() && used < REQUESTS_PER_CONNECTION {
                    kept = Some((connection, used));
                }
            }
            Ok((_, answer)) => tally.fail(format!("{} {}", answer.head, answer.body)),
            Err(fault) => tally.fail(format!("{address}, request {used:?}: {fault}")),
        }
        answers.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
    }
    tally
}

impl Tally {
    fn fail(&mut self, what: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_TOLD {
            self.failures.push(what);
        }
    }
}
