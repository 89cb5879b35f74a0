//! Time limits of one connection with one timer.
//!
//! Owns the trick that makes limits cheap: a limit that moves further away costs nothing, because
//! the timer is left where it is and set again only when it fires early. Never decides how long
//! anything may take.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// The one timer of a connection.
#[derive(Debug)]
pub(crate) struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: Instant,
}

impl Timer {
    /// A timer that is set when it is first needed. `now` is the caller's reading of the clock.
    pub(crate) fn new(now: Instant) -> Self {
        let armed = now + Duration::from_secs(3600);
        Self {
            sleep: Box::pin(sleep_until(armed)),
            armed,
        }
    }

    /// Runs `work` until it is done or `limit` has passed. `limit` is asked again at each poll, so
    /// it may move while the work goes on; `None`: no limit.
    pub(crate) async fn until<F: Future>(
        &mut self,
        limit: impl Fn() -> Option<Instant>,
        work: F,
    ) -> Result<F::Output, Elapsed> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.poll_passed(cx, &limit).map(Err)
        })
        .await
    }

    fn poll_passed(
        &mut self,
        cx: &mut Context<'_>,
        limit: &impl Fn() -> Option<Instant>,
    ) -> Poll<Elapsed> {
        let Some(mut due) = limit() else {
            return Poll::Pending;
        };
        loop {
            if due < self.armed {
                self.arm(due);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // It fired; the limit may have moved since it was set.
            due = match limit() {
                None => return Poll::Pending,
                Some(due) if due <= Instant::now() => return Poll::Ready(Elapsed),
                Some(due) => due,
            };
            self.arm(due);
        }
    }

    fn arm(&mut self, due: Instant) {
        self.sleep.as_mut().reset(due);
        self.armed = due;
    }
}

/// When something last moved, for limits on standing still.
#[derive(Debug)]
pub(crate) struct Progress(Cell<Instant>);

impl Progress {
    /// Starts with the caller's reading of the clock.
    pub(crate) fn new(now: Instant) -> Self {
        Self(Cell::new(now))
    }

    /// Something moved.
    pub(crate) fn mark(&self) {
        self.0.set(Instant::now());
    }

    /// Something moves from now on; the caller's reading of the clock.
    pub(crate) fn restart(&self, now: Instant) {
        self.0.set(now);
    }

    /// When it will have stood still for `limit`.
    pub(crate) fn limit(&self, limit: Duration) -> Instant {
        self.0.get() + limit
    }
}

/// The earlier of two limits.
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn limits_may_come_nearer_and_move_away() {
        let mut timer = Timer::new(Instant::now());
        for millis in [20, 5, 40, 10] {
            let before = Instant::now();
            let limit = before + MILLI * millis;
            let ended = timer.until(|| Some(limit), pending::<()>()).await;
            assert_eq!(ended, Err(Elapsed));
            assert!(before.elapsed() >= MILLI * millis);
        }
        assert_eq!(timer.until(|| None, async { 7 }).await, Ok(7));
    }

    #[tokio::test]
    async fn progress_moves_the_limit() {
        let start = Instant::now();
        let mut timer = Timer::new(start);
        let progress = Progress::new(start);
        let work = async {
            for _ in 0..5 {
                tokio::time::sleep(MILLI * 10).await;
                progress.mark();
            }
            pending::<()>().await;
        };
        let limit = || Some(progress.limit(MILLI * 2000).min(start + MILLI * 100));
        assert_eq!(timer.until(limit, work).await, Err(Elapsed));
        assert!(progress.0.get() - start >= MILLI * 50);

        let still = || Some(progress.limit(MILLI * 10));
        assert_eq!(timer.until(still, pending::<()>()).await, Err(Elapsed));
    }
}
