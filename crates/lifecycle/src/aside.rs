//! Computations that would hold others up.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs `work`, which computes for long, while the other tasks of this thread go on elsewhere. A
/// hundredth of a second is long: heartbeats wait behind it.
///
/// Handing the others over wakes a thread, so what is short should just run. A runtime of one thread
/// alone has nobody to hand them to.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// The work waits for what only another task can do.
    #[test]
    fn the_other_tasks_of_the_only_thread_go_on() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let (done, told) = mpsc::channel();
        let working = runtime.spawn(async move {
            tokio::spawn(async move { done.send(7) });
            aside(|| told.recv_timeout(Duration::from_secs(20)))
        });
        assert_eq!(runtime.block_on(working).unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn where_nobody_can_take_them_it_just_runs() {
        assert_eq!(aside(|| 7), 7);
    }

    #[test]
    fn no_runtime_is_needed() {
        assert_eq!(aside(|| 7), 7);
    }
}
