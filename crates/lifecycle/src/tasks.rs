//! Long-running tasks with names, whose death is noticed.
//!
//! Owns the join handles. Never restarts a task: what a fault means is decided by the node.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

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
    running: Vec<JoinHandle<()>>,
    faults: Vec<TaskFault>,
    stopping: bool,
}

impl Tasks {
    /// Runs `task` under `name` on the current runtime. Its end before [`Tasks::stop`] is a fault.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let tasks = self.clone();
        let work = tokio::spawn(task);
        // Dropping the watcher, even before its first poll, must end the work too.
        let guard = AbortOnDrop(work.abort_handle());
        let watcher = tokio::spawn(async move {
            let _guard = guard;
            let fault = match work.await {
                Ok(()) => "it returned".to_owned(),
                Err(ended) if ended.is_panic() => panic_text(ended.into_panic().as_ref()),
                Err(_) => return,
            };
            tasks.record(TaskFault { task: name, fault });
        });
        self.lock().running.push(watcher);
    }

    /// The faults so far, oldest first.
    pub fn faults(&self) -> Vec<TaskFault> {
        self.lock().faults.clone()
    }

    /// From now on the end of a task is no fault.
    pub fn expect_ends(&self) {
        self.lock().stopping = true;
    }

    /// Ends every task, now.
    pub fn stop(&self) {
        self.expect_ends();
        let mut inner = self.lock();
        for task in inner.running.drain(..) {
            task.abort();
        }
    }

    fn record(&self, fault: TaskFault) {
        let mut inner = self.lock();
        if !inner.stopping {
            tracing::error!(task = fault.task, fault = %fault.fault, "a task of this node ended");
            inner.faults.push(fault);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
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
