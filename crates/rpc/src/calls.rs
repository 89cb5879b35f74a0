//! The calls of one connection, which run where the connection does.
//!
//! Owns the calls under way. A task for each of them would have to be handed to a thread, woken and
//! switched to, which costs more than most calls do: so a connection and its calls are one task. A
//! call that works for long must yield, or it holds up its connection (never another).

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::CatchUnwind;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hyper::rt::Executor;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper puts the calls of a connection. A clone is the same place.
#[derive(Clone, Default)]
pub(crate) struct Arrivals(Arc<Mutex<Vec<Call>>>);

impl<F> Executor<F> for Arrivals
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        // The connection's own task calls this, and takes them: nobody ever waits here.
        let mut arrived = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.push(Box::pin(call));
    }
}

impl Arrivals {
    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connection with its calls.
pub(crate) struct WithCalls<C> {
    connection: Pin<Box<C>>,
    arrivals: Arrivals,
    /// A panic ends its call alone: what the call held is dropped, which resets its stream.
    running: FuturesUnordered<CatchUnwind<AssertUnwindSafe<Call>>>,
}

impl<C> WithCalls<C> {
    /// `connection` puts its calls into `arrivals`.
    pub(crate) fn new(connection: C, arrivals: Arrivals) -> Self {
        Self {
            connection: Box::pin(connection),
            arrivals,
            running: FuturesUnordered::new(),
        }
    }

    /// The connection itself.
    pub(crate) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<C: Future> Future for WithCalls<C> {
    type Output = C::Output;

    /// Ends with the connection, whose calls nobody waits for then.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.get_mut();
        loop {
            // Writes what calls have answered, reads, and starts calls.
            if let Poll::Ready(ended) = this.connection.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            let mut progress = false;
            for call in this.arrivals.take() {
                progress = true;
                this.running.push(AssertUnwindSafe(call).catch_unwind());
            }
            while let Poll::Ready(Some(ended)) = this.running.poll_next_unpin(context) {
                progress = true;
                if ended.is_err() {
                    tracing::error!("a call panicked");
                }
            }
            if !progress {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A connection on which `calls` arrive one at a time, and which then stays open until it has been
    /// polled often enough to have written what they answered.
    fn connection(
        arrivals: &Arrivals,
        mut calls: Vec<Call>,
        done: Arc<AtomicUsize>,
        wanted: usize,
    ) -> impl Future<Output = &'static str> + use<> {
        let arrivals = arrivals.clone();
        calls.reverse();
        poll_fn(move |_| {
            if let Some(call) = calls.pop() {
                arrivals.execute(call);
                return Poll::Pending;
            }
            if done.load(Ordering::Relaxed) == wanted {
                Poll::Ready("ended")
            } else {
                Poll::Pending
            }
        })
    }

    #[tokio::test]
    async fn calls_run_beside_each_other_and_the_connection_hears_of_their_progress() {
        let done = Arc::<AtomicUsize>::default();
        let (tell, told) = tokio::sync::oneshot::channel();
        let (first, second) = (Arc::clone(&done), Arc::clone(&done));
        let calls: Vec<Call> = vec![
            // It waits for the one that came after it.
            Box::pin(async move {
                told.await.unwrap();
                first.fetch_add(1, Ordering::Relaxed);
            }),
            Box::pin(async move {
                tokio::task::yield_now().await;
                tell.send(()).unwrap();
                second.fetch_add(1, Ordering::Relaxed);
            }),
        ];
        let arrivals = Arrivals::default();
        let connection = connection(&arrivals, calls, done, 2);
        assert_eq!(WithCalls::new(connection, arrivals).await, "ended");
    }

    #[tokio::test]
    async fn a_panic_ends_one_call_and_no_other() {
        let done = Arc::<AtomicUsize>::default();
        let after = Arc::clone(&done);
        let calls: Vec<Call> = vec![
            Box::pin(async { panic!("on purpose") }),
            Box::pin(async move {
                after.fetch_add(1, Ordering::Relaxed);
            }),
        ];
        let arrivals = Arrivals::default();
        let connection = connection(&arrivals, calls, done, 1);
        assert_eq!(WithCalls::new(connection, arrivals).await, "ended");
    }

    #[tokio::test]
    async fn the_calls_of_a_connection_end_with_it() {
        struct Held(Arc<AtomicUsize>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let dropped = Arc::<AtomicUsize>::default();
        let held = Held(Arc::clone(&dropped));
        let calls: Vec<Call> = vec![
            Box::pin(async move {
                let _held = held;
                pending().await
            }),
            Box::pin(ready(())),
        ];
        let arrivals = Arrivals::default();
        let connection = connection(&arrivals, calls, Arc::default(), 0);
        let mut serving = Box::pin(WithCalls::new(connection, arrivals));
        serving.as_mut().await;
        drop(serving);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }
}
