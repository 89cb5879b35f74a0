//! Long-running tasks with names, whose death is noticed.
//!
//! Owns the join handles. Never restarts a task: what a fault means is decided by the node.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use tokio::task::{AbortHandle, JoinHandle};

/// A task that ended although it should have run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFault {
    /// The task's name.
    pub task: &'static str,
    /// What it said: a panic message, or that it returned.
    pub fault: String,
}

/// A set of named tasks that should run until [`Tasks::stop`].
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    running: Vec<Running>,
    faults: watch::Sender<Vec<TaskFault>>,
    stopping: bool,
}

#[derive(Debug)]
struct Running {
    work: AbortHandle,
    /// Ends right after the work.
    watcher: JoinHandle<()>,
}

impl Tasks {
    /// Runs `task` under `name` on the current runtime. Its end before [`Tasks::stop`] is a fault.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        // The runtime's own part is then compiled once, and not for each task.
        self.spawn_boxed(name, Box::pin(task));
    }

    fn spawn_boxed(&self, name: &'static str, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let tasks = self.clone();
        let joined = tokio::spawn(task);
        let work = joined.abort_handle();
        let watcher = tokio::spawn(async move {
            let fault = match joined.await {
                Ok(()) => "it returned".to_owned(),
                Err(ended) if ended.is_panic() => panic_text(ended.into_panic().as_ref()),
                Err(_) => return,
            };
            tasks.record(TaskFault { task: name, fault });
        });
        self.lock().running.push(Running { work, watcher });
    }

    /// The faults so far, oldest first.
    pub fn faults(&self) -> Vec<TaskFault> {
        self.lock().faults.borrow().clone()
    }

    /// The faults, whenever there is one more.
    pub fn faults_watch(&self) -> watch::Receiver<Vec<TaskFault>> {
        self.lock().faults.subscribe()
    }

    /// Waits for the first fault; for ever if there is none until [`Tasks::stop`].
    pub async fn ended(&self) -> TaskFault {
        let mut faults = self.faults_watch();
        let told = faults.wait_for(|faults| !faults.is_empty()).await;
        match told.ok().and_then(|faults| faults.first().cloned()) {
            Some(fault) => fault,
            None => std::future::pending().await,
        }
    }

    /// From now on the end of a task is no fault.
    pub fn expect_ends(&self) {
        self.lock().stopping = true;
    }

    /// Ends every task; does not wait for the moment at which each lets go of what it holds.
    pub fn stop(&self) {
        self.abort();
    }

    /// Ends every task, and waits until all are gone.
    pub async fn stopped(&self) {
        for watcher in self.abort() {
            // Only a runtime that ends cancels a watcher, and then the work is gone as well.
            let _ = watcher.await;
        }
    }

    fn abort(&self) -> Vec<JoinHandle<()>> {
        self.expect_ends();
        let running = std::mem::take(&mut self.lock().running);
        let abort = |task: Running| {
            task.work.abort();
            task.watcher
        };
        running.into_iter().map(abort).collect()
    }

    /// Takes note that a task ended which somebody else ran, as for those of this set.
    pub fn record(&self, fault: TaskFault) {
        let inner = self.lock();
        if !inner.stopping {
            tracing::error!(task = fault.task, fault = %fault.fault, "a task of this node ended");
            inner.faults.send_modify(|faults| faults.push(fault));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.map_or_else(
        || "it panicked".to_owned(),
        |text| format!("it panicked: {text}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn until(condition: impl Fn() -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while !condition() {
            assert!(tokio::time::Instant::now() < deadline, "waited 5 s in vain");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_panic_and_a_return_are_both_faults() {
        let tasks = Tasks::default();
        tasks.spawn("first", async { panic!("out of luck") });
        until(|| tasks.faults().len() == 1).await;
        tasks.spawn("second", async {});
        until(|| tasks.faults().len() == 2).await;
        assert_eq!(tasks.faults()[0].fault, "it panicked: out of luck");
        assert_eq!(tasks.faults()[1].task, "second");
    }

    #[tokio::test]
    async fn the_first_fault_is_waited_for_and_stays() {
        let tasks = Tasks::default();
        let (end, told) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn("sound", std::future::pending());
        tasks.spawn("doomed", async {
            let _ = told.await;
            panic!("out of {}", "luck");
        });
        let waiting = tokio::spawn({
            let tasks = tasks.clone();
            async move { tasks.ended().await }
        });
        end.send(()).unwrap();
        let fault = waiting.await.unwrap();
        assert_eq!(fault.task, "doomed");
        assert_eq!(fault.fault, "it panicked: out of luck");
        tasks.stopped().await;
        assert_eq!(tasks.ended().await, fault);
    }

    #[tokio::test]
    async fn who_stops_may_wait_until_all_is_let_go() {
        let tasks = Tasks::default();
        let held = Arc::new(());
        let holding = Arc::clone(&held);
        tasks.spawn("held", async move {
            let _holding = holding;
            std::future::pending::<()>().await;
        });
        tasks.stopped().await;
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(tasks.faults(), []);
    }

    #[tokio::test]
    async fn stopping_ends_the_work_without_a_fault() {
        let tasks = Tasks::default();
        let (alive, ended) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn("held", async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        tasks.stop();
        assert!(ended.await.is_err(), "the sender is dropped with the task");
        assert_eq!(tasks.faults(), []);
    }
}
